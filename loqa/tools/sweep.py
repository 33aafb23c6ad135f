"""Multiruns (`-m`, or `experiment=...`): each job leaves a note, and the sweep ends with a table and figures.

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

from loqa.run.terminal import short
from loqa.tools.common import write_csv
from loqa.tools.saved_runs import TABLE_COLUMNS, SavedRun, group_runs, read_runs, shown_columns


class Sweep(Callback):
    """Hydra's callback: notes the jobs of a multirun in `jobs/` of its directory, and sums them up at its end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # At the exit of the process, because Hydra calls nothing after a job that failed, or Ctrl-C.
        atexit.register(summarise, Path(config.hydra.sweep.dir))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        _note(config, {"status": "killed"})  # which stays if the job has no chance to write more

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if job_return.status is JobStatus.COMPLETED:
            directory = job_return.return_value  # of the run, where the script returns it
            _note(config, {"status": "finished"} | ({"directory": str(directory)} if directory else {}))
        else:  # the attribute, since the property raises the exception again
            _note(config, {"status": f"failed: {job_return._return_value}"})


def _note(config: DictConfig, note: dict[str, Any]) -> None:
    if config.hydra.mode is not RunMode.MULTIRUN:
        return
    path = Path(config.hydra.sweep.dir) / "jobs" / f"{int(config.hydra.job.num):04d}.json"
    unfinished = path.with_suffix(".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps({"overrides": list(config.hydra.overrides.task)} | note))
        unfinished.replace(path)
    except OSError as error:
        print(f"{path} could not be written ({error.strerror}): this job will not be in the table")


def summarise(multirun_directory: Path) -> None:
    """Prints a table of all jobs and writes it as summary.csv; draws the figures of those that finished."""
    notes = [json.loads(path.read_text()) for path in sorted((multirun_directory / "jobs").glob("*.json"))]
    if not notes:
        return
    common = set.intersection(*(set(note["overrides"]) for note in notes)) if len(notes) > 1 else set()
    rows, runs = [], []
    for note in notes:
        row = {"job": " ".join(word for word in note["overrides"] if word not in common), "status": note["status"]}
        if "directory" in note:
            try:
                (run,) = read_runs([note["directory"]])
            except (OSError, ValueError) as error:
                row["status"] = f"no metrics: {error}"
            else:
                runs.append(run)
                last = {column: float(run.metrics[column][-1]) for column in run.metrics}
                row |= {"iteration": int(last["iteration"]), "seconds": round(last["walltime"])}
                row |= {TABLE_COLUMNS[column].head: last[column] for column in shown_columns([run])}
            row["directory"] = note["directory"]
        rows.append(row)
    files = []
    try:
        write_csv(multirun_directory / "summary.csv", rows)
        files.append("summary.csv")
    except OSError as error:
        print(f"summary.csv could not be written ({error.strerror})")
    _print_table(rows)
    files += _draw(runs, multirun_directory) if runs else []
    print(f"Files in {multirun_directory}: {', '.join(files)}", flush=True)


def _print_table(rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "directory"))
    cell = lambda value: textwrap.shorten(short(value), 80, placeholder=" ...")
    table = [columns] + [[cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print(f"\n{len(rows)} jobs, {sum(row['status'] == 'finished' for row in rows)} finished:")
    for line in table:
        print("  " + "  ".join(map(str.ljust, line, widths)).rstrip())


def _draw(runs: list[SavedRun], out: Path) -> list[str]:
    """Draws what the jobs have in common; returns the names of the files."""
    from loqa.tools import figures  # here, because matplotlib is slow to import and jobs do without

    try:
        groups = group_runs(runs)
        files = figures.seed_curves(groups, out / "curves")
        if runs[0].game == "ipd":
            files += figures.group_bars(groups, out / "tit_for_tat")
        elif len({run.grid for run in runs}) > 1:
            files += figures.threshold_figure(group_runs(runs, split_grids=False), out / "thresholds")
    except (OSError, ValueError) as error:
        print(f"no figures of the sweep: {error}")
        return []
    return [Path(file).name for file in files]
