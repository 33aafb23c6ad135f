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
    """Two convolutions and a dense layer, each with ReLU, a GRU, ReLU and a dense layer.

    It sees the board, and both players' last rewards, which follow from this board and the one before. The
    published meta-GRU is left out: in the first episode with an opponent it is a factor of one.
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


def mfos_params(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """An actor's parameters from the arrays by PyTorch's names (`conv_a_0.weight` [16, 7, 3, 3] and others).

    A convolution with circular padding becomes a dense layer on the board's cells; the plane of zeros goes.
    Raises KeyError where an array is missing, TypeError or ValueError where they do not fit together.
    """
    dense = lambda name: {"kernel": arrays[f"{name}.weight"].T, "bias": arrays[f"{name}.bias"]}
    params = {"linear": dense("linear_a_0"), "output": dense("linear_a")}
    params["output"] = {kind: x[..., ACTIONS] for kind, x in params["output"].items()}
    side = math.isqrt(len(params["linear"]["kernel"]) // len(arrays["conv_a_1.bias"]))
    for i, planes in ((0, slice(6)), (1, slice(None))):
        weight, bias = arrays[f"conv_a_{i}.weight"][:, planes], arrays[f"conv_a_{i}.bias"]
        kernel = np.zeros((weight.shape[1], side, side, len(bias), side, side), np.float32)
        for row, column, y, x in np.ndindex(side, side, 3, 3):  # from (row + y - 1, column + x - 1) on the torus
            kernel[:, (row + y - 1) % side, (column + x - 1) % side, :, row, column] += weight[:, :, y, x].T
        kernel = kernel.reshape(-1, bias.size * side**2)
        params[f"conv_{i}"] = {"kernel": kernel, "bias": np.repeat(bias, side**2)}
    # PyTorch's reset and update gates have two biases, which are added; their order, r, z, n, is ours.
    bias = arrays["GRU_a.bias_hh_l0"]
    size = len(bias) // 3
    both = arrays["GRU_a.bias_ih_l0"] + np.where(np.arange(3 * size) < 2 * size, bias, 0)
    params["gates"] = {"kernel": arrays["GRU_a.weight_ih_l0"].T, "bias": both}
    params |= {"kernel_hidden": arrays["GRU_a.weight_hh_l0"].T, "bias_hidden": bias[2 * size :]}
    player = MFOSPlayer(size, side**2)
    jax.eval_shape(player.act, params, player.initial_hidden(), jnp.zeros(4 * side**2))
    return params
