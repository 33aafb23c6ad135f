"""Repeated games of two players and two actions: the iterated prisoner's dilemma (LOQA section 5.1) and others."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from loqa.games.payoffs import PAYOFFS, Payoffs, title_of
from loqa.hyperparameters import IPDHyperparameters

COOPERATE, DEFECT = 0, 1

# The five states that a player can see: its own last action first, then the other's.
STATES = ("START", "CC", "CD", "DC", "DD")

# What a player observes in each of STATES: [I cooperated, I defected, they cooperated, they defected].
OBSERVATIONS = np.array([[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]], np.float32)

# The prisoner's dilemma: a player's reward by [its action, the other's action].
PAYOFF = np.reshape(PAYOFFS["ipd"][0], (2, 2))


def visits(observation: jax.Array) -> list[jax.Array]:
    """For each of STATES, 1 where an observation is it and 0 elsewhere: [..., 4] -> five arrays [...]."""
    my_c, my_d, their_c, their_d = (observation[..., i] for i in range(4))
    return [1.0 - my_c - my_d, my_c * their_c, my_c * their_d, my_d * their_c, my_d * their_d]


def read_table(table: jax.Array, observation: jax.Array) -> jax.Array:
    """Reads a table of values by state: [..., 5, A], [..., 4] -> [..., A].

    A sum of products that compiles to one loop: gathers, the scatters of their gradients and tiny matmuls
    are slow on a CPU.
    """
    return sum(here[..., None] * table[..., s, :] for s, here in enumerate(visits(observation)))


@dataclasses.dataclass(frozen=True)
class MatrixGame:
    """Two players choose at once, again and again; each sees both last actions.

    The state is the index in STATES of what player 0 sees, int []. `payoffs` has for each player its reward in
    CC, CD, DC and DD, its own action first.
    """

    title: str = title_of("ipd")
    payoffs: Payoffs = PAYOFFS["ipd"]

    num_actions = 2
    observation_size = 4
    all_observations = tuple(map(tuple, OBSERVATIONS.tolist()))
    read_table = staticmethod(read_table)

    @classmethod
    def from_hp(cls, hp: IPDHyperparameters) -> "MatrixGame":
        """The game that the hyperparameters name, or give as payoffs."""
        return cls(title_of(hp.game_name), hp.matrix_payoffs)

    def from_seat(self, seat: int) -> "MatrixGame":
        """The same game with the players exchanged for seat 1."""
        return dataclasses.replace(self, payoffs=self.payoffs[::-1]) if seat else self

    def scripted(self) -> dict[str, tuple[Any, tuple]]:
        """The scripted players by name, with their `params`."""
        tables = {name: (TablePlayer(), table) for name, table in TABLES.items()}
        return tables | {"grim-trigger": (GrimTrigger(), ())}

    def reset(self, key: jax.Array) -> jax.Array:
        """The state before the first step; nothing in it is random."""
        return jnp.zeros((), jnp.int32)

    def step(self, uniform: jax.Array, state: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Plays `actions` [2], int; returns the next state and the rewards [2]. Nothing in it is random."""
        first, second = actions
        rewards = [_reward(self.payoffs[0], first, second), _reward(self.payoffs[1], second, first)]
        return 1 + 2 * first + second, jnp.stack(rewards)

    def observe(self, state: jax.Array) -> jax.Array:
        """What each player sees, itself first: [2, 4]."""
        _, cc, cd, dc, dd = (state == i for i in range(len(STATES)))
        played = jnp.stack([cc | cd, dc | dd, cc | dc, cd | dd])
        return jnp.stack([played, jnp.roll(played, 2)]).astype(jnp.float32)


def _reward(payoff: tuple[float, ...], mine: jax.Array, theirs: jax.Array) -> jax.Array:
    """A player's reward by both actions: exactly one of its four numbers, and no gather."""
    cc, cd, dc, dd = payoff
    if_they_cooperate, if_not = jnp.where(mine == COOPERATE, cc, dc), jnp.where(mine == COOPERATE, cd, dd)
    return jnp.where(theirs == COOPERATE, if_they_cooperate, if_not)


@dataclasses.dataclass(frozen=True)
class TablePlayer:
    """Remembers nothing but the last step; its `params` are P(cooperate) in each of STATES."""

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> tuple:
        return ()

    def act(self, params: tuple, hidden: tuple, observation: jax.Array) -> tuple[jax.Array, tuple]:
        """Observation [..., 4] -> logits [..., 2], -inf for an action that it never takes."""
        return _logits(read_table(jnp.stack(params)[:, None], observation)[..., 0]), hidden


@dataclasses.dataclass(frozen=True)
class GrimTrigger:
    """Cooperates until the other has defected, and then never again."""

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> jax.Array:
        """1 once the other has defected: [...]."""
        return jnp.zeros(batch_shape)

    def act(self, params: Any, hidden: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Observation [..., 4], hidden [...] -> logits [..., 2], hidden."""
        hidden = jnp.maximum(hidden, observation[..., 3])
        return _logits(1.0 - hidden), hidden


def _logits(p_cooperate: jax.Array) -> jax.Array:
    return jnp.log(jnp.stack([p_cooperate, 1.0 - p_cooperate], axis=-1))


# What each scripted player is given as `params` in START, CC, CD, DC and DD (its own last action first).
TABLES = {
    "always-cooperate": (1.0, 1.0, 1.0, 1.0, 1.0),
    "always-defect": (0.0, 0.0, 0.0, 0.0, 0.0),
    "random": (0.5, 0.5, 0.5, 0.5, 0.5),
    "tit-for-tat": (1.0, 1.0, 0.0, 1.0, 0.0),
    "win-stay-lose-shift": (1.0, 1.0, 0.0, 0.0, 1.0),  # it has won where the other cooperated
}
