"""Training runs read back from disk, in groups to be compared; aggregates over their seeds.

Interquartile means and bootstrap intervals are robust where seeds are few (Agarwal et al. 2021, arXiv 2108.13264).
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from loqa.games.ipd import STATES
from loqa.run.config import flat
from loqa.run.metrics_file import read_metrics
from loqa.thresholds import THRESHOLDS, reciprocates, self_play, threshold_passed
from loqa.tools.common import markdown_table, split_label

# The columns that tables and figures show, with their titles, in their order; rewards and coins: a step.
TABLE_TITLES = {
    **{f"p_0_{state}_C": f"P(C) in {state}" for state in STATES},
    "self_play": "reward in self-play",
    "always_cooperate_0_mean_rewards_a": "reward vs always-cooperate",
    "always_cooperate_0_mean_rewards_d": "always-cooperate's reward",
    "always_defect_0_mean_rewards_a": "reward vs always-defect",
    "always_defect_0_mean_rewards_d": "always-defect's reward",
    "own_coins_0": "own coins",
    "other_coins_0": "other's coins",
}
TITLES = TABLE_TITLES | {"qvalue_0_mean": "mean of Q", "qvalue_0_bias": "mean error of Q"}
TITLES |= {f"p_1_{state}_C": f"P(C) in {state}, agent 1" for state in STATES}
# What the paper reports: rewards on 3x3, and seconds to each threshold.
PUBLISHED = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
REQUIRED = {"iteration", "walltime", "env_steps", "mean_rewards_0", "mean_rewards_1"}  # of every evaluation

# Settings in which the runs of a group may differ.
IGNORED_WHEN_GROUPING = {"seed", "save_dir", "save_every", "checkpoint_every", "eval_every", "eval_episodes"}
IGNORED_WHEN_GROUPING |= {"num_iterations", "max_env_steps", "stop_at", "game.height", "game.width"}


class SavedRun(NamedTuple):
    """A run: its metrics, and what distinguishes it from others."""

    path: Path
    label: str  # of its group, as the user gave it, or ""
    settings: dict[str, Any]  # the `hp` part of its config, flat
    metrics: dict[str, np.ndarray]  # the columns of metrics.csv, and `self_play`

    @property
    def seed(self) -> int | None:
        return self.settings.get("seed")

    @property
    def board(self) -> str:
        """Such as 3x3; "" where it is not known, or there is none."""
        return "x".join(str(self.settings[key]) for key in ("game.height", "game.width") if key in self.settings)

    def continues(self, other: "SavedRun") -> bool:
        """Whether it is longer than another run of the same settings."""
        keys = (self.settings.keys() | other.settings.keys()) - IGNORED_WHEN_GROUPING
        same = all(self.settings.get(key) == other.settings.get(key) for key in keys)
        return same and self.metrics["iteration"][-1] > other.metrics["iteration"][-1]


Groups = dict[str, list[SavedRun]]  # by label


def shown_columns(runs: Sequence[SavedRun]) -> list[str]:
    """Those of TABLE_TITLES that all runs have."""
    return [column for column in TABLE_TITLES if all(column in run.metrics for run in runs)]


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
        settings = flat(yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))["hp"])
        return SavedRun(path, label, settings, metrics)
    except (ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not a run, with metrics.csv and config.yaml: {error}") from error


def group_runs(runs: Sequence[SavedRun], split_boards: bool = True) -> Groups:
    """Runs of one label, or else of settings that differ in seed and length only; ValueError for a seed twice."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for key in run.settings.keys() - IGNORED_WHEN_GROUPING if not run.label else ():
            values.setdefault(key, set()).add(str(run.settings[key]))
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

# What is counted: of all training, and until a threshold is passed.
UNITS = {"walltime": "wall time (s)", "env_steps": "environment steps", "iteration": "iterations"}

REACHED_NOTE = "Interquartile mean over seeds and its 95 % bootstrap interval; `>`: more than a quarter never reach it."
PUBLISHED_NOTE = "Published:\nread off the paper's figure, means of three seeds at batch size 2048, on one A100."


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean without the highest and the lowest quarter, each rounded down: [seeds, ...] -> [...]."""
    cut = len(values) // 4
    return np.sort(values, 0)[cut : len(values) - cut].mean(0)


def bootstrap_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of the interquartile mean: [seeds, ...] -> low [...], high [...]."""
    draws = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    means = [interquartile_mean(values[draw]) for draw in draws]
    # A quantile that is one of the means: between a finite and an infinite one there is nothing.
    return tuple(np.quantile(means, (0.025, 0.975), axis=0, method="inverted_cdf"))


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


def summarise(runs: list[SavedRun], threshold: str, unit: str) -> dict[int, Summary]:
    """By size of the board, ascending; raises ValueError for a run without a square one."""
    by_size: dict[int, list[SavedRun]] = {}
    for run in runs:
        height, _, width = run.board.partition("x")
        if not height or height != width or "always_defect_0_mean_rewards_a" not in run.metrics:
            raise ValueError(f"{run.path} is not a run of the Coin Game on a known square board")
        by_size.setdefault(int(height), []).append(run)
    passed = lambda size: [threshold_passed(run.metrics, size, threshold) for run in by_size[size]]
    return {size: summary(by_size[size], passed(size), unit) for size in sorted(by_size)}


def reciprocity_table(groups: Groups) -> str:
    """A Markdown table: what it takes runs of the IPD to reciprocate; raises ValueError for other runs."""
    lines = []
    for label, runs in groups.items():
        try:
            passed = [reciprocates(run.metrics) for run in runs]
        except KeyError as error:
            raise ValueError(f"{runs[0].path} is not a run of the IPD") from error
        reached = f"{sum(p.any() for p in passed)} of {len(runs)}"
        lines.append([label, reached, *(str(summary(runs, passed, unit)) for unit in UNITS)])
    table = markdown_table(["", "seeds that reach it", *UNITS.values()], lines)
    return f"{table}\n\n{REACHED_NOTE}"


def threshold_table(groups: Groups) -> str:
    """A Markdown table: each group, threshold and board; then what was published on these boards."""
    lines, sizes = [], set()
    for (label, runs), threshold in product(groups.items(), THRESHOLDS):
        columns = [summarise(runs, threshold, unit) for unit in UNITS]
        for size, first in columns[0].items():
            sizes.add(size)
            cells = [f"{np.isfinite(first.times).sum()} of {len(first.times)}", *(str(x[size]) for x in columns)]
            lines.append([label, threshold, f"{size}x{size}", *cells])
    for (label, published), threshold in product(PUBLISHED["seconds"].items(), THRESHOLDS):
        for size, time in zip(PUBLISHED["sizes"], published[threshold], strict=True):
            if size in sizes:
                cells = [f"{size}x{size}", "", f"{time:,.0f}".replace("inf", "never"), "", ""]
                lines.append([f"{label}, published", threshold, *cells])
    table = markdown_table(["", "threshold", "grid", "seeds that reach it", *UNITS.values()], lines, (0, 1, 2))
    return f"{table}\n\n{REACHED_NOTE} {PUBLISHED_NOTE}"
