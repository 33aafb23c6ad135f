"""Checkpoints: bit for bit, whole or refused by name, and which run is resumed."""

import errno
import json
import os
import shlex
import shutil
import signal
import sys
from functools import cache, partial

import jax
import numpy as np
import pytest
import setups
from omegaconf import OmegaConf

import ipd
from loqa import buffers, learner
from loqa.run import checkpoints, provenance
from loqa.run import run as run_module
from loqa.run.agents import named_leaves
from loqa.run.checkpoints import Checkpoints
from loqa.run.config import CONFIGS, ConfigError, parse
from loqa.run.launch import compose
from loqa.run.run import Run

# Everything that a state can have: two learners, past agents of which 4 are held, and stored episodes.
OPTIONS = [
    "hp.batch_size=8",
    "hp.game_length=4",
    "hp.num_iterations=100",
    "hp.just_self_play=false",
    "hp.agent_1=naive",
    "hp.agent_replay_buffer.mode=enabled",
    "hp.agent_replay_buffer.capacity=4",
    "hp.agent_replay_buffer.update_freq=2",
    "hp.qvalue.replay_buffer.mode=enabled",
    "hp.qvalue.replay_buffer.capacity=20",
]
composed = cache(partial(compose, "ipd", OPTIONS))


def configured(save_dir, *overrides):
    cfg = OmegaConf.merge(composed(), OmegaConf.from_dotlist([f"hp.save_dir={save_dir}", *overrides]))
    return parse(cfg, CONFIGS["ipd"]), OmegaConf.to_yaml(cfg, resolve=True)


@cache
def start(hp):
    return learner.init(setups.make_agent("ipd", hp), hp, jax.random.key(hp.seed))


def new_state(hp):
    """The state before the first iteration."""
    return start(hp.model_copy(update={"save_dir": "anywhere", "init_from": None}))


def find(config):
    return checkpoints.find(config.resume, "ipd", config.hp, partial(new_state, config.hp))


def new_run(save_dir, *overrides):
    """A run, resumed if an override says so."""
    config, config_yaml = configured(save_dir, *overrides)
    return Run("ipd", config, config_yaml, find(config))


def resumed_state(save_dir, *overrides):
    with new_run(save_dir, *overrides) as run:
        return run.resumed.state


@cache
def iterate():
    hp = configured("unused")[0].hp
    return learner.repeat(ipd.make_iteration(hp, setups.make_agent("ipd", hp)))


def trained(iterations, state=None):
    new = jax.tree.map(lambda x: x.copy(), new_state(configured("unused")[0].hp))  # since it is donated
    return iterate()(state or new, iterations)


def assert_same_bits(one, two):
    """Of a ring only the slots that hold something are compared."""
    held = [min(int(ring.added), buffers.capacity(ring)) for ring in (me.past for me in one.learners)]
    one, two = named_leaves(one), named_leaves(two)
    assert one.keys() == two.keys()
    for name in one:
        x, y = one[name], two[name]
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        slots = slice(held[0]) if "/past/items/" in name and np.ndim(x) else ...
        np.testing.assert_array_equal(np.asarray(x)[slots], np.asarray(y)[slots], err_msg=name)


def log(run, iteration):
    run.log({"iteration": iteration, "env_steps": iteration * 64, "reward": -1.5}, {})


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    save_dir = tmp_path_factory.mktemp("template")
    with new_run(save_dir) as run:
        checkpoints, state = Checkpoints(run), None
        for iteration in (10, 20, 30, 40):
            state = trained(10, state)
            log(run, iteration)
            assert checkpoints.save(state)
    return run.directory


@pytest.fixture
def finished(template, tmp_path):
    """The directory of a run with checkpoints at iterations 10, 20, 30 and 40."""
    return shutil.copytree(template, tmp_path / template.name)


def states(directory):
    return sorted((directory / "checkpoints").glob("state_*.npz"))


# -------------------------------------------------------------------------------------------------- bit for bit


def test_a_resumed_run_has_the_bits_of_one_that_was_not_cut(tmp_path):
    state, done = trained(1), 1
    for cut in (2, 8, 25):
        with new_run(tmp_path, "resume=auto") as run:
            assert Checkpoints(run).save(state)
        with new_run(tmp_path, f"resume={run.directory}") as run:
            assert run.resumed.metadata["iteration"] == done
            state = trained(cut, run.resumed.state)
            done += cut
    assert_same_bits(state, trained(done))


def test_a_run_can_be_made_longer(tmp_path):
    """Its ring of past agents then has more slots; with 2 pushes in 100 iterations no agent is lost."""
    few = ["hp.agent_replay_buffer.update_freq=50", "hp.agent_replay_buffer.capacity=1000"]
    state = new_state(configured(tmp_path, *few)[0].hp)
    for _ in range(2):
        past = [jax.jit(buffers.add)(me.past, me.params) for me in state.learners]
        learners = [me._replace(past=ring) for me, ring in zip(state.learners, past, strict=True)]
        state = state._replace(learners=tuple(learners))
    with new_run(tmp_path, *few) as run:
        assert Checkpoints(run).save(state)
    longer = resumed_state(tmp_path, *few, "hp.num_iterations=500", "resume=auto")
    assert [buffers.capacity(one.learners[0].past) for one in (state, longer)] == [2, 10]
    assert_same_bits(longer, state)
    draw = lambda state: jax.jit(buffers.sample, static_argnums=2)(state.learners[1].past, jax.random.key(0), 8)
    jax.tree.map(np.testing.assert_array_equal, draw(longer), draw(state))


def test_past_agents_are_written_once(finished):
    folder = finished / "checkpoints"
    # Of 20 agents the last 4 are held: the 5 that each checkpoint adds make all earlier ones superfluous.
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"past_0000000{i}.npz" for i in ("06_000000010", "11_000000015", "16_000000020")),
        *(f"state_0000000{i}0.npz" for i in (2, 3, 4)),
    ]
    for path in states(finished):
        with np.load(path) as file:
            assert not [name for name in file.files if "/past/items/" in name and "added" not in name]
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with new_run(finished.parent, f"resume={finished}") as run:
        checkpoints = Checkpoints(run)
        checkpoints.save(trained(2, run.resumed.state))
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    new = {name for name in after if after[name] != before.get(name)}
    assert new == {"state_000000042.npz", "past_000000020_000000021.npz"}
    with np.load(folder / "past_000000020_000000021.npz") as file:
        assert {x.shape[0] for x in file.values()} == {1}


# --------------------------------------------------------------------------------- damaged and foreign checkpoints


def rewrite(path, change):
    """Writes the checkpoint again, after `change(arrays)`."""
    with np.load(path, allow_pickle=True) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)


def replace(**new):
    return lambda path: rewrite(path, lambda arrays: arrays.update(new))


def change_metadata(**new):
    return lambda path: rewrite(
        path, lambda arrays: arrays.update(metadata=json.dumps(json.loads(str(arrays["metadata"])) | new))
    )


def flip(path, where=None):
    data = bytearray(path.read_bytes())
    data[data.index(b"NUMPY") + 2 if where is None else int(where * len(data))] ^= 0xFF
    path.write_bytes(data)


LOGITS = "learners/0/params/actor/params/logits"
SEGMENT = "past_000000016_000000020.npz"
DAMAGED = {
    "truncated": (lambda path: os.truncate(path, path.stat().st_size // 2), "not a zip file"),
    "empty": (lambda path: path.write_bytes(b""), "not a zip file"),
    "a flipped byte": (flip, "state_000000040.npz is damaged"),
    "unreadable": (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    "another format": (change_metadata(format="loqa-checkpoint-0"), "its format is 'loqa-checkpoint-0'"),
    "no metadata": (lambda path: rewrite(path, lambda arrays: arrays.pop("metadata")), "metadata"),
    "a missing array": (lambda path: rewrite(path, lambda arrays: arrays.pop(LOGITS)), f"it has no {LOGITS}"),
    "a wrong shape": (
        replace(**{LOGITS: np.zeros((5, 3), np.float32)}),
        f"{LOGITS} is float32[5, 3], but must be float32[5, 2]",
    ),
    "a wrong type": (replace(**{LOGITS: np.zeros((5, 2))}), f"{LOGITS} is float64[5, 2], but must be float32[5, 2]"),
    "pickled objects": (replace(**{LOGITS: np.array([print], object)}), "has Python objects in it"),
    "no past agents": (lambda path: (path.parent / SEGMENT).unlink(), "No such file"),
    "damaged past agents": (lambda path: flip(path.parent / SEGMENT), f"{SEGMENT} is damaged"),
    "too few past agents": (
        lambda path: rewrite(path.parent / SEGMENT, lambda a: a.update({k: x[3:] for k, x in a.items()})),
        "it has 1 past agents, but must have 4",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_checkpoint_is_refused_by_name_and_auto_takes_the_one_before_it(finished, case, capsys):
    damage, reason = DAMAGED[case]
    damage(finished / "checkpoints" / "state_000000040.npz")
    with pytest.raises(ConfigError) as refusal:
        new_run(finished.parent, f"resume={finished}")
    assert "state_000000040.npz cannot be used" in str(refusal.value) and reason in str(refusal.value)
    assert "allow_pickle" not in str(refusal.value)
    with new_run(finished.parent, "resume=auto") as run:
        assert run.directory == finished and run.resumed.metadata["iteration"] == 30
        assert_same_bits(run.resumed.state, trained(30))
        if case == "truncated":  # the unusable one is deleted, with the first new one
            assert Checkpoints(run).save(trained(32))
            assert [path.stem for path in states(finished)] == [f"state_0000000{i}" for i in (20, 30, 32)]
    assert capsys.readouterr().out.count("state_000000040.npz cannot be used") == 1
    if case == "truncated":
        assert_same_bits(resumed_state(finished.parent, f"resume={finished}"), trained(32))


def test_no_flipped_byte_is_taken_for_a_state(finished):
    """Some bytes of a zip file mean nothing, such as its dates; with any other the checkpoint is refused."""
    path, refused = finished / "checkpoints" / "state_000000040.npz", 0
    expected, data, hp = trained(40), path.read_bytes(), configured(finished.parent)[0].hp
    for where in np.linspace(0, 0.9999, 60):
        flip(path, where)
        try:
            assert_same_bits(checkpoints.read(path, hp, partial(new_state, hp)).state, expected)
        except ConfigError:
            refused += 1
        path.write_bytes(data)
    assert 30 < refused < 60


def test_a_checkpoint_of_another_run_is_refused(finished):
    differences = "hp.seed is 42 there and 3 here; hp.batch_size is 8 there and 9 here"
    with pytest.raises(ConfigError, match=differences):
        new_run(finished.parent, "hp.batch_size=9", "hp.seed=3", f"resume={finished}")
    with pytest.raises(ConfigError, match="it is at iteration 40, but this run has 35"):
        new_run(finished.parent, "hp.num_iterations=35", f"resume={finished}")


def test_what_is_no_run_is_refused(finished, tmp_path):
    for directory in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match=r"which is not a run: config.yaml: No such file"):
            new_run(tmp_path, f"resume={directory}")
    (tmp_path / "archived").mkdir()
    (tmp_path / "archived" / "curves.csv").touch()
    with pytest.raises(ConfigError, match="an experiment of several runs: hp="):
        new_run(tmp_path, f"resume={tmp_path / 'archived'}")
    for text in ("hp: [", "3", "wandb: {}"):
        (finished / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"config.yaml: it is not a configuration"):
            new_run(tmp_path, f"resume={finished}")


# ----------------------------------------------------------------------------------------- which run is resumed


def test_auto_takes_the_newest_run_of_the_same_settings(finished, capsys, monkeypatch):
    save_dir = finished.parent
    with new_run(save_dir, "hp.batch_size=9") as other:
        Checkpoints(other).save(trained(1))
    with new_run(save_dir, "resume=auto") as run:
        assert run.directory == finished
        with pytest.raises(ConfigError, match="is in use: another process trains in it"):
            new_run(save_dir, "resume=auto")
    with new_run(save_dir, "resume=auto", "hp.batch_size=10") as run:
        assert run.resumed is None and run.directory not in (finished, other.directory)
    told = capsys.readouterr().out
    assert "nothing to resume, so this is a new run; the newest of this seed is" in told
    assert "a run with other settings: hp.batch_size is" in told
    with new_run(save_dir, "resume=auto", "hp.batch_size=10") as again:  # ended before its first checkpoint
        assert again.directory == run.directory and again.resumed.state is None
    with new_run(save_dir, "resume=auto", "hp.num_iterations=35") as shorter:  # a longer run is left alone
        assert shorter.resumed is None and len(states(finished)) == 3
    monkeypatch.setattr(provenance, "multirun_name", lambda: "20261123-120000")
    assert find(configured(save_dir, "resume=new")[0]) is None
    with new_run(save_dir) as run:  # a multirun resumes where it is not told to begin anew
        assert run.resumed.metadata["iteration"] == 40 and run.directory == finished


def test_auto_takes_the_furthest_checkpoint_whatever_the_times_of_files_say(finished):
    """As after a copy to another machine: the times are those of the copy, in any order."""
    with new_run(finished.parent) as later:
        Checkpoints(later).save(trained(10))
    for age, path in enumerate([*reversed(states(finished)), *states(later.directory)]):
        os.utime(path, (1e9 - age, 1e9 - age))
    with new_run(finished.parent, "resume=auto") as run:
        assert run.directory == finished and run.resumed.metadata["iteration"] == 40
        assert Checkpoints(run).save(trained(42))
    assert [path.stem for path in states(finished)] == [f"state_0000000{i}" for i in (30, 40, 42)]


def test_auto_takes_a_run_that_was_begun_after_a_finished_one(finished, monkeypatch):
    (finished / "summary.json").write_text('{"iteration": 40}')
    with new_run(finished.parent, "hp.num_iterations=40") as later:
        command = later.snapshot()["command"]
        Checkpoints(later).save(trained(10))
    monkeypatch.setattr(provenance, "commands", lambda *_: ("python ipd.py resume=there", ""))
    with new_run(finished.parent, "hp.num_iterations=40", "resume=auto") as run:
        assert run.directory == later.directory and run.snapshot()["command"] == command


def test_auto_finds_a_renamed_run_and_none_of_another_game(finished):
    moved = finished.rename(finished.with_name("the best one"))
    with new_run(finished.parent, "resume=auto") as run:
        assert run.directory == moved
    text = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(f"game: coin\n{text}")
    assert find(configured(finished.parent, "resume=auto")[0]) is None
    with pytest.raises(ConfigError, match="a run of another game: coin"):
        new_run(finished.parent, f"resume={moved}")


def test_auto_finds_a_run_by_its_seed_however_that_is_written(tmp_path):
    with new_run(tmp_path, "hp.seed=7.0") as run:
        assert Checkpoints(run).save(trained(1))
    with new_run(tmp_path, "hp.seed=7", "resume=auto") as again:
        assert again.directory == run.directory


def test_auto_passes_over_runs_of_other_networks(finished, capsys):
    words = ["hp=mlp", f"hp.save_dir={finished.parent}", "resume=auto"]
    assert find(parse(compose("ipd", words), CONFIGS["ipd"])) is None
    assert f"{finished.name}', a run with other settings: hp." in capsys.readouterr().out


def test_a_run_that_ended_without_checkpoints_is_not_trained_over(finished):
    with new_run(finished.parent, f"resume={finished}") as run:
        log(run, 100)
        run.finish()
    shutil.rmtree(finished / "checkpoints")
    for word in ("auto", str(finished)):
        config, _ = configured(finished.parent, f"resume={word}")
        assert find(config).is_finished(config.hp)
    assert find(configured(finished.parent, "hp.num_iterations=200", "resume=auto")[0]) is None
    with pytest.raises(ConfigError, match="ended and has no checkpoint to resume from"):
        new_run(finished.parent, "hp.num_iterations=200", f"resume={finished}")


def test_what_the_checkpoint_does_not_need_may_be_gone(finished, tmp_path, capsys):
    """The agent that the run was started from, the place of its directory, and the versions."""
    gone = "hp.init_from=gone.npz"
    with new_run(tmp_path, gone) as run:
        Checkpoints(run).save(trained(3))
    change_metadata(versions={"jax": "0.0.1"})(states(run.directory)[-1])
    moved = shutil.move(run.directory, tmp_path / "elsewhere")
    assert_same_bits(resumed_state(tmp_path, gone, f"resume={moved}"), trained(3))
    assert f"jax was 0.0.1 and is {jax.__version__}: the bits may differ" in capsys.readouterr().out


def test_the_command_to_resume_can_be_read_by_hydra(tmp_path, monkeypatch, capsys):
    path = "a,b=[c] 'd'"
    monkeypatch.setattr(run_module, "short_path", lambda _: path)
    monkeypatch.setattr(sys, "argv", ["ipd.py"])
    with pytest.raises(SystemExit), new_run(tmp_path) as run:
        os.kill(os.getpid(), signal.SIGTERM)
        run.stop(3)
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command == ["python", "ipd.py", f"resume={path}"]
    assert compose("ipd", command[2:]).resume == path


# ------------------------------------------------------------------------------------------ trouble with writing


def test_a_full_disk_is_logged_once_and_the_next_checkpoint_has_everything(tmp_path, monkeypatch, capsys):
    def full(*args, **arrays):
        raise OSError(errno.ENOSPC, "No space left on device")

    with new_run(tmp_path) as run:
        checkpoints, state = Checkpoints(run), trained(5)
        assert checkpoints.save(state)
        with monkeypatch.context() as patch:
            patch.setattr(np, "savez", full)
            for _ in range(2):
                state = trained(1, state)
                assert not checkpoints.save(state)
        assert checkpoints.iteration == 5
        state = trained(1, state)
        assert checkpoints.save(state)
    out = capsys.readouterr().out
    assert out.count("could not be written (No space left on device)") == 1
    assert out.count("could be written again") == 1
    assert_same_bits(resumed_state(tmp_path, "resume=auto"), state)


def test_a_checkpoint_is_whole_or_not_there(finished, monkeypatch):
    """The process dies while it writes: whatever it had written does not have the name of a checkpoint."""

    def die(source, target):
        raise KeyboardInterrupt

    with new_run(finished.parent, "resume=auto") as run:
        checkpoints = Checkpoints(run)
        monkeypatch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(trained(1, run.resumed.state))
    monkeypatch.undo()
    with new_run(finished.parent, "resume=auto") as run:
        assert run.resumed.metadata["iteration"] == 40
