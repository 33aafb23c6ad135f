"""Run: what a training run writes and prints, and that no trouble with either ends it."""

import csv
import io
import json
import math
import os
import shlex
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from loqa.run import run_logging
from loqa.run.config import ConfigError
from loqa.run.run_logging import Run

CONFIG_YAML = "hp:\n  seed: 1\n  actor:\n    network: logits\n    train: {lr_loss_actor: 0.001}\n"
ROOT = Path(__file__).resolve().parent.parent


def make_config(save_dir, wandb_state=False, seed=1):
    hp = SimpleNamespace(
        seed=seed,
        run_name=f"ipd_seed{seed}",
        save_dir=str(save_dir),
        total_iterations=700,
        env_steps_per_iteration=1000,
    )
    wandb = SimpleNamespace(
        state=wandb_state,
        mode="online",
        project="p",
        entity=None,
        group=None,
        name=None,
        tags=("a",),
        dir=None,
    )
    return SimpleNamespace(hp=hp, wandb=wandb)


def make_run(save_dir, **options):
    return Run("ipd", make_config(save_dir, **options), CONFIG_YAML)


def log(run, iteration, reward=-1.0):
    run.log({"iteration": iteration, "env_steps": iteration * 1000, "reward": reward}, {"reward": reward})


def read(run):
    with open(run.directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_read_metrics():
    text = "iteration,env_steps,x\n0,0,\n100,102400,-1.5\n200,20"  # the last row is half written
    metrics = run_logging.read_metrics(io.StringIO(text))
    assert list(metrics) == ["iteration", "env_steps", "x"]
    np.testing.assert_array_equal(metrics["iteration"], [0, 100])
    np.testing.assert_array_equal(metrics["x"], [np.nan, -1.5])
    assert run_logging.read_metrics(io.StringIO("iteration,x\n"))["x"].shape == (0,)


def test_metrics_are_there_without_the_file(tmp_path):
    run = make_run(tmp_path)
    log(run, 5, -2.0)
    (run.directory / "metrics.csv").unlink()
    assert run.metrics()["iteration"] == [5] and run.metrics()["reward"] == [-2.0]


def test_two_runs_in_the_same_second_get_two_directories(tmp_path, monkeypatch):
    monkeypatch.setattr(run_logging.time, "strftime", lambda _: "20240102-030405")
    names = [make_run(tmp_path).directory.name for _ in range(3)]
    assert names == ["ipd_seed1_20240102-030405" + suffix for suffix in ("", "_1", "_2")]
    assert (tmp_path / names[2] / "config.yaml").read_text() == CONFIG_YAML


@pytest.mark.parametrize("save_dir", ["file", "file/below", "nul\0", "x" * 300])
def test_an_impossible_save_dir_is_a_config_error(tmp_path, save_dir):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="hp.save_dir is .*: ") as error:
        make_run(tmp_path / save_dir)
    assert "\n" not in str(error.value)


def test_the_hyperparameters_are_printed_in_groups(tmp_path, capsys):
    make_run(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["hp", "seed", "1"],
        ["actor", "network", "logits"],
        ["actor.train", "lr_loss_actor", "0.001"],
    ]


def test_wrapped_hyperparameters_stay_within_the_line():
    table = run_logging.hyperparameter_table({f"a_hyperparameter_{i}": i for i in range(30)})
    assert len(table.splitlines()) > 1
    assert max(map(len, table.splitlines())) <= 110
    assert all(f"a_hyperparameter_{i} {i}" in table for i in range(30))


def test_metrics_csv_has_each_row_at_once_and_exact_in_float32(tmp_path):
    values = np.array([-1.2345678, 1e-30, 3.1415927, np.nan], np.float32)
    with make_run(tmp_path) as run:
        for iteration, value in enumerate(values):
            run.log({"env_steps": iteration * 10**10, "b": value, "iteration": iteration}, {})
            assert len(read(run)) == iteration + 1
    rows = read(run)
    assert list(rows[0]) == ["iteration", "walltime", "env_steps", "b"]
    np.testing.assert_array_equal(np.array([row["b"] or "nan" for row in rows], np.float32), values)
    assert [row["env_steps"] for row in rows] == ["0", "10000000000", "20000000000", "30000000000"]
    walltimes = [float(row["walltime"]) for row in rows]
    assert walltimes == sorted(walltimes) and walltimes[0] > 0


def test_rows_with_other_keys_are_refused(tmp_path):
    with make_run(tmp_path) as run:
        log(run, 0)
        with pytest.raises(ValueError, match="surplus"):
            run.log({"iteration": 1, "env_steps": 1, "reward": 0.0, "surplus": 0.0}, {})
        log(run, 1)
    assert [row["iteration"] for row in read(run)] == ["0", "1"]


def test_the_terminal_table_is_aligned_and_repeats_its_header(tmp_path, capsys):
    with make_run(tmp_path) as run:
        capsys.readouterr()
        for iteration in range(25):
            log(run, iteration * 29, reward=-1.5 if iteration % 2 else 1.23456e-5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 27 and len({len(line) for line in lines}) == 1
    assert [i for i, line in enumerate(lines) if "steps/s" in line] == [0, 21]
    assert lines[1].split()[:5] == ["0/700", "0", "-", "0:00", "-"]
    assert "-" not in lines[2].split()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_for_terminals_and_is_overwritten(tmp_path, monkeypatch, terminal):
    with make_run(tmp_path) as run:
        out = io.StringIO()
        out.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stdout", out)
        run.progress(10)
        run.say("next")
    shown = out.getvalue()
    assert ("10/700" in shown) == terminal
    assert shown.endswith("\r\x1b[Knext\n" if terminal else "next\n")
    assert shown.count("\n") == 1


def test_numbers_for_people():
    assert [run_logging.human(n) for n in (0, 999, 1000, 12345, 1234567, 999999, 5e9)] == [
        *("0", "999", "1.00k", "12.3k", "1.23M", "1.00M", "5.00G")
    ]
    assert [run_logging.clock(s) for s in (0, 59.9, 61, 3723)] == ["0:00", "0:59", "1:01", "1:02:03"]
    assert [run_logging.short(v) for v in (1.0, 7, -0.5, 1e-7, float("nan"), "text")] == [
        *("1.000", "7", "-0.500", "1.00e-07", "nan", "text")
    ]


def test_a_vanished_directory_costs_no_row_once_it_is_back(tmp_path, capsys):
    with make_run(tmp_path) as run:
        log(run, 0)
        away = run.directory.rename(tmp_path / "away")
        for iteration in (1, 2, 3):
            log(run, iteration)
        assert not run.write("plot.png", lambda path: path.write_text("x"))
        away.rename(run.directory)
        log(run, 4)
    assert [row["iteration"] for row in read(run)] == list("01234")
    out = capsys.readouterr().out
    assert out.count("metrics.csv cannot be written (No such file or directory): rows from iteration 1") == 1
    assert out.count("no row is missing") == 1
    assert out.count("plot.png could not be written (No such file or directory)") == 1


def test_a_replaced_metrics_csv_is_written_from_the_start(tmp_path):
    with make_run(tmp_path) as run:
        log(run, 0)
        (run.directory / "metrics.csv").unlink()
        log(run, 1)
    assert [row["iteration"] for row in read(run)] == ["0", "1"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_said_once_and_rows_are_written_later(tmp_path, capsys):
    with make_run(tmp_path) as run:
        file = run.directory / "metrics.csv"
        file.symlink_to("/dev/full")
        for iteration in (0, 1):
            log(run, iteration)
        file.unlink()
        log(run, 2)
        assert [row["iteration"] for row in read(run)] == ["0", "1", "2"]
    assert capsys.readouterr().out.count("No space left on device") == 1

    with make_run(tmp_path) as run:
        (run.directory / "metrics.csv").symlink_to("/dev/full")
        log(run, 5)
    assert "the rows from iteration 5 on are LOST" in capsys.readouterr().out


def test_half_a_row_of_a_full_disk_is_cut_off(tmp_path):
    with make_run(tmp_path) as run:
        log(run, 0)
        with open(run.directory / "metrics.csv", "a") as file:
            file.write("1,0.5")
        log(run, 1)
    assert [row["iteration"] for row in read(run)] == ["0", "1"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_on_a_full_disk_does_not_end_the_run(tmp_path, monkeypatch):
    # Unbuffered below the text layer, so that no bytes are left behind for the end of the process.
    out = io.TextIOWrapper(open("/dev/full", "wb", buffering=0), write_through=True)  # noqa: SIM115
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        with make_run(tmp_path) as run:
            log(run, 0)
    assert len(read(run)) == 1


def test_write_is_all_or_nothing(tmp_path, capsys):
    def fails(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with make_run(tmp_path) as run:
        assert run.write("agents/a.npz", lambda path: np.savez(path, x=np.ones(3)))
        assert not run.write("agents/a.npz", fails)
        with pytest.raises(ZeroDivisionError):
            run.write("agents/b.npz", lambda path: path.write_text("half") and 1 / 0)
    assert [path.name for path in (run.directory / "agents").iterdir()] == ["a.npz"]
    assert np.load(run.directory / "agents" / "a.npz")["x"].tolist() == [1, 1, 1]
    assert "agents/a.npz could not be written (No space left on device)" in capsys.readouterr().out


def test_summary(tmp_path, capsys):
    with make_run(tmp_path) as run:
        run.log({"iteration": 700, "env_steps": 700_000, "reward": np.float32(0.5), "nothing": math.nan}, {})
        run.finish()
    summary = json.loads((run.directory / "summary.json").read_text())
    assert (summary["reward"], summary["nothing"]) == (0.5, None)
    assert (summary["iteration"], summary["env_steps"]) == (700, 700_000)
    assert summary["walltime"] > 0 and summary["command"] == shlex.join(["python", *sys.argv])
    assert summary["versions"].keys() >= {"loqa", "jax", "flax", "optax", "numpy", "python"}
    assert summary["machine"]["cores"] >= 1 and summary["machine"]["device"]
    out = capsys.readouterr().out
    assert "config.yaml, metrics.csv, summary.json" in out and "  reward     0.500" in out


def test_the_commit_of_a_checkout_and_of_none(tmp_path, monkeypatch):
    package = tmp_path / "loqa"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(run_logging.loqa, "__file__", str(package / "__init__.py"))
    git = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert run_logging.commit() is None
    git(["git", "init"])
    assert run_logging.commit() is None  # nothing is committed yet
    git(["git", "add", "."])
    git(["git", "-c", "user.name=me", "-c", "user.email=me@example.org", "commit", "-m", "first"])
    head = git(["git", "rev-parse", "HEAD"]).stdout.strip()
    assert run_logging.commit() == head
    (package / "__init__.py").write_text("changed = True")
    assert run_logging.commit() == f"{head}-dirty"


def test_an_exception_leaves_readable_files(tmp_path):
    with pytest.raises(KeyboardInterrupt), make_run(tmp_path) as run:
        log(run, 0)
        raise KeyboardInterrupt
    assert len(read(run)) == 1


# Weights & Biases


class FakeRun:
    """A W&B run that fails where it is told to."""

    def __init__(self, fail):
        self.fail, self.rows, self.exit_codes, self.id = fail, [], [], "abc"
        self.dir, self.url, self.summary = "/w/run/files", "https://wandb.test/run", {}

    def define_metric(self, name, step_metric):
        pass

    def log(self, row, step):
        if self.fail == "log":
            raise RuntimeError("boom\nand more")
        self.rows.append((step, row))

    def finish(self, exit_code=None):
        self.exit_codes.append(exit_code)
        if self.fail == "finish":
            raise TimeoutError("boom")


@pytest.fixture
def fake_wandb(monkeypatch):
    """Puts a module in the place of wandb; `fake(fail)` returns the list of its runs."""

    def fake(fail="", key=True):
        runs, modes, asked = [], [], []

        def init(mode, **options):
            modes.append(mode)
            asked.append(options)
            if fail == "init" or fail == mode:
                raise RuntimeError("boom")
            runs.append(FakeRun(fail))
            return runs[-1]

        module = SimpleNamespace(
            run=None,
            runs=runs,
            modes=modes,
            asked=asked,
            init=init,
            Settings=dict,
            setup=lambda _: None,
            login=lambda **_: key,
        )
        monkeypatch.setitem(sys.modules, "wandb", module)
        return module

    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


@pytest.mark.parametrize("fail", ["init", "log", "finish"])
def test_wandb_trouble_is_said_once_and_does_not_end_the_run(tmp_path, fake_wandb, capsys, fail):
    fake_wandb(fail)
    with make_run(tmp_path, wandb_state=True) as run:
        for iteration in range(3):
            log(run, iteration)
        run.finish()
    assert len(read(run)) == 3
    assert capsys.readouterr().out.count("boom") == 1


def test_wandb_gets_all_keys_in_one_row_and_the_exit_code(tmp_path, fake_wandb):
    wandb = fake_wandb()
    with make_run(tmp_path, wandb_state=True) as run:
        log(run, 7)
        run.finish()
    with pytest.raises(ZeroDivisionError), make_run(tmp_path, wandb_state=True):
        raise ZeroDivisionError
    first, second = wandb.runs
    [(step, row)] = first.rows
    assert step == 7 and row.keys() == {"iteration", "walltime", "env_steps", "reward"}
    assert first.summary["reward"] == row["reward"]
    assert (first.exit_codes, second.exit_codes) == ([0], [1])


def test_wandb_gets_the_names_of_the_configuration(tmp_path, fake_wandb):
    names = {
        "project": "p",
        "entity": "e",
        "group": "g",
        "name": "n",
        "tags": ("a", "b"),
        "dir": str(tmp_path / "d"),
    }
    wandb, config = fake_wandb(), make_config(tmp_path, wandb_state=True)
    for key, value in names.items():
        setattr(config.wandb, key, value)
    with Run("ipd", config, CONFIG_YAML):
        pass
    (asked,) = wandb.asked
    assert {key: asked[key] for key in names} == names | {"tags": ["a", "b"]}
    assert asked["config"]["hp"]["seed"] == 1


def test_a_multirun_is_a_group_in_wandb_and_a_resumed_run_is_the_same_one(tmp_path, fake_wandb, monkeypatch):
    monkeypatch.setattr(run_logging, "multirun_name", lambda: "20261123-120000")
    wandb = fake_wandb()
    with make_run(tmp_path, wandb_state=True) as run:
        about = {"run": run.snapshot()}
    resumed = SimpleNamespace(directory=run.directory, about=about)
    with Run("ipd", make_config(tmp_path, wandb_state=True), CONFIG_YAML, resumed):
        pass
    first, second = wandb.asked
    assert first["group"] == second["group"] == "20261123-120000"
    assert first["name"] == second["name"] == run.directory.name
    assert (first["id"], second["id"], second["resume"]) == (None, "abc", "allow")


def test_an_unreachable_server_means_offline(tmp_path, fake_wandb, capsys):
    wandb = fake_wandb(fail="online")
    with make_run(tmp_path, wandb_state=True):
        pass
    assert wandb.modes == ["online", "offline"]
    assert capsys.readouterr().out.count("W&B: offline (boom). To upload this run later: wandb sync /w/run") == 1


@pytest.mark.parametrize("mode, started", [("offline", ["offline"]), ("disabled", []), ("online", ["online"])])
def test_the_environment_decides_over_the_configuration(tmp_path, fake_wandb, monkeypatch, mode, started):
    wandb = fake_wandb()
    monkeypatch.setenv("WANDB_MODE", mode)
    with make_run(tmp_path, wandb_state=True):
        pass
    assert wandb.modes == started


def run_python(tmp_path, code):
    """Runs `code`, with the helpers of this file, in a new process without any W&B account."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    code = "import sys\nfrom test_run_logging import *\n" + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_neither_wandb_nor_jax_is_imported_without_need(tmp_path):
    done = run_python(
        tmp_path,
        """
        with make_run("runs") as run:
            log(run, 0)
        print([name for name in ("wandb", "jax", "matplotlib") if name in sys.modules])
        """,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_an_account_each_run_of_a_process_is_an_offline_wandb_run(tmp_path):
    pytest.importorskip("wandb")
    done = run_python(
        tmp_path,
        """
        for seed in (1, 2):
            with make_run("runs", wandb_state=True, seed=seed) as run:
                log(run, 0)
                log(run, 100)
                run.finish()
        """,
    )
    offline = [line for line in done.stdout.splitlines() if line.startswith("W&B")]
    assert len(offline) == 2 and all("no API key" in line for line in offline)
    files = sorted(tmp_path.glob("runs/ipd_seed*/wandb/offline-run-*/*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 2
    for file, line in zip(files, offline, strict=True):
        assert file.stat().st_size > 0
        assert line.endswith(f"wandb sync {file.parent.relative_to(tmp_path)}")
    assert done.stderr == ""
