"""Scripted players of the iterated prisoner's dilemma: policies with nothing to learn."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from loqa.games.ipd import read_table


@dataclasses.dataclass(frozen=True)
class TablePlayer:
    """Remembers nothing but the last step; its `params` are P(cooperate) in each of `loqa.games.ipd.STATES`."""

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> tuple:
        del batch_shape
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
        del params
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
