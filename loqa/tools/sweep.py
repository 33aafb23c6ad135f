"""Multiruns (`-m`, or `experiment=...`): each job leaves a note, and the sweep ends with a table and figures.

Hydra's launchers run the jobs. This is the callback that they call, in whatever process a job runs.
"""

import csv
import json
import textwrap
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from loqa.run.metrics_file import read_metrics
from loqa.run.terminal import short
from loqa.tools.saved_runs import IN_TABLES, group_runs, read_runs

_begun: Path | None = None  # the directory of the multirun that this process began


class Sweep(Callback):
    """Hydra's callback: notes the jobs of a multirun in `jobs/` of its directory."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        global _begun
        _begun = Path(config.hydra.sweep.dir)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        _note(config, {"status": "killed"})  # so it stays if the job has no chance to say more

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if job_return.status is JobStatus.COMPLETED:
            directory = job_return.return_value  # of the run, where the script returns it
            _note(config, {"status": "finished"} | ({"directory": str(directory)} if directory else {}))
        else:  # the attribute, since the property raises the exception again
            _note(config, {"status": f"failed: {job_return._return_value}"})


def _note(config: DictConfig, note: dict[str, Any]) -> None:
    if config.hydra.mode is not RunMode.MULTIRUN:
        return
    jobs = Path(config.hydra.sweep.dir) / "jobs"
    note = {"overrides": list(config.hydra.overrides.task)} | note
    path = jobs / f"{int(config.hydra.job.num):04d}.json"
    try:
        jobs.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".unfinished").write_text(json.dumps(note))
        path.with_suffix(".unfinished").replace(path)
    except OSError as error:
        print(f"{path} could not be written ({error.strerror}): this job will not be in the table")


def finish() -> None:
    """Prints and writes the table of the multirun that this process began, if it did, and draws its figures."""
    if _begun is None or not (_begun / "jobs").is_dir():
        return
    notes = [json.loads(path.read_text()) for path in sorted((_begun / "jobs").glob("*.json"))]
    if not notes:
        return
    common = set.intersection(*(set(note["overrides"]) for note in notes)) if len(notes) > 1 else set()
    rows = [
        {"job": " ".join(word for word in note["overrides"] if word not in common)} | _row(note) for note in notes
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    try:
        with open(_begun / "summary.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        print(f"summary.csv could not be written ({error.strerror})")
    shown = [column for column in columns if column != "directory"]
    cell = lambda value: textwrap.shorten(short(value), 80, placeholder=" ...")
    table = [shown] + [[cell(row.get(column, "")) for column in shown] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(shown))]
    print(f"\n{len(rows)} jobs, {sum(row['status'] == 'finished' for row in rows)} finished:")
    for line in table:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    directories = [row["directory"] for row in rows if row["status"] == "finished" and "directory" in row]
    pictures = _draw(directories, _begun) if directories else []
    print(f"Files in {_begun}: {', '.join(['summary.csv', *pictures])}", flush=True)


def _draw(directories: list[str], out: Path) -> list[str]:
    """Draws what the jobs have in common: the names of the pictures."""
    from loqa.tools import plot  # here, because matplotlib is slow to import and jobs do without

    try:
        runs = read_runs(directories)
        groups = group_runs(runs)
        plot.seed_curves(groups, plot.SHOWN[runs[0].game], "iteration", [out / "curves.png", out / "curves.pdf"])
        pictures = ["curves.png", "curves.pdf"]
        if runs[0].game == "ipd":
            plot.group_bars(groups, 0, [out / "tit_for_tat.png", out / "tit_for_tat.pdf"])
            pictures += ["tit_for_tat.png", "tit_for_tat.pdf"]
        elif len({run.grid for run in runs}) > 1:
            files = [out / "thresholds.png", out / "thresholds.pdf"]
            plot.threshold_figure(group_runs(runs, split_grids=False), list(plot.UNITS), files)
            pictures += ["thresholds.png", "thresholds.pdf"]
    except (OSError, ValueError) as error:
        print(f"no figures of the sweep: {error}")
        return []
    return pictures


def _row(note: dict[str, Any]) -> dict[str, Any]:
    """A job's line of the table: how it ended, and the last row of its metrics."""
    row = {"status": note["status"]}
    if "directory" not in note:
        return row
    try:
        with open(Path(note["directory"]) / "metrics.csv", newline="") as file:
            last = {key: float(column[-1]) for key, column in read_metrics(file).items()}
        row |= {"iteration": int(last["iteration"]), "seconds": round(last["walltime"])}
    except (OSError, ValueError, IndexError, KeyError) as error:
        return row | {"status": f"no metrics: {error}", "directory": note["directory"]}
    row |= {title: last[key] for title, key in IN_TABLES.items() if key in last}
    return row | {"directory": note["directory"]}
