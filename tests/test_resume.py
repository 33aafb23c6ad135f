"""Checkpoints: bit for bit, whole or refused; what a run hears and whom it locks out."""

import errno
import json
import os
import shlex
import shutil
import signal
import sys
from functools import cache

import jax
import numpy as np
import pytest
from loqa.builders import ipd_game_and_agent
from loqa.run.run_logging import Run
from omegaconf import OmegaConf

import ipd
from loqa import buffers, learner, training
from loqa.run import checkpoints as resume
from loqa.run import run_logging
from loqa.run.agents import save_agent
from loqa.run.checkpoints import Checkpoints
from loqa.run.config import ConfigError, IPDConfig, parse
from loqa.run.launch import compose

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


def composed(save_dir, *overrides):
    cfg = compose("ipd", [*OPTIONS, f"hp.save_dir={save_dir}", *overrides])
    return parse(cfg, IPDConfig), OmegaConf.to_yaml(cfg, resolve=True)


def new_run(save_dir, *overrides):
    """A run, resumed if an override says so."""
    config, config_yaml = composed(save_dir, *overrides)
    return Run("ipd", config, config_yaml, resume.find(config.resume, "ipd", config.hp))


@cache
def program():
    hp = composed("unused")[0].hp
    game, agent = ipd_game_and_agent(hp)
    settings = learner.settings_of_all(hp)
    start = lambda: training.init(agent, settings, hp, jax.random.key(hp.seed))
    return start, training.repeat(ipd.make_iteration(hp, game, agent, settings))


def trained(iterations, state=None):
    start, iterate = program()
    return iterate(state or start(), iterations)


def leaves(state):
    """All arrays of a state; of a ring only the slots that hold something."""
    for ring in state.past:
        held = min(int(ring.added), buffers.capacity(ring))
        yield from (np.asarray(x[:held]) for x in jax.tree.leaves(ring.items))
    for leaf in jax.tree.leaves(state._replace(past=tuple(ring.added for ring in state.past))):
        yield jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def assert_same_bits(one, two):
    for x, y in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_array_equal(x, y)


def log(run, iteration):
    run.log({"iteration": iteration, "env_steps": iteration * 64, "reward": -1.5}, {})


@pytest.fixture
def finished(tmp_path):
    """The directory of a run with checkpoints at iterations 10, 20, 30 and 40."""
    with new_run(tmp_path) as run:
        checkpoints, state = Checkpoints(run), None
        for iteration in (10, 20, 30, 40):
            state = trained(10, state)
            log(run, iteration)
            assert checkpoints.save(state)
    return run.directory


def states(directory):
    return sorted((directory / "checkpoints").glob("state_*.npz"))


# ------------------------------------------------------------------------------------------------ bit for bit


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 8), (7, 20)], ids=str)
def test_a_resumed_run_has_the_bits_of_one_that_was_not_cut(tmp_path, cuts):
    state, at, resumed_from = trained(cuts[0]), cuts[0], []
    for cut in (*cuts[1:], 25):
        with new_run(tmp_path, "resume=auto") as run:
            assert Checkpoints(run).save(state)
        with new_run(tmp_path, f"resume={run.directory}") as run:
            resumed_from.append(run.resumed.about["iteration"])
            state = trained(cut, Checkpoints(run).resumed_state)
            at += cut
    assert resumed_from == list(np.cumsum(cuts))
    assert_same_bits(state, trained(at))


def test_a_run_can_be_made_longer(tmp_path):
    """Its ring of past agents then has more slots; with 2 pushes in 100 iterations no agent is lost."""
    few = ["hp.agent_replay_buffer.update_freq=50", "hp.agent_replay_buffer.capacity=1000"]
    config, _ = composed(tmp_path, *few)
    game, agent = ipd_game_and_agent(config.hp)
    settings = learner.settings_of_all(config.hp)
    iterate = training.repeat(ipd.make_iteration(config.hp, game, agent, settings))
    state = iterate(training.init(agent, settings, config.hp, jax.random.key(42)), 60)
    assert buffers.capacity(state.past[0]) == 2
    with new_run(tmp_path, *few) as run:
        Checkpoints(run).save(state)
    with new_run(tmp_path, *few, "hp.num_iterations=500", "resume=auto") as run:
        resumed = Checkpoints(run).resumed_state
    assert buffers.capacity(resumed.past[0]) == 10
    assert_same_bits(iterate(resumed, 5), iterate(state, 5))


def test_past_agents_are_written_once(finished):
    files = sorted(path.name for path in (finished / "checkpoints").iterdir())
    # Of 20 agents the last 4 are held: the 5 that each checkpoint adds make all earlier ones superfluous.
    assert [name for name in files if name.startswith("state")] == [f"state_0000000{i}0.npz" for i in (2, 3, 4)]
    assert [name for name in files if name.startswith("past")] == [
        f"past_0000000{i}.npz" for i in ("06_000000010", "11_000000015", "16_000000020")
    ]
    for path in states(finished):
        with np.load(path) as file:
            assert not [name for name in file.files if name.startswith("past/") and "added" not in name]
    before = {path.name: path.stat().st_mtime_ns for path in (finished / "checkpoints").iterdir()}
    with new_run(finished.parent, f"resume={finished}") as run:
        checkpoints = Checkpoints(run)
        checkpoints.save(trained(2, checkpoints.resumed_state))
    after = {path.name: path.stat().st_mtime_ns for path in (finished / "checkpoints").iterdir()}
    new = {name for name in after if after[name] != before.get(name)}
    assert new == {"state_000000042.npz", "past_000000020_000000021.npz"}
    with np.load(finished / "checkpoints" / "past_000000020_000000021.npz") as file:
        assert {x.shape[0] for x in file.values()} == {1}


def test_a_resumed_run_goes_on_with_its_table_and_its_clock(finished):
    text = (finished / "metrics.csv").read_text()
    with open(finished / "metrics.csv", "a") as file:
        file.write("50,9.9,3200,-1")  # the process was killed after a row and a half that no checkpoint knows
    earlier = json.loads(str(np.load(states(finished)[-1])["about"]))["run"]["walltime"]
    with new_run(finished.parent, "resume=auto") as run:
        assert list(run.metrics()["iteration"]) == [10, 20, 30, 40]
        log(run, 50)
        run.finish()
    after = (finished / "metrics.csv").read_text()
    assert after.startswith(text) and after.removeprefix(text).count("\n") == 1
    assert run.metrics()["walltime"][-1] > earlier
    assert json.loads((finished / "summary.json").read_text())["iteration"] == 50


# --------------------------------------------------------------------------------- broken and foreign checkpoints


def rewrite(path, change):
    """Writes the checkpoint again, after `change(arrays)`."""
    with np.load(path, allow_pickle=True) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)


def change_about(**changes):
    def change(arrays):
        about = json.loads(str(arrays["about"]))
        arrays["about"] = json.dumps(about | changes(about) if callable(changes) else about | changes)

    return lambda path: rewrite(path, change)


def flip(path, where):
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 0xFF
    path.write_bytes(data)


LOGITS = "learners/0/params/actor/params/logits"
BROKEN = {
    "truncated": (lambda path: os.truncate(path, path.stat().st_size // 2), "not a zip file"),
    "empty": (lambda path: path.write_bytes(b""), "not a zip file"),
    "text": (lambda path: path.write_text("nothing"), "not a zip file"),
    "a flipped byte": (lambda path: flip(path, 0.4), ""),
    "unreadable": (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    "another format": (change_about(format="loqa-checkpoint-0"), "its format is 'loqa-checkpoint-0'"),
    "another script": (change_about(script="coin"), "it is one of coin.py"),
    "no description": (lambda path: rewrite(path, lambda arrays: arrays.pop("about")), "about"),
    "half a description": (lambda path: rewrite(path, lambda a: a.update(about=str(a["about"])[:99])), ""),
    "a missing array": (lambda path: rewrite(path, lambda arrays: arrays.pop(LOGITS)), f"it has no {LOGITS}"),
    "a wrong shape": (
        lambda path: rewrite(path, lambda arrays: arrays.update({LOGITS: np.zeros((5, 3), np.float32)})),
        f"{LOGITS} is float32[5, 3], but must be float32[5, 2]",
    ),
    "a wrong type": (
        lambda path: rewrite(path, lambda arrays: arrays.update({LOGITS: np.zeros((5, 2))})),
        f"{LOGITS} is float64[5, 2], but must be float32[5, 2]",
    ),
    "pickled objects": (
        lambda path: rewrite(path, lambda arrays: arrays.update({LOGITS: np.array([print], object)})),
        "allow_pickle=False",
    ),
    "no past agents": (lambda path: (path.parent / "past_000000016_000000020.npz").unlink(), "No such file"),
    "broken past agents": (lambda path: flip(path.parent / "past_000000016_000000020.npz", 0.3), ""),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_checkpoint_is_refused_by_name_and_auto_goes_back_to_a_whole_one(finished, case, capsys):
    damage, reason = BROKEN[case]
    damage(finished / "checkpoints" / "state_000000040.npz")
    with pytest.raises(ConfigError) as refusal:
        new_run(finished.parent, f"resume={finished}")
    assert "state_000000040.npz cannot be used" in str(refusal.value) and reason in str(refusal.value)
    with new_run(finished.parent, "resume=auto") as run:
        assert run.directory == finished and run.resumed.about["iteration"] == 30
        assert_same_bits(Checkpoints(run).resumed_state, trained(30))
    assert capsys.readouterr().out.count("state_000000040.npz cannot be used") == 1


def test_no_flipped_byte_is_taken_for_a_state(finished):
    """Some bytes of a zip file mean nothing, such as its dates; with any other the checkpoint is refused."""
    path, refused = finished / "checkpoints" / "state_000000040.npz", 0
    expected, data = trained(40), path.read_bytes()
    for where in np.linspace(0, 0.9999, 60):
        flip(path, where)
        try:
            with new_run(finished.parent, f"resume={finished}") as run:
                assert_same_bits(Checkpoints(run).resumed_state, expected)
        except ConfigError:
            refused += 1
        path.write_bytes(data)
    assert refused > 30


REFUSED = {
    "other settings": (
        ["hp.batch_size=9", "hp.seed=3"],
        "hp.seed is 42 there and 3 here; hp.batch_size is 8 there",
    ),
    "fewer iterations": (["hp.num_iterations=35"], "it is at iteration 40, but this run has 35"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_of_another_run_is_refused(finished, case):
    overrides, reason = REFUSED[case]
    with pytest.raises(ConfigError) as refusal:
        new_run(finished.parent, *overrides, f"resume={finished}")
    assert reason in str(refusal.value)


def test_what_is_no_run_is_refused(finished, tmp_path):
    for directory, reason in ((tmp_path / "nowhere", "No such file"), (tmp_path, "No such file")):
        with pytest.raises(ConfigError, match=f"which is not a run: config.yaml: {reason}"):
            new_run(tmp_path, f"resume={directory}")
    for text in ("hp: [", "3", "wandb: {}"):
        (finished / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"config.yaml: it is not a configuration"):
            new_run(tmp_path, f"resume={finished}")


def test_auto_takes_the_newest_run_of_the_same_settings(finished, capsys):
    save_dir = finished.parent
    with new_run(save_dir, "hp.batch_size=9") as other:
        Checkpoints(other).save(trained(1))
    with new_run(save_dir, "resume=auto") as run:
        assert run.directory == finished
    with new_run(save_dir, "resume=auto", "hp.batch_size=10") as run:
        assert run.resumed is None and run.directory not in (finished, other.directory)
    assert "nothing to go on from, so this is a new run" in capsys.readouterr().out
    with new_run(save_dir, "resume=auto", "hp.batch_size=10") as again:  # ended before its first checkpoint
        assert again.directory == run.directory and Checkpoints(again).resumed_state is None


def test_a_longer_run_is_left_alone(finished, capsys):
    """Its checkpoints are whole, but of iterations that this run does not have."""
    with new_run(finished.parent, "hp.num_iterations=35", "resume=auto") as run:
        assert run.directory != finished and run.resumed is None
    assert len(states(finished)) == 3


def test_a_run_that_ended_without_checkpoints_is_not_trained_over(finished):
    with new_run(finished.parent, f"resume={finished}") as run:
        log(run, 100)
        run.finish()
    shutil.rmtree(finished / "checkpoints")
    hp = composed(finished.parent)[0].hp
    for word in ("auto", str(finished)):
        assert resume.find(word, "ipd", hp).is_finished(hp)
    longer = composed(finished.parent, "hp.num_iterations=200")[0].hp
    assert resume.find("auto", "ipd", longer) is None
    with pytest.raises(ConfigError, match="ended and has no checkpoint to go on from"):
        resume.find(str(finished), "ipd", longer)


def test_after_going_back_the_unusable_ones_are_gone(finished):
    os.truncate(states(finished)[-1], 100)
    with new_run(finished.parent, "resume=auto") as run:
        checkpoints = Checkpoints(run)
        assert checkpoints.save(trained(2, checkpoints.resumed_state))
    assert [path.stem for path in states(finished)] == [f"state_0000000{i}" for i in (20, 30, 32)]
    with new_run(finished.parent, f"resume={finished}") as run:
        assert_same_bits(Checkpoints(run).resumed_state, trained(32))


def test_a_saved_agent_that_it_began_with_may_be_gone(tmp_path):
    agent = tmp_path / "agent.npz"
    save_agent(agent, trained(1).learners[0].params, {"game": "ipd"})
    with new_run(tmp_path, f"hp.init_from={agent}") as run:
        Checkpoints(run).save(trained(3))
    agent.unlink()
    with new_run(tmp_path, f"hp.init_from={agent}", "resume=auto") as run:
        assert_same_bits(Checkpoints(run).resumed_state, trained(3))


# ----------------------------------------------------------------------------------------------- the surroundings


def test_a_reader_that_has_gone_does_not_lose_the_checkpoint(tmp_path, monkeypatch):
    """`python ipd.py | tee log`, and Ctrl-C, which is tee's, too."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, new_run(tmp_path) as run:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(BrokenPipeError):
            run.say("nobody reads this")
        run.stop_signal = signal.SIGINT
        run.say("nor this")
        run.stop_signal = None


def test_a_signal_at_the_very_end_of_a_job_ends_the_multirun(tmp_path, monkeypatch):
    monkeypatch.setattr(run_logging, "multirun_name", lambda: "20261123-120000")
    with pytest.raises(SystemExit) as end, new_run(tmp_path) as run:
        run.stop_signal = signal.SIGTERM
    assert end.value.code == 143


def test_a_full_disk_at_the_resume_does_not_cut_the_table(finished, monkeypatch):
    text = (finished / "metrics.csv").read_text()
    with new_run(finished.parent, "resume=auto") as run:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *_: None)
            open_file = open

            def full(path, mode="r", **options):
                file = open_file(path, mode, **options)
                if mode == "ab":
                    file.close()
                    raise OSError(errno.ENOSPC, "No space left on device")
                return file

            patch.setattr("builtins.open", full)
            log(run, 50)
        assert (finished / "metrics.csv").read_text() == text


@pytest.mark.parametrize("path, shown", [("a/b-1.c", "a/b-1.c"), ("a,b=[c] 'd'", r"'a,b=[c] \'d\''")])
def test_the_command_to_go_on_can_be_read_by_hydra(tmp_path, monkeypatch, capsys, path, shown):
    monkeypatch.setattr(run_logging, "_short_path", lambda _: path)
    monkeypatch.setattr(sys, "argv", ["ipd.py"])
    with pytest.raises(SystemExit), new_run(tmp_path) as run:
        run.stop_signal = signal.SIGTERM
        run.stop(3)
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command == ["python", "ipd.py", f"resume={shown}"]
    assert compose("ipd", command[2:]).resume == path


def test_a_full_disk_is_said_once_and_the_next_checkpoint_has_everything(tmp_path, monkeypatch, capsys):
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
    with new_run(tmp_path, "resume=auto") as run:
        assert_same_bits(Checkpoints(run).resumed_state, state)


def test_a_checkpoint_is_whole_or_not_there(finished, monkeypatch):
    """The process dies while it writes: whatever it had written does not have the name of a checkpoint."""

    def die(source, target):
        raise KeyboardInterrupt

    with new_run(finished.parent, "resume=auto") as run:
        checkpoints = Checkpoints(run)
        monkeypatch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(trained(1, checkpoints.resumed_state))
    monkeypatch.undo()
    with new_run(finished.parent, "resume=auto") as run:
        assert run.resumed.about["iteration"] == 40


def test_a_second_process_in_the_same_directory_is_refused(finished):
    with new_run(finished.parent, f"resume={finished}") as run:
        for override in (f"resume={finished}", "resume=auto"):
            with pytest.raises(ConfigError, match="is in use: another process trains in it"):
                new_run(finished.parent, override)
        log(run, 50)
    with new_run(finished.parent, f"resume={finished}"):
        pass


@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138), ("SIGHUP", 129)])
def test_a_signal_asks_to_stop(tmp_path, monkeypatch, capfd, name, code):
    monkeypatch.setattr(sys, "argv", ["ipd.py", "wandb.tags=[a, b]", "resume=auto"])
    number = getattr(signal, name)
    before = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    was = signal.signal(number, before)
    with pytest.raises(SystemExit) as end, new_run(tmp_path) as run:
        os.kill(os.getpid(), number)
        assert run.stop_signal == number and signal.getsignal(number) == before  # the next one is not caught
        run.stop(30)
    assert end.value.code == code and signal.signal(number, was) == before
    out = capfd.readouterr().out
    assert f"{name}: stopping soon" in out
    assert f"To go on from iteration 30:\n  python ipd.py 'wandb.tags=[a, b]' resume={run.directory}" in out


def test_a_signal_that_was_ignored_stays_ignored(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with new_run(tmp_path) as run:
            os.kill(os.getpid(), signal.SIGHUP)
            assert run.stop_signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_schedulers_own_handler_is_called_after_the_checkpoint(tmp_path):
    called = []

    def requeue(number, frame):
        called.append(number)
        sys.exit(-1)

    usr, term = (signal.signal(number, requeue) for number in (signal.SIGUSR2, signal.SIGTERM))
    try:
        with pytest.raises(SystemExit) as end, new_run(tmp_path) as run:
            assert signal.getsignal(signal.SIGTERM) is requeue  # somebody else's
            os.kill(os.getpid(), signal.SIGUSR2)
            assert run.stop_signal == signal.SIGUSR2 and not called
            run.stop(10)
        assert called == [signal.SIGUSR2] and end.value.code == -1
    finally:
        signal.signal(signal.SIGUSR2, usr)
        signal.signal(signal.SIGTERM, term)


def test_a_multirun_goes_on_by_itself(finished, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ipd.py", "-m", "hp.seed=1,2"])
    for module in (resume, run_logging):
        monkeypatch.setattr(module, "multirun_name", lambda: "20261123-120000")
    with pytest.raises(SystemExit), new_run(finished.parent) as run:
        assert run.resumed.about["iteration"] == 40
        run.stop_signal = signal.SIGTERM
        run.stop(40)
    assert "from iteration 40:\n  python ipd.py -m hp.seed=1,2\n" in capsys.readouterr().out


def test_other_versions_are_said(finished, capsys):
    change_about(versions={"jax": "0.0.1"})(states(finished)[-1])
    with new_run(finished.parent, "resume=auto"):
        pass
    assert f"jax was 0.0.1 and is {jax.__version__}: the bits may differ" in capsys.readouterr().out


def test_a_directory_can_be_moved(finished, tmp_path):
    moved = tmp_path / "elsewhere" / finished.name
    shutil.move(finished, moved)
    with new_run(tmp_path / "elsewhere", f"resume={moved}") as run:
        assert_same_bits(Checkpoints(run).resumed_state, trained(40))
