"""The learner's opponents: an agent as it is now, or past versions of it (the agent replay buffer)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from loqa import buffers
from loqa.agent import AgentParams


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
