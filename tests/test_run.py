"""Run: what a training run writes and prints, what stops it, and that no trouble with any of it ends it."""

import csv
import io
import json
import math
import os
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hydra.types import RunMode

from loqa.run import directory, metrics_file, provenance, terminal
from loqa.run.config import ConfigError, WandbConfig
from loqa.run.run import Resumed, Run
from loqa.run.signals import StopSignals

CONFIG_YAML = "hp:\n  seed: 1\n  actor:\n    network: logits\n    train: {lr_loss_actor: 0.001}\n"
ROOT = Path(__file__).resolve().parent.parent
needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


def make_run(save_dir, seed=1, resumed=None, wandb_state=False, **wandb_options):
    hp = dict(seed=seed, run_name=f"ipd_seed{seed}", save_dir=str(save_dir), total_iterations=700)
    wandb = dict.fromkeys(WandbConfig.model_fields) | dict(state=wandb_state, mode="online", project="p", tags=["a"])
    config = SimpleNamespace(
        hp=SimpleNamespace(**hp, env_steps_per_iteration=1000, model_dump=dict),
        wandb=WandbConfig(**wandb | wandb_options),
    )
    return Run("ipd", config, CONFIG_YAML, resumed)


def log(run, iteration, reward=-1.0):
    run.log({"iteration": iteration, "env_steps": iteration * 1000, "reward": reward}, {"reward": reward})


def read(run):
    with open(run.directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def iterations(run):
    return [int(row["iteration"]) for row in read(run)]


# ------------------------------------------------------------------------------------------------ the directory


def test_two_runs_in_the_same_second_get_two_directories(tmp_path, monkeypatch):
    monkeypatch.setattr(directory.time, "strftime", lambda _: "20240102-030405")
    names = [make_run(tmp_path).directory.name for _ in range(3)]
    assert names == ["ipd_seed1_20240102-030405" + suffix for suffix in ("", "_1", "_2")]
    assert (tmp_path / names[2] / "config.yaml").read_text() == CONFIG_YAML


def test_an_impossible_save_dir_is_a_config_error(tmp_path):
    (tmp_path / "file").write_text("")
    for save_dir in ("file/below", "nul\0", "x" * 300):
        with pytest.raises(ConfigError, match="hp.save_dir is .*: ") as error:
            make_run(tmp_path / save_dir)
        assert "\n" not in str(error.value)


def test_a_directory_in_use_is_refused_until_it_is_free(tmp_path):
    with make_run(tmp_path) as run:
        again = Resumed(run.directory, {}, None)
        with pytest.raises(ConfigError, match="is in use: another process trains in it"):
            make_run(tmp_path, resumed=again)
    with make_run(tmp_path, resumed=again) as run:
        log(run, 0)
    (run.directory / "config.yaml").unlink()
    (run.directory / "config.yaml").mkdir()  # cannot be written: the lock is given back, too
    for _ in range(2):
        with pytest.raises(ConfigError, match="where no run can be written: Is a directory"):
            make_run(tmp_path, resumed=again)


def test_write_is_all_or_nothing(tmp_path, capsys):
    def fails(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with make_run(tmp_path) as run:
        assert run.write("agents/a.npz", lambda path: np.savez(path, x=np.ones(3)))
        assert not run.write("agents/a.npz", fails) and not run.write("agents/c.npz", fails)
        with pytest.raises(ZeroDivisionError):
            run.write("agents/b.npz", lambda path: path.write_text("half") and 1 / 0)
        assert [path.name for path in (run.directory / "agents").iterdir()] == ["a.npz"]
        assert np.load(run.directory / "agents" / "a.npz")["x"].tolist() == [1, 1, 1]
        assert run.write("agents/c.npz", lambda path: path.write_text("x"))
    out = capsys.readouterr().out
    assert out.count("could not be written") == out.count("could be written again") == 1
    assert "agents/a.npz could not be written (No space left on device); the run continues without it" in out


# -------------------------------------------------------------------------------------------------- metrics.csv


def test_read_metrics():
    text = "iteration,env_steps,x\n0,0,\n100,102400,-1.5\n200,20"  # the last row is half written
    metrics = metrics_file.read_metrics(text)
    assert list(metrics) == ["iteration", "env_steps", "x"]
    np.testing.assert_array_equal(metrics["iteration"], [0, 100])
    np.testing.assert_array_equal(metrics["x"], [np.nan, -1.5])
    assert metrics_file.read_metrics("iteration,x\n")["x"].shape == (0,)


def test_metrics_csv_has_each_row_at_once_and_exact_in_float32(tmp_path):
    values = np.array([-1.2345678, 1e-30, 3.1415927, np.nan], np.float32)
    with make_run(tmp_path) as run:
        assert run.last_iteration is None and run.metrics() == {}
        for iteration, value in enumerate(values):
            run.log({"env_steps": iteration * 10**10, "b": value, "iteration": iteration}, {})
            assert len(read(run)) == iteration + 1
        assert run.last_iteration == 3
    rows = read(run)
    assert list(rows[0]) == ["iteration", "walltime", "env_steps", "b"]
    np.testing.assert_array_equal(np.array([row["b"] or "nan" for row in rows], np.float32), values)
    assert [row["env_steps"] for row in rows] == ["0", "10000000000", "20000000000", "30000000000"]
    walltimes = [float(row["walltime"]) for row in rows]
    assert walltimes == sorted(walltimes) and walltimes[0] > 0


def test_a_vanished_directory_costs_no_row_once_it_is_back(tmp_path, capsys):
    with make_run(tmp_path) as run:
        log(run, 0)
        away = run.directory.rename(tmp_path / "away")
        for iteration in (1, 2, 3):
            log(run, iteration)
        assert not run.write("plot.png", lambda path: path.write_text("x"))
        away.rename(run.directory)
        log(run, 4)
    assert iterations(run) == [0, 1, 2, 3, 4]
    out = capsys.readouterr().out
    assert out.count("metrics.csv could not be written (No such file or directory)") == 1
    assert out.count("metrics.csv could be written again") == 1
    assert out.count("plot.png could not be written (No such file or directory)") == 1


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.open("a").write("1,0.5")])
def test_a_deleted_file_and_half_a_row_of_a_full_disk_are_mended(tmp_path, damage):
    with make_run(tmp_path) as run:
        log(run, 0)
        damage(run.directory / "metrics.csv")
        assert list(run.metrics()["iteration"]) == [0]
        log(run, 1)
    assert iterations(run) == [0, 1]


def fill_disk(run):
    """The next row cannot be written."""
    (run.directory / ".metrics.unfinished.csv").symlink_to("/dev/full")


@needs_dev_full
def test_a_full_disk_is_logged_once_and_rows_are_written_later(tmp_path, capsys):
    with make_run(tmp_path) as run:
        for iteration in (0, 1):
            fill_disk(run)
            log(run, iteration)
        log(run, 2)
        assert iterations(run) == [0, 1, 2]
        fill_disk(run)
        log(run, 3)
    assert iterations(run) == [0, 1, 2, 3]  # at the end it is tried once more
    assert capsys.readouterr().out.count("metrics.csv could not be written (No space left on device)") == 2

    with make_run(tmp_path) as run:
        fill_disk(run)
        log(run, 5)
        fill_disk(run)
    assert "metrics.csv: the last rows are LOST" in capsys.readouterr().out


@needs_dev_full
def test_a_resumed_run_continues_its_table_and_its_clock(tmp_path):
    with make_run(tmp_path) as run:
        for iteration in (10, 20):
            log(run, iteration)
        metadata = {"iteration": 20, "run": json.loads(json.dumps(run.snapshot()))}
    file = run.directory / "metrics.csv"
    text = file.read_text()
    file.write_text(text + "30,9.9,30000,-1\n40,9.")  # killed after a row and a half that no checkpoint has
    with make_run(tmp_path, resumed=Resumed(run.directory, metadata, None)) as run:
        assert list(run.metrics()["iteration"]) == [10, 20] and run.last_iteration == 20
        fill_disk(run)
        log(run, 30)
        assert file.read_text().startswith(text)  # nothing that could not be written again is cut off
        log(run, 40)
        run.finish()
    assert file.read_text().startswith(text) and iterations(run) == [10, 20, 30, 40]
    assert run.metrics()["walltime"][2] > metadata["run"]["walltime"]
    assert json.loads((run.directory / "summary.json").read_text())["iteration"] == 40


def test_summary(tmp_path, capsys):
    with make_run(tmp_path) as run:
        run.log({"iteration": 700, "env_steps": 700_000, "reward": 0.5, "nothing": math.nan}, {})
        run.finish(lambda: run.log_line("as wanted"), reached="weak")
    summary = json.loads((run.directory / "summary.json").read_text())
    assert (summary["reward"], summary["nothing"], summary["reached"]) == (0.5, None, "weak")
    assert (summary["iteration"], summary["env_steps"]) == (700, 700_000)
    assert summary["walltime"] > 0 and summary["command"] == shlex.join(["python", *sys.argv])
    assert summary["versions"].keys() >= {"loqa", "jax", "flax", "optax", "numpy", "python"}
    assert summary["machine"]["cores"] >= 1 and summary["machine"]["device"]
    out = capsys.readouterr().out
    assert "config.yaml, log.txt, metrics.csv, summary.json" in out and "as wanted\n" in out
    assert (run.directory / "log.txt").read_text().partition("\n")[2] == out


def test_nothing_after_the_training_costs_its_summary(tmp_path, capsys):
    with make_run(tmp_path) as run:
        log(run, 700)
        run.finish(lambda: 1 / 0, lambda: run.log_line("drawn"))
    assert json.loads((run.directory / "summary.json").read_text())["iteration"] == 700
    out = capsys.readouterr().out
    assert out.count("the training is done, but not all that follows it: division by zero") == 1 and "drawn\n" in out


def test_why_a_run_ended_is_kept(tmp_path):
    with pytest.raises(KeyError), make_run(tmp_path) as run:
        raise KeyError("a bug")
    assert "KeyError: 'a bug'" in (run.directory / "log.txt").read_text()


@pytest.mark.parametrize(
    "before, now, told",
    [
        ("a", "a", ""),
        ("a-dirty", "a-dirty", "commit was a, with changes and is a, with changes, maybe others"),
        ("a", None, "commit was a and is unknown"),
    ],
)
def test_other_code_is_named(tmp_path, monkeypatch, capsys, before, now, told):
    monkeypatch.setattr(provenance, "commit", lambda: before)
    with make_run(tmp_path) as run:
        resumed = Resumed(run.directory, {"iteration": 0, "run": run.snapshot()}, None)
    monkeypatch.setattr(provenance, "commit", lambda: now)
    capsys.readouterr()
    with make_run(tmp_path, resumed=resumed) as run:
        assert run.snapshot()["commits"][-1] == now
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("commit was")]
    assert lines == [f"{told}: the numbers may differ from now on"] * bool(told)


@pytest.mark.parametrize(
    "words, task, launcher, recorded, resumes",
    [
        ("hp.seed=1 resume=auto", "hp.seed=1 resume=auto", "basic", "hp.seed=1", "resume=runs/one"),
        (
            "--config-dir mine hp=own",
            "hp=own",
            "basic",
            "--config-dir mine hp=own",
            "--config-dir mine resume=runs/one",
        ),
        ("-cd=mine hp=own", "hp=own", "basic", "-cd=mine hp=own", "-cd=mine resume=runs/one"),
        (
            "-m hp.seed=1,2 launcher=seeds jax.num_devices=2 resume=auto",
            "hp.seed=2 launcher=seeds jax.num_devices=2 resume=auto",
            "seeds",
            "hp.seed=2 jax.num_devices=1",
            "-m hp.seed=1,2 launcher=seeds jax.num_devices=2",
        ),
    ],
)
def test_recorded_commands(monkeypatch, words, task, launcher, recorded, resumes):
    config = SimpleNamespace(overrides=SimpleNamespace(task=task.split()))
    config.runtime, config.sweep = SimpleNamespace(choices={"launcher": launcher}), SimpleNamespace(dir="sweep")
    config.mode = RunMode.MULTIRUN if "-m" in words else RunMode.RUN
    monkeypatch.setattr(provenance, "HydraConfig", SimpleNamespace(initialized=lambda: True, get=lambda: config))
    monkeypatch.setattr(sys, "argv", ["ipd.py", *words.split()])
    assert provenance.commands("runs/one", 1) == (f"python ipd.py {recorded}", f"python ipd.py {resumes}")


def test_the_commit_of_a_checkout_and_of_none(tmp_path, monkeypatch):
    package = tmp_path / "loqa"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance.loqa, "__file__", str(package / "__init__.py"))
    git = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert provenance.commit() is None
    git(["git", "init"])
    assert provenance.commit() is None  # nothing is committed yet
    git(["git", "add", "."])
    git(["git", "-c", "user.name=me", "-c", "user.email=me@example.org", "commit", "-m", "first"])
    head = git(["git", "rev-parse", "HEAD"]).stdout.strip()
    assert provenance.commit() == head
    (package / "__init__.py").write_text("changed = True")
    assert provenance.commit() == f"{head}-dirty"


# ------------------------------------------------------------------------------------------------- the terminal


def test_the_first_lines_name_the_run_and_its_settings(tmp_path, capsys):
    run = make_run(tmp_path)
    first, command, settings, changes = capsys.readouterr().out.splitlines()
    assert changes == "unlike the published settings: nothing"
    assert first.endswith(f"ipd, preset unknown, seed 1: {run.directory}")  # composed without Hydra's command line
    assert command.startswith("python ") and settings == f"all settings: {run.directory}/config.yaml"


def test_the_table_is_aligned_and_repeats_its_header(tmp_path, capsys):
    with make_run(tmp_path) as run:
        capsys.readouterr()
        for iteration in range(25):
            log(run, iteration * 29, reward=-1.5 if iteration % 2 else 1.23456e-5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 27 and len({len(line) for line in lines}) == 1
    assert [i for i, line in enumerate(lines) if "steps/s" in line] == [0, 21]
    assert lines[1].split()[:4] == ["0/700", "-", "0:00", "-"]
    assert "-" not in lines[2].split()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_for_terminals_and_is_overwritten(monkeypatch, is_terminal):
    out = io.StringIO()
    out.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stdout", out)
    shown = terminal.Terminal(700, 1000, StopSignals())
    shown.row(0, 40.0, {"reward": 0.0})
    shown.progress(100, 42.0)
    shown.log_line("next")
    *progress, last = out.getvalue().splitlines()[-1 - is_terminal :]
    assert last.removeprefix("\x1b[K") == "next"
    if is_terminal:
        assert progress[0].removeprefix("\x1b[K").split() == ["100/700", "50.0k", "0:42", "0:12"]


def test_numbers_for_people():
    for function, cases in {
        terminal.human: {0: "0", 999: "999", 1000: "1.00k", 12345: "12.3k", 999999: "1.00M", 5e9: "5.00G"},
        terminal.clock: {0: "0:00", 59.9: "0:59", 61: "1:01", 3723: "1:02:03"},
        terminal.short: {1.0: "1.000", -0.5: "-0.500", -1e-7: "0.000", math.nan: "nan", 123456.0: "1.23e+05"},
    }.items():
        assert {value: function(value) for value in cases} == cases


@needs_dev_full
def test_output_on_a_full_disk_does_not_end_the_run(tmp_path, monkeypatch):
    # Unbuffered below the text layer, so that no bytes are left behind for the end of the process.
    out = io.TextIOWrapper(open("/dev/full", "wb", buffering=0), write_through=True)  # noqa: SIM115
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        with make_run(tmp_path) as run:
            log(run, 0)
    assert iterations(run) == [0]


def test_a_reader_that_has_gone_does_not_cost_the_checkpoint(tmp_path, monkeypatch):
    """`python ipd.py | tee log`, and Ctrl-C, which is tee's, too."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, pytest.raises(SystemExit), make_run(tmp_path) as run:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(BrokenPipeError):
            run.log_line("nobody reads this")
        os.kill(os.getpid(), signal.SIGTERM)
        run.log_line("nor this")
        run.stop(3)


# -------------------------------------------------------------------------------------------------- the signals


@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138), ("SIGHUP", 129)])
def test_a_signal_asks_to_stop(tmp_path, monkeypatch, capfd, name, code):
    monkeypatch.setattr(sys, "argv", ["ipd.py", "wandb.tags=[a, b]", "resume=auto"])
    number = getattr(signal, name)
    before = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    was = signal.signal(number, before)
    with pytest.raises(SystemExit) as end, make_run(tmp_path) as run:
        os.kill(os.getpid(), number)
        assert run.stop_signal == number and signal.getsignal(number) == before  # the next one is not caught
        run.stop(30)
    assert end.value.code == code and signal.signal(number, was) == before
    out = capfd.readouterr().out
    assert f"{name}: stopping soon" in out
    assert f"To resume from iteration 30:\n  python ipd.py resume={run.directory}\n" in out


def test_a_signal_that_was_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with make_run(tmp_path) as run:
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
        with pytest.raises(SystemExit) as end, make_run(tmp_path) as run:
            assert signal.getsignal(signal.SIGTERM) is requeue  # somebody else's
            os.kill(os.getpid(), signal.SIGUSR2)
            assert run.stop_signal == signal.SIGUSR2 and not called
            run.stop(10)
        assert called == [signal.SIGUSR2] and end.value.code == -1
    finally:
        signal.signal(signal.SIGUSR2, usr)
        signal.signal(signal.SIGTERM, term)


def test_a_multirun_resumes_by_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ipd.py", "-m", "hp.seed=1,2"])
    monkeypatch.setattr(provenance, "multirun_name", lambda: "20261123-120000")
    with pytest.raises(SystemExit), make_run(tmp_path) as run:
        os.kill(os.getpid(), signal.SIGTERM)
        run.stop(40)
    assert "from iteration 40:\n  python ipd.py -m hp.seed=1,2\n" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------- Weights & Biases


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
    """Puts a module in the place of wandb; `fake_wandb(fail)` returns it, with the list of its runs."""

    def fake(fail="", key=True):
        runs, asked = [], []

        def init(**options):
            asked.append(options)
            if fail in ("init", options["mode"]):
                raise RuntimeError("boom")
            runs.append(FakeRun(fail))
            return runs[-1]

        module = SimpleNamespace(run=None, runs=runs, asked=asked, init=init, Settings=dict)
        module.setup, module.login = lambda _: None, lambda **_: key
        monkeypatch.setitem(sys.modules, "wandb", module)
        return module

    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


@pytest.mark.parametrize("fail", ["init", "log", "finish"])
def test_wandb_trouble_is_logged_once_and_does_not_end_the_run(tmp_path, fake_wandb, capsys, fail):
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
    with pytest.raises(KeyboardInterrupt), make_run(tmp_path, wandb_state=True) as run:
        log(run, 0)
        raise KeyboardInterrupt
    assert len(read(run)) == 1
    first, second = wandb.runs
    [(step, row)] = first.rows
    assert step == 7 and row.keys() == {"iteration", "walltime", "env_steps", "reward"}
    assert (first.exit_codes, second.exit_codes) == ([0], [1])


def test_wandb_gets_the_names_of_the_configuration(tmp_path, fake_wandb):
    names = dict(project="p", entity="e", group="g", name="n", tags=["a", "b"], dir=str(tmp_path / "d"))
    wandb = fake_wandb()
    with make_run(tmp_path, wandb_state=True, **names):
        pass
    (asked,) = wandb.asked
    assert {key: asked[key] for key in names} == names
    assert asked["config"]["hp"]["seed"] == 1


@pytest.mark.parametrize("mode, rows", [("online", []), ("offline", [0, 5])])
def test_a_multirun_is_a_group_in_wandb_and_a_resumed_run_is_the_same_one(
    tmp_path, fake_wandb, monkeypatch, mode, rows
):
    monkeypatch.setattr(provenance, "multirun_name", lambda: "20261123-120000")
    wandb = fake_wandb()
    with make_run(tmp_path, wandb_state=True) as run:
        for iteration in (0, 5):
            log(run, iteration)
        resumed = Resumed(run.directory, {"run": run.snapshot()}, None)
    with make_run(tmp_path, resumed=resumed, wandb_state=True, mode=mode):
        pass
    first, second = wandb.asked
    assert first["group"] == second["group"] == "20261123-120000"
    assert first["name"] == second["name"] == run.directory.name
    assert (first["id"], second["id"], second["resume"]) == (None, "abc", "allow")
    assert [step for step, _ in wandb.runs[1].rows] == rows  # an offline run lacks none of the earlier part


def test_an_unreachable_server_means_offline(tmp_path, fake_wandb, capsys):
    wandb = fake_wandb(fail="online")
    with make_run(tmp_path, wandb_state=True):
        pass
    assert [asked["mode"] for asked in wandb.asked] == ["online", "offline"]
    assert capsys.readouterr().out.count("W&B: offline (boom). To upload this run later: wandb sync /w/run") == 1


def test_wandbs_own_variables_hold_where_the_configuration_says_nothing(tmp_path, fake_wandb, monkeypatch):
    wandb = fake_wandb()
    for name in ("PROJECT", "NAME", "RUN_GROUP", "DIR", "SILENT"):
        monkeypatch.setenv(f"WANDB_{name}", "mine")
    for names in ({"project": None}, {"project": "p", "name": "n"}):
        make_run(tmp_path, wandb_state=True, **names).__exit__(None, None, None)
    first, second = wandb.asked  # W&B reads its variables itself
    assert [first[key] for key in ("project", "name", "group", "dir")] == [None] * 4
    assert "silent" not in first["settings"]
    assert (second["project"], second["name"]) == ("p", "n")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    with make_run(tmp_path, wandb_state=True):
        assert len(wandb.asked) == 2


@pytest.mark.parametrize("mode, started", [("offline", ["offline"]), ("disabled", []), ("online", ["online"])])
def test_the_environment_decides_over_the_configuration(tmp_path, fake_wandb, monkeypatch, mode, started):
    wandb = fake_wandb()
    monkeypatch.setenv("WANDB_MODE", mode)
    with make_run(tmp_path, wandb_state=True):
        pass
    assert [asked["mode"] for asked in wandb.asked] == started
