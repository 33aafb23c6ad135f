"""What can go wrong, with processes, signals and files as they are; test_resume.py has the rest of the table."""

import re
import signal
import subprocess
import sys

import pytest
import soak
from test_scripts import ROOT, TINY, jax_options, only_run, rows, train  # noqa: F401 (a fixture)

import ipd
from loqa.games import GAMES
from loqa.run.agents import load_agent
from loqa.run.config import RunError


def states(directory):
    return sorted(path.name for path in (directory / "checkpoints").glob("state_*.npz"))


def test_a_run_that_is_stopped_and_killed_ends_with_the_bits_of_one_that_was_not(tmp_path):
    """By SIGTERM, after which the command that it prints resumes it, and by SIGKILL."""
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    settings = ["hp.eval_every=300", "hp.checkpoint_every=100"]
    process = soak.start("ipd", 900, alone, *settings)
    assert soak.send_at(process, "900/900", None)[0] == 0

    code, text = soak.send_at(soak.start("ipd", 900, stopped, *settings), " 300/900", signal.SIGTERM)
    (iteration,) = re.findall(r"stopped by SIGTERM. To resume from iteration (\d+):", text)
    assert code == 128 + signal.SIGTERM and 300 <= int(iteration) < 900 and "Traceback" not in text
    directory = only_run(stopped)
    assert states(directory)[-1] == f"state_{int(iteration):09d}.npz"
    python, *words = text.split("To resume")[1].splitlines()[1].split()
    assert python == "python" and words[-1] == f"resume={directory}"

    code, text = soak.send_at(soak.popen(words, stopped), f"resumed from iteration {iteration}", signal.SIGKILL)
    assert code == -signal.SIGKILL, text
    assert soak.send_at(soak.popen(words, stopped), "900/900", None)[0] == 0
    assert soak.compare(only_run(alone), directory) > 10


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


def test_a_disk_without_room_for_large_files_ends_nothing(tmp_path):
    """A limit of the size of a file, as a full disk, fails in the middle of writing."""
    words = [sys.executable, "ipd.py", *TINY["ipd.py"], f"hp.save_dir={tmp_path}"]
    command = f"ulimit -f 20; JAX_ENABLE_COMPILATION_CACHE=0 exec {' '.join(words)} "
    command += "hp.num_iterations=30 hp.eval_every=10 hp.checkpoint_every=10 hp.qvalue.hidden_size=30"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    directory = only_run(tmp_path)
    for name in ("checkpoints/state_000000010.npz", "curves.png", "cooperation_0.png"):
        assert result.stdout.count(f"{name} could not be written (File too large); the run continues") == 1
    assert "checkpoints/state_000000020.npz" not in result.stdout  # logged once
    assert [row["iteration"] for row in rows(directory)] == ["0", "10", "20", "30"]
    load_agent(directory / "agents" / "agent_0_000030.npz")
    left = [path.name for path in directory.rglob("*") if path.is_file() and "agent" not in path.name]
    assert sorted(left) == [".lock", "config.yaml", "log.txt", "metrics.csv", "summary.json"]  # nothing half written
