"""Run: one training run, with its directory, its terminal, its metrics, W&B and the signals that stop it.

I/O failures do not abort training: a full disk, a directory that vanished or W&B trouble is logged once, and the run
continues.
"""

import json
import math
import os
import platform
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

import jax
import numpy as np
import yaml

import loqa
from loqa.games import GAMES
from loqa.hyperparameters import Hyperparameters
from loqa.run import provenance, resources
from loqa.run.config import Config, differences_from_published, flat
from loqa.run.directory import RunDirectory, make_directory
from loqa.run.metrics_file import add_row, read_metrics
from loqa.run.signals import StopSignals
from loqa.run.terminal import Terminal, attempt, clock, short_path
from loqa.run.wandb_log import WandbLog


class Resumed(NamedTuple):
    """The earlier part of a run: its directory and its checkpoint, of which there may be none yet."""

    directory: Path
    metadata: dict[str, Any]  # see `Checkpoints.save`
    state: Any  # of the training, or None

    def summary(self) -> dict[str, Any]:
        """summary.json, or {} where there is none."""
        try:
            return json.loads((self.directory / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def is_finished(self, hp: Hyperparameters) -> bool:
        """Whether there is nothing left to do: all iterations are done, or `hp.stop_at` was reached."""
        summary = self.summary()
        iteration, reached = summary.get("iteration"), summary.get("reached")
        has_stopped = reached is not None and reached == getattr(hp, "stop_at", None)  # of games with goals
        is_last = iteration is not None and iteration == self.metadata.get("iteration", iteration)
        return is_last and (iteration == hp.total_iterations or has_stopped)


class Run:
    """One training run: `with Run("ipd", config, config_yaml, resumed) as run: ...`, once for each seed.

    `config_yaml` is the configuration as text, for config.yaml and W&B; `resumed` the earlier part of the run, in whose
    directory it continues; `terminal` one of its own, if that is shared. Within the block the first signal to stop only
    sets `stop_signal`: the loop is expected to checkpoint and call `stop`. Leaving the block finishes the W&B run, with
    exit code 1 after an exception. Raises ConfigError where the directory cannot be made or written, or another process
    uses it.
    """

    def __init__(
        self,
        script: str,
        config: Config,
        config_yaml: str,
        resumed: Resumed | None = None,
        num_devices: int = 1,
        terminal: Terminal | None = None,
    ):
        hp, metadata = config.hp, resumed.metadata if resumed else {}
        earlier = metadata.get("run", {})  # its `snapshot`
        self.hp, self.script, self.resumed, self.num_devices = hp, script, resumed, num_devices
        self.settings = yaml.safe_load(config_yaml)  # the configuration as nested dictionaries
        self.hp_settings = flat(self.settings["hp"])
        self.versions = provenance.versions() | {"devices": num_devices}  # what the bits depend on
        self._start = time.monotonic() - earlier.get("walltime", 0.0)
        # All of metrics.csv, and whether the file has it: no row is lost to a disk that was full.
        self._csv, self._is_written = earlier.get("csv", ""), True
        commits, now = earlier.get("commits", []), provenance.commit()
        self._commits = commits if commits[-1:] == [now] else [*commits, now]
        self._terminal = terminal or Terminal(hp.total_iterations, hp.env_steps_per_iteration, StopSignals())
        self._signals = self._terminal.signals
        self.log_line, self.note = self._terminal.log_line, self._terminal.note
        self.directory = resumed.directory if resumed else make_directory(hp.save_dir, hp.run_name)
        self._files = RunDirectory(self.directory, config_yaml, self.log_line)
        self.write = self._files.write
        self._terminal.file = self.directory / "log.txt"
        command, self._command_to_resume = provenance.commands(short_path(self.directory), num_devices)
        self._command = earlier.get("command", command)  # resume=DIRECTORY names none of the settings
        self._introduce(hp, metadata)
        self._wandb = WandbLog(earlier.get("wandb_id"), self.log_line)
        if config.wandb.state:
            self._wandb.start(config.wandb, self.directory, self.settings, self.metrics())

    def _introduce(self, hp: Hyperparameters, metadata: dict[str, Any]) -> None:
        """Prints what it is, and what differs from the published settings and from the earlier part of the run."""
        where, preset = short_path(self.directory), provenance.choice("hp", "unknown")
        self._terminal.keep(f"{time.ctime()}, {platform.node()}, process {os.getpid()}")
        self.log_line(f"LOQA {loqa.__version__}, {self.script}, preset {preset}, seed {hp.seed}: {where}")
        self.note(f"{self._command}\nall settings: {where}/config.yaml")
        if GAMES[self.script].published:
            changes = differences_from_published(self.script, hp)
            self.log_line(f"unlike the published settings: {', '.join(changes) or 'nothing'}")
        if self.resumed:
            self.log_line(f"resumed from iteration {metadata.get('iteration', 0)}")
        if changed := provenance.other_code(metadata.get("run", {}).get("commits", [])):
            self.log_line(f"{changed}: the numbers may differ from now on")
        for name, before in metadata.get("versions", {}).items():
            if before != (now := self.versions.get(name)):
                self.log_line(f"{name} was {before} and is {now}: the bits may differ from now on")

    def __enter__(self) -> Self:
        self._signals.catch()
        return self

    def __exit__(self, exception_type: type | None, error: BaseException | None, _: object) -> None:
        self._signals.release()
        if error is not None and not isinstance(error, SystemExit):
            self._terminal.keep("".join(traceback.format_exception(error)))
        if not self._is_written and not self._write_csv():
            self.log_line("metrics.csv: the last rows are LOST")
        self._wandb.finish(exit_code=0 if error is None else 1)
        self._files.unlock()

    @property
    def stop_signal(self) -> signal.Signals | None:
        """The signal that asks the run to stop, or None."""
        return self._signals.received

    @property
    def last_iteration(self) -> int | None:
        """The iteration of the newest row of the metrics, or None before the first."""
        return int(self.metrics()["iteration"][-1]) if self._csv else None

    def metrics(self) -> dict[str, np.ndarray]:
        """All metrics by name, an array with a number for each evaluation."""
        return read_metrics(self._csv) if self._csv else {}

    def _walltime(self) -> float:
        return time.monotonic() - self._start

    def progress(self, iteration: int) -> None:
        """Shows how far the run is, on a terminal only."""
        self._terminal.progress(iteration, self._walltime())

    def log(self, row: dict[str, float], headline: dict[str, float]) -> None:
        """Records one evaluation: `row` with `iteration`, `env_steps` and all metrics; prints `headline` of it."""
        row = {"iteration": row["iteration"], "walltime": self._walltime(), "env_steps": row["env_steps"]} | row
        self._csv = add_row(self._csv, row)
        self._is_written = self._write_csv()
        self._terminal.row(row["iteration"], row["walltime"], headline)
        self._wandb.log(row)

    def _write_csv(self) -> bool:
        return self.write("metrics.csv", lambda path: path.write_text(self._csv, encoding="utf-8"))

    def snapshot(self) -> dict[str, Any]:
        """What a checkpoint keeps of the run itself; JSON."""
        wandb_id, commits = self._wandb.run_id, self._commits
        snapshot = {"csv": self._csv, "walltime": self._walltime(), "wandb_id": wandb_id, "commits": commits}
        return snapshot | {"command": self._command}

    def finish(self, *conclusions: Callable[[], object], reached: str | None = None) -> None:
        """Writes summary.json, concludes, and lists the files; `reached`: the threshold that ended it early.

        Whatever goes wrong in the conclusions, such as figures, is one line: the training is done.
        """
        last = {name: float(column[-1]) for name, column in self.metrics().items()} | {"walltime": self._walltime()}
        # JSON has no NaN.
        summary = {name: (int(x) if x.is_integer() else x) if math.isfinite(x) else None for name, x in last.items()}
        summary |= {"game": self.script, "reached": reached, "versions": self.versions, "commits": self._commits}
        device = jax.devices()[0].device_kind
        summary["machine"] = {"processor": provenance.processor(), "cores": resources.cores(), "device": device}
        summary["command"] = self._command
        text = json.dumps(summary, indent=2) + "\n"
        self.write("summary.json", lambda path: path.write_text(text, encoding="utf-8"))
        for conclude in conclusions:
            if problem := attempt(conclude):
                self.log_line(f"the training is done, but not all that follows it: {problem}")
        files = sorted(self.directory.glob("[!.]*"))  # none where the directory has vanished
        names = ", ".join(f"{path.name}/" if path.is_dir() else path.name for path in files)
        self.note(f"{clock(last['walltime'])}; files in {short_path(self.directory)}: {names}")

    def stop(self, iteration: int | None) -> NoReturn:
        """Ends the process after `stop_signal` with exit code 128 + its number; prints how to resume."""
        where = "the beginning (there is no checkpoint)" if iteration is None else f"iteration {iteration}"
        self.log_line(f"stopped by {self.stop_signal.name}. To resume from {where}:\n  {self._command_to_resume}")
        if handler := self._signals.scheduler_handler:
            handler(self.stop_signal, None)
        raise SystemExit(128 + self.stop_signal)
