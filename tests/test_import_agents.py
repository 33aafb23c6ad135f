"""Published agents: small ones in the published layout come back as ours, and nothing in a file is executed."""

import pickle
import sys
from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from flax.traverse_util import unflatten_dict

from loqa.run.agents import load_agent, load_params, rebuild
from loqa.run.config import ConfigError
from loqa.tools import import_agents
from loqa.tools.import_agents import read_arrays

RANDOM = np.random.default_rng(0)
OBSERVATIONS = RANDOM.integers(0, 2, (4, 36)).astype(np.float32)


def network(inputs, hidden, layers, outputs=4):
    """A network's arrays by their published names."""
    sizes = {"linear1": (inputs, hidden), "linear2": (hidden, hidden), "linear_end": (hidden, outputs)}
    sizes |= {f"GRUCell/{gate}": (hidden, hidden) for gate in ("ir", "iz", "in", "hr", "hz", "hn")}
    if layers == 1:
        del sizes["linear2"]
    draw = lambda *shape: RANDOM.normal(size=shape).astype(np.float32)
    arrays = {f"{name}/kernel": draw(*shape) for name, shape in sizes.items()}
    without = ("GRUCell/hr", "GRUCell/hz")
    return arrays | {f"{name}/bias": draw(shape[1]) for name, shape in sizes.items() if name not in without}


def loqa_arrays(inputs=36, hidden=6, layers=2):
    both = {"actor_head": network(inputs, hidden, layers), "qvalue_head": network(inputs + 1, 5, 2)}
    return {f"{head}/ScanPOLAGruCell_0/{name}": x for head, arrays in both.items() for name, x in arrays.items()}


LOQA, POLA, POLA_TOO = loqa_arrays(), network(36, 4, 1), network(36, 4, 1)


def by_hand(arrays, inputs):
    """The published network in NumPy, [T, D] -> [T, A]."""
    at = lambda name, x: x @ arrays[f"{name}/kernel"] + arrays.get(f"{name}/bias", 0)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    h, outputs = np.zeros(arrays["GRUCell/hn/bias"].shape), []
    for x in inputs:
        x = np.maximum(at("linear1", x), 0)
        x = at("linear2", x) if "linear2/kernel" in arrays else x
        r, z = (sigmoid(at(f"GRUCell/i{gate}", x) + at(f"GRUCell/h{gate}", h)) for gate in "rz")
        n = np.tanh(at("GRUCell/in", x) + r * at("GRUCell/hn", h))
        h = (1 - z) * n + z * h
        outputs.append(at("linear_end", h))
    return np.array(outputs)


def run_import(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["import_agents", *map(str, words)])
    import_agents.main()


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Writes arrays as a published .npz file, imports it, and returns what `load_agent` reads."""

    def run(arrays, *options):
        np.savez(tmp_path / "theirs.npz", **arrays)
        run_import(monkeypatch, tmp_path / "theirs.npz", "--out", tmp_path / "out", *options)
        return load_agent(tmp_path / "out" / "theirs.npz")

    return run


@pytest.mark.parametrize("hidden, layers", [(6, 2), (3, 1)])
def test_a_loqa_agent_plays_and_values_as_by_hand(imported, hidden, layers):
    arrays = loqa_arrays(hidden=hidden, layers=layers)
    params, description = imported(arrays)
    game, agent = rebuild(description)
    assert (game.height, game.width) == (3, 3)
    head = lambda name: {key.split("_0/")[1]: x for key, x in arrays.items() if key.startswith(name)}
    np.testing.assert_allclose(
        jax.jit(agent.logits)(params, OBSERVATIONS), by_hand(head("actor"), OBSERVATIONS), atol=1e-4
    )
    with_time = np.concatenate([OBSERVATIONS, np.arange(4)[:, None]], axis=1)
    np.testing.assert_allclose(
        jax.jit(agent.q_values)(params, OBSERVATIONS), by_hand(head("qvalue"), with_time), atol=1e-4
    )


def test_a_pola_agent_plays_with_its_actions_in_our_order(imported):
    params, description = imported(POLA)
    _, agent = rebuild(description)
    right, left, down, up = by_hand(POLA, OBSERVATIONS).T
    logits = jax.jit(agent.logits)(params, OBSERVATIONS)
    np.testing.assert_allclose(logits, np.stack([left, right, up, down], -1), atol=1e-4)
    assert params.qvalue == {}


def test_training_can_start_from_a_loqa_agent_only(imported, tmp_path):
    params, description = imported(LOQA)
    _, agent = rebuild(description)
    path = str(tmp_path / "out" / "theirs.npz")
    jax.tree.map(np.testing.assert_array_equal, load_params(path, agent), params)
    _, agent = rebuild(imported(POLA)[1])
    with pytest.raises(ConfigError, match="qvalue/params/bias_hidden is None there"):
        load_params(path, agent)


# ---------------------------------------------------------------------------------------------- pickled files


def tree(arrays):
    return {"params": unflatten_dict(arrays, sep="/")}


PICKLED = {
    "numpy, protocol 2": (2, {"agent0": tree(LOQA), "hp": {"seed": 1, "name": "x"}}, [LOQA]),
    "numpy, protocol 5": (5, {"agent0": tree(LOQA), "agent1": tree(LOQA)}, [LOQA]),  # self-play: one agent
    "jax arrays": (4, {"agent0": jax.tree.map(jnp.asarray, tree(LOQA))}, [LOQA]),
    "fortran order": (4, jax.tree.map(np.asfortranarray, tree(LOQA)), [LOQA]),
    "target and past agents": (
        4,
        {
            "agent0": tree(LOQA),
            "target0": {"target_params": tree(loqa_arrays())},
            "buffer": jax.tree.map(lambda x: np.stack([x, x]), tree(LOQA)),
        },
        [LOQA],
    ),
    "an ordered dictionary": (4, OrderedDict(tree(LOQA)), [LOQA]),
    "two POLA agents": (4, [FrozenDict(tree(POLA)), FrozenDict(tree(POLA_TOO))], [POLA, POLA_TOO]),
}


@pytest.mark.parametrize("protocol, content, expected", PICKLED.values(), ids=PICKLED)
def test_pickled_agents_are_those_of_the_arrays(tmp_path, monkeypatch, protocol, content, expected):
    (tmp_path / "theirs.pkl").write_bytes(pickle.dumps(content, protocol))
    run_import(monkeypatch, tmp_path / "theirs.pkl", "--out", tmp_path / "out")
    files = sorted((tmp_path / "out").iterdir())
    assert [file.stem for file in files] == (["theirs"] if len(expected) == 1 else ["theirs_0", "theirs_1"])
    for file, arrays in zip(files, expected, strict=True):
        (same,) = import_agents.published_agents(arrays)
        jax.tree.map(np.testing.assert_array_equal, load_agent(file)[0], same)


class Calls:
    """Its pickle names a function and calls it."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_what_is_not_data_is_refused_by_name_and_not_executed(tmp_path):
    witness = tmp_path / "witness"
    make = partial(Calls, open, str(witness), "w")
    hidden_in_array = np.array([make()], dtype=object)
    for content in (make(), {"params": [1, make()]}, hidden_in_array, FrozenDict({"x": make()})):
        (tmp_path / "bad.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=r"io\.open"):
            read_arrays(tmp_path / "bad.pkl")
    assert not witness.exists()
    pickle.loads(pickle.dumps(make())).close()
    assert witness.exists()  # the trap works


@pytest.mark.parametrize(
    "module, name", [("os", "system"), ("builtins", "eval"), ("numpy", "load"), ("numpy", "ndarray.tofile")]
)
def test_names_are_refused_even_where_they_are_not_called(tmp_path, module, name):
    code = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(x)]) + x.encode() for x in (module, name)) + b"\x93."
    (tmp_path / "bad.pkl").write_bytes(code)
    with pytest.raises(ValueError, match=f"{module}.{name}"):
        read_arrays(tmp_path / "bad.pkl")


FOREIGN = {
    "missing": (None, "No such file"),
    "text": (b"hello", "cannot be read"),
    "cut off": (pickle.dumps(tree(LOQA))[:-100], "cannot be read"),
    "no agent": (pickle.dumps({"x": np.ones(3)}), "no array is named"),
    "objects": (pickle.dumps(np.array([{}], dtype=object)), "cannot be read"),
    "half an agent": (pickle.dumps(tree({k: x for k, x in LOQA.items() if "hn" not in k})), "hn/kernel"),
    "no Q-network": (pickle.dumps(tree({k: x for k, x in LOQA.items() if "actor" in k})), "qvalue_head"),
    "wrong shape": (pickle.dumps(tree(POLA | {"GRUCell/hn/bias": np.ones(3)})), "bias_hidden"),
    "not square": (pickle.dumps(tree(loqa_arrays(inputs=4 * 2 * 5))), "40 inputs"),
    "five actions": (pickle.dumps(tree(network(36, 4, 1, outputs=5))), "output"),
}


@pytest.mark.parametrize("content, reason", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files_are_one_sentence(tmp_path, monkeypatch, capsys, content, reason):
    path = tmp_path / "foreign.pkl"
    if content:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        run_import(monkeypatch, path, "--out", tmp_path / "out")
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert str(path) in sentence and reason in sentence
    assert not (tmp_path / "out").exists()


def test_no_file_is_overwritten(tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "x.npz", **POLA)
    cases = [["a/x.npz", "b/x.npz", "--out", "out"], ["a/x.npz", "--out", "a"]]
    monkeypatch.chdir(tmp_path)
    for words in cases:
        with pytest.raises(SystemExit, match="2"):
            run_import(monkeypatch, *words)
        assert "overwritten" in capsys.readouterr().err
