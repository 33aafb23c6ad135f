"""The networks: Flax modules that take a step at a time or a whole sequence, with the same numbers.

Of each, `initial_hidden(batch_shape)` is what it remembers before the first step, `step(inputs, hidden)` takes one
step, and calling it takes a sequence from the start, time first. Arrays may have any batch axes between time and
features, so nothing needs `vmap`. `is_recurrent` says whether it remembers.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


def per_gate(initializer: Callable) -> Callable:
    """Initializes each gate's [in, H] block of a concatenated [in, 3H] kernel on its own."""

    def init(key, shape, dtype=jnp.float32):
        blocks = [initializer(k, (shape[0], shape[1] // 3), dtype) for k in jax.random.split(key, 3)]
        return jnp.concatenate(blocks, axis=1)

    return init


def output_init(scale: float) -> Callable:
    """Flax's initializer of a dense kernel, its values divided by `scale`."""
    return nn.initializers.variance_scaling(1.0 / scale**2, "fan_in", "truncated_normal")


class GRUNetwork(nn.Module):
    """Dense layers, a GRU, and a dense output: dense-ReLU-(dense-)GRU-dense (POLA's and LOQA's network).

    The GRU is Flax's GRUCell with the kernels of its gates concatenated, in the order r, z, n:

        r = sigmoid(W_r x + b_r + U_r h);  z = sigmoid(W_z x + b_z + U_z h)
        n = tanh(W_n x + b_n + r * (U_n h + c));  h' = (1 - z) * n + z * h
    """

    num_outputs: int
    hidden_size: int
    layers_before_gru: int
    output_scale: float = 1.0  # by which `Agent` multiplies its output; the output's initial weights are divided by it

    is_recurrent = True

    def setup(self):
        size = self.hidden_size
        self.dense = [nn.Dense(size) for _ in range(self.layers_before_gru)]
        self.kernel_in = self.param("kernel_in", per_gate(nn.initializers.lecun_normal()), (size, 3 * size))
        self.bias_in = self.param("bias_in", nn.initializers.zeros, (3 * size,))
        self.kernel_hidden = self.param("kernel_hidden", per_gate(nn.initializers.orthogonal()), (size, 3 * size))
        self.bias_hidden = self.param("bias_hidden", nn.initializers.zeros, (size,))
        self.output = nn.Dense(self.num_outputs, kernel_init=output_init(self.output_scale))

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> jax.Array:
        return jnp.zeros((*batch_shape, self.hidden_size))

    def step(self, inputs: jax.Array, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One step: [..., D], [..., H] -> outputs [..., num_outputs], hidden [..., H]."""
        x = nn.relu(self.dense[0](inputs))
        for layer in self.dense[1:]:
            x = layer(x)
        hidden = gru(x @ self.kernel_in + self.bias_in, hidden, self.kernel_hidden, self.bias_hidden)
        return self.output(hidden), hidden

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """A whole sequence: [T, ..., D] -> [T, ..., num_outputs]; parameters are initialized by `step`."""
        # From the ReLU to the gates all layers are linear: multiplied once, they are one matmul per step.
        kernel, bias = self.kernel_in, self.bias_in
        for layer in reversed(self.dense[1:]):
            weights = layer.variables["params"]
            kernel, bias = weights["kernel"] @ kernel, weights["bias"] @ kernel + bias

        # All of a step is in the loop, though only the GRU must be: a step's arrays fit in a CPU's cache, those of all
        # steps do not, and take three times as long. So the backward pass recomputes a step's gates, too.
        @jax.checkpoint
        def one_step(hidden, inputs):
            gates_in = nn.relu(self.dense[0](inputs)) @ kernel + bias
            hidden = gru(gates_in, hidden, self.kernel_hidden, self.bias_hidden)
            return hidden, self.output(hidden)

        return jax.lax.scan(one_step, self.initial_hidden(inputs.shape[1:-1]), inputs)[1]


def gru(gates_in: jax.Array, hidden: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """A GRU's next hidden state: gates_in [..., 3H], hidden [..., H], kernel [H, 3H], bias [H] -> [..., H]."""
    size = hidden.shape[-1]
    gates_hidden = hidden @ kernel
    reset, update = jnp.split(nn.sigmoid(gates_in[..., : 2 * size] + gates_hidden[..., : 2 * size]), 2, axis=-1)
    new = jnp.tanh(gates_in[..., 2 * size :] + reset * (gates_hidden[..., 2 * size :] + bias))
    return (1.0 - update) * new + update * hidden


class Memoryless(nn.Module):
    """The base of networks that remember nothing."""

    is_recurrent = False

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> tuple:
        return ()

    def step(self, inputs: jax.Array, hidden: tuple) -> tuple[jax.Array, tuple]:
        return self(inputs), hidden


class MLP(Memoryless):
    """Two ReLU layers and a dense output: [..., D] -> [..., num_outputs]."""

    num_outputs: int
    hidden_size: int
    output_scale: float = 1.0  # as of a GRUNetwork

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(self.hidden_size)(inputs))
        x = nn.relu(nn.Dense(self.hidden_size)(x))
        return nn.Dense(self.num_outputs, kernel_init=output_init(self.output_scale))(x)


class LogitsTable(Memoryless):
    """A table of outputs, a row for each of few observations, zeros at first: [..., D] -> [..., num_outputs]."""

    num_outputs: int
    num_states: int  # S
    read_table: Callable  # the row of an observation, table [S, num_outputs], [..., D] -> [..., num_outputs]

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        table = self.param("logits", nn.initializers.zeros, (self.num_states, self.num_outputs))
        return self.read_table(table, inputs)
