"""Multiruns (`-m`, or `experiment=...`): each job leaves a note, and the sweep ends with a summary and figures."""

import atexit
import json
import math
import os
import textwrap
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from loqa.figures.runs import shown_columns
from loqa.run.directory import write_whole
from loqa.run.signals import StopSignals
from loqa.tools.common import write_csv
from loqa.tools.saved_runs import group_runs, read_runs

SWEPT = "LOQA_SWEPT"  # environment variable: a multirun's directory, how many jobs it has, and what keys differ


class Sweep(Callback):
    """Hydra's callback, in the process of each job: notes the jobs in `jobs/`, and sums them up at the end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        StopSignals.last = None
        # At the exit of the process, because Hydra calls nothing after a job that failed, or Ctrl-C.
        atexit.register(summarize, Path(config.hydra.sweep.dir))
        params = [f"{key}={values}" for key, values in (config.hydra.sweeper.params or {}).items()]
        words = OverridesParser.create().parse_overrides([*params, *config.hydra.overrides.task])
        swept = {word.key_or_group: word for word in words}  # the command line's in place of the experiment's
        swept = {key: word for key, word in swept.items() if word.is_sweep_override()}
        number = math.prod(len(list(word.sweep_iterator())) for word in swept.values())
        # Jobs may be in other processes; and hp.save_dir, which the directory has in it, may differ between them.
        os.environ[SWEPT] = json.dumps([os.path.abspath(config.hydra.sweep.dir), number, *swept])

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        if StopSignals.last:
            raise SystemExit(128 + StopSignals.last)  # it came when the job before had nothing left to do
        _note(config, {"status": "unfinished"})  # which stays if the job has no chance to write more
        if SWEPT in os.environ:
            _, number, *swept = json.loads(os.environ[SWEPT])
            words = [word for word in config.hydra.overrides.task if word.split("=")[0] in swept]
            print(f"\njob {config.hydra.job.num + 1} of {number}: {' '.join(words)}", flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        result = str(job_return._return_value)  # the run's directory, or an error, which the property would raise
        completed = job_return.status is JobStatus.COMPLETED
        _note(config, {"status": "finished", "directory": result} if completed else {"status": f"failed: {result}"})


def _note(config: DictConfig, note: dict[str, Any]) -> None:
    if config.hydra.mode is RunMode.MULTIRUN:
        directory = json.loads(os.environ[SWEPT])[0] if SWEPT in os.environ else config.hydra.sweep.dir
        path = Path(directory) / "jobs" / f"{int(config.hydra.job.num):04d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)  # of what fails here, Hydra warns
        text = json.dumps({"job": list(config.hydra.overrides.task)} | note)
        write_whole(path, lambda file: file.write_text(text))


def summarize(directory: Path) -> None:
    """Prints how each job of a multirun ended, writes summary.csv and draws those that finished."""
    rows = [json.loads(path.read_text()) for path in sorted((directory / "jobs").glob("[!.]*.json"))]
    if not rows:
        return
    common = set.intersection(*(set(row["job"]) for row in rows)) if len(rows) > 1 else set()
    runs = []
    print(f"\n{len(rows)} jobs, {sum(row['status'] == 'finished' for row in rows)} finished:")
    for row in rows:
        row["job"] = " ".join(word for word in row["job"] if word not in common)
        try:
            for run in read_runs([row["directory"]]) if "directory" in row else ():
                row |= {x: f"{run.metrics[x][-1]:.9g}" for x in ("iteration", "walltime", *shown_columns([run]))}
                runs.append(run)
        except (OSError, ValueError) as error:
            row["status"] = f"no metrics: {error}"
        print(textwrap.shorten(f"{row['job']}: {row['status']}", 110, placeholder=" ..."))
    if any(row["status"] == "unfinished" for row in rows):
        print("the same command again resumes what is unfinished")
    try:
        write_csv(directory / "summary.csv", rows)
        if runs:
            from loqa.figures import curves  # here, because matplotlib is slow to import and jobs do without
            from loqa.tools import plot

            boards = {run.board for run in runs}
            curves.seed_curves(group_runs(runs), directory / "curves")
            if runs[0].game.bars:
                curves.group_bars(group_runs(runs), directory / "cooperation")
            elif len(boards) > 1 and any(len({*board.split("x")}) == 1 for board in boards):
                plot.goal_figure(group_runs(runs, split_boards=False), directory / "thresholds")
    except Exception as error:  # noqa: BLE001 (the jobs are done)
        print(f"the summary is not complete: {error}")
    print(f"table{' and figures' if runs else ''}: {directory}", flush=True)
