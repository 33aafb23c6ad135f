"""What one training run prints and writes: its directory, metrics.csv, other files and Weights & Biases.

Nothing in here may end a training that goes well: a full disk, a directory that vanished or W&B trouble is
said once, and the run goes on.
"""

import contextlib
import csv
import importlib.metadata
import io
import itertools
import json
import math
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Self, TextIO

import numpy as np
import yaml

import loqa
from loqa.run.config import ConfigError
from loqa.run.launch import command, multirun_name, without_resume

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

# What ends a run after a checkpoint: Ctrl-C, a cluster's SIGTERM or SIGUSR1, a terminal that was closed, and
# SIGUSR2 where a scheduler hears it.
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGUSR2")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]

LINE_WIDTH = 110
HEADER_EVERY = 20  # lines of the terminal's table between two headers
WANDB_INIT_TIMEOUT = 20  # seconds to wait for the W&B server at the start
WANDB_FINISH_TIMEOUT = 60  # seconds to wait for uploads at the end
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")  # whose versions go into summary.json


class Run:
    """One training run: `with Run("ipd", config, config_yaml) as run: ...`, once for each seed.

    Args:
        script: "ipd" or "coin".
        config: has `hp` (`run_name`, `save_dir`, `total_iterations`, `env_steps_per_iteration`, ...) and `wandb`.
        config_yaml: the whole resolved configuration; written to `config.yaml` and given to W&B.
        resumed: what the run goes on from (`loqa.run.checkpoints.Checkpoint`), or None for a new one.

    Makes the directory `<save_dir>/<run_name>_<time>`, which is new even if another run starts in the
    same second; `directory` is its path and `settings` the configuration as nested dictionaries. A resumed run
    goes on in its own. Raises ConfigError if the directory cannot be made or written, or another process uses
    it. Leaving the `with` block finishes the W&B run, with exit code 1 after an exception.

    Within the block SIGTERM, SIGINT, SIGUSR1, SIGUSR2 and SIGHUP do not end the process: `stop_signal` is then the
    signal's number, and the loop is expected to checkpoint and call `stop`. A second one ends it at once.
    """

    def __init__(self, script: str, config, config_yaml: str, resumed=None):
        self._hp = config.hp
        self.resumed = resumed
        earlier = resumed.about.get("run", {}) if resumed else {}
        self._start = time.monotonic() - earlier.get("walltime", 0.0)
        self._csv = earlier.get("csv", "").encode()  # all of metrics.csv
        self._csv_saved = 0  # bytes of it that are on disk
        self._csv_lost_from: int | None = None  # iteration of the first row that could not be written
        rows = self.metrics()
        self._columns = list(rows)
        self._last = {"iteration": 0, "walltime": 0.0, "env_steps": 0}  # the newest row
        self._last |= {key: _number(column[-1]) for key, column in rows.items()}
        self._last |= {key: int(self._last[key]) for key in ("iteration", "env_steps")}
        self._seconds_per_iteration: float | None = None  # between the last two rows
        self._lines = 0
        self._transient = False  # the cursor stands behind a progress line
        self._wandb = None
        self._wandb_path = ""  # what `wandb sync` takes
        self._wandb_id: str | None = earlier.get("wandb_id")
        self._commits = list(dict.fromkeys([*earlier.get("commits", []), commit()]))
        self._failed: set[str] = set()  # kinds of files that could not be written
        self.stop_signal: int | None = None
        self._handlers: dict[int, Any] = {}  # of the signals that it hears, from before
        self.directory = resumed.directory if resumed else _make_directory(config.hp)
        self._lock = _lock(self.directory)
        try:
            _write_config(self.directory, config_yaml, config.hp)
        except ConfigError:
            self._unlock()  # the process may have other jobs
            raise
        self.settings = settings = yaml.safe_load(config_yaml)
        self.script = script
        self.say(f"LOQA {loqa.__version__}, {script}, seed {config.hp.seed}: {_short_path(self.directory)}")
        self.say(hyperparameter_table(settings["hp"]))
        if resumed:
            self._introduce_resumed()
        if config.wandb.state:
            self._start_wandb(config.wandb, settings)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def _introduce_resumed(self) -> None:
        about = self.resumed.about
        self.say(f"resumed: goes on from iteration {about.get('iteration', 0)}")
        now = versions()
        for name, before in about.get("versions", {}).items():
            if before != now.get(name):
                self.say(f"{name} was {before} and is {now.get(name)}: the bits may differ from now on")

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other one hear signals
            for number in SIGNALS:
                handler = signal.getsignal(number)
                # Not one that the process was started to ignore, as by nohup, nor one that is somebody else's. But
                # a scheduler's own, as of submitit to put a job in the queue again, follows after the checkpoint.
                if handler in (signal.SIG_DFL, signal.default_int_handler) or _is_schedulers(number, handler):
                    self._handlers[number] = signal.signal(number, self._hear)
        return self

    def _hear(self, number: int, frame) -> None:
        self.stop_signal = number
        self._restore_handlers()  # the next one does what it always does
        # Not print: the signal may have come in the middle of one.
        with contextlib.suppress(OSError):
            name = signal.Signals(number).name
            os.write(1, f"\n{name}: stopping soon, with a checkpoint (once more: at once)\n".encode())

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def stop(self, checkpoint: int | None) -> NoReturn:
        """Ends the process after `stop_signal`, and says how to go on from the iteration of its checkpoint.

        Raises:
          SystemExit: 128 + the signal's number; not an Exception, so that a multirun ends, too.
        """
        words = without_resume(sys.argv)
        if multirun_name() is None:  # a multirun goes on by itself when it is started again
            path = _short_path(self.directory)
            if not re.fullmatch(r"[A-Za-z0-9_./-]+", path):  # else Hydra would read more than a path in it
                path = "'" + path.replace("'", "\\'") + "'"
            words.append(f"resume={path}")
        where = (
            "from the beginning (there is no checkpoint)" if checkpoint is None else f"from iteration {checkpoint}"
        )
        name = signal.Signals(self.stop_signal).name
        self.say(f"stopped by {name}. To go on {where}:\n  python {shlex.join(words)}")
        if _is_schedulers(self.stop_signal, handler := self._handlers.get(self.stop_signal)):
            handler(self.stop_signal, None)
        raise SystemExit(128 + self.stop_signal)

    def snapshot(self) -> dict:
        """What a checkpoint keeps of the run itself; JSON."""
        about = {"csv": self._csv.decode(), "walltime": self._elapsed()}
        return about | {"wandb_id": self._wandb_id, "commits": self._commits}

    def __exit__(self, exception_type, exception, traceback) -> None:
        self._restore_handlers()
        self._write_rows()
        if self._csv_lost_from is not None:
            self.say(f"metrics.csv: the rows from iteration {self._csv_lost_from} on are LOST")
        if self._transient:
            self._print("\n")  # an exception's traceback comes next
        wandb_run, self._wandb = self._wandb, None
        if wandb_run is not None:
            problem = _attempt(lambda: wandb_run.finish(exit_code=0 if exception_type is None else 1))
            if problem:
                self.say(f"W&B did not finish ({problem}). To upload the rest: wandb sync {self._wandb_path}")
        self._unlock()
        number = self.stop_signal if exception_type is None and multirun_name() is not None else None
        if number is not None and not _is_schedulers(number, self._handlers.get(number)):
            # It came when all was done here. The jobs that follow have not heard it.
            raise SystemExit(128 + number)

    # The terminal

    def say(self, text: str) -> None:
        """Prints `text` at once, on lines of its own."""
        self._print(("\r\x1b[K" if self._transient else "") + text + "\n")
        self._transient = False

    def progress(self, iteration: int) -> None:
        """Shows how far the run is, on a terminal only, until something else is printed."""
        if sys.stdout.isatty():
            env_steps = iteration * self._hp.env_steps_per_iteration
            self._print("\r\x1b[K" + "  ".join(self._position(iteration, env_steps, self._elapsed())))
            self._transient = True

    def _print(self, text: str) -> None:
        try:
            print(text, end="", flush=True)
        except BrokenPipeError:
            if self.stop_signal is None:
                raise  # the reader has gone: `python ipd.py | head` ends as any program does
            # `python ipd.py | tee log`: the Ctrl-C was also tee's. The checkpoint is still to be written.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError:
            pass  # output that goes to a file on a full disk, or a terminal that was closed

    def _elapsed(self) -> float:
        return time.monotonic() - self._start

    def _position(self, iteration: int, env_steps: int, elapsed: float) -> list[str]:
        """The columns that say how far the run is."""
        total = self._hp.total_iterations
        speed, eta = "-", "-"
        if self._seconds_per_iteration is not None:
            speed = human(self._hp.env_steps_per_iteration / self._seconds_per_iteration)
            eta = clock((total - iteration) * self._seconds_per_iteration)
        position = f"{iteration:>{len(str(total))}}/{total}"
        widths = (9, 9, 7, 8, 8)
        texts = (position, human(env_steps), speed, clock(elapsed), eta)
        return [text.rjust(width) for text, width in zip(texts, widths, strict=True)]

    # The files

    def log(self, row: dict[str, float], headline: dict[str, float]) -> None:
        """Writes and prints one evaluation.

        Args:
            row: everything measured, `iteration` and `env_steps` among it; each row has the same keys. It goes
                to metrics.csv and to W&B together with `walltime`, the seconds since the run started.
            headline: the few numbers that the terminal shows.
        """
        first = {"iteration": row["iteration"], "walltime": self._elapsed(), "env_steps": row["env_steps"]}
        row = {key: _number(value) for key, value in (first | row).items()}
        if not self._columns:
            self._columns = list(row)
            self._csv += (",".join(row) + "\n").encode()
        if row.keys() != set(self._columns):
            raise ValueError(f"the keys of the rows differ: {sorted(row.keys() ^ set(self._columns))}")
        self._csv += (",".join(_csv_text(row[key]) for key in self._columns) + "\n").encode()

        if self._lines > 0 and row["iteration"] > self._last["iteration"]:
            seconds = max(row["walltime"] - self._last["walltime"], 1e-9)
            self._seconds_per_iteration = seconds / (row["iteration"] - self._last["iteration"])
        self._last = row
        self._print_row(headline)
        self._write_rows()
        self._wandb_do("log", lambda wandb_run: wandb_run.log(row, step=int(row["iteration"])))

    def _print_row(self, headline: dict[str, float]) -> None:
        position = self._position(self._last["iteration"], self._last["env_steps"], self._last["walltime"])
        titles = ("iteration", "env steps", "steps/s", "elapsed", "ETA")
        widths = [max(len(key), 8) for key in headline]
        if self._lines % HEADER_EVERY == 0:
            columns = [title.rjust(len(text)) for title, text in zip(titles, position, strict=True)]
            columns += [key.rjust(width) for key, width in zip(headline, widths, strict=True)]
            self.say("  ".join(columns))
        values = [short(value).rjust(width) for value, width in zip(headline.values(), widths, strict=True)]
        self.say("  ".join(position + values))
        self._lines += 1

    @property
    def last_iteration(self) -> int | None:
        """The iteration of the newest row, or None before the first."""
        return self._last["iteration"] if self._columns else None

    def metrics(self) -> dict[str, np.ndarray]:
        """All that was logged, a column a key: what metrics.csv holds, or would hold if it could be written."""
        return read_metrics(io.StringIO(self._csv.decode())) if self._csv else {}

    def _write_rows(self) -> None:
        """Brings metrics.csv up to date, with all rows that earlier calls could not write."""
        if self._csv_saved == len(self._csv):
            return
        try:
            # Opened anew for each row: an open file of a deleted directory would take rows without an error.
            with open(self.directory / "metrics.csv", "ab") as file:
                if file.tell() < self._csv_saved:
                    self._csv_saved = 0  # not the file that had the earlier rows
                if self._csv_saved == 0:  # a resumed run: what stands there stays
                    with open(self.directory / "metrics.csv", "rb") as before:
                        self._csv_saved = len(os.path.commonprefix([before.read(len(self._csv)), self._csv]))
                if file.tell() > self._csv_saved:
                    file.truncate(self._csv_saved)  # half a row, from when the disk was full
                file.write(self._csv[self._csv_saved :])
        except OSError as error:
            if self._csv_lost_from is None:
                self._csv_lost_from = self._last["iteration"]
                self.say(
                    f"metrics.csv cannot be written ({_reason(error)}): rows from iteration"
                    f" {self._csv_lost_from} on are kept in memory and tried again with each row"
                )
            return
        self._csv_saved = len(self._csv)
        if self._csv_lost_from is not None:
            self._csv_lost_from = None
            self.say("metrics.csv is written again; no row is missing")

    def write(self, name: str, function: Callable[[Path], object]) -> bool:
        """Writes the file `name` of the run's directory by `function(path)`: all of it or nothing.

        Returns whether it was written; an OSError is said in one line, once for the files of a subdirectory.
        """
        path = self.directory / name
        temporary = path.with_name(f".{path.stem}.unfinished{path.suffix}")
        kind = name.split("/")[0]
        try:
            if path.parent != self.directory:
                path.parent.mkdir(exist_ok=True)
            function(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())  # before the name is given: a machine that dies leaves all or nothing, too
            os.replace(temporary, path)
        except OSError as error:
            if kind not in self._failed:
                self._failed.add(kind)
                self.say(f"{name} could not be written ({_reason(error)}); the run goes on without it")
            return False
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        if kind in self._failed:
            self._failed.remove(kind)
            self.say(f"{name} could be written again")
        return True

    def finish(self, **facts: Any) -> None:
        """Writes summary.json (the last row, what it ran on, the command, `facts`) and prints the summary."""
        where = {key: self._last[key] for key in ("iteration", "env_steps")} | {"walltime": self._elapsed()}
        summary = {key: value for key, value in self._last.items() if key not in where} | where
        record = summary | facts | {"versions": versions(), "commits": self._commits, "machine": machine()}
        record |= {"command": command()}
        record = {key: None if _is_nan(value) else value for key, value in record.items()}  # JSON has no NaN
        text = json.dumps(record, indent=2, default=str) + "\n"
        self.write("summary.json", lambda path: path.write_text(text, encoding="utf-8"))
        self._wandb_do("summary", lambda wandb_run: wandb_run.summary.update(summary))

        width = max(len(key) for key in summary)
        shown = summary | {"walltime": clock(summary["walltime"]), "env_steps": human(summary["env_steps"])}
        self.say("\n" + "\n".join(f"  {key:{width}}  {short(value)}" for key, value in shown.items()))
        self.say(f"\nFiles in {_short_path(self.directory)}: {', '.join(_files(self.directory))}")

    # Weights & Biases

    def _start_wandb(self, options, settings: dict) -> None:
        """Starts the W&B run: online if that is wanted and works, otherwise offline, otherwise not at all."""
        mode = os.environ.get("WANDB_MODE")
        mode = mode if mode in ("disabled", "dryrun", "offline") else options.mode
        if mode == "disabled":
            self.say("W&B: disabled by WANDB_MODE")
            return
        why_offline = "as configured"
        if mode == "online":
            why_offline = _attempt(lambda: self._init_wandb("online", options, settings))
        if why_offline:
            problem = _attempt(lambda: self._init_wandb("offline", options, settings))
            if problem:
                self.say(f"W&B could not start ({problem}); this run goes on without it")
                return

        def introduce(wandb_run) -> None:
            wandb_run.define_metric("*", step_metric="iteration")
            self._wandb_id = wandb_run.id
            self._wandb_path = _short_path(Path(wandb_run.dir).parent)
            offline = f"offline ({why_offline}). To upload this run later: wandb sync {self._wandb_path}"
            self.say(f"W&B: {offline if why_offline else wandb_run.url}")
            if why_offline and self.resumed:  # the files of before may have lost rows: these have them all
                rows = self.metrics()
                for i, iteration in enumerate(rows.get("iteration", ())):
                    wandb_run.log({key: float(column[i]) for key, column in rows.items()}, step=int(iteration))

        self._wandb_do("start", introduce)

    def _init_wandb(self, mode: str, options, settings: dict) -> None:
        """Sets `self._wandb` to a new W&B run. Raises whatever W&B raises."""
        import wandb  # here, because it is slow and most runs do without

        if wandb.run is not None:
            wandb.run.finish()  # a run that was left open must not get this one's rows
        if mode == "online":
            wandb.setup(wandb.Settings(silent=True))  # or the login would print
            if not wandb.login(prompt=False, verify=False):
                raise RuntimeError("no API key; `wandb login` saves one")
        self._wandb = wandb.init(
            project=options.project,
            entity=options.entity,
            group=options.group or multirun_name(),
            name=options.name or self.directory.name,
            tags=list(options.tags),
            dir=str(options.dir or self.directory),
            config=settings,
            mode=mode,
            id=self._wandb_id,
            resume="allow" if self._wandb_id else None,
            settings=wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                disable_git=True,
                disable_job_creation=True,
                x_disable_stats=True,
                reinit="finish_previous",
                init_timeout=WANDB_INIT_TIMEOUT,
                finish_timeout=WANDB_FINISH_TIMEOUT,
                finish_timeout_raises=True,
            ),
        )

    def _wandb_do(self, what: str, action: Callable) -> None:
        """Does `action(wandb_run)`; an exception in it is said, and is the end of W&B for this run."""
        wandb_run = self._wandb
        if wandb_run is None:
            return
        problem = _attempt(lambda: action(wandb_run))
        if problem:
            self._wandb = None
            self.say(f"W&B failed ({what}: {problem}); this run goes on without it")
            _attempt(lambda: wandb_run.finish(exit_code=1))  # nothing of it may reach the process's next run


def _make_directory(hp) -> Path:
    """Makes the run's own directory; raises ConfigError."""
    try:
        save_dir = Path(hp.save_dir).expanduser().absolute()
        save_dir.mkdir(parents=True, exist_ok=True)
        name = f"{hp.run_name}_{time.strftime('%Y%m%d-%H%M%S')}"
        for number in itertools.count():
            directory = save_dir / (f"{name}_{number}" if number else name)
            with contextlib.suppress(FileExistsError):
                directory.mkdir()
                return directory
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name; the home of nobody
        raise _cannot_write(hp, error) from error


def _write_config(directory: Path, config_yaml: str, hp) -> None:
    """Writes config.yaml, which makes the directory that of a run; raises ConfigError."""
    try:
        temporary = directory / ".config.unfinished.yaml"
        temporary.write_text(config_yaml, encoding="utf-8")
        os.replace(temporary, directory / "config.yaml")
    except OSError as error:
        raise _cannot_write(hp, error) from error


def _cannot_write(hp, error: Exception) -> ConfigError:
    return ConfigError(f"hp.save_dir is {str(hp.save_dir)!r}, where no run can be written: {_reason(error)}")


def _lock(directory: Path) -> int | None:
    """Locks the run's directory until the process ends, however it ends; raises ConfigError if another one has."""
    if fcntl is None:
        return None
    try:
        lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"{_short_path(directory)} cannot be written: {_reason(error)}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ConfigError(f"{_short_path(directory)} is in use: another process trains in it") from error
    except OSError:  # a file system without locks
        os.close(lock)
        return None
    return lock


def _is_schedulers(number: int, handler) -> bool:
    return callable(handler) and signal.Signals(number).name in ("SIGUSR1", "SIGUSR2")


def _attempt(action: Callable[[], object]) -> str:
    """Does `action()`. Returns "", or what was wrong: W&B can raise anything, and may not end a training."""
    try:
        action()
    except Exception as error:  # noqa: BLE001
        return _reason(error)
    return ""


def read_metrics(file: TextIO) -> dict[str, np.ndarray]:
    """The columns of an open metrics.csv, by name, as float64 arrays of equal length; NaN where nothing stands."""
    header, *rows = csv.reader(file)
    # A run that was killed may have left half a row.
    table = [[float(value or "nan") for value in row] for row in rows if len(row) == len(header)]
    return dict(zip(header, np.array(table, float).reshape(-1, len(header)).T, strict=True))


def hyperparameter_table(hp: dict) -> str:
    """All hyperparameters, one group a paragraph: its name, then `key value` pairs."""
    groups: dict[str, list[str]] = {}

    def collect(name: str, values: dict) -> None:
        for key, value in values.items():
            if not isinstance(value, dict):
                groups.setdefault(name, []).append(f"{key} {'null' if value is None else value}")
        for key, value in values.items():
            if isinstance(value, dict):
                collect(f"{name}.{key}".removeprefix("hp."), value)

    collect("hp", hp)
    width = max(map(len, groups)) + 4
    wrap = textwrap.TextWrapper(LINE_WIDTH, subsequent_indent=" " * width, break_long_words=False)
    wrap.break_on_hyphens = False
    lines = []
    for name, pairs in groups.items():
        text = ", ".join(pair.replace(" ", "\0") for pair in pairs)  # no line break within a pair
        lines.append(wrap.fill(f"  {name:{width - 2}}{text}").replace("\0", " "))
    return "\n".join(lines)


def versions() -> dict[str, str | None]:
    """The versions of this package, of Python and of the packages that the numbers depend on."""
    found: dict[str, str | None] = {"loqa": loqa.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def commit() -> str | None:
    """The commit of this code, with -dirty where a file differs from it; None where it is no checkout."""
    root = Path(loqa.__file__).parent.parent
    if not (root / ".git").exists():  # else git would tell of a repository that this one is installed in
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, Any]:
    """The processor, the number of its cores that this process may use, and the device that JAX computes on."""
    import jax  # here, because reading metrics does without

    try:
        models = re.findall(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    except OSError:  # not a Linux
        models = []
    model = next(filter(None, [*models, platform.processor(), platform.machine()]), "unknown")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "cores": cores, "device": jax.devices()[0].device_kind}


def human(number: float) -> str:
    """1234567 -> "1.23M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:#.3g}".rstrip(".") + unit
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    """3723.4 -> "1:02:03"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def short(value) -> str:
    """A float in at most 9 characters; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    plain = value == 0 or 1e-3 <= abs(value) < 1e4 or not math.isfinite(value)
    return f"{value:.3f}" if plain else f"{value:.2e}"


def _number(value):
    """A Python number of a NumPy or JAX scalar; other things unchanged."""
    return value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value


def _csv_text(value: float) -> str:
    """The shortest text that gives the same float32; whole numbers in full, NaN as nothing."""
    if value != value:
        return ""
    whole = abs(value) < 2**53 and float(value).is_integer()
    return str(int(value)) if whole else f"{value:.9g}"


def _is_nan(value) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _reason(error: BaseException) -> str:
    """An exception in one short line."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return textwrap.shorten(text.splitlines()[0], 160, placeholder="...").rstrip(".")


def _short_path(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _files(directory: Path) -> list[str]:
    try:
        return sorted(path.name + "/" * path.is_dir() for path in directory.glob("[!.]*"))
    except OSError:
        return []
