"""Published agents: small ones in the published layout come back as ours, and nothing in a file is executed."""

import pickle
import zipfile
from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from flax.traverse_util import unflatten_dict

from loqa.rollout import draw_noise, rollout
from loqa.run.agents import load_agent, load_params, rebuild
from loqa.run.config import ConfigError
from loqa.tools import import_agents
from loqa.tools.import_agents import read_arrays
from loqa.tools.players import choose_players

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


def loqa_arrays(inputs=36):
    both = {"actor_head": network(inputs, 6, 2), "qvalue_head": network(inputs + 1, 5, 2)}
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


@pytest.fixture
def imported(tmp_path, tool):
    """Writes arrays as a published .npz file, imports it, and returns what `load_agent` reads."""

    def run(arrays, *options):
        np.savez(tmp_path / "theirs.npz", **arrays)
        tool("import_agents", tmp_path / "theirs.npz", "--out", tmp_path / "out", *options)
        return load_agent(tmp_path / "out" / "theirs.npz")

    return run


def test_a_loqa_agent_plays_and_values_as_by_hand(imported):
    arrays = LOQA
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


def test_kinds_are_named_and_not_guessed(tmp_path, tool):
    kinds = {}
    for kind in ("ablation", "published"):
        (tmp_path / kind).mkdir()
        np.savez(tmp_path / kind / f"{kind}_1.npz", **LOQA)
    np.savez(tmp_path / "pola.npz", **POLA)
    words = [tmp_path / "ablation", f"LOQA={tmp_path / 'published'}", tmp_path / "pola.npz"]
    tool("import_agents", *words, "--out", tmp_path / "out")
    tool("import_agents", tmp_path / "ablation" / "ablation_1.npz", "--out", tmp_path / "out" / "alone")
    for file in (tmp_path / "out").rglob("*.npz"):
        kinds[file.relative_to(tmp_path / "out").with_suffix("").as_posix()] = load_agent(file)[1]["kind"]
    told = {"ablation_1": "ablation", "published_1": "LOQA", "pola": "POLA", "alone/ablation_1": "LOQA's networks"}
    assert kinds == told


# ------------------------------------------------------------------------------------------------------ M-FOS

SIDE, FILTERS, HIDDEN = 3, 2, 3


def mfos_arrays():
    """A small M-FOS actor's arrays by PyTorch's names."""
    shapes = {"conv_a_0.weight": (FILTERS, 7, 3, 3), "conv_a_1.weight": (FILTERS, FILTERS, 3, 3)}
    shapes |= {"linear_a_0.weight": (HIDDEN, FILTERS * SIDE**2), "linear_a.weight": (4, HIDDEN)}
    shapes |= {f"{name.split('.')[0]}.bias": shape[:1] for name, shape in shapes.items()}
    shapes |= {f"GRU_a.weight_{x}_l0": (3 * HIDDEN, HIDDEN) for x in ("ih", "hh")}
    shapes |= {f"GRU_a.bias_{x}_l0": (3 * HIDDEN,) for x in ("ih", "hh")}
    return {name: RANDOM.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


MFOS = mfos_arrays()


def mfos_by_hand(arrays, boards, rewards):
    """PyTorch's network in NumPy, with loops: boards [T, 4, H, W], rewards [T, 2], mine first -> [T, 4]."""

    def conv(name, planes):
        weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
        padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="wrap")
        out = np.zeros((len(bias), SIDE, SIDE))
        for o, row, column in np.ndindex(out.shape):
            out[o, row, column] = bias[o] + (weight[o] * padded[:, row : row + 3, column : column + 3]).sum()
        return np.maximum(out, 0)

    linear = lambda name, x: arrays[f"{name}.weight"] @ x + arrays[f"{name}.bias"]
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    h, outputs = np.zeros(HIDDEN), []
    for board, (mine, theirs) in zip(boards, rewards, strict=True):
        constant = [np.full((1, SIDE, SIDE), x) for x in (mine, theirs, 0)]
        x = conv("conv_a_1", conv("conv_a_0", np.concatenate([board, *constant])))
        x = np.maximum(linear("linear_a_0", x.ravel()), 0)
        gi = np.split(arrays["GRU_a.weight_ih_l0"] @ x + arrays["GRU_a.bias_ih_l0"], 3)
        gh = np.split(arrays["GRU_a.weight_hh_l0"] @ h + arrays["GRU_a.bias_hh_l0"], 3)
        r, z = sigmoid(gi[0] + gh[0]), sigmoid(gi[1] + gh[1])
        h = (1 - z) * np.tanh(gi[2] + r * gh[2]) + z * h
        outputs.append(linear("linear_a", np.maximum(h, 0)))
    return np.array(outputs)


def torch_file(path, arrays, call=b"ctorch._utils\n_rebuild_tensor_v2\n", strides=None):
    """Writes what `torch.save` writes of a state dictionary, opcode by opcode, without PyTorch."""
    number = lambda x: b"J" + int(x).to_bytes(4, "little", signed=True)
    text = lambda x: b"X" + len(x).to_bytes(4, "little") + x.encode()
    values = lambda numbers: b"(" + b"".join(map(number, numbers)) + b"t"
    items = b""
    with zipfile.ZipFile(path, "w") as archive:
        for i, (name, array) in enumerate(arrays.items()):
            storage = text("storage") + b"ctorch\nFloatStorage\n" + text(str(i)) + text("cpu") + number(array.size)
            steps = strides or [x // 4 for x in array.strides]
            tensor = b"(" + storage + b"tQ" + number(0) + values(array.shape) + values(steps)
            empty = b"ccollections\nOrderedDict\n)R"
            items += text(name) + call + b"(" + tensor + b"\x89" + empty + b"tR"
            archive.writestr(f"theirs/data/{i}", array.tobytes())
        archive.writestr("theirs/data.pkl", b"\x80\x02}(" + items + b"u.")
        archive.writestr("theirs/version", "3")


def test_an_mfos_agent_plays_as_by_hand(tmp_path, tool):
    """From arrays and from PyTorch's file, over an episode in which both players earn something."""
    np.savez(tmp_path / "arrays.npz", **MFOS)
    torch_file(tmp_path / "theirs.pth", MFOS | {"conv_v_0.weight": np.ones((1, 7, 3, 3), np.float32)})
    tool("import_agents", tmp_path / "arrays.npz", tmp_path / "theirs.pth", "--out", tmp_path / "out")
    game, (one, same) = choose_players([str(tmp_path / "out")])
    assert one.kind == "M-FOS" and one.player == same.player
    jax.tree.map(np.testing.assert_array_equal, one.params, same.params)
    noise = draw_noise(jax.random.key(0), 40, 1)
    episode = jax.jit(partial(rollout, game, (one.player, same.player)))((one.params, same.params), noise)
    for seat in (0, 1):
        rewards = np.concatenate([np.zeros((1, 2)), episode.rewards[:, [seat, 1 - seat], 0]])
        boards = np.reshape(episode.observations[:, seat, 0], (-1, 4, SIDE, SIDE))
        right, left, down, up = mfos_by_hand(MFOS, boards, rewards).T
        np.testing.assert_allclose(
            episode.logits[:, seat, 0], np.stack([left, right, up, down], -1), atol=1e-3, rtol=1e-3
        )
        assert set(np.unique(rewards)) >= {-2.0, 1.0}


def test_a_file_of_pytorch_executes_nothing_and_stays_within_its_storage(tmp_path):
    torch_file(tmp_path / "bad.pth", MFOS, call=b"cos\nsystem\n")
    with pytest.raises(ValueError, match=r"os\.system"):
        read_arrays(tmp_path / "bad.pth")
    for strides in ([100, 1], [-1, -1]):
        torch_file(tmp_path / "bad.pth", {"x": np.ones((2, 2), np.float32)}, strides=strides)
        with pytest.raises(ValueError, match="cannot be read"):
            read_arrays(tmp_path / "bad.pth")


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
    "target and past agents": (
        4,
        {
            "agent0": tree(LOQA),
            "target0": {"target_params": tree(loqa_arrays())},
            "buffer": jax.tree.map(lambda x: np.stack([x, x]), tree(LOQA)),
        },
        [LOQA],
    ),
    "in Fortran's order": (4, OrderedDict(jax.tree.map(np.asfortranarray, tree(LOQA))), [LOQA]),
    "two POLA agents": (4, [FrozenDict(tree(POLA)), FrozenDict(tree(POLA_TOO))], [POLA]),  # see below
}


@pytest.mark.parametrize("protocol, content, expected", PICKLED.values(), ids=PICKLED)
def test_pickled_agents_are_those_of_the_arrays(tmp_path, tool, protocol, content, expected):
    (tmp_path / "theirs.pkl").write_bytes(pickle.dumps(content, protocol))
    tool("import_agents", tmp_path / "theirs.pkl", "--out", tmp_path / "out")
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


def test_names_are_refused_even_where_they_are_not_called(tmp_path):
    for words in (("os", "system"), ("builtins", "eval"), ("numpy", "load"), ("numpy", "ndarray.tofile")):
        code = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(x)]) + x.encode() for x in words) + b"\x93."
        (tmp_path / "bad.pkl").write_bytes(code)
        with pytest.raises(ValueError, match=".".join(words)):
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
    "half of M-FOS": (pickle.dumps({k: x for k, x in MFOS.items() if "GRU" not in k}), "GRU_a.bias_hh_l0"),
    "M-FOS of other shapes": (pickle.dumps(MFOS | {"linear_a.weight": np.ones((4, 5))}), "not a published agent"),
    "not square": (pickle.dumps(tree(loqa_arrays(inputs=4 * 2 * 5))), "40 inputs"),
    "five actions": (pickle.dumps(tree(network(36, 4, 1, outputs=5))), "output"),
}


@pytest.mark.parametrize("content, reason", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files_are_one_sentence(tmp_path, refusal, content, reason):
    path = tmp_path / "foreign.pkl"
    if content:
        path.write_bytes(content)
    sentence = refusal("import_agents", path, "--out", tmp_path / "out")
    assert str(path) in sentence and reason in sentence
    assert not (tmp_path / "out").exists()


def test_no_file_is_overwritten(tmp_path, monkeypatch, refusal):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "x.npz", **POLA)
    monkeypatch.chdir(tmp_path)
    for words in (["a/x.npz", "b/x.npz", "--out", "out"], ["a/x.npz", "--out", "a"]):
        assert "overwritten" in refusal("import_agents", *words)
