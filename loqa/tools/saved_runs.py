"""Training runs read back from disk, in groups to be compared; tables of when they reach a goal."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from loqa.figures.runs import UNITS, Groups, SavedRun, bootstrap_interval, interquartile_mean
from loqa.game import GameSpec
from loqa.metrics import self_play
from loqa.run.config import flat
from loqa.run.metrics_file import read_metrics
from loqa.tools.common import markdown_table, split_label

REQUIRED = {"iteration", "walltime", "env_steps", "mean_rewards_0", "mean_rewards_1"}  # of every evaluation


def read_runs(words: Sequence[str]) -> list[SavedRun]:
    """The runs in directories, each a PATH or LABEL=PATH; raises OSError or ValueError."""
    runs = []
    for word in words:
        label, path = split_label(word)
        found = [_read_run(file.parent, label) for file in sorted(path.rglob("metrics.csv"))]
        found = [run for run in found if run.metrics["iteration"].size]
        if not found:
            raise ValueError(f"there are no runs in {path}, or none with an evaluation")
        if not label and len(found) > 1 and len(words) > 1:  # directories that are compared
            found = [run._replace(label=path.absolute().name) for run in found]
        runs += found
    return runs


def _read_run(path: Path, label: str) -> SavedRun:
    try:
        text = (path / "metrics.csv").read_text(encoding="utf-8")
        metrics = read_metrics(text[: text.rfind("\n") + 1])  # without half a last row
        if missing := REQUIRED - metrics.keys():
            raise ValueError(f"it has no column {', '.join(sorted(missing))}")
        metrics["self_play"] = self_play(metrics)
        settings = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        return SavedRun(path, label, flat(settings["hp"]), metrics, settings.get("game"))
    except (ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not a run, with metrics.csv and config.yaml: {error}") from error


def group_runs(runs: Sequence[SavedRun], split_boards: bool = True) -> Groups:
    """Runs of one label, or else of settings that differ in seed and length only; ValueError for a seed twice."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run.compared.items() if not run.label else ():
            values.setdefault(key, set()).add(str(value))
    differing = [key for key in sorted(values) if len(values[key]) > 1]  # not keys that only newer runs have
    several_boards = split_boards and len({run.board for run in runs}) > 1
    groups: Groups = {}
    for run in runs:
        parts = [f"{key.split('.')[-1]}={run.settings[key]}" for key in differing if key in run.settings]
        label = f"{run.label or ', '.join(parts)} {run.board if several_boards else ''}".strip() or "this code"
        for other in groups.setdefault(label, []):
            if run.seed is not None and (run.seed, run.board) == (other.seed, other.board):
                where = f"{other.path} and {run.path} are both seed {run.seed} of {label}"
                raise ValueError(f"{where}: leave one out, or label them (LABEL=PATH)")
        groups[label].append(run)
    return groups


# ----------------------------------------------------------------------------------------- aggregates over seeds

REACHED_NOTE = "Interquartile mean over seeds and its 95 % bootstrap interval; `>`: more than a quarter never reach it."
PUBLISHED_NOTE = "Published:\nread off the paper's figure, means of three seeds at batch size 2048, on one A100."


class Summary(NamedTuple):
    """Until when a threshold was passed, over seeds on boards of one size, in one of UNITS."""

    times: np.ndarray  # [seeds]; infinite where it never was
    at_least: float  # their interquartile mean, where a run that never passed counts with all of its training
    mean: float  # their interquartile mean; infinite if more than a quarter never passed
    low: float
    high: float

    def __str__(self) -> str:
        if not np.isfinite(self.mean):
            return f"> {self.at_least:,.0f}"
        interval = f" [{self.low:,.0f}, {self.high:,.0f}]" if len(self.times) > 1 else ""
        return f"{self.mean:,.0f}{interval.replace('inf', 'never')}"


def summary(runs: list[SavedRun], passed: list[np.ndarray], unit: str) -> Summary:
    """Of runs, with the evaluations [...] of each that passed."""
    ends = np.array([run.metrics[unit][p.argmax() if p.any() else -1] for run, p in zip(runs, passed, strict=True)])
    times = np.where([p.any() for p in passed], ends, np.inf)
    return Summary(times, interquartile_mean(ends), interquartile_mean(times), *bootstrap_interval(times))


def summarize(runs: list[SavedRun], threshold: str, unit: str) -> dict[int, Summary]:
    """By size of the board, ascending; of runs on `square_boards`."""
    by_size: dict[int, list[SavedRun]] = {}
    for run in runs:
        by_size.setdefault(int(run.board.partition("x")[0]), []).append(run)
    passed = lambda size: [_reaches(run, threshold) for run in by_size[size]]
    return {size: summary(by_size[size], passed(size), unit) for size in sorted(by_size)}


def _reaches(run: SavedRun, goal: str) -> np.ndarray:
    """In which evaluations [...] a run reaches a goal; ValueError where it lacks a column or key for that."""
    try:
        return run.game.goals[goal](run.metrics, run.settings)
    except KeyError as error:
        raise ValueError(f"{run.path} is not a run with the goal {goal}: it lacks {error}") from error


def square_boards(groups: Groups) -> tuple[GameSpec, Groups, str]:
    """The game, the runs on square boards, and in words which others are left out; ValueError if that is all."""
    runs = sum(groups.values(), [])
    others = {run.board for run in runs if len({*run.board.split("x")}) > 1 or not run.board}
    kept = {label: [run for run in members if run.board not in others] for label, members in groups.items()}
    kept = {label: members for label, members in kept.items() if members}
    if not kept:
        raise ValueError(f"{runs[0].path} is not a run with thresholds on a known square board")
    left_out = f"\nLeft out, as thresholds are of square boards: {', '.join(sorted(others))}." if others else ""
    return runs[0].game, kept, left_out


def goal_table(groups: Groups) -> str:
    """A Markdown table of runs of a game without boards: until when each group reaches its goals."""
    lines = []
    for label, runs in groups.items():
        for goal in runs[0].game.goals:
            passed = [_reaches(run, goal) for run in runs]
            reached = f"{sum(p.any() for p in passed)} of {len(runs)}"
            lines.append([label, reached, *(str(summary(runs, passed, unit)) for unit in UNITS)])
    table = markdown_table(["", "seeds that reach it", *UNITS.values()], lines)
    return f"{table}\n\n{REACHED_NOTE}"


def threshold_table(groups: Groups) -> str:
    """A Markdown table: each group, threshold and board; then the published times on these boards."""
    (game, groups, left_out), lines, sizes = square_boards(groups), [], set()
    for (label, runs), threshold in product(groups.items(), game.goals):
        columns = [summarize(runs, threshold, unit) for unit in UNITS]
        for size, first in columns[0].items():
            sizes.add(size)
            cells = [f"{np.isfinite(first.times).sum()} of {len(first.times)}", *(str(x[size]) for x in columns)]
            lines.append([label, threshold, f"{size}x{size}", *cells])
    for (label, published), threshold in product(game.published_seconds.items(), game.goals):
        for size, time in published[threshold].items():
            if size in sizes:
                cells = [f"{size}x{size}", "", f"{time:,.0f}".replace("inf", "never"), "", ""]
                lines.append([f"{label}, published", threshold, *cells])
    table = markdown_table(["", "threshold", "grid", "seeds that reach it", *UNITS.values()], lines, (0, 1, 2))
    return f"{table}\n\n{REACHED_NOTE} {PUBLISHED_NOTE}{left_out}"
