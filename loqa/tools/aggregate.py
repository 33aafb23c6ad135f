"""Aggregates over seeds, and what training takes to pass the paper's thresholds: its scaling experiment.

Interquartile means and bootstrap intervals are robust where seeds are few (Agarwal et al. 2021, arXiv 2108.13264).
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np

from loqa.thresholds import THRESHOLDS, reciprocates, threshold_passed
from loqa.tools.common import markdown_table
from loqa.tools.saved_runs import Groups, SavedRun

AGAINST_DEFECT = "always_defect_0_mean_rewards_a"

# What is counted: of all training, and until a threshold is passed.
UNITS = {"walltime": "wall time (s)", "env_steps": "environment steps", "iteration": "iterations"}

# Seconds of wall time on the grids 3x3 to 7x7, read off the scaling figure of the LOQA paper (arXiv 2405.01035):
# means of three seeds, batch size 2048, one A100. Infinite: never.
PUBLISHED_SIZES = (3, 4, 5, 6, 7)
NEVER = float("inf")
PUBLISHED_SECONDS = {
    ("LOQA", "weak"): (150, 150, 250, 400, 1200),
    ("LOQA", "medium"): (150, 200, 320, 580, 2700),
    ("LOQA", "strong"): (300, 320, 700, 1300, 2900),
    ("POLA", "weak"): (1500, 1550, 2600, 2700, 5200),
    ("POLA", "medium"): (4100, 2450, 9200, 6000, 14600),
    ("POLA", "strong"): (24000, NEVER, NEVER, NEVER, NEVER),
    ("M-FOS", "weak"): (2300, 5600, 8400, 8500, 4300),
    ("M-FOS", "medium"): (6000, 10200, NEVER, NEVER, NEVER),
    ("M-FOS", "strong"): (NEVER, NEVER, NEVER, NEVER, NEVER),
}
TABLE_NOTE = """\
Interquartile mean over seeds and its 95 % bootstrap interval; `>`: more than a quarter never reach it. Published:
read off the paper's figure, means of three seeds at batch size 2048, on one A100."""


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean without the highest and the lowest quarter, each rounded down: [seeds, ...] -> [...]."""
    cut = len(values) // 4
    return np.sort(values, 0)[cut : len(values) - cut].mean(0)


def bootstrap_interval(values: np.ndarray, mean: Callable = interquartile_mean) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of a mean over the first axis: [samples, ...] -> low [...], high [...]."""
    draws = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    means = [mean(values[draw]) for draw in draws]
    # A quantile that is one of the means: between a finite and an infinite one there is nothing.
    low, high = np.quantile(means, (0.025, 0.975), axis=0, method="inverted_cdf")
    return low, high


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
    times = np.where([p.any() for p in passed], ends, NEVER)
    return Summary(times, interquartile_mean(ends), interquartile_mean(times), *bootstrap_interval(times))


def summarise(runs: list[SavedRun], threshold: str, unit: str) -> dict[int, Summary]:
    """By size of the board, ascending; raises ValueError for a run without a square one."""
    by_size: dict[int, list[SavedRun]] = {}
    for run in runs:
        height, _, width = run.board.partition("x")
        if not height or height != width or AGAINST_DEFECT not in run.metrics:
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
        lines.append([label or "this code", reached, *(str(summary(runs, passed, unit)) for unit in UNITS)])
    table = markdown_table(["", "seeds that reach it", *UNITS.values()], lines)
    return f"{table}\n\n{TABLE_NOTE.partition(' Published')[0]}"


def threshold_table(groups: Groups) -> str:
    """A Markdown table: each group, threshold and board; then what was published on these boards."""
    lines, sizes = [], set()
    for (label, runs), threshold in product(groups.items(), THRESHOLDS):
        columns = [summarise(runs, threshold, unit) for unit in UNITS]
        for size, first in columns[0].items():
            sizes.add(size)
            cells = [f"{np.isfinite(first.times).sum()} of {len(first.times)}", *(str(x[size]) for x in columns)]
            lines.append([label or "this code", threshold, f"{size}x{size}", *cells])
    for (label, threshold), seconds in PUBLISHED_SECONDS.items():
        for size, time in zip(PUBLISHED_SIZES, seconds, strict=True):
            if size in sizes:
                cells = [f"{size}x{size}", "", f"{time:,.0f}".replace("inf", "never"), "", ""]
                lines.append([f"{label}, published", threshold, *cells])
    table = markdown_table(["", "threshold", "grid", "seeds that reach it", *UNITS.values()], lines, (0, 1, 2))
    return f"{table}\n\n{TABLE_NOTE}"
