"""The state of training: each learner's parameters, target network, optimizers and buffers; and the steps on it."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loqa import buffers, devices
from loqa.agent import Agent, AgentParams
from loqa.hyperparameters import ActorTrain, Hyperparameters, QValueTrain
from loqa.losses import PolicyTerms, Side

# The policy's loss: parameters, weights of its terms (None: left out) -> their weighted sum [], the terms.
PolicyLoss = Callable[[AgentParams, PolicyTerms], tuple[jax.Array, PolicyTerms]]
CriticLoss = Callable[[AgentParams], jax.Array]


class LearnerState(NamedTuple):
    """All that one learner changes."""

    params: AgentParams
    target_params: AgentParams
    actor_optimizer: tuple[Any, ...]  # states of the policy's optimizers, which are of all parameters
    qvalue_optimizer: Any  # state of the critic's optimizer
    past: buffers.Ring | None  # past versions of `params`, the agent replay buffer; or None
    replay: buffers.Ring | None  # past episodes, each a `Side` without batch, the Q replay buffer; or None


class TrainState(NamedTuple):
    """All that the next iteration depends on."""

    key: jax.Array  # each iteration folds its number into it
    iteration: jax.Array  # int [], how many are done
    learners: tuple[LearnerState, ...]  # one that plays itself, or two

    def opponent_of(self, seat: int) -> LearnerState:
        """The learner that the one in `seat` plays: the other one, or in self-play itself."""
        return self.learners[0] if len(self.learners) == 1 else self.learners[1 - seat]

    def without_buffers(self) -> "TrainState":
        """The state as far as an evaluation needs it."""
        return self._replace(learners=tuple(me._replace(past=None, replay=None) for me in self.learners))


Iteration = Callable[[TrainState], TrainState]


@partial(jax.jit, static_argnums=(0, 1))  # since a network's initialization is hundreds of small programs otherwise
def init(agent: Agent, hp: Hyperparameters, key: jax.Array, params: AgentParams | None = None) -> TrainState:
    """The state before the first iteration; all learners start from `params`, or each from new ones."""
    key_train, *keys = jax.random.split(key, 1 + hp.num_learners)
    learners = [init_learner(agent, hp, agent.init(k) if params is None else params) for k in keys]
    return TrainState(key_train, jnp.zeros((), jnp.int32), tuple(learners))


def init_learner(agent: Agent, hp: Hyperparameters, params: AgentParams) -> LearnerState:
    """A learner that starts from `params`; its target network is a copy, its buffers are empty."""
    past = replay = None
    if hp.agent_replay_buffer.mode:
        # No slots that no iteration of this run would write.
        pushes = math.ceil(hp.total_iterations / hp.agent_replay_buffer.update_freq)
        past = buffers.init(params, min(hp.agent_replay_buffer.capacity, pushes))
    if hp.qvalue.replay_buffer.mode:
        steps = jnp.zeros(hp.game_length)
        observations = jnp.zeros((hp.game_length + 1, agent.game.observation_size))
        episode = Side(None, None, steps.astype(int), steps, observations)
        replay = buffers.init(episode, hp.qvalue.replay_buffer.capacity)
    return LearnerState(
        # Copies, because the state is updated in place.
        params=jax.tree.map(jnp.array, params),
        target_params=jax.tree.map(jnp.array, params),
        actor_optimizer=tuple(optimizer.init(params) for optimizer in policy_optimizers(hp.actor.train)),
        qvalue_optimizer=critic_optimizer(hp.qvalue.train).init(params.qvalue),
        past=past,
        replay=replay,
    )


def remember_agent(me: LearnerState, iteration: jax.Array, update_freq: int) -> LearnerState:
    """Adds the present parameters to the past ones every `update_freq` iterations, the first time at iteration 0."""
    if me.past is None:
        return me
    return me._replace(past=buffers.add(me.past, me.params, where=iteration % update_freq == 0))


def replay_episodes(me: LearnerState, new: Side, key: jax.Array) -> tuple[LearnerState, Side]:
    """The episodes that the critic learns from: those just played, or with a replay buffer as many stored ones."""
    if me.replay is None:
        return me, new
    new = jax.tree.map(lambda x: devices.whole(jnp.moveaxis(x, -1, 0), 0), new)
    ring = buffers.add_batch(me.replay, new)
    drawn = buffers.sample(ring, key, new.actions.shape[0])
    return me._replace(replay=ring), jax.tree.map(lambda x: jnp.moveaxis(devices.share(x, 0), 0, -1), drawn)


Optimizers = tuple[optax.GradientTransformation, ...]


def policy_optimizers(train: ActorTrain) -> Optimizers:
    """The policy's optimizer; with `actor.train.separate` one of the actor and entropy terms, and one of the shaping.

    They own the Q-network too, which the policy's loss reaches through the advantage.
    """
    clipped = train.clip_grad.mode == "norm"
    clip = optax.clip_by_global_norm(train.clip_grad.max_norm) if clipped else optax.identity()
    rates = (train.lr_loss_actor_agent, train.lr_loss_actor_opponent) if train.separate else (train.lr_loss_actor,)
    return tuple(optax.chain(clip, getattr(optax, train.optimizer)(rate)) for rate in rates)


def critic_optimizer(train: QValueTrain) -> optax.GradientTransformation:
    """The Q-network's own optimizer."""
    return getattr(optax, train.optimizer)(train.lr_loss_qvalue)


def step_policy(me: LearnerState, loss: PolicyLoss, weights: PolicyTerms, optimizers: Optimizers) -> LearnerState:
    """One step of the policy's optimizer, of all parameters, on `loss` with these weights of its terms.

    With `actor.train.separate` the shaping term has an optimizer of its own, which clips its own gradient; both
    gradients are of the parameters before the step. Where its weight is 0 it waits: else its momentum would go on
    moving the parameters.
    """
    gradient_of = lambda weights: devices.mean(jax.grad(loss, has_aux=True)(me.params, weights))[0]
    first, *apart = optimizers
    state, *states = me.actor_optimizer
    gradient = gradient_of(weights._replace(shaping=None) if apart else weights)
    updates, state = first.update(gradient, state, me.params)
    params = optax.apply_updates(me.params, updates)
    if apart and weights.shaping is not None:
        gradient = gradient_of(PolicyTerms(None, weights.shaping, None))
        updates, new = apart[0].update(gradient, *states, me.params)
        active = weights.shaping != 0
        params = optax.apply_updates(params, jax.tree.map(lambda x: jnp.where(active, x, 0.0), updates))
        states = [jax.tree.map(lambda new, old: jnp.where(active, new, old), new, *states)]
    return me._replace(params=params, actor_optimizer=(state, *states))


def step_critic(me: LearnerState, loss: CriticLoss, optimizer: optax.GradientTransformation) -> LearnerState:
    """One step of the Q-network's optimizer on `loss`, in its own parameters alone."""
    qvalue = me.params.qvalue
    gradient = devices.mean(jax.grad(lambda qvalue: loss(me.params._replace(qvalue=qvalue)))(qvalue))
    updates, state = optimizer.update(gradient, me.qvalue_optimizer, qvalue)
    params = me.params._replace(qvalue=optax.apply_updates(qvalue, updates))
    return me._replace(params=params, qvalue_optimizer=state)


def step_target(me: LearnerState, ema_gamma: float) -> LearnerState:
    """target = gamma target + (1 - gamma) params, for all parameters."""
    return me._replace(target_params=optax.incremental_update(me.params, me.target_params, 1.0 - ema_gamma))


def run(iteration: Iteration, state: TrainState, n: jax.Array) -> TrainState:
    """`n` iterations in a row, but none after one with a parameter that is not finite."""
    stop = state.iteration + n
    return jax.lax.while_loop(lambda state: _keeps_going(state, stop), iteration, state)


def repeat(iteration: Iteration, num_devices: int = 1) -> Callable[[TrainState, int], TrainState]:
    """Jits `n` iterations in a row on the first devices, n at run time: (state, n) -> state.

    One program serves every n, so that where a run is cut to evaluate, to save or to resume changes no bit of it.
    After an iteration with a parameter that is not finite no more follow: `state.iteration` is its number. The state
    is donated: it is updated in place, and must not be used again.
    """

    def run_one_by_one(state, n):
        for _ in range(n):
            with jax.debug_nans(True):  # again, because logsumexp turns it off and leaves it off (JAX 0.10)
                state = one(state)
        return state

    if jax.config.jax_debug_nans:  # JAX names the operation that gives a NaN, but not within a loop of its own
        one = jax.jit(devices.on_devices(iteration, num_devices))
        return run_one_by_one
    return jax.jit(devices.on_devices(partial(run, iteration), num_devices), donate_argnums=0)


def repeat_seeds(iteration: Iteration, num_devices: int, each: int) -> Callable[[TrainState, jax.Array], TrainState]:
    """Like `repeat`, for seeds side by side: states and n with a first axis of num_devices * each -> states.

    A seed whose n iterations are done, or whose parameters are not finite, stays as it is while others go on.
    """

    def run_many(state, n):
        stop = state.iteration + n
        going = lambda state: jax.vmap(_keeps_going)(state, stop)
        step = lambda state: jax.vmap(_where)(going(state), jax.vmap(iteration)(state), state)
        return jax.lax.while_loop(lambda state: going(state).any(), step, state)

    # Without vmap, which costs the IPD on a CPU up to twice the time.
    run_one = devices.one_of_one(partial(run, iteration))
    return jax.jit(devices.spread(run_one if each == 1 else run_many, num_devices), donate_argnums=0)


def _keeps_going(state: TrainState, stop: jax.Array) -> jax.Array:
    """True where an iteration follows: before iteration `stop`, and while all parameters are finite."""
    finite = [jnp.isfinite(x).all() for x in jax.tree.leaves([me.params for me in state.learners])]
    return (state.iteration < stop) & jnp.stack(finite).all()


def _where(going: jax.Array, new: TrainState, old: TrainState) -> TrainState:
    """`new` where a seed is going, else `old`; but always the new items of buffers, which a choice would copy.

    That changes nothing: what an iteration writes there follows from the rest of its state, so in a seed that stays as
    it is these slots have what its next iteration would write first.
    """

    def choose(path, new, old):
        is_item = any(getattr(key, "name", "") == "items" for key in path)
        return new if is_item else jnp.where(going, new, old)

    return jax.tree_util.tree_map_with_path(choose, new, old)
