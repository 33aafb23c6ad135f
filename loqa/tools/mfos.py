"""The networks of M-FOS, published for the Coin Game, as a player."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from loqa.networks import gru


@dataclasses.dataclass(frozen=True)
class MFOSPlayer:
    """The actor of M-FOS (Lu et al. 2022, arXiv 2205.01447) for the Coin Game.

    Two convolutions and a dense layer, each with ReLU, a GRU, ReLU and a dense layer. It sees the board, and both
    players' last rewards, which follow from this board and the one before. The published meta-GRU is left out: in
    the first episode with an opponent it is a factor of one.
    """

    hidden_size: int  # H, of the GRU
    cells: int  # of the board

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> tuple[jax.Array, jax.Array]:
        """The GRU's state [..., H], and no board before [..., 4 cells]."""
        return jnp.zeros((*batch_shape, self.hidden_size)), jnp.zeros((*batch_shape, 4 * self.cells))

    def act(self, params: Any, hidden: tuple, observation: jax.Array) -> tuple[jax.Array, tuple]:
        """One step: params as of `mfos_params`, observation [..., 4 cells] -> logits [..., 4], hidden."""
        hidden, before = hidden
        dense = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"]
        x = jnp.concatenate([observation, jnp.repeat(last_rewards(before, observation), self.cells, -1)], -1)
        for name in ("conv_0", "conv_1", "linear"):
            x = jax.nn.relu(dense(name, x))
        hidden = gru(dense("gates", x), hidden, params["kernel_hidden"], params["bias_hidden"])
        return dense("output", jax.nn.relu(hidden)), (hidden, observation)


def last_rewards(before: jax.Array, now: jax.Array) -> jax.Array:
    """My and the other's reward of the step between two observations, [..., 4 cells] -> [..., 2]."""
    _, _, my_coin, their_coin = jnp.split(before, 4, -1)
    me, other, _, _ = jnp.split(now, 4, -1)
    takes = lambda player, coin: (player * coin).sum(-1)
    mine = takes(me, my_coin + their_coin) - 2 * takes(other, my_coin)
    return jnp.stack([mine, takes(other, my_coin + their_coin) - 2 * takes(me, their_coin)], -1)
