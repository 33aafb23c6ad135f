"""What can go wrong, with processes, signals and files as they are; test_resume.py has the rest of the table."""

import re
import resource
import signal

import pytest
import soak
from test_scripts import ROOT, jax_options, no_figures, only_run, rows, train  # noqa: F401 (fixtures)

import ipd
from loqa.games import GAMES
from loqa.run import directory as directories
from loqa.run import launch
from loqa.run.agents import load_agent
from loqa.run.config import RunError


def states(directory):
    return sorted(path.name for path in (directory / "checkpoints").glob("state_*.npz"))


def test_a_run_that_is_stopped_and_killed_ends_with_the_bits_of_one_that_was_not(tmp_path, no_figures):  # noqa: F811
    """By SIGTERM, after which the command that it prints resumes it, and by SIGKILL."""
    words = [*soak.words("ipd", 900), "hp.eval_every=300", "hp.checkpoint_every=100", "jax.num_devices=1"]
    process = soak.popen(["ipd.py", *words, f"hp.save_dir={tmp_path / 'stopped'}"], tmp_path)
    code, text = soak.send_at(process, " 300/900", signal.SIGTERM)
    (iteration,) = re.findall(r"stopped by SIGTERM. To resume from iteration (\d+):", text)
    assert code == 128 + signal.SIGTERM and 300 <= int(iteration) < 900 and "Traceback" not in text
    directory = only_run(tmp_path / "stopped")
    assert states(directory)[-1] == f"state_{int(iteration):09d}.npz"
    python, *command = text.split("To resume")[1].splitlines()[1].split()
    assert python == "python" and command[-1] == f"resume={directory}"

    code, text = soak.send_at(soak.popen(command, tmp_path), f"resumed from iteration {iteration}", signal.SIGKILL)
    assert code == -signal.SIGKILL, text
    for overrides in ([command[-1]], [*words, f"hp.save_dir={tmp_path / 'alone'}"]):
        launch.train("ipd", launch.compose("ipd", overrides), ipd.make_experiment)
    assert soak.compare(only_run(tmp_path / "alone"), directory) > 10


def test_numbers_that_are_not_finite_end_it(tmp_path, monkeypatch):
    """The learning rate overflows within a few iterations."""
    overrides = ["hp.qvalue.train.lr_loss_qvalue=1e38", "hp.num_iterations=50"]
    with pytest.raises(RunError) as end:
        train("ipd.py", tmp_path / "runs", *overrides, "hp.checkpoint_every=1")
    (iteration,) = re.findall(r"in iteration (\d+) agent/0/actor/params/logits became inf", str(end.value))
    assert 0 < int(iteration) < 50
    assert states(only_run(tmp_path / "runs"))[-1] == f"state_{int(iteration) - 1:09d}.npz"  # the last good one

    # Operation by operation, with the name of the one that is to blame, and where in the code it is.
    overrides += ["jax.jax_debug_nans=true", "jax.jax_disable_jit=true", "hp.game_length=1", "jax.num_devices=1"]
    nothing = dict.fromkeys(["mean_rewards_0", "mean_rewards_1", *GAMES["ipd"].columns.values()], 0.0)
    monkeypatch.setattr(ipd, "make_evaluation", lambda *_: lambda key, state: nothing)  # slow so, and not meant
    with pytest.raises(FloatingPointError, match=r"invalid value \(nan\) encountered in") as end:
        train("ipd.py", tmp_path / "slow", *overrides)
    assert [row["iteration"] for row in rows(only_run(tmp_path / "slow"))] == ["0"]
    assert any(f"{ROOT}/loqa/" in str(entry.path) for entry in end.traceback)


def test_a_disk_without_room_for_large_files_ends_nothing(tmp_path, monkeypatch, capsys):
    """A limit of the size of a file, as a full disk, fails in the middle of writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write_whole(path, function, write_whole=directories.write_whole):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20 * 1024, before[1]))
        try:
            write_whole(path, function)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(directories, "write_whole", write_whole)
    directory = train("ipd.py", tmp_path, "hp.num_iterations=30", "hp.eval_every=10", "hp.checkpoint_every=10")
    out = capsys.readouterr().out
    for name in ("checkpoints/state_000000010.npz", "curves.png", "cooperation_0.png"):
        assert out.count(f"{name} could not be written (File too large); the run continues") == 1
    assert "checkpoints/state_000000020.npz" not in out  # logged once
    assert [row["iteration"] for row in rows(directory)] == ["0", "10", "20", "30"]
    load_agent(directory / "agents" / "agent_0_000030.npz")
    left = [path.name for path in directory.rglob("*") if path.is_file() and "agent" not in path.name]
    assert sorted(left) == [".lock", "config.yaml", "log.txt", "metrics.csv", "summary.json"]  # nothing half written
