"""The networks step by step and as sequences, against Flax's own GRU; the agent that is made of them."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import setups

from loqa.agent import Agent
from loqa.games import ipd
from loqa.games.ipd import MatrixGame
from loqa.networks import MLP, GRUNetwork, LogitsTable

INPUTS, OUTPUTS, HIDDEN, STEPS = 4, 3, 8, 6
KEY = jax.random.key(0)
NETWORKS = {
    "gru": GRUNetwork(OUTPUTS, HIDDEN, 2),
    "mlp": MLP(OUTPUTS, HIDDEN),
    "table": LogitsTable(OUTPUTS, len(ipd.STATES), ipd.read_table),
}
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def random_params(init, *args):
    """Normal numbers, biases included, in place of what `init(*args)` would give."""
    random = np.random.default_rng(0)
    fill = lambda x: random.normal(0, 0.5, x.shape).astype(np.float32)
    return jax.tree.map(fill, jax.eval_shape(init, *args))


def new_params(network, key=KEY):
    return network.init(key, jnp.zeros(INPUTS), network.initial_hidden(), method="step")


def network_params(network):
    return random_params(lambda key: new_params(network, key), KEY)


def observations(*axes, seed=0):
    """Random observations of the IPD, which every network can read."""
    return ipd.OBSERVATIONS[np.random.default_rng(seed).integers(0, 5, axes)]


def run_steps(network, params, sequence):
    step = jax.jit(lambda x, hidden: network.apply(params, x, hidden, method="step"))
    hidden, outputs = network.initial_hidden(sequence.shape[1:-1]), []
    for inputs in sequence:
        output, hidden = step(inputs, hidden)
        outputs.append(output)
    return jnp.stack(outputs)


# ---------------------------------------------------------------------------------------- steps and sequences


@every_network
def test_step_by_step_is_the_whole_sequence(network):
    params, sequence = network_params(network), observations(STEPS, 2, 3)  # batch axes may be any
    whole = jax.jit(network.apply)(params, sequence)
    assert whole.shape == (STEPS, 2, 3, OUTPUTS)
    assert np.ptp(whole, axis=(0, 1, 2)).min() > 0.01
    np.testing.assert_allclose(run_steps(network, params, sequence), whole, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------------ GRU


class FlaxGRUNetwork(nn.Module):
    """The same network of Flax's own parts, one step."""

    layers: int

    @nn.compact
    def __call__(self, hidden, inputs):
        x = nn.relu(nn.Dense(HIDDEN, name="dense_0")(inputs))
        for i in range(1, self.layers):
            x = nn.Dense(HIDDEN, name=f"dense_{i}")(x)
        hidden, x = nn.GRUCell(HIDDEN, name="gru")(hidden, x)
        return hidden, nn.Dense(OUTPUTS, name="output")(x)


def to_flax(params):
    """Splits the concatenated kernels: the gates are r, z, n."""
    params = dict(params["params"])
    kernels = [jnp.split(params.pop(name), 3, axis=-1) for name in ("kernel_in", "bias_in", "kernel_hidden")]
    bias_hidden, gates = params.pop("bias_hidden"), {}
    for gate, kernel_in, bias_in, kernel_hidden in zip("rzn", *kernels, strict=True):
        gates[f"i{gate}"] = {"kernel": kernel_in, "bias": bias_in}
        gates[f"h{gate}"] = {"kernel": kernel_hidden}
    gates["hn"]["bias"] = bias_hidden
    return {"params": params | {"gru": gates}}


@pytest.mark.parametrize("layers", [1, 2])
def test_gru_is_that_of_flax(layers):
    network, flax_network = GRUNetwork(OUTPUTS, HIDDEN, layers), FlaxGRUNetwork(layers)
    params, sequence = network_params(network), observations(STEPS, 5)
    flax_params = to_flax(params)
    hidden, expected = jnp.zeros((5, HIDDEN)), []
    shapes = jax.eval_shape(flax_network.init, KEY, hidden, sequence[0])
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, flax_params)
    apply = jax.jit(flax_network.apply)
    for inputs in sequence:
        hidden, output = apply(flax_params, hidden, inputs)
        expected.append(output)
    np.testing.assert_allclose(network.apply(params, sequence), jnp.stack(expected), rtol=1e-5, atol=1e-6)


def test_gru_initial_weights_are_drawn_gate_by_gate():
    size = 64
    params = jax.jit(partial(new_params, GRUNetwork(OUTPUTS, size, 2)))(KEY)["params"]
    hidden = np.split(np.asarray(params["kernel_hidden"]), 3, axis=1)
    inputs = np.split(np.asarray(params["kernel_in"]), 3, axis=1)
    for block in hidden:
        np.testing.assert_allclose(block.T @ block, np.eye(size), atol=1e-5)
    for block in inputs:  # lecun_normal: variance 1 / fan_in, cut at two standard deviations of the uncut normal
        np.testing.assert_allclose(block.var() * size, 1.0, rtol=0.1)
        assert abs(block.mean()) < 4 / size / np.sqrt(size)
        assert np.abs(block).max() <= 2 / 0.87962566 / np.sqrt(size) + 1e-6
    for blocks in (hidden, inputs):
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert abs(np.corrcoef(blocks[i].ravel(), blocks[j].ravel())[0, 1]) < 0.1
    for name in ("bias_in", "bias_hidden"):
        assert not params[name].any()


def test_table_starts_as_the_uniform_policy():
    table = new_params(NETWORKS["table"])["params"]["logits"]
    np.testing.assert_array_equal(table, np.zeros((5, OUTPUTS)))


# ---------------------------------------------------------------------------------------------------- agent


class Echo(nn.Module):
    """A Q-network that gives back what it is given."""

    def initial_hidden(self, batch_shape=()):
        return jnp.zeros(batch_shape)

    def step(self, inputs, hidden):
        return inputs, hidden

    def __call__(self, inputs):
        return inputs


class PlainGame(MatrixGame):
    """A game with too many observations for a table."""

    all_observations = read_table = None


def make_agent(qvalue, actor=None, **options):
    actor = actor or GRUNetwork(OUTPUTS, HIDDEN, 2)
    options = {"game_length": STEPS - 1, "normalize_time": False, "output_scale": 1.0} | options
    return Agent(options.pop("game", PlainGame()), actor, qvalue, **options)


@pytest.mark.parametrize("normalize, last, batch", [(False, STEPS - 1, ()), (True, 1.0, (2, 3))])
def test_q_network_sees_the_time_appended_last(normalize, last, batch):
    agent = make_agent(Echo(), normalize_time=normalize)
    sequence = observations(STEPS, *batch)
    seen = agent.q_values(random_params(agent.init, KEY), sequence)
    np.testing.assert_array_equal(seen[..., :-1], sequence)
    expected = np.linspace(0, last, STEPS).reshape(-1, *[1] * len(batch))
    np.testing.assert_allclose(seen[..., -1], np.broadcast_to(expected, (STEPS, *batch)), rtol=1e-6)


def test_output_scale_multiplies_q_values_and_not_what_the_network_sees():
    sequence = observations(STEPS, 2)
    agent = make_agent(NETWORKS["mlp"])
    params = random_params(agent.init, KEY)
    scaled = dataclasses.replace(agent, output_scale=10.0)
    q_values, scaled_q_values = (jax.jit(one.q_values)(params, sequence) for one in (agent, scaled))
    np.testing.assert_allclose(scaled_q_values, 10 * q_values, rtol=1e-6)


@pytest.mark.parametrize("name, batch", [("mlp", (2, 3)), ("gru", (7,))])
def test_tabulated_q_values_are_those_of_the_network(name, batch):
    tabulated = make_agent(NETWORKS[name], game=MatrixGame(), output_scale=10.0, normalize_time=True)
    plain = dataclasses.replace(tabulated, game=PlainGame())
    params, sequence = random_params(plain.init, KEY), observations(STEPS, *batch)
    weights = np.random.default_rng(1).normal(size=(STEPS, *batch, OUTPUTS))

    def values(agent):
        def loss(params):
            q_values = agent.q_values(params, sequence)
            return (q_values * weights).mean(), q_values

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    (gradient, q_values), (expected_gradient, expected) = values(tabulated), values(plain)
    assert q_values.shape == (STEPS, *batch, OUTPUTS)
    np.testing.assert_allclose(q_values, expected, rtol=1e-5, atol=1e-5)
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, gradient, expected_gradient)
    assert all(np.abs(x).max() > 1e-3 for x in jax.tree.leaves(gradient.qvalue))


def test_an_agent_starts_differently_with_each_key_and_in_each_network():
    init = jax.jit(make_agent(NETWORKS["mlp"], NETWORKS["mlp"]).init)
    params, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    hidden_kernel = lambda network: np.asarray(network["params"]["Dense_1"]["kernel"])
    assert np.abs(hidden_kernel(params.actor) - hidden_kernel(other.actor)).max() > 0.1
    assert np.abs(hidden_kernel(params.qvalue) - hidden_kernel(other.qvalue)).max() > 0.1
    assert np.abs(hidden_kernel(params.actor) - hidden_kernel(params.qvalue)).max() > 0.1


@pytest.mark.parametrize("preset", ["mlp", "gru"])
def test_q_values_start_as_large_whatever_their_scale(preset):
    def first_q_values(scale):
        agent = setups.make_agent("ipd", setups.make_hp("ipd", f"hp={preset}", f"hp.qvalue.output_scale={scale}"))
        return jax.jit(lambda key: agent.q_values(agent.init(key), jnp.ones((4, 2, 4))))(KEY)

    np.testing.assert_allclose(first_q_values(10.0), first_q_values(1.0), rtol=1e-4)
