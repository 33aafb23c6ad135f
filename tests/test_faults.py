"""What can go wrong, with processes, signals and files as they are; test_resume.py has the rest of the table."""

import re
import signal
import subprocess
import sys

import soak
from test_scripts import ROOT, TINY, compilation_cache, only_run, rows, run  # noqa: F401 (a fixture)

from loqa.run.agents import load_agent


def states(directory):
    return sorted(path.name for path in (directory / "checkpoints").glob("state_*.npz"))


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(capsys):
    done = soak.soak("ipd", kills=3, iterations=30_000, startup=2.0, running=0.5, seed=1)
    assert done >= 1, capsys.readouterr().out


def test_a_signal_ends_it_with_a_checkpoint_and_the_command_to_go_on(tmp_path):
    command = [sys.executable, "ipd.py", *TINY["ipd.py"], f"hp.save_dir={tmp_path}", "hp.num_iterations=1000000"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        text = ""
        for line in process.stdout:
            text += line
            if line.strip().startswith("100/"):
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM, text
    directory = only_run(tmp_path)
    (iteration,) = re.findall(r"To go on from iteration (\d+):", text)
    assert f"state_{int(iteration):09d}.npz" in states(directory) and "Traceback" not in text
    command = text.split("To go on")[1].splitlines()[1].split()
    assert command[:2] == ["python", "ipd.py"] and command[-1] == f"resume={directory}"
    on = run("ipd.py", tmp_path, f"resume={directory}", f"hp.num_iterations={int(iteration) + 100}")
    assert f"resumed: goes on from iteration {iteration}" in on.stdout
    assert int(rows(directory)[-1]["iteration"]) == int(iteration) + 100


def test_numbers_that_are_not_finite_end_it(tmp_path):
    """The learning rate overflows within a few iterations."""
    overrides = ["hp.qvalue.train.lr_loss_qvalue=1e38", "hp.num_iterations=50"]
    result = run("ipd.py", tmp_path, *overrides, "hp.checkpoint_every=1", check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    sentence = result.stderr.splitlines()[-1]
    (iteration,) = re.findall(r"error: in iteration (\d+) actor/params/logits of agent 0 became inf", sentence)
    directory = only_run(tmp_path)
    assert 0 < int(iteration) < 50
    assert states(directory)[-1] == f"state_{int(iteration) - 1:09d}.npz"  # the last good one

    result = run("ipd.py", tmp_path, *overrides, "jax.jax_debug_nans=true", check=False)
    assert result.returncode == 1 and "FloatingPointError: invalid value (nan) encountered in" in result.stderr
    assert f'File "{ROOT}/loqa/' in result.stderr.split("FloatingPointError")[0]  # where in the code


def test_it_runs_operation_by_operation(tmp_path):
    run("ipd.py", tmp_path, "hp.num_iterations=1", "hp.game_length=2", "jax.jax_disable_jit=true")
    assert [row["iteration"] for row in rows(only_run(tmp_path))] == ["0", "1"]


def test_a_disk_without_room_for_large_files_ends_nothing(tmp_path):
    """A limit of the size of a file, as a full disk, fails in the middle of writing."""
    command = f"ulimit -f 20; exec {sys.executable} ipd.py {' '.join(TINY['ipd.py'])} hp.save_dir={tmp_path} "
    command += "hp.num_iterations=30 hp.eval_every=10 hp.checkpoint_every=10 hp.qvalue.hidden_size=30"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    directory = only_run(tmp_path)
    for name in ("checkpoints/state_000000010.npz", "curves.png", "tit_for_tat_0.png"):
        assert result.stdout.count(f"{name} could not be written (File too large); the run goes on") == 1
    assert "checkpoints/state_000000020.npz" not in result.stdout  # said once
    assert [row["iteration"] for row in rows(directory)] == ["0", "10", "20", "30"]
    load_agent(directory / "agents" / "agent_0_000030.npz")
    left = [path.name for path in directory.rglob("*") if path.is_file() and "agent" not in path.name]
    assert sorted(left) == [".lock", "config.yaml", "metrics.csv", "summary.json"]  # nothing half written
