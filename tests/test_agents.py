"""Saved agents: what was saved comes back, other files are refused, and the networks can be rebuilt."""

import io
import json
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import setups

from loqa.agent import AgentParams
from loqa.run.agents import FORMAT, load_agent, load_params, rebuild, save_agent
from loqa.run.config import ConfigError

KEY = jax.random.key(0)
PARAMS = AgentParams(
    actor={"params": {"dense_0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7}, "bias": np.ones(3)}},
    qvalue={"params": {"table": np.array([[1, -2]], np.int32), "scalar": np.float32(0.1)}},
)
DESCRIPTION = {"game": "coin", "iteration": 30, "hp": {"game": {"height": 3}, "save_dir": "é", "capacity": None}}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "agent_0_000030.npz"
    save_agent(path, PARAMS, DESCRIPTION)
    return path


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


class Trap:
    """Unpickling one is an error of the test."""

    def __reduce__(self):
        return pytest.fail, ("something in the file was executed",)


# ------------------------------------------------------------------------------------------- there and back


def test_what_was_saved_comes_back_from_arrays_and_text_that_numpy_reads_without_pickle(saved):
    params, description = load_agent(saved)
    assert isinstance(params, AgentParams)
    assert_same(params, PARAMS)
    assert description == DESCRIPTION | {"format": FORMAT}
    with np.load(saved, allow_pickle=False) as file:
        arrays = dict(file)
    assert set(arrays) == {
        "description",
        "actor/params/dense_0/kernel",
        "actor/params/bias",
        "qvalue/params/table",
        "qvalue/params/scalar",
    }
    assert json.loads(str(arrays["description"])) == DESCRIPTION | {"format": FORMAT}
    np.testing.assert_array_equal(arrays["qvalue/params/table"], [[1, -2]])


# ---------------------------------------------------------------------------------------------- other files


def refuse(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a saved agent: ")) as refusal:
        load_agent(path)
    sentence = str(refusal.value)
    assert not re.search("unsafe|allow_pickle|pickle.load", sentence)  # NumPy's advice
    return sentence


THIS_FORMAT = json.dumps({"format": FORMAT})
FOREIGN_FILES = {
    "empty": b"",
    "text": b"hello",
    "npz without a description": npz(x=np.ones(2)),
    "npz with another description": npz(description="the weights"),
    "npz with a list for a description": npz(description="[1]"),
    "npz without parameters": npz(description=THIS_FORMAT),
    "npz with half of the parameters": npz(description=THIS_FORMAT, **{"actor/x": np.ones(2)}),
    "npz with other parameters": npz(description=THIS_FORMAT, **{"critic/x": np.ones(2)}),
    "npz with objects": npz(description=np.array([Trap()], dtype=object)),
    "npy": npy(np.ones(2)),
    "npy with objects": npy(np.array([Trap()], dtype=object)),
    "pickle": pickle.dumps(Trap()),
}


def test_a_foreign_file_is_refused(tmp_path):
    for content in FOREIGN_FILES.values():
        refuse(tmp_path / "foreign.npz", content)
    sentence = refuse(
        tmp_path / "old.npz", npz(description='{"format": "loqa-agent-0"}', **{"actor/x": 1, "qvalue/x": 1})
    )
    assert f"its format is 'loqa-agent-0', but must be {FORMAT!r}" in sentence


def test_a_damaged_file_is_refused(saved):
    content = saved.read_bytes()
    for share in (0.001, 0.3, 0.5, 0.95):
        refuse(saved, content[: int(share * len(content))])
    place = content.index(PARAMS.actor["params"]["dense_0"]["kernel"].tobytes())
    assert "damaged" in refuse(saved, content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])


# ----------------------------------------------------------------------------------------------- its networks


def test_an_agent_to_start_from_must_have_the_networks(tmp_path):
    def ipd_agent(*overrides):
        return setups.make_agent("ipd", setups.make_hp("ipd", *overrides))

    path, agent = str(tmp_path / "agent.npz"), ipd_agent()
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), jax.eval_shape(agent.init, KEY))
    save_agent(path, params, {"game": "ipd"})
    assert_same(load_params(path, agent), params)
    with pytest.raises(ConfigError, match=r"qvalue/params/Dense_0/bias is \(16,\) there and \(8,\) here"):
        load_params(path, ipd_agent("hp.qvalue.hidden_size=8"))
    with pytest.raises(ConfigError, match=r"actor/params/bias_hidden is None there and \(32,\) here"):
        load_params(path, ipd_agent("hp=gru"))
    for name, value in (("output_scale", 7.0), ("time", "normalized")):  # else its Q-network would be misread
        save_agent(path, params, {"game": "ipd", "hp": {"qvalue": {name: value}}})
        with pytest.raises(ConfigError, match=f"{name} of its Q-network is .*, and here it is"):
            load_params(path, agent)
    flipped = {"game": "coin", "hp": {"game": {"height": 3, "width": 5}}}
    save_agent(path, params, flipped)
    with pytest.raises(ConfigError, match="it was trained on the 3x5 Coin Game, and this is the IPD"):
        load_params(path, agent)
    with pytest.raises(ConfigError, match="it was trained on the 3x5 Coin Game, and this is the 5x3 Coin Game"):
        board = setups.make_hp("coin", "hp.game.height=5", "hp.game.width=3")
        load_params(path, setups.make_agent("coin", board))
    (tmp_path / "pickle.npz").write_bytes(FOREIGN_FILES["pickle"])
    for name in ("pickle.npz", "nowhere.npz"):
        with pytest.raises(ConfigError, match="hp.init_from is '.*', but must be a saved agent") as refusal:
            load_params(str(tmp_path / name), agent)
        assert "unsafe" not in str(refusal.value)


def test_networks_are_rebuilt_from_the_description(tmp_path):
    words = ["hp.actor.hidden_size=5", "hp.actor.layers_before_gru=1", "hp.qvalue.hidden_size=6"]
    words += ["hp.qvalue.output_scale=3", "hp.qvalue.time=raw"]
    params, description = load_agent(setups.save(tmp_path / "agent.npz", "coin", *words))
    agent = setups.make_agent("coin", setups.make_hp("coin", *words))
    assert rebuild(description)[1] == agent
    assert jax.tree.map(np.shape, params) == jax.tree.map(jnp.shape, jax.eval_shape(agent.init, KEY))
