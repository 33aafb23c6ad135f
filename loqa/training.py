"""What both training loops need around the update: the state they carry, opponents, replay, and chunks."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loqa import buffers, learner
from loqa.agent import Agent, AgentParams
from loqa.learner import LearnerState, QEpisodes, Settings
from loqa.rollout import Opponents
from loqa.run.agents import load_agent
from loqa.run.config import ConfigError, RunError


class TrainState(NamedTuple):
    """All that the next iteration depends on; the tuples have an entry for each learner, one or two."""

    key: jax.Array  # each iteration folds its number into it
    iteration: jax.Array  # int [], how many are done
    learners: tuple[LearnerState, ...]
    past: tuple[buffers.Ring, ...]  # past versions of each learner; empty without an agent replay buffer
    replay: tuple[buffers.Ring, ...]  # each learner's past episodes; empty without a Q replay buffer


def init(agent: Agent, settings: tuple[Settings, ...], hp: Any, key: jax.Array) -> TrainState:
    """The state before the first iteration, for one learner for each of `settings`.

    Raises:
      ConfigError: `hp.init_from` is not a saved agent with these networks.
    """
    key_train, *keys = jax.random.split(key, 1 + len(settings))
    if hp.init_from is None:
        # Jitted, because a network's initialisation is hundreds of small programs otherwise.
        learners = tuple(jax.jit(partial(learner.init, agent, s))(k) for s, k in zip(settings, keys, strict=True))
    else:
        params = load_params(hp.init_from, agent)
        learners = tuple(learner.from_params(jax.tree.map(jnp.array, params), s) for s in settings)
    past, replay = (), ()
    if hp.agent_replay_buffer.mode:
        # A slot that no iteration of this run would write is memory for nothing.
        pushes = -(-hp.total_iterations // hp.agent_replay_buffer.update_freq)
        capacity = min(hp.agent_replay_buffer.capacity, pushes)
        past = tuple(buffers.init(one.params, capacity) for one in learners)
    if hp.qvalue.replay_buffer.mode:
        steps = jnp.zeros(hp.game_length)
        episode = QEpisodes(jnp.zeros((hp.game_length + 1, agent.observation_size)), steps.astype(int), steps)
        replay = tuple(buffers.init(episode, hp.qvalue.replay_buffer.capacity) for _ in learners)
    return TrainState(key_train, jnp.zeros((), jnp.int32), learners, past, replay)


def load_params(path: str, agent: Agent) -> AgentParams:
    """The parameters of a saved agent that has the networks of `agent`; raises ConfigError."""
    try:
        params, _ = load_agent(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"hp.init_from is {path!r}, but must be a saved agent: {error}") from error
    found, expected = (_shapes(tree) for tree in (params, jax.eval_shape(agent.init, jax.random.key(0))))
    for place in sorted(found.keys() | expected.keys()):
        if found.get(place) != expected.get(place):
            raise ConfigError(
                f"hp.init_from is {path!r}, an agent with other networks: the shape of {place} is "
                f"{found.get(place)} there and {expected.get(place)} here"
            )
    return params


def _shapes(params: AgentParams) -> dict[str, tuple[int, ...]]:
    return {leaf_name(place): x.shape for place, x in jax.tree_util.tree_leaves_with_path(params)}


def leaf_name(path: tuple) -> str:
    """The name of a leaf of a pytree by its path, such as `learners/0/params/actor/params/dense_0/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def remember_agents(state: TrainState, hp: Any) -> TrainState:
    """Adds the present agents to the past ones, when this iteration is due (iteration 0 is)."""
    due = state.iteration % hp.agent_replay_buffer.update_freq == 0
    pairs = zip(state.past, state.learners, strict=bool(state.past))
    return state._replace(past=tuple(buffers.add(ring, one.params, where=due) for ring, one in pairs))


def draw_opponents(key: jax.Array, current: AgentParams, past: buffers.Ring | None, hp: Any) -> Opponents:
    """The opponents of an iteration: the other agent as it is, or past versions of it.

    Past versions are drawn uniformly with replacement, one for each episode (or `opponents_per_batch`, each
    for an equal share); the last `cur_agent_frac` of the episodes meet the agent as it is.
    """
    if past is None:
        return Opponents.now(current)
    number = hp.agent_replay_buffer.opponents_per_batch or hp.batch_size
    num_current = int(hp.batch_size * hp.agent_replay_buffer.cur_agent_frac) // (hp.batch_size // number)
    slots = buffers.sample_indices(past, key, number)
    slots = jnp.where(jnp.arange(number) < number - num_current, slots, Opponents.CURRENT)
    return Opponents(current, past.items, slots)


def replay_episodes(key: jax.Array, ring: buffers.Ring, new: QEpisodes) -> tuple[buffers.Ring, QEpisodes]:
    """Stores the episodes just played, and draws as many of the stored ones for the Q-network."""
    ring = buffers.add_batch(ring, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), new))
    drawn = buffers.sample(ring, key, new.actions.shape[1])
    return ring, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), drawn)


def repeat(iteration: Callable[[TrainState], TrainState]) -> Callable[[TrainState, int], TrainState]:
    """Jits `n` iterations in a row, n at run time: (state, n) -> state.

    One program serves every n, so that where a run is cut to evaluate, to save or to resume changes no bit of
    it. After an iteration with a parameter that is not finite no more follow: `state.iteration` tells which one
    it was (see `require_finite`). The state is donated: it is updated in place, and must not be used again.
    """

    def run(state, n):
        stop = state.iteration + n

        def goes_on(state):
            finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(_params(state))]
            return (state.iteration < stop) & jnp.stack(finite).all()

        return jax.lax.while_loop(goes_on, iteration, state)

    def run_one_by_one(state, n):
        for _ in range(n):
            with jax.debug_nans(True):  # again, because logsumexp turns it off and leaves it off (JAX 0.10)
                state = one(state)
        return state

    if jax.config.jax_debug_nans:  # JAX names the operation that gives a NaN, but not within a loop of its own
        one = jax.jit(iteration)
        return run_one_by_one
    return jax.jit(run, donate_argnums=0)


class NonFiniteError(RunError):
    """A parameter or a loss became infinite or NaN; the message is one sentence, for the user."""

    def __init__(self, iteration: int, what: str):
        super().__init__(
            f"in iteration {iteration} {what}; the checkpoints before it are kept, and jax.jax_debug_nans=true "
            "names the operation"
        )


def require_finite(state: TrainState, metrics: dict[str, float] | None = None) -> None:
    """Raises NonFiniteError, with the name of what is not finite: a parameter, or a loss among the metrics."""
    if jax.config.jax_debug_nans:
        return  # JAX looks, and names the operation
    for path, x in jax.tree_util.tree_leaves_with_path(_params(state)):
        if not np.isfinite(x).all():
            agent, name = leaf_name(path).split("/", 1)
            raise NonFiniteError(state.iteration, f"{name} of agent {agent} became infinite or NaN")
    for name, value in (metrics or {}).items():
        if name.startswith("loss_") and not np.isfinite(value):
            raise NonFiniteError(state.iteration, f"{name} became {value}")


def _params(state: TrainState) -> tuple[AgentParams, ...]:
    return tuple(learner.params for learner in state.learners)


def next_stop(iteration: int, last: int, *periods: int) -> int:
    """The first iteration after `iteration` that is a multiple of one of `periods`, or the last one."""
    return min([last, *((iteration // period + 1) * period for period in periods)])
