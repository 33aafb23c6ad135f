"""How long training takes to learn to cooperate, and not to be exploited: the paper's scaling experiment."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from loqa.tools.aggregate import bootstrap_interval, interquartile_mean
from loqa.tools.saved_runs import SavedRun
from loqa.tools.tables import markdown_table

# Both rewards a step, times n = 2 (size // 2), must exceed these in one evaluation: in self-play, the mean of
# both players, and of the agent against always-defect.
THRESHOLDS = {"weak": (0.05, -1.2), "medium": (0.1, -0.5), "strong": (0.2, -0.2)}

HELD = 5  # evaluations in a row that pass a threshold: it is held

# What is counted until then.
UNITS = {"walltime": "wall time (s)", "env_steps": "environment steps", "iteration": "iterations"}

# Seconds of wall time on the grids 3x3 to 7x7, read off the scaling figure of the LOQA paper (arXiv 2405.01035):
# means of three seeds, batch size 2048, one A100. None: never.
PUBLISHED_SIZES = (3, 4, 5, 6, 7)
PUBLISHED_SECONDS = {
    "LOQA": {
        "weak": (150, 150, 250, 400, 1200),
        "medium": (150, 200, 320, 580, 2700),
        "strong": (300, 320, 700, 1300, 2900),
    },
    "POLA": {
        "weak": (1500, 1550, 2600, 2700, 5200),
        "medium": (4100, 2450, 9200, 6000, 14600),
        "strong": (24000, None, None, None, None),
    },
    "M-FOS": {
        "weak": (2300, 5600, 8400, 8500, 4300),
        "medium": (6000, 10200, None, None, None),
        "strong": (None, None, None, None, None),
    },
}


class Summary(NamedTuple):
    """Until when a threshold was passed, over the seeds of a group, in one of UNITS."""

    seeds: np.ndarray  # [seeds], infinite where it never was
    ends: np.ndarray  # [seeds], where it was passed, or else where the run ended
    mean: float  # interquartile mean; infinite if more than a quarter of the seeds never did (of 1 to 3: if one)
    low: float
    high: float
    at_least: float  # the interquartile mean of `ends`: a lower bound of `mean`, and equal if that is finite


def passes(self_play: np.ndarray, against_defect: np.ndarray, size: int, threshold: str) -> np.ndarray:
    """Which evaluations pass a threshold: mean rewards a step [...] on a `size` x `size` board -> bool [...]."""
    scale = 2 * (size // 2)
    need_self_play, need_against_defect = THRESHOLDS[threshold]
    return (scale * self_play > need_self_play) & (scale * against_defect > need_against_defect)


def is_held(metrics: Mapping[str, np.ndarray], size: int, threshold: str) -> bool:
    """Whether the last HELD evaluations all pass a threshold; `metrics` are the columns of metrics.csv."""
    self_play = (metrics["mean_rewards_0"] + metrics["mean_rewards_1"]) / 2
    passed = passes(self_play, metrics["always_defect_0_mean_rewards_a"], size, threshold)
    return len(passed) >= HELD and bool(passed[-HELD:].all())


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
    low, high = bootstrap_interval(seeds)
    mean = float(interquartile_mean(seeds))
    at_least = mean if np.isfinite(mean) else float(interquartile_mean(ends))
    return Summary(seeds, ends, mean, float(low), float(high), at_least)


def sizes(runs: Sequence[SavedRun]) -> dict[int, list[SavedRun]]:
    """The runs by the size of their boards, ascending."""
    by_size: dict[int, list[SavedRun]] = {}
    for run in runs:
        first_passing(run, "weak")  # refuses boards without thresholds
        by_size.setdefault(run.grid[0], []).append(run)
    return dict(sorted(by_size.items()))


def threshold_rows(groups: dict[str, list[SavedRun]]) -> list[dict[str, Any]]:
    """The rows of the table: each group, board and threshold; then what was published on these boards.

    An infinite number is never.
    """
    rows, seen = [], set()
    for label, runs in groups.items():
        for size, members in sizes(runs).items():
            seen.add(size)
            for threshold in THRESHOLDS:
                row = {"source": "this code", "label": label, "size": size, "threshold": threshold}
                row |= {"seeds": len(members)}
                for unit in UNITS:
                    summary = summarise(members, threshold, unit)
                    row["reached"] = int(np.isfinite(summary.seeds).sum())
                    fields = {"": "mean", "_low": "low", "_high": "high", "_at_least": "at_least"}
                    row |= {unit + end: getattr(summary, field) for end, field in fields.items()}
                rows.append(row)
    for label, published in PUBLISHED_SECONDS.items():
        for i, size in enumerate(PUBLISHED_SIZES):
            for threshold, seconds in published.items() if size in seen else ():
                row = {"source": "published", "label": label, "size": size, "threshold": threshold, "seeds": 3}
                rows.append(row | {"walltime": float("inf") if seconds[i] is None else seconds[i]})
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    heads = ["", "grid", "threshold", "seeds that reach it", *UNITS.values()]
    lines = []
    for row in rows:
        published = row["source"] == "published"
        name = f"{row['label']}, published" if published else row["label"] or "this code"
        reached = "" if published else f"{row['reached']} of {row['seeds']}"
        cells = [_cell(row, unit) for unit in UNITS]
        lines.append([name, f"{row['size']}x{row['size']}", row["threshold"], reached, *cells])
    text = markdown_table(heads, lines, text_columns=(0, 1, 2))
    note = (
        "Interquartile mean over seeds and its 95 % bootstrap interval. Published: read off the paper's figure, "
    )
    note += "means of three seeds at batch size 2048, on another machine (one A100)."
    return f"{text}\n\n{note}\n"


def _cell(row: dict[str, Any], unit: str) -> str:
    number = lambda x: f"{x:,.0f}" if np.isfinite(x) else "never"
    if row["source"] == "published":
        return number(row[unit]) if unit in row else ""
    if not np.isfinite(row[unit]):
        return f"{'more than' if row['reached'] else 'not in'} {number(row[f'{unit}_at_least'])}"
    interval = f" [{number(row[f'{unit}_low'])}, {number(row[f'{unit}_high'])}]"
    return number(row[unit]) + interval * (row["seeds"] > 1)
