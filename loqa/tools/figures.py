"""Figures of groups of saved runs, and the heat map of a league; each returns the files that it wrote."""

import csv
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from itertools import groupby, product
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from loqa.games.ipd import STATES
from loqa.thresholds import THRESHOLDS
from loqa.tools import aggregate
from loqa.tools.aggregate import UNITS, bootstrap_interval, interquartile_mean
from loqa.tools.saved_runs import PUBLISHED_3X3, TITLES, Groups, SavedRun, shown_columns
from loqa.tools.style import COLORS, PANEL, in_style, legend_below, panels, save

CURVES_NOTE = "Thick: interquartile mean over n seeds; shaded: its 95 % bootstrap interval; thin: the seeds."
FEW_NOTE = "Thick: mean over n seeds; shaded: their range; thin: the seeds."  # which these are of two or three
SUMMARY_NOTE = """\
Large: interquartile mean over seeds and its 95 % bootstrap interval; small: seeds; nothing: not reached.
Published: read off the paper's figure, means of three seeds on one A100."""


@in_style
def seed_curves(groups: Groups, path: Path, columns: Sequence[str] = (), x_axis: str = "iteration") -> list[str]:
    """Draws a panel for each column, or for each that all runs have; raises ValueError if a run lacks one."""
    runs = sum(groups.values(), [])
    columns = columns or shown_columns(runs)
    for run in runs:
        if missing := [column for column in columns if column not in run.metrics]:
            raise ValueError(f"{run.path} has no column {missing[0]!r}, but {', '.join(run.metrics)}")
    figure, grid = panels(len(columns))
    for axes, column in zip(grid, columns, strict=True):
        draw_seed_curves(axes, groups, column, x_axis)
        axes.set_title(TITLES.get(column, textwrap.fill(column, 30)))
        if column in PUBLISHED_3X3 and {run.board for run in runs} == {"3x3"}:
            axes.axhline(PUBLISHED_3X3[column], color="gray", linestyle=":", linewidth=0.8, label="the paper's agents")
        if column.startswith("p_"):
            axes.set_ylim(-0.04, 1.04)
    if len(runs) > 1:
        legend_below(figure, grid[0], CURVES_NOTE if max(map(len, groups.values())) > 3 else FEW_NOTE)
    return save(figure, path)


def draw_seed_curves(axes: Axes, groups: Groups, column: str, x_axis: str) -> None:
    """Draws each group's interquartile mean and interval, and each seed thin behind it."""
    for label, runs in groups.items():
        x, values = over_seeds(runs, x_axis, column)
        (line,) = axes.plot(x, interquartile_mean(values), label=f"{label} (n = {len(runs)})".strip())
        line.set_marker("o" if x.size == 1 else "")
        color = line.get_color()
        if len(runs) > 1:
            axes.fill_between(x, *bootstrap_interval(values), color=color, alpha=0.25, linewidth=0)
            axes.plot(x, values.T, line.get_linestyle(), color=color, linewidth=0.4, alpha=0.45)
    axes.set_xlabel(UNITS[x_axis])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid()


def over_seeds(runs: Sequence[SavedRun], x_axis: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """One metric of several runs at the iterations that all have: x [X], the mean over runs; values [runs, X]."""
    shared = reduce(np.intersect1d, [run.metrics["iteration"][~np.isnan(run.metrics[column])] for run in runs])
    pairs = [(run.metrics, np.isin(run.metrics["iteration"], shared)) for run in runs]
    x, values = (np.array([metrics[name][rows] for metrics, rows in pairs]) for name in (x_axis, column))
    return x.mean(0), values


@in_style
def group_bars(groups: Groups, path: Path, agent: int = 0) -> list[str]:
    """Draws P(cooperate | state) of each group's last evaluations, a panel each; raises ValueError for others."""
    figure, grid = panels(len(groups), (max(PANEL[0], 2.9 / len(groups)), 1.4 * PANEL[1]))
    places = np.arange(len(STATES))
    for axes, (label, runs) in zip(grid, groups.items(), strict=True):
        try:
            last = np.array([[run.metrics[f"p_{agent}_{state}_C"][-1] for state in STATES] for run in runs])
        except KeyError as error:
            raise ValueError(f"{runs[0].path} is not a run of the IPD with an agent {agent}") from error
        axes.bar(places, last.mean(0), width=0.65, color=COLORS[4], edgecolor=COLORS[0])
        if len(runs) > 1:  # whiskers: the standard deviation over seeds; dots: the seeds
            axes.errorbar(places, last.mean(0), last.std(0, ddof=1), fmt="none", color="black", capsize=4)
            spread = places + np.linspace(-0.22, 0.22, len(runs))[:, None]
            axes.scatter(spread, last, s=9, color=COLORS[1], linewidths=0, zorder=3, clip_on=False)
        axes.set_xticks(places, [f"{state}\n{mean:.2f}" for state, mean in zip(STATES, last.mean(0), strict=True)])
        ends = sorted({f"{run.metrics['iteration'][-1]:.0f}" for run in runs})
        title = [*textwrap.wrap(label, 26), *textwrap.wrap(f"iteration {', '.join(ends)}, n = {len(runs)}", 34)]
        axes.set(title="\n".join(title), ylabel="P(C | state)", ylim=(0, 1))
        axes.set_xlabel("state: my last action, theirs")
        axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)


@in_style
def threshold_figure(groups: Groups, path: Path) -> list[str]:
    """Draws what it takes to each threshold (columns) in each of UNITS (rows) against the size of the grid."""
    figure, grid = panels(len(UNITS) * len(THRESHOLDS), sharex=True, sharey="row")
    for axes, (unit, threshold) in zip(grid, product(UNITS, THRESHOLDS), strict=True):
        for label, runs in groups.items():
            summaries = aggregate.summarise(runs, threshold, unit)
            sizes, means = list(summaries), [summary.mean for summary in summaries.values()]
            (line,) = axes.plot(sizes, means, marker="o", label=label or "this code")
            for size, summary in summaries.items():
                axes.plot([size] * len(summary.times), summary.times, ".", color=line.get_color(), alpha=0.5)
                axes.plot([size] * 2, (summary.low, summary.high), "-", color=line.get_color())
        for (label, of), seconds in aggregate.PUBLISHED_SECONDS.items() if unit == "walltime" else ():
            if of == threshold:
                axes.plot(aggregate.PUBLISHED_SIZES, seconds, "s:", label=f"{label}, published", linewidth=0.8)
        axes.set(title=f"{threshold} threshold", xlabel="grid size", ylabel=UNITS[unit], yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid()
        axes.label_outer()
    legend_below(figure, grid[0], SUMMARY_NOTE)
    return save(figure, path)


def read_league(path: Path) -> tuple[np.ndarray, list[str]]:
    """Of a league.csv: rewards [N, N], the mean over both seats; kinds. Raises ValueError if it is none."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        kinds = {row["player_0"]: row["kind_0"] for row in rows}
        seen = defaultdict(list)  # by who earns it, and against whom
        for row, seat in product(rows, (0, 1)):
            seen[row[f"player_{seat}"], row[f"player_{1 - seat}"]].append(float(row[f"mean_reward_{seat}"]))
        rewards = np.array([[np.mean(dict(seen)[a, b]) for b in kinds] for a in kinds])
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not a whole league.csv, it lacks {error}") from error
    return rewards, list(kinds.values())


@in_style
def heat_map(rewards: np.ndarray, kinds: Sequence[str], path: Path) -> list[str]:
    """Draws what each row's player earns a step against each column's, [N, N], and the means by kind.

    Players stand by kind; one of a kind of few takes more room, so that the kind's name has its place.
    """
    sizes = {kind: len(list(group)) for kind, group in groupby(kinds)}
    edges = np.concatenate([[0], np.cumsum([max(1, 4 / sizes[kind]) for kind in kinds])])
    ends = np.cumsum([0, *sizes.values()])
    side = 1.6 + max(0.075 * edges[-1], 1.2)
    figure, (axes,) = panels(1, (side + 0.7, side))
    image = axes.pcolormesh(edges, edges, rewards, cmap="cividis")
    middles = (edges[ends[1:]] + edges[ends[:-1]]) / 2
    for (i, j), _ in np.ndenumerate(np.zeros((len(sizes),) * 2)):
        mean = rewards[ends[i] : ends[i + 1], ends[j] : ends[j + 1]].mean()
        color = "black" if image.norm(mean) > 0.5 else "white"
        axes.text(middles[j], middles[i], f"{mean:z.2f}", ha="center", va="center", fontsize=5.5, color=color)
    for end in edges[ends[1:-1]]:
        axes.axhline(end, color="black", linewidth=0.6)
        axes.axvline(end, color="black", linewidth=0.6)
    axes.set_xticks(middles, sizes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(middles, sizes)
    axes.set(xlabel="against", ylabel="player", ylim=(edges[-1], 0))
    axes.tick_params(length=0)
    figure.colorbar(image, shrink=0.8, pad=0.02, label="mean reward a step of the row's player")
    return save(figure, path)
