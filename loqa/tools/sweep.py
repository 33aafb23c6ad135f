"""Multiruns (`-m`, or `experiment=...`): each job leaves a note, and the sweep ends with a summary and figures.

Hydra's launchers run the jobs, and call the callback here in whatever process a job runs.
"""

import atexit
import json
import textwrap
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from loqa.tools.common import write_csv
from loqa.tools.saved_runs import group_runs, read_runs, shown_columns


class Sweep(Callback):
    """Hydra's callback: notes the jobs of a multirun in `jobs/` of its directory, and sums them up at its end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # At the exit of the process, because Hydra calls nothing after a job that failed, or Ctrl-C.
        atexit.register(summarise, Path(config.hydra.sweep.dir))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        _note(config, {"status": "killed"})  # which stays if the job has no chance to write more

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if job_return.status is JobStatus.COMPLETED:  # the scripts return the run's directory
            _note(config, {"status": "finished", "directory": str(job_return.return_value)})
        else:  # the attribute, since the property raises the exception again
            _note(config, {"status": f"failed: {job_return._return_value}"})


def _note(config: DictConfig, note: dict[str, Any]) -> None:
    if config.hydra.mode is RunMode.MULTIRUN:
        path = Path(config.hydra.sweep.dir) / "jobs" / f"{int(config.hydra.job.num):04d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)  # of what fails here, Hydra warns
        path.write_text(json.dumps({"job": list(config.hydra.overrides.task)} | note))


def summarise(multirun_directory: Path) -> None:
    """Prints how each job ended, writes summary.csv, and draws the figures of the jobs that finished."""
    rows = [json.loads(path.read_text()) for path in sorted((multirun_directory / "jobs").glob("*.json"))]
    if not rows:
        return
    common = set.intersection(*(set(row["job"]) for row in rows)) if len(rows) > 1 else set()
    runs = []
    print(f"\n{len(rows)} jobs, {sum(row['status'] == 'finished' for row in rows)} finished:")
    for row in rows:
        row["job"] = " ".join(word for word in row["job"] if word not in common)
        try:
            for run in read_runs([row["directory"]]) if "directory" in row else ():
                columns = ("iteration", "walltime", *shown_columns([run]))
                row |= {column: run.metrics[column][-1] for column in columns}
                runs.append(run)
        except (OSError, ValueError) as error:
            row["status"] = f"no metrics: {error}"
        print(textwrap.shorten(f"{row['job']}: {row['status']}", 110, placeholder=" ..."))
    try:
        write_csv(multirun_directory / "summary.csv", rows)
        if runs:
            from loqa.tools import figures  # here, because matplotlib is slow to import and jobs do without

            figures.seed_curves(group_runs(runs), multirun_directory / "curves")
            if "p_0_START_C" in runs[0].metrics:
                figures.group_bars(group_runs(runs), multirun_directory / "tit_for_tat")
            elif len({run.board for run in runs}) > 1:
                groups = group_runs(runs, split_boards=False)
                figures.threshold_figure(groups, multirun_directory / "thresholds")
    except (OSError, ValueError) as error:
        print(f"the summary is not complete: {error}")
    print(f"table and figures: {multirun_directory}", flush=True)
