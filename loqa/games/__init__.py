"""The games: pure functions of a state, for one episode."""

from collections.abc import Callable
from typing import Any, Protocol

import jax


class Game(Protocol):
    """A game of two players who act at once. States are pytrees of arrays; `vmap` makes a batch of episodes."""

    num_actions: int  # A
    observation_size: int  # D
    # Where they are few, else None: the S observations that exist, [S][D]; and the row of an observation in a table by
    # these, [..., S, A], [..., D] -> [..., A].
    all_observations: tuple[tuple[float, ...], ...] | None
    read_table: Callable[[jax.Array, jax.Array], jax.Array] | None

    def from_seat(self, seat: int) -> "Game":
        """The same game, whose player 0 sits in `seat` (0 or 1)."""

    def scripted(self) -> dict[str, tuple[Any, Any]]:
        """Scripted players by name, with what their `act` is given as params."""

    def reset(self, key: jax.Array) -> Any:
        """The state before the first step."""

    def step(self, uniform: jax.Array, state: Any, actions: jax.Array) -> tuple[Any, jax.Array]:
        """Plays `actions` [2], int; `uniform` [] from [0, 1) is what is random. Next state, rewards [2]."""

    def observe(self, state: Any) -> jax.Array:
        """What each player sees, itself first: [2, D]."""
