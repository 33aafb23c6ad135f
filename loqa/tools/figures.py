"""Figures of groups of saved runs, and the heat map of a league; each returns the files that it wrote."""

import csv
import textwrap
from collections.abc import Sequence
from itertools import groupby, product
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, MultipleLocator, NullLocator

from loqa.games.ipd import STATES
from loqa.thresholds import THRESHOLDS
from loqa.tools import aggregate
from loqa.tools.aggregate import UNITS, bootstrap_interval, interquartile_mean
from loqa.tools.common import count
from loqa.tools.saved_runs import TABLE_COLUMNS, Column, Groups, SavedRun, shown_columns
from loqa.tools.style import COLORS, PANEL, in_style, legend_below, line_style, panels, save

X_AXES = {"iteration": "iteration", "env_steps": "environment steps", "walltime": "wall time (s)"}
MOST_NUMBERS = 24  # players of a league; in a larger heat map a cell has no room for its number

CURVES_NOTE = "Thick: interquartile mean over seeds; shaded: its 95 % bootstrap interval;\nthin: the seeds."
SUMMARY_NOTE = (
    "Large: interquartile mean over seeds and its 95 % bootstrap interval; small: seeds, open if not reached."
)
PUBLISHED_NOTE = (
    "\nPublished: read off the paper's figure, means of three seeds, on another machine (one A100);\n"
    "where a symbol is missing, the threshold was never reached."
)
PUBLISHED_LOOKS = {
    label: {"color": color, "marker": marker, "linestyle": ":", "linewidth": 0.8, "markersize": 3}
    for label, color, marker in (("LOQA", "0.1", "s"), ("POLA", "0.4", "^"), ("M-FOS", "0.6", "D"))
}

# ------------------------------------------------------------------------------------------------ curves and bars


@in_style
def seed_curves(
    groups: Groups, path: str | Path, columns: Sequence[str] = (), x_axis: str = "iteration"
) -> list[str]:
    """Draws a panel for each column: each group's interquartile mean and interval, each seed thin behind it.

    Without columns: those of TABLE_COLUMNS that have a title.
    """
    runs = [run for members in groups.values() for run in members]
    columns = columns or [column for column in shown_columns(runs) if TABLE_COLUMNS[column].title]
    figure, grid = panels(len(columns))
    for axes, column in zip(grid, columns, strict=True):
        draw_seed_curves(axes, groups, column, x_axis)
        _, title, unit = TABLE_COLUMNS.get(column, Column("", column, ""))
        axes.set_title(title, fontsize=min(7, 220 / len(title)))
        axes.set_ylabel(unit)
        if column.startswith("p_"):
            axes.set_ylim(-0.04, 1.04)
    legend_below(figure, grid[0], CURVES_NOTE if len(runs) > len(groups) else "")
    return save(figure, path)


def draw_seed_curves(axes: Axes, groups: Groups, column: str, x_axis: str) -> None:
    """One panel of `seed_curves`."""
    for i, (label, runs) in enumerate(groups.items()):
        style = line_style(i)
        for run in runs if len(runs) > 1 else ():
            axes.plot(run.metrics[x_axis], run.metrics[column], **style, linewidth=0.4, alpha=0.45)
        x, values = over_seeds(runs, x_axis, column)
        name = f"{label or 'runs'} ({count(len(runs), 'seed')})"
        axes.plot(x, interquartile_mean(values), **style, marker="o" if x.size == 1 else None, label=name)
        if len(runs) > 1 and x.size:
            axes.fill_between(x, *bootstrap_interval(values), color=style["color"], alpha=0.25, linewidth=0)
    axes.set_xlabel(X_AXES[x_axis])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid()


def over_seeds(runs: Sequence[SavedRun], x_axis: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """One metric of several runs at the same places: x [X], values [runs, X].

    The places are those of all evaluations, as far as every run goes; between its own a run is interpolated.
    """
    curves = []
    for run in runs:
        known = ~np.isnan(run.metrics[column])
        curves.append((run.metrics[x_axis][known], run.metrics[column][known]))
    if any(x.size == 0 for x, _ in curves):
        return np.zeros(0), np.zeros((len(runs), 0))
    x = np.unique(np.concatenate([x for x, _ in curves]))
    x = x[(x >= max(at[0] for at, _ in curves)) & (x <= min(at[-1] for at, _ in curves))]
    return x, np.stack([np.interp(x, at, values) for at, values in curves])


@in_style
def group_bars(groups: Groups, path: str | Path, agent: int = 0) -> list[str]:
    """Draws P(cooperate | state) of each group's last evaluations, a panel each.

    Raises ValueError if a run is not one of the IPD with such an agent.
    """
    figure, grid = panels(len(groups), (max(PANEL[0], 2.9 / len(groups)), 1.4 * PANEL[1]))
    for axes, (label, runs) in zip(grid, groups.items(), strict=True):
        for run in runs:
            if f"p_{agent}_START_C" not in run.metrics:
                raise ValueError(f"{run.path} is not a run of the IPD with an agent {agent}")
        last = [[run.metrics[f"p_{agent}_{state}_C"][-1] for state in STATES] for run in runs]
        ends = sorted({int(run.metrics["iteration"][-1]) for run in runs})
        when = "iteration " + " to ".join(str(end) for end in dict.fromkeys((ends[0], ends[-1])))
        draw_bars(axes, np.array(last), f"{textwrap.fill(label, 30)}\n{when}, {count(len(runs), 'seed')}".strip())
    return save(figure, path)


def draw_bars(axes: Axes, probabilities: np.ndarray, title: str) -> None:
    """Draws P(cooperate) of [seeds, 5]: bars are means, dots the seeds, and whiskers the standard deviation.

    The whiskers are cut off at 0 and 1.
    """
    seeds = len(probabilities)
    mean, sd = probabilities.mean(0), probabilities.std(0, ddof=min(seeds - 1, 1))
    low, high = np.maximum(mean - sd, 0.0), np.minimum(mean + sd, 1.0)
    x = np.arange(len(STATES))
    axes.bar(x, mean, width=0.65, color=COLORS[4], edgecolor=COLORS[0])
    if seeds > 1:
        axes.errorbar(x, mean, (mean - low, high - mean), fmt="none", color="black", capsize=4, linewidth=1.2)
        places = x + np.linspace(-0.22, 0.22, seeds)[:, None]
        axes.scatter(places, probabilities, s=9, color=COLORS[1], linewidths=0, zorder=3, clip_on=False)
    for place, value, height in zip(x, mean, np.maximum(probabilities.max(0), high), strict=True):
        axes.annotate(f"{value:.2f}", (place, height), (0, 6), textcoords="offset points", ha="center")
    axes.set_xticks(x, STATES)
    axes.set(title=title, xlabel="state: my last action, theirs", ylabel="P(cooperate | state)")
    axes.set(ylim=(0, 1.1), yticks=np.linspace(0, 1, 6))  # room for the values over full bars
    axes.spines[["top", "right"]].set_visible(False)


# ---------------------------------------------------------------------------------------- what the thresholds take


@in_style
def threshold_figure(groups: Groups, path: str | Path, units: Sequence[str] = tuple(UNITS)) -> list[str]:
    """Draws what it takes to each threshold (columns) in each of `units` (rows) against the size of the grid."""
    figure, grid = panels(len(units) * len(THRESHOLDS), sharex=True, sharey="row")
    for axes, (unit, threshold) in zip(grid, product(units, THRESHOLDS), strict=True):
        for i, (label, runs) in enumerate(groups.items()):
            shift = 0.14 * (i - (len(groups) - 1) / 2)  # aside, so that groups do not hide each other
            _draw_summaries(axes, runs, threshold, unit, shift, line_style(i) | {"label": label or "this code"})
        axes.plot([], [], "o", color="black", markerfacecolor="white", label="not reached in these runs")
        for label, look in PUBLISHED_LOOKS.items() if unit == "walltime" else ():
            seconds = aggregate.PUBLISHED_SECONDS[label][threshold]
            axes.plot(aggregate.PUBLISHED_SIZES, seconds, **look, label=f"{label}, published")
        axes.grid()
        axes.margins(y=0.17)  # room for the arrows
    lines = grid.reshape(len(units), len(THRESHOLDS))
    for line, unit in zip(lines, units, strict=True):
        # All of a row share the axis. After the drawing: an empty axis of logarithms has no limits.
        line[0].set(ylabel=UNITS[unit], yscale="log")
        line[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        line[0].yaxis.set_minor_locator(NullLocator())
        line[0].yaxis.set_major_formatter(EngFormatter(sep=""))
    for top, bottom, threshold in zip(lines[0], lines[-1], THRESHOLDS, strict=True):
        top.set_title(f"{threshold} threshold")
        bottom.set_xlabel("grid size")
        bottom.xaxis.set_major_locator(MultipleLocator(1))
    legend_below(figure, grid[0], SUMMARY_NOTE + (PUBLISHED_NOTE if "walltime" in units else ""))
    return save(figure, path)


def _draw_summaries(
    axes: Axes, runs: Sequence[SavedRun], threshold: str, unit: str, shift: float, style: dict
) -> None:
    """One group in one panel of `threshold_figure`."""
    color = style["color"]
    sizes = aggregate.by_size(runs)
    summaries = {size + shift: aggregate.summarise(sizes[size], threshold, unit) for size in sizes}
    means = np.array([summary.mean for summary in summaries.values()])
    axes.plot(list(summaries), np.where(np.isfinite(means), means, np.nan), **style, marker="o")
    for x, summary in summaries.items():
        if len(summary.seeds) > 1:  # each seed, open where it ended before
            faces = [color if np.isfinite(seed) else "none" for seed in summary.seeds]
            axes.scatter([x] * len(faces), summary.ends, 7, faces, edgecolors=color, linewidths=0.5, alpha=0.5)
        if np.isfinite(summary.mean):
            axes.vlines(x, summary.low, min(summary.high, summary.ends.max()), color=color)
        else:
            arrow = {"arrowstyle": "<-", "color": color}
            axes.annotate("", (x, summary.at_least), (0, 15), textcoords="offset points", arrowprops=arrow)
            axes.plot(x, summary.at_least, "o", color=color, markerfacecolor="white")


# -------------------------------------------------------------------------------------------------------- leagues


def read_league(path: Path) -> tuple[np.ndarray, list[str], list[str]]:
    """What a league.csv has for `heat_map`: rewards [N, N], the mean over both seats; names; kinds.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not a league's, or pairs are missing.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        kinds = {row["player_0"]: row["kind_0"] for row in rows}
        names = list(kinds)
        rewards = np.full((2, len(names), len(names)), np.nan)
        for row in rows:
            i, j = names.index(row["player_0"]), names.index(row["player_1"])
            rewards[:, i, j] = float(row["mean_reward_0"]), float(row["mean_reward_1"])
    except KeyError as error:
        raise ValueError(f"{path} is not a league.csv: it has no column {error.args[0]}") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is not a league.csv: {error}") from error
    if not names or np.isnan(rewards).any():
        raise ValueError(f"{path} is not a whole league: pairs are missing")
    return (rewards[0] + rewards[1].T) / 2, names, list(kinds.values())


@in_style
def heat_map(rewards: np.ndarray, names: Sequence[str], kinds: Sequence[str], path: str | Path) -> list[str]:
    """Draws what each row's player earns a step against each column's, [N, N], with lines between the kinds.

    Players of a kind are next to each other in `names` and `kinds`, N each.
    """
    # Both colour maps are told apart with any colour vision: around zero, or of one sign.
    limit = np.abs(rewards).max()
    diverging = {"cmap": "RdBu", "vmin": -limit, "vmax": limit}
    side = 0.9 + max(0.31 * len(names), 1.8) + 0.04 * max(map(len, names))
    figure, (axes,) = panels(1, (side + 0.7, side))
    image = axes.imshow(rewards, **(diverging if rewards.min() < 0 < rewards.max() else {"cmap": "cividis"}))
    if len(names) <= MOST_NUMBERS:
        for (i, j), reward in np.ndenumerate(rewards):
            bright = np.dot((0.299, 0.587, 0.114, 0), image.to_rgba(reward)) >= 0.5
            text = f"{round(reward, 2) + 0.0:.2f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=5.5, color="black" if bright else "white")
    for end in np.cumsum([len(list(group)) for _, group in groupby(kinds)])[:-1] - 0.5:
        axes.axhline(end, color="black", linewidth=0.6)
        axes.axvline(end, color="black", linewidth=0.6)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="against", ylabel="player")
    figure.colorbar(image, shrink=0.8, pad=0.02, label="mean reward a step of the row's player")
    return save(figure, path)
