"""One learner: its parameters, target network and optimizers, and the update of one iteration.

`update` is LOQA's Algorithm 1 after the rollout: one actor step, one Q step on the same episodes with the
parameters that the actor step returned, and the target's moving average. It is pure and holds no game.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loqa.agent import Agent, AgentParams
from loqa.losses import PolicyLoss, agent_policy_loss, q_value_loss
from loqa.rollout import Episodes


class QEpisodes(NamedTuple):
    """What the Q-network learns from, time first."""

    observations: jax.Array  # [T+1, B, D]
    actions: jax.Array  # [T, B], int
    rewards: jax.Array  # [T, B]


class LearnerState(NamedTuple):
    """All that an update changes."""

    params: AgentParams
    target_params: AgentParams
    actor_optimizer: Any
    qvalue_optimizer: Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a learner learns; the keys of `conf/` of the same names say what each does."""

    discount: float
    # the policy's loss
    advantage: str = "TD0"
    stop_grad_advantage: bool = False
    terminal_value: bool = True
    method: str = "loaded-dice"
    lam: float = 0.9
    n_step: int = 2
    differentiable_current_reward: bool = False
    op_softmax_temp: float = 1.0
    stop_grad_normalizing_constant: bool = False
    shaping_weight: float = 1.0  # 0 for a naive learner
    shaping_iterations: int = 10**9  # no shaping after this many iterations
    entropy_beta: float = 0.0
    # the policy's optimizer
    optimizer: str = "adam"
    lr_actor: float = 1e-3
    clip_norm: float | None = None
    separate: bool = False  # one optimizer for (actor + entropy), one for shaping, with the rates below
    lr_actor_agent: float = 1e-3
    lr_actor_opponent: float = 1e-3
    # the Q-network
    q_mode: str = "mean"
    td_lambda: float = 0.0
    q_scale: float = 1.0
    q_optimizer: str = "adam"
    lr_q: float = 1e-2
    target_ema_gamma: float = 0.99

    @classmethod
    def from_hp(cls, hp: Any, kind: str) -> "Settings":
        """The settings of a learner of `kind` "loqa" or "naive" from the `hp` part of a config."""
        opponent, train, q = hp.differentiable_opponent, hp.actor.train, hp.qvalue
        return cls(
            discount=hp.reward_discount,
            advantage=train.advantage,
            stop_grad_advantage=train.stop_grad_advantage,
            terminal_value=q.terminal == "bootstrap",
            method=opponent.method,
            lam=opponent.discount,
            n_step=opponent.n_step,
            differentiable_current_reward=opponent.differentiable_current_reward,
            op_softmax_temp=hp.op_softmax_temp,
            stop_grad_normalizing_constant=opponent.stop_grad_normalizing_constant,
            shaping_weight=0.0 if kind == "naive" else hp.opponent_differentiation_weight,
            shaping_iterations=min(opponent.exclude_after_step, 2**31 - 1),
            entropy_beta=train.entropy_beta,
            optimizer=train.optimizer,
            lr_actor=train.lr_loss_actor,
            clip_norm=train.clip_grad.max_norm if train.clip_grad.mode == "norm" else None,
            separate=train.separate,
            lr_actor_agent=train.lr_loss_actor_agent,
            lr_actor_opponent=train.lr_loss_actor_opponent,
            q_mode=q.mode,
            td_lambda=q.td_lambda,
            q_scale=q.output_scale,
            q_optimizer=q.train.optimizer,
            lr_q=q.train.lr_loss_qvalue,
            target_ema_gamma=q.train.target_ema_gamma,
        )


def settings_of_all(hp: Any) -> tuple[Settings, ...]:
    """The settings of each learner, one or two, from the `hp` part of a config."""
    return tuple(Settings.from_hp(hp, kind) for kind in (hp.agent_0, hp.agent_1)[: hp.num_learners])


def _batch_last(x: jax.Array) -> jax.Array:
    """[T, B, A] -> [T, A, B], as the losses take batches."""
    return jnp.moveaxis(x, 1, -1)


def policy_losses(agent: Agent, params: AgentParams, episodes: Episodes, settings: Settings) -> PolicyLoss:
    """The terms of the policy's loss, each the mean over the batch; differentiable in all of `params`."""
    terms = agent_policy_loss(
        _batch_last(agent.logits(params, episodes.observations)),
        _batch_last(agent.q_values(params, episodes.observations)),
        _batch_last(episodes.opponent_logits),
        _batch_last(episodes.opponent_q_values),
        episodes.actions,
        episodes.opponent_actions,
        episodes.rewards,
        episodes.opponent_rewards,
        discount=settings.discount,
        advantage=settings.advantage,
        stop_grad_advantage=settings.stop_grad_advantage,
        terminal_value=settings.terminal_value,
        method=settings.method,
        lam=settings.lam,
        n_step=settings.n_step,
        opponent_reward_baseline=episodes.opponent_rewards.mean(),
        differentiable_current_reward=settings.differentiable_current_reward,
        op_softmax_temp=settings.op_softmax_temp,
        stop_grad_normalizing_constant=settings.stop_grad_normalizing_constant,
    )
    return PolicyLoss(*(term.mean() for term in terms))


def q_loss(
    agent: Agent, params: AgentParams, target_params: AgentParams, episodes: QEpisodes, settings: Settings
) -> jax.Array:
    """The Q-network's loss, the mean over the batch; differentiable in `params.qvalue`."""
    losses = q_value_loss(
        _batch_last(agent.q_values(params, episodes.observations)),
        _batch_last(agent.logits(target_params, episodes.observations)),
        _batch_last(agent.q_values(target_params, episodes.observations)),
        episodes.actions,
        episodes.rewards,
        discount=settings.discount,
        mode=settings.q_mode,
        td_lambda=settings.td_lambda,
        terminal_value=settings.terminal_value,
        scale=settings.q_scale,
    )
    return losses.mean()


def actor_optimizers(settings: Settings) -> tuple[optax.GradientTransformation, ...]:
    """The policy's optimizer, or with `separate` one for each of the two losses; each clips alone."""
    rates = [settings.lr_actor]
    if settings.separate:
        rates = [settings.lr_actor_agent, settings.lr_actor_opponent]
    clip = optax.identity() if settings.clip_norm is None else optax.clip_by_global_norm(settings.clip_norm)
    return tuple(optax.chain(clip, getattr(optax, settings.optimizer)(rate)) for rate in rates)


def qvalue_optimizer(settings: Settings) -> optax.GradientTransformation:
    """The Q-network's own optimizer."""
    return getattr(optax, settings.q_optimizer)(settings.lr_q)


def init(agent: Agent, settings: Settings, key: jax.Array) -> LearnerState:
    """A new learner; its target network starts as a copy."""
    params = agent.init(key)
    return from_params(params, settings)


def from_params(params: AgentParams, settings: Settings) -> LearnerState:
    """A learner that starts from `params`."""
    # The actor's optimizers own the whole agent: the losses of the policy reach the Q-network through the
    # advantage, unless that is stopped.
    return LearnerState(
        params=params,
        target_params=jax.tree.map(jnp.copy, params),
        actor_optimizer=tuple(optimizer.init(params) for optimizer in actor_optimizers(settings)),
        qvalue_optimizer=qvalue_optimizer(settings).init(params.qvalue),
    )


def actor_gradients(
    agent: Agent, params: AgentParams, episodes: Episodes, settings: Settings, iteration: jax.Array | int
) -> tuple[AgentParams, ...]:
    """The gradients that each of `actor_optimizers` takes, before clipping.

    One backward pass for the weighted sum of the losses, or with `separate` one for each of the two.
    """

    def groups(params):
        terms = policy_losses(agent, params, episodes, settings)
        agent_loss = terms.actor + settings.entropy_beta * terms.negative_entropy
        shaping_loss = jnp.zeros(())
        if settings.shaping_weight:  # a naive learner does not even compute it
            shaping_loss = jnp.where(shapes(settings, iteration), settings.shaping_weight, 0.0) * terms.shaping
        return (agent_loss, shaping_loss) if settings.separate else (agent_loss + shaping_loss,)

    if not settings.separate:
        return (jax.grad(lambda params: groups(params)[0])(params),)
    _, pull_back = jax.vjp(groups, params)
    one, zero = jnp.ones(()), jnp.zeros(())
    return pull_back((one, zero))[0], pull_back((zero, one))[0]


def shapes(settings: Settings, iteration: jax.Array | int) -> jax.Array | bool:
    """Whether this iteration, counted from 0, has a shaping loss."""
    return iteration < settings.shaping_iterations


def update_actor(
    agent: Agent, learner: LearnerState, episodes: Episodes, settings: Settings, iteration: jax.Array | int
) -> LearnerState:
    """One step of the policy's optimizer, or of both."""
    gradients = actor_gradients(agent, learner.params, episodes, settings, iteration)
    params, states = learner.params, []
    for i, (optimizer, gradient, before) in enumerate(
        zip(actor_optimizers(settings), gradients, learner.actor_optimizer, strict=True)
    ):
        updates, state = optimizer.update(gradient, before, params)
        if i == 1:  # an optimizer of the shaping loss alone rests with it: its momentum would move on
            updates, state = jax.tree.map(
                lambda new, old: jnp.where(shapes(settings, iteration), new, old),
                (updates, state),
                (jax.tree.map(jnp.zeros_like, updates), before),
            )
        params = optax.apply_updates(params, updates)
        states.append(state)
    return learner._replace(params=params, actor_optimizer=tuple(states))


def update_qvalue(agent: Agent, learner: LearnerState, episodes: QEpisodes, settings: Settings) -> LearnerState:
    """One step of the Q-network's optimizer."""
    params = learner.params

    def loss(qvalue):
        return q_loss(agent, params._replace(qvalue=qvalue), learner.target_params, episodes, settings)

    updates, state = qvalue_optimizer(settings).update(
        jax.grad(loss)(params.qvalue), learner.qvalue_optimizer, params.qvalue
    )
    params = params._replace(qvalue=optax.apply_updates(params.qvalue, updates))
    return learner._replace(params=params, qvalue_optimizer=state)


def update_target(learner: LearnerState, settings: Settings) -> LearnerState:
    """target = gamma target + (1 - gamma) params, for all parameters."""
    target_params = optax.incremental_update(
        learner.params, learner.target_params, 1.0 - settings.target_ema_gamma
    )
    return learner._replace(target_params=target_params)


def q_episodes(episodes: Episodes) -> QEpisodes:
    """The part of the episodes that the Q-network learns from."""
    return QEpisodes(episodes.observations, episodes.actions, episodes.rewards)


def update(
    agent: Agent,
    learner: LearnerState,
    episodes: Episodes,
    replayed: QEpisodes,
    settings: Settings,
    iteration: jax.Array | int,
) -> LearnerState:
    """The update of one iteration (LOQA Algorithm 1): the policy, then the Q-network, then the target.

    Args:
      agent: the networks.
      learner: the state before.
      episodes: those just played, for the policy.
      replayed: those that the Q-network learns from, as a rule `q_episodes(episodes)`.
      settings: how to learn.
      iteration: its number, from 0.

    Returns:
      The state after.
    """
    learner = update_actor(agent, learner, episodes, settings, iteration)
    learner = update_qvalue(agent, learner, replayed, settings)
    return update_target(learner, settings)
