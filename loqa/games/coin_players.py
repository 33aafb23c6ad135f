"""Scripted players of the Coin Game: policies of what they observe, with nothing to learn or remember."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from loqa.games.coin import MOVES


@dataclasses.dataclass(frozen=True)
class ScriptedPlayer:
    """Prefers moves by their distance to the coin after them; ties are broken uniformly at every step.

    Its `params` are what it likes, of LIKES: +1 to come near to a coin of its own, or of the other; -1 to go
    away; 0 not to care. Distances are L1 on the torus, of `height` x `width`.
    """

    height: int
    width: int

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> tuple:
        del batch_shape
        return ()

    def act(self, params: tuple, hidden: tuple, observation: jax.Array) -> tuple[jax.Array, tuple]:
        """Observation [..., 4 H W] -> logits [..., 4]: 0 for the best moves, -inf for the others."""
        likes_own, likes_others = params
        me, _, my_coin, their_coin = jnp.split(observation, 4, axis=-1)
        # For each cell of mine and each of the coin: the distance after each move, [HW, HW, 4].
        distance = jnp.array(_distances_after_moves(self.height, self.width))
        wish = likes_own * my_coin + likes_others * their_coin
        badness = jnp.einsum("...i,...j,ijk->...k", me, wish, distance)
        best = badness == badness.min(-1, keepdims=True)
        return jnp.where(best, 0.0, -jnp.inf), hidden


# What they like: coins of their own, and of the other.
LIKES = {"always-cooperate": (1, -1), "always-defect": (1, 1), "random": (0, 0)}


def _distances_after_moves(height: int, width: int) -> np.ndarray:
    size = np.array([height, width])
    cells = np.stack(np.divmod(np.arange(height * width), width), -1)
    after = (cells[:, None] + np.array(MOVES)) % size
    apart = np.abs(after[:, None] - cells[None, :, None])
    return np.minimum(apart, size - apart).sum(-1).astype(np.float32)
