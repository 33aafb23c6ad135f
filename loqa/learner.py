"""What an iteration changes: each learner's parameters, target network, optimizers and buffers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loqa import buffers, devices
from loqa.agent import Agent, AgentParams, Experience
from loqa.hyperparameters import ActorTrain, Hyperparameters
from loqa.losses import PolicyOptions

OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}


class LearnerState(NamedTuple):
    """All that one learner changes."""

    params: AgentParams
    target_params: AgentParams
    actor_optimizer: tuple[Any, ...]  # of all parameters: one, or with `separate` one for each of the two losses
    qvalue_optimizer: Any
    past: buffers.Ring | None  # past versions of its parameters; None without an agent replay buffer
    replay: buffers.Ring | None  # its past episodes; None without a Q replay buffer


class TrainState(NamedTuple):
    """All that the next iteration depends on."""

    key: jax.Array  # each iteration folds its number into it
    iteration: jax.Array  # int [], how many are done
    learners: tuple[LearnerState, ...]  # one that plays itself, or two


@partial(jax.jit, static_argnums=(0, 1))  # since a network's initialisation is hundreds of small programs otherwise
def init(agent: Agent, hp: Hyperparameters, key: jax.Array, params: AgentParams | None = None) -> TrainState:
    """The state before the first iteration; all learners start from `params`, or each from new ones."""
    key_train, *keys = jax.random.split(key, 1 + hp.num_learners)
    learners = [init_learner(agent, hp, agent.init(k) if params is None else params) for k in keys]
    return TrainState(key_train, jnp.zeros((), jnp.int32), tuple(learners))


def init_learner(agent: Agent, hp: Hyperparameters, params: AgentParams) -> LearnerState:
    """A learner that starts from `params`; its target network is a copy, its buffers are empty."""
    past = replay = None
    if hp.agent_replay_buffer.mode:
        # A slot that no iteration of this run would write is memory for nothing.
        pushes = math.ceil(hp.total_iterations / hp.agent_replay_buffer.update_freq)
        past = buffers.init(params, min(hp.agent_replay_buffer.capacity, pushes))
    if hp.qvalue.replay_buffer.mode:
        steps = jnp.zeros(hp.game_length)
        observations = jnp.zeros((hp.game_length + 1, agent.game.observation_size))
        episode = Experience(observations, steps.astype(int), steps)
        replay = buffers.init(episode, hp.qvalue.replay_buffer.capacity)
    return LearnerState(
        # Copies, since the state is updated in place.
        params=jax.tree.map(jnp.array, params),
        target_params=jax.tree.map(jnp.array, params),
        # The policy's optimizers own the whole agent: its losses reach the Q-network through the advantage,
        # unless that is stopped.
        actor_optimizer=tuple(optimizer.init(params) for optimizer in policy_optimizers(hp.actor.train)),
        qvalue_optimizer=critic_optimizer(hp).init(params.qvalue),
        past=past,
        replay=replay,
    )


def remember_agent(me: LearnerState, hp: Hyperparameters, iteration: jax.Array) -> LearnerState:
    """Adds the present parameters to the past ones, when this iteration is due (iteration 0 is)."""
    if me.past is None:
        return me
    due = iteration % hp.agent_replay_buffer.update_freq == 0
    return me._replace(past=buffers.add(me.past, me.params, where=due))


def replay_episodes(me: LearnerState, new: Experience, key: jax.Array) -> tuple[LearnerState, Experience]:
    """What the critic learns from: the episodes just played, or with a replay buffer as many stored ones."""
    if me.replay is None:
        return me, new
    new = jax.tree.map(lambda x: devices.whole(jnp.moveaxis(x, 1, 0), 0), new)
    ring = buffers.add_batch(me.replay, new)
    drawn = buffers.sample(ring, key, new.actions.shape[0])
    return me._replace(replay=ring), jax.tree.map(lambda x: jnp.moveaxis(devices.share(x, 0), 0, 1), drawn)


def policy_options(hp: Hyperparameters) -> PolicyOptions:
    """The options of `agent_policy_loss`."""
    train, opponent = hp.actor.train, hp.differentiable_opponent
    return PolicyOptions(
        discount=hp.reward_discount,
        advantage=train.advantage,
        gae_lambda=train.gae_lambda,
        stop_grad_advantage=train.stop_grad_advantage,
        terminal_value=hp.qvalue.terminal == "bootstrap",
        kindness=train.kindness,
        method=opponent.method,
        lam=opponent.discount,
        opponent_gae_lambda=opponent.gae_lambda,
        n_step=opponent.n_step,
        differentiable_current_reward=opponent.differentiable_current_reward,
        op_softmax_temp=hp.op_softmax_temp,
        stop_grad_normalizing_constant=opponent.stop_grad_normalizing_constant,
    )


def shaping_is_active(hp: Hyperparameters, iteration: jax.Array) -> jax.Array:
    """Whether this iteration, counted from 0, has a shaping loss."""
    return iteration < min(hp.differentiable_opponent.exclude_after_step, 2**31 - 1)


def policy_optimizers(train: ActorTrain) -> tuple[optax.GradientTransformation, ...]:
    """The policy's optimizer, or with `separate` one for each of the two losses; each clips alone."""
    rates = [train.lr_loss_actor]
    if train.separate:
        rates = [train.lr_loss_actor_agent, train.lr_loss_actor_opponent]
    clipped = train.clip_grad.mode == "norm"
    clip = optax.clip_by_global_norm(train.clip_grad.max_norm) if clipped else optax.identity()
    return tuple(optax.chain(clip, OPTIMIZERS[train.optimizer](rate)) for rate in rates)


def critic_optimizer(hp: Hyperparameters) -> optax.GradientTransformation:
    """The Q-network's own optimizer."""
    return OPTIMIZERS[hp.qvalue.train.optimizer](hp.qvalue.train.lr_loss_qvalue)


def step_policy(
    me: LearnerState,
    losses: Callable[[AgentParams], tuple[jax.Array, jax.Array]],
    hp: Hyperparameters,
    iteration: jax.Array,
) -> LearnerState:
    """One step of the policy's optimizer, or of both, in this iteration, counted from 0.

    `losses`: of parameters, the actor loss with its entropy bonus, and the weighted shaping loss, each [].
    """
    _, pull_back = jax.vjp(losses, me.params)
    one, zero = jnp.ones(()), jnp.zeros(())
    weights = [(one, zero), (zero, one)] if hp.actor.train.separate else [(one, one)]  # or of both in one pass
    gradients = devices.mean([pull_back(pair)[0] for pair in weights])
    params, states = me.params, []
    for i, optimizer in enumerate(policy_optimizers(hp.actor.train)):
        before = me.actor_optimizer[i]
        updates, state = optimizer.update(gradients[i], before, params)
        if i == 1:  # where there is no shaping its own optimizer waits: its momentum would move on
            active = shaping_is_active(hp, iteration)
            updates = jax.tree.map(lambda x, active=active: jnp.where(active, x, 0.0), updates)
            state = jax.tree.map(partial(jnp.where, active), state, before)
        params = optax.apply_updates(params, updates)
        states.append(state)
    return me._replace(params=params, actor_optimizer=tuple(states))


def step_critic(me: LearnerState, loss: Callable[[AgentParams], jax.Array], hp: Hyperparameters) -> LearnerState:
    """One step of the Q-network's optimizer on `loss`, in its own parameters alone."""
    qvalue = me.params.qvalue
    gradient = devices.mean(jax.grad(lambda qvalue: loss(me.params._replace(qvalue=qvalue)))(qvalue))
    updates, state = critic_optimizer(hp).update(gradient, me.qvalue_optimizer, qvalue)
    params = me.params._replace(qvalue=optax.apply_updates(qvalue, updates))
    return me._replace(params=params, qvalue_optimizer=state)


def step_target(me: LearnerState, hp: Hyperparameters) -> LearnerState:
    """target = gamma target + (1 - gamma) params, for all parameters."""
    step_size = 1.0 - hp.qvalue.train.target_ema_gamma
    return me._replace(target_params=optax.incremental_update(me.params, me.target_params, step_size))


def repeat(
    iteration: Callable[[TrainState], TrainState], num_devices: int = 1
) -> Callable[[TrainState, int], TrainState]:
    """Jits `n` iterations in a row on the first devices, n at run time: (state, n) -> state.

    One program serves every n, so that where a run is cut to evaluate, to save or to resume changes no bit of
    it. After an iteration with a parameter that is not finite no more follow: `state.iteration` is its number.
    The state is donated: it is updated in place, and must not be used again.
    """

    def run(state, n):
        stop = state.iteration + n

        def keep_going(state):
            params = [learner.params for learner in state.learners]
            finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(params)]
            return (state.iteration < stop) & jnp.stack(finite).all()

        return jax.lax.while_loop(keep_going, iteration, state)

    def run_one_by_one(state, n):
        for _ in range(n):
            with jax.debug_nans(True):  # again, because logsumexp turns it off and leaves it off (JAX 0.10)
                state = one(state)
        return state

    if jax.config.jax_debug_nans:  # JAX names the operation that gives a NaN, but not within a loop of its own
        one = jax.jit(devices.on_devices(iteration, num_devices))
        return run_one_by_one
    return jax.jit(devices.on_devices(run, num_devices), donate_argnums=0)
