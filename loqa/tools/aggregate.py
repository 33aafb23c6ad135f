"""Aggregates over seeds, and what training takes to pass the paper's thresholds: its scaling experiment.

Interquartile means and bootstrap intervals are robust where seeds are few (Agarwal et al. 2021, arXiv 2108.13264).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from loqa.thresholds import THRESHOLDS, passes
from loqa.tools.common import markdown_table
from loqa.tools.saved_runs import Groups, SavedRun

RESAMPLES = 1000  # of the bootstrap

# What is counted until a threshold is passed.
UNITS = {"walltime": "wall time (s)", "env_steps": "environment steps", "iteration": "iterations"}

# Seconds of wall time on the grids 3x3 to 7x7, read off the scaling figure of the LOQA paper (arXiv 2405.01035):
# means of three seeds, batch size 2048, one A100. Infinite: never.
PUBLISHED_SIZES = (3, 4, 5, 6, 7)
NEVER = float("inf")
PUBLISHED_SECONDS = {
    "LOQA": {
        "weak": (150, 150, 250, 400, 1200),
        "medium": (150, 200, 320, 580, 2700),
        "strong": (300, 320, 700, 1300, 2900),
    },
    "POLA": {
        "weak": (1500, 1550, 2600, 2700, 5200),
        "medium": (4100, 2450, 9200, 6000, 14600),
        "strong": (24000, NEVER, NEVER, NEVER, NEVER),
    },
    "M-FOS": {
        "weak": (2300, 5600, 8400, 8500, 4300),
        "medium": (6000, 10200, NEVER, NEVER, NEVER),
        "strong": (NEVER, NEVER, NEVER, NEVER, NEVER),
    },
}


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean without the highest and the lowest quarter, each rounded down: [seeds, ...] -> [...].

    Of three seeds or fewer it is the mean. Infinite values count as any other, so that one in four seeds may
    never get somewhere and the time to it stays finite.
    """
    cut = len(values) // 4
    return np.sort(values, 0)[cut : len(values) - cut].mean(0)


def bootstrap_interval(
    values: np.ndarray, mean: Callable[[np.ndarray], np.ndarray] = interquartile_mean
) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of a mean over the first axis: [samples, ...] -> low [...], high [...]."""
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    means = [mean(values[draw]) for draw in draws]
    # A quantile that is one of the means: between a finite and an infinite one there is nothing.
    low, high = np.quantile(means, (0.025, 0.975), axis=0, method="inverted_cdf")
    return low, high


class Summary(NamedTuple):
    """Until when a threshold was passed, over the seeds of a group, in one of UNITS."""

    seeds: np.ndarray  # [seeds], infinite where it never was
    ends: np.ndarray  # [seeds], where it was passed, or else where the run ended
    mean: float  # interquartile mean; infinite if more than a quarter of the seeds never did (of 1 to 3: if one)
    low: float
    high: float
    at_least: float  # the interquartile mean of `ends`: a lower bound of `mean`, and equal if that is finite


def first_passing(run: SavedRun, threshold: str) -> int | None:
    """The row of the first evaluation that passes a threshold.

    Raises:
      ValueError: the run has no square board.
    """
    if run.game != "coin":
        raise ValueError(f"{run.path} is not a run of the Coin Game, which the thresholds are of")
    if run.grid is None or run.grid[0] != run.grid[1]:
        board = f"a {run.grid[0]}x{run.grid[1]} board" if run.grid else "no known board (such as 3x3, in its name)"
        raise ValueError(f"{run.path} has {board}, but the thresholds are of square ones")
    metrics = run.metrics
    passed = passes(metrics["self_play"], metrics["always_defect_0_mean_rewards_a"], run.grid[0], threshold)
    return int(passed.argmax()) if passed.any() else None


def summarise(runs: Sequence[SavedRun], threshold: str, unit: str) -> Summary:
    """Over the runs of one group and board."""
    rows = [first_passing(run, threshold) for run in runs]
    ends = np.array([run.metrics[unit][-1 if row is None else row] for run, row in zip(runs, rows, strict=True)])
    seeds = np.where([row is None for row in rows], np.inf, ends)
    mean, (low, high) = interquartile_mean(seeds), bootstrap_interval(seeds)
    at_least = mean if np.isfinite(mean) else interquartile_mean(ends)
    return Summary(seeds, ends, *map(float, (mean, low, high, at_least)))


def by_size(runs: Sequence[SavedRun]) -> dict[int, list[SavedRun]]:
    """The runs by the size of their boards, ascending; raises ValueError for boards without thresholds."""
    sizes: dict[int, list[SavedRun]] = {}
    for run in runs:
        first_passing(run, "weak")  # refuses them
        sizes.setdefault(run.grid[0], []).append(run)
    return dict(sorted(sizes.items()))


def threshold_rows(groups: Groups) -> list[dict[str, Any]]:
    """The rows of the table: each group, board and threshold; then what was published on these boards.

    An infinite number is never.
    """
    rows = []
    for label, runs in groups.items():
        for size, members in by_size(runs).items():
            for threshold in THRESHOLDS:
                row = {"source": "this code", "label": label, "size": size, "threshold": threshold}
                row |= {"seeds": len(members)}
                for unit in UNITS:
                    summary = summarise(members, threshold, unit)
                    row["reached"] = int(np.isfinite(summary.seeds).sum())
                    row |= {unit: summary.mean, f"{unit}_low": summary.low, f"{unit}_high": summary.high}
                    row[f"{unit}_at_least"] = summary.at_least
                rows.append(row)
    sizes = {row["size"] for row in rows}
    for label, published in PUBLISHED_SECONDS.items():
        for i, size in enumerate(PUBLISHED_SIZES):
            for threshold, seconds in published.items() if size in sizes else ():
                row = {"source": "published", "label": label, "size": size, "threshold": threshold, "seeds": 3}
                rows.append(row | {"walltime": seconds[i]})
    return rows


def threshold_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = []
    for row in rows:
        published = row["source"] == "published"
        name = f"{row['label']}, published" if published else row["label"] or "this code"
        reached = "" if published else f"{row['reached']} of {row['seeds']}"
        cells = [_cell(row, unit) for unit in UNITS]
        lines.append([name, f"{row['size']}x{row['size']}", row["threshold"], reached, *cells])
    head = ["", "grid", "threshold", "seeds that reach it", *UNITS.values()]
    return (
        f"{markdown_table(head, lines, text_columns=(0, 1, 2))}\n\n"
        "Interquartile mean over seeds and its 95 % bootstrap interval. Published: read off the paper's figure, "
        "means of three seeds at batch size 2048, on another machine (one A100).\n"
    )


def _cell(row: dict[str, Any], unit: str) -> str:
    number = lambda key: f"{row[key]:,.0f}" if np.isfinite(row[key]) else "never"
    if row["source"] == "published":
        return number(unit) if unit in row else ""
    if not np.isfinite(row[unit]):
        return f"{'more than' if row['reached'] else 'not in'} {number(f'{unit}_at_least')}"
    interval = f" [{number(f'{unit}_low')}, {number(f'{unit}_high')}]" if row["seeds"] > 1 else ""
    return number(unit) + interval
