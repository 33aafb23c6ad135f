"""Rollouts: two players play a batch of episodes of a game; and which opponents a learner plays."""

import functools
import itertools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from loqa import buffers, devices
from loqa.agent import Agent, AgentParams, batch_last
from loqa.game import Game
from loqa.losses import Side


class Player(Protocol):
    """The interface of an `Agent` and of scripted players. Pure; arrays may have any batch axes."""

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> Any:
        """The player's memory before the first step, of episodes with these batch axes."""

    def act(self, params: Any, hidden: Any, observation: jax.Array) -> tuple[jax.Array, Any]:
        """One step: observation [..., D] -> logits [..., A], hidden."""


class Trajectories(NamedTuple):
    """B episodes of T steps as they are played: time first, then the player. After the rollout, see `side`."""

    observations: jax.Array  # [T+1, 2, B, D], float
    logits: jax.Array  # [T+1, 2, B, A], of both policies on what they saw
    actions: jax.Array  # [T, 2, B], int
    rewards: jax.Array  # [T, 2, B], float

    def side(self, player: int) -> Side:
        """One player's side, with the batch last: [T+1, A, B], [T, B], [T+1, D, B]; without Q-values."""
        observations, logits, actions, rewards = (x[:, player] for x in self)
        return Side(batch_last(logits), None, actions, rewards, batch_last(observations))


class Episodes(NamedTuple):
    """B episodes as a learner sees them, batch last: its own side, then its opponents'."""

    mine: Side  # with observations, on which `Agent.side` computes the networks' outputs
    opponent: Side  # with the logits and Q-values of the opponents' own networks


class Noise(NamedTuple):
    """Everything random in B episodes of T steps, drawn before they are played.

    An episode's noise does not depend on which others it is played with.
    """

    reset_keys: jax.Array  # [B] keys
    step_uniforms: jax.Array  # [T, B], from [0, 1), for the game
    action_uniforms: jax.Array  # [T, 2, B], from [0, 1)


def draw_noise(key: jax.Array, num_steps: int, num_episodes: int) -> Noise:
    """The noise of a rollout."""
    key_reset, key_step, key_action = jax.random.split(key, 3)
    return Noise(
        jax.random.split(key_reset, num_episodes),
        jax.random.uniform(key_step, (num_steps, num_episodes)),
        jax.random.uniform(key_action, (num_steps, 2, num_episodes)),
    )


def sample_actions(logits: jax.Array, uniform: jax.Array, epsilon: float = 0.0) -> jax.Array:
    """Actions [...], int32, of a softmax policy that plays a uniform action with probability `epsilon`.

    Inverts the cumulative distribution of the mixed probabilities: of `logits` [..., A], with one draw an action,
    `uniform` [...], from [0, 1).
    """
    # One array an action, and sums written out: that compiles to one loop, where reductions would be calls.
    logits = jnp.moveaxis(logits, -1, 0)
    weights = list(jnp.exp(logits - functools.reduce(jnp.maximum, logits)))
    share = epsilon * sum(weights) / len(weights)
    weights = [(1.0 - epsilon) * weight + share for weight in weights]
    # Not normalized: a weight of 0 then leaves the running sum as it is, and its action is never played.
    *cumulative, total = itertools.accumulate(weights)
    return sum((uniform * total >= below).astype(jnp.int32) for below in cumulative)


def rollout(
    game: Game, players: tuple[Player, Player], params: tuple[Any, Any], noise: Noise, epsilon: float = 0.0
) -> Trajectories:
    """Plays a batch of episodes, whose number and length `noise` fixes.

    Each player's `act` is passed its `params`; `epsilon` is the share of uniform actions of both.
    """
    num_episodes = noise.reset_keys.shape[0]

    def act(state, hiddens):
        """Observations [2, B, D] and logits [2, B, A] of both players, and what they remember then."""
        observations = jax.vmap(game.observe, out_axes=1)(state)
        turns = zip(players, params, hiddens, observations, strict=True)
        logits, hiddens = zip(*(player.act(p, h, o) for player, p, h, o in turns), strict=True)
        return observations, jnp.stack(logits), hiddens

    def step(carry, noise_t):
        state, hiddens = carry
        step_uniforms, action_uniforms = noise_t
        observations, logits, hiddens = act(state, hiddens)
        actions = jnp.stack([sample_actions(*x, epsilon) for x in zip(logits, action_uniforms, strict=True)])
        state, rewards = jax.vmap(game.step, in_axes=(0, 0, 1), out_axes=(0, 1))(step_uniforms, state, actions)
        return (state, hiddens), (observations, logits, actions, rewards)

    state = jax.vmap(game.reset)(noise.reset_keys)
    hiddens = tuple(player.initial_hidden((num_episodes,)) for player in players)
    (state, hiddens), (observations, logits, actions, rewards) = jax.lax.scan(
        step, (state, hiddens), (noise.step_uniforms, noise.action_uniforms)
    )
    last_observations, last_logits, _ = act(state, hiddens)
    with_last = lambda steps, last: jnp.concatenate([steps, last[None]])
    return Trajectories(with_last(observations, last_observations), with_last(logits, last_logits), actions, rewards)


class Opponents(NamedTuple):
    """G opponents: past versions of an agent by their slot in a ring, or the agent as it is now."""

    current: AgentParams
    past: Any  # AgentParams with a leading axis, or None where every opponent is the current agent
    slots: jax.Array  # int [G], slots of `past`; CURRENT for the current agent

    CURRENT = -1

    @classmethod
    def now(cls, current: AgentParams) -> "Opponents":
        """One opponent: the agent as it is now."""
        return cls(current, None, jnp.full((1,), cls.CURRENT))

    def params(self, slots: jax.Array) -> AgentParams:
        """The parameters of the opponents in `slots` [g], with a leading axis g."""
        if self.past is None:
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (*slots.shape, *x.shape)), self.current)

        def pick(past, current):
            is_current = (slots == self.CURRENT).reshape(-1, *[1] * current.ndim)
            return jnp.where(is_current, current, past[slots])

        return jax.tree.map(pick, self.past, self.current)


def draw_opponents(
    key: jax.Array, current: AgentParams, past: buffers.Ring | None, number: int, num_current: int
) -> Opponents:
    """The opponents of an iteration: an agent as it is now, or with `past` its past versions.

    Of these `number` are drawn uniformly with replacement, each for an equal share of the episodes; the last
    `num_current` are the agent as it is now instead.
    """
    if past is None:
        return Opponents.now(current)
    slots = buffers.sample_indices(past, key, number)
    slots = jnp.where(jnp.arange(number) < number - num_current, slots, Opponents.CURRENT)
    return Opponents(current, past.items, slots)


class ManyAgents(NamedTuple):
    """G parameter sets of an agent, batched, as one player: set i plays the i-th B / G of the episodes.

    Its `params` have a leading axis G.
    """

    agent: Agent

    def initial_hidden(self, batch_shape: tuple[int, ...]) -> Any:
        return self.agent.initial_hidden(batch_shape)

    def act(self, params: Any, hidden: Any, observation: jax.Array) -> tuple[jax.Array, Any]:
        args = params, _split(params, hidden, 0), _split(params, observation, 0)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.vmap(self.agent.act)(*args))

    def q_values(self, params: Any, observations: jax.Array) -> jax.Array:
        """[T+1, B, D] -> [T+1, B, A]."""
        q_values = jax.vmap(self.agent.q_values, in_axes=(0, 1), out_axes=1)
        q = q_values(params, _split(params, observations, 1))
        return q.reshape(q.shape[0], -1, q.shape[-1])


def _split(params: Any, arrays: Any, axis: int) -> Any:
    """Splits the batch axis B of each array in [G, B / G], where G sets of params play."""
    sets = jax.tree.leaves(params)[0].shape[0]
    return jax.tree.map(lambda x: x.reshape(*x.shape[:axis], sets, -1, *x.shape[axis + 1 :]), arrays)


def play(game: Game, agent: Agent, params: AgentParams, opponents: Opponents, noise: Noise, epsilon: float) -> Episodes:
    """Plays B episodes of an agent against its opponents, which play the agent's networks too.

    The learner, with `params`, is player 0. Each of the G opponents, where G divides B, plays B / G episodes; both
    sides play a share `epsilon` of uniform actions. On several devices each plays its share of the episodes, against
    its share of the opponents.
    """
    noise = jax.tree.map(lambda x: devices.share(x, x.ndim - 1), noise)
    slots = opponents.slots if opponents.past is None else devices.share(opponents.slots, 0)
    # A step reads the weights of every opponent. On a CPU they play one after another, each all of its episodes from
    # start to end, so that its weights are read from memory once and then stay in the cache. (Blocks of two and four
    # opponents took half as much time again.)
    num_blocks = slots.shape[0] if jax.default_backend() == "cpu" else 1
    many = ManyAgents(agent)

    def play_block(block):
        slots, noise = block
        theirs = opponents.params(slots)
        both = rollout(game, (agent, many), (params, theirs), noise, epsilon)
        q_values = batch_last(many.q_values(theirs, both.observations[:, 1]))
        mine, opponent = both.side(0), both.side(1)
        return Episodes(mine._replace(logits=None), opponent._replace(q_values=q_values, observations=None))

    if num_blocks == 1:
        return play_block((slots, noise))
    cut = lambda x: jnp.moveaxis(x.reshape(*x.shape[:-1], num_blocks, -1), -2, 0)
    blocks = slots.reshape(num_blocks, -1), Noise(*map(cut, noise))
    join = lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)
    return jax.tree.map(join, jax.lax.map(play_block, blocks))
