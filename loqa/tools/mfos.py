"""M-FOS (Lu et al. 2022, arXiv 2205.01447) on the Coin Game: its actor as a player, from PyTorch's arrays."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from loqa.networks import gru

ACTIONS = [1, 0, 3, 2]  # M-FOS's and POLA's are right, left, down, up; ours are left, right, up, down


@dataclasses.dataclass(frozen=True)
class MFOSPlayer:
    """Two convolutions and a dense layer, ReLU after each, a GRU, ReLU and a dense layer (see `mfos_params`).

    It sees the board, and both players' last rewards, which follow from this board and the one before. The
    published meta-GRU is left out: in the first episode with an opponent it is a factor of one.
    """

    hidden_size: int  # H, of the GRU
    cells: int  # of the board

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> tuple[jax.Array, jax.Array]:
        """The GRU's state [..., H], and no board before [..., 4 cells]."""
        return jnp.zeros((*batch_shape, self.hidden_size)), jnp.zeros((*batch_shape, 4 * self.cells))

    def act(self, params: Any, hidden: tuple, observation: jax.Array) -> tuple[jax.Array, tuple]:
        """One step: observation [..., 4 cells] -> logits [..., 4], hidden."""
        hidden, before = hidden
        x = jnp.concatenate([observation, jnp.repeat(last_rewards(before, observation), self.cells, -1)], -1)
        dense = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"]
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


def mfos_params(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What `MFOSPlayer.act` takes, from the arrays by PyTorch's names (`conv_a_0.weight` [O, I, 3, 3], ...).

    A convolution with circular padding becomes a dense layer on the board's cells, and the plane that is always
    zero goes. Raises KeyError where an array is missing, ValueError where they do not fit a square board.
    """
    dense = lambda name: {"kernel": arrays[f"{name}.weight"].T, "bias": arrays[f"{name}.bias"]}
    linear, output = dense("linear_a_0"), dense("linear_a")
    side = math.isqrt(len(linear["kernel"]) // len(arrays["conv_a_1.bias"]))
    params = {"linear": linear, "output": {kind: x[..., ACTIONS] for kind, x in output.items()}}
    for name in ("conv_0", "conv_1"):
        weight, bias = (arrays[f"{name.replace('_', '_a_')}.{kind}"] for kind in ("weight", "bias"))
        weight = weight[:, :6] if name == "conv_0" else weight
        kernel = np.zeros((weight.shape[1], side, side, len(bias), side, side), np.float32)
        for row, column, i, j in np.ndindex(side, side, 3, 3):
            kernel[:, (row + i - 1) % side, (column + j - 1) % side, :, row, column] += weight[:, :, i, j].T
        kernel = kernel.reshape(-1, bias.size * side**2)
        params[name] = {"kernel": kernel, "bias": np.repeat(bias, side**2)}
    # The reset and update gates have two biases in PyTorch, which are added; the order r, z, n is ours too.
    size, bias_hidden = arrays["GRU_a.weight_hh_l0"].shape[1], arrays["GRU_a.bias_hh_l0"]
    bias = arrays["GRU_a.bias_ih_l0"] + np.where(np.arange(3 * size) < 2 * size, bias_hidden, 0)
    params["gates"] = {"kernel": arrays["GRU_a.weight_ih_l0"].T, "bias": bias}
    params |= {"kernel_hidden": arrays["GRU_a.weight_hh_l0"].T, "bias_hidden": bias_hidden[2 * size :]}
    player = MFOSPlayer(size, side**2)
    try:
        jax.eval_shape(player.act, params, player.initial_hidden(), np.zeros(4 * side**2, np.float32))
    except TypeError as error:
        raise ValueError(f"the shapes of its arrays do not fit together: {error}") from error
    return params
