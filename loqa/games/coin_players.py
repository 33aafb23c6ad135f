"""Scripted players of the Coin Game: policies of what they observe, with nothing to learn or remember."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from loqa.games.coin import MOVES


@dataclasses.dataclass(frozen=True)
class ScriptedPlayer:
    """Prefers moves by their distance to the coin after them; ties are broken uniformly at every step.

    Distances are L1 on the torus.

    Attributes:
      height, width: the board.
      likes_own, likes_others: +1 to come near to a coin that it owns, or that the other owns; -1 to go away,
        0 not to care.
    """

    height: int
    width: int
    likes_own: int
    likes_others: int

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> tuple:
        del batch_shape
        return ()

    def act(self, params: Any, hidden: tuple, observation: jax.Array) -> tuple[jax.Array, tuple]:
        """Observation [..., 4 H W] -> logits [..., 4]: 0 for the best moves, -inf for the others."""
        del params
        me, _, my_coin, their_coin = jnp.split(observation, 4, axis=-1)
        # For each cell of mine and each of the coin: the distance after each move, [HW, HW, 4].
        distance = jnp.array(_distances_after_moves(self.height, self.width))
        wish = self.likes_own * my_coin + self.likes_others * their_coin
        badness = jnp.einsum("...i,...j,ijk->...k", me, wish, distance)
        best = badness == badness.min(-1, keepdims=True)
        return jnp.where(best, 0.0, -jnp.inf), hidden


@dataclasses.dataclass(frozen=True)
class AnyScriptedPlayer:
    """Any of them: `params` are `likes_own` and `likes_others`, so that one program plays them all."""

    height: int
    width: int

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> tuple:
        del batch_shape
        return ()

    def act(self, params: tuple, hidden: tuple, observation: jax.Array) -> tuple[jax.Array, tuple]:
        """Observation [..., 4 H W] -> logits [..., 4]."""
        return ScriptedPlayer(self.height, self.width, *params).act((), hidden, observation)


# What they like: coins of their own, and of the other.
LIKES = {"always-cooperate": (1, -1), "always-defect": (1, 1), "random": (0, 0)}


def always_cooperate(height: int, width: int) -> ScriptedPlayer:
    """Goes to its own coins, and away from the other's."""
    return ScriptedPlayer(height, width, *LIKES["always-cooperate"])


def always_defect(height: int, width: int) -> ScriptedPlayer:
    """Goes to every coin."""
    return ScriptedPlayer(height, width, *LIKES["always-defect"])


def _distances_after_moves(height: int, width: int) -> np.ndarray:
    size = np.array([height, width])
    cells = np.stack(np.divmod(np.arange(height * width), width), -1)
    after = (cells[:, None] + np.array(MOVES)) % size
    apart = np.abs(after[:, None] - cells[None, :, None])
    return np.minimum(apart, size - apart).sum(-1).astype(np.float32)
