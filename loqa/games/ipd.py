"""The iterated prisoner's dilemma (LOQA section 5.1; the payoffs of LOLA, Foerster et al. 2018)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

COOPERATE, DEFECT = 0, 1

# The five states that a player can see: its own last action first, then the other's.
STATES = ("START", "CC", "CD", "DC", "DD")

# What a player observes in each of STATES: [I cooperated, I defected, they cooperated, they defected].
OBSERVATIONS = np.array([[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]], np.float32)

# A player's reward by (its action, the other's action).
PAYOFF = ((-1.0, -3.0), (0.0, -2.0))


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
class IteratedPrisonersDilemma:
    """Two players choose at once, again and again; each sees both last actions.

    The state is the index in STATES of what player 0 sees, int [].
    """

    num_actions: int = 2
    observation_size: int = 4

    def reset(self, key: jax.Array) -> jax.Array:
        """The state before the first step; nothing in it is random."""
        del key
        return jnp.zeros((), jnp.int32)

    def step(self, uniform: jax.Array, state: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Plays `actions` [2], int; returns the next state and the rewards [2]. Nothing in it is random."""
        del uniform, state
        rewards = jnp.stack([_payoff(actions[0], actions[1]), _payoff(actions[1], actions[0])])
        return 1 + 2 * actions[0] + actions[1], rewards

    def observe(self, state: jax.Array) -> jax.Array:
        """What each player sees, itself first: [2, 4]."""
        _, cc, cd, dc, dd = (state == i for i in range(len(STATES)))
        played = jnp.stack([cc | cd, dc | dd, cc | dc, cd | dd])
        return jnp.stack([played, jnp.roll(played, 2)]).astype(jnp.float32)


def _payoff(mine: jax.Array, theirs: jax.Array) -> jax.Array:
    """PAYOFF[mine][theirs], by the polynomial through its four numbers: no gather."""
    (cc, cd), (dc, dd) = PAYOFF
    return cc + (dc - cc) * mine + (cd - cc) * theirs + (cc - cd - dc + dd) * mine * theirs
