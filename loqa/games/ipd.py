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


def one_hot_state(observation: jax.Array) -> jax.Array:
    """Which of STATES an observation is: [..., 4] -> [..., 5], one-hot.

    Products instead of an index, so that a table is read by a matmul: gathers, and the scatters of
    their gradients, are slow on a CPU.
    """
    mine, theirs = observation[..., :2], observation[..., 2:]
    joint = mine[..., :, None] * theirs[..., None, :]
    start = 1.0 - mine.sum(-1, keepdims=True)
    return jnp.concatenate([start, joint.reshape(*joint.shape[:-2], 4)], axis=-1)


@dataclasses.dataclass(frozen=True)
class IteratedPrisonersDilemma:
    """Two players choose at once, again and again; each sees both last actions.

    The state is what player 0 observes, float [4].
    """

    num_actions: int = 2
    observation_size: int = 4

    def reset(self, key: jax.Array) -> jax.Array:
        """The state before the first step; nothing in it is random."""
        del key
        return jnp.zeros(4)

    def step(self, key: jax.Array, state: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Plays `actions` [2], int; returns the next state and the rewards [2]."""
        del key, state
        mine, theirs = jax.nn.one_hot(actions, 2)
        payoff = jnp.array(PAYOFF)
        rewards = jnp.stack([mine @ payoff @ theirs, theirs @ payoff @ mine])
        return jnp.concatenate([mine, theirs]), rewards

    def observe(self, state: jax.Array) -> jax.Array:
        """What each player sees, itself first: [2, 4]."""
        return jnp.stack([state, jnp.roll(state, 2)])
