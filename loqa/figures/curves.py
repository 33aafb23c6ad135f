"""Training curves and bars of groups of runs, and the style of all figures."""

import math
import textwrap
from collections.abc import Sequence
from functools import partial, reduce
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from loqa.figures.runs import LEARNING, UNITS, Groups, SavedRun, longest, shown_columns, title_of
from loqa.game import COLORS, Game
from loqa.games import game_of
from loqa.metrics import self_play

PANEL = (1.83, 1.65)  # inches: three fill the text width of a paper

STYLE = {"font.size": 7, "axes.titlesize": 7.5, "legend.frameon": False, "pdf.fonttype": 42}  # in points
STYLE |= {"text.usetex": False}  # whatever the user's own style says
STYLE |= {"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "patch.linewidth": 0.6}
STYLE |= {"lines.markersize": 4, "lines.linewidth": 1.2, "grid.alpha": 0.25, "grid.linewidth": 0.5, "axes.grid": True}
# The dashes change when the colors are used up.
STYLE |= {"axes.prop_cycle": cycler(linestyle=("-", "--", ":", "-.")) * cycler(color=COLORS)}
in_style = matplotlib.rc_context(STYLE)  # decorates each function that draws

# A color for each algorithm in all figures, by a word of a group's label; the first that fits.
ALGORITHMS = {"former": COLORS[5], "published settings": COLORS[4], "naive": "#777777", "lola": COLORS[2]}
ALGORITHMS |= {"pola": COLORS[3], "m-fos": COLORS[6], "alignment": COLORS[1], "loqa": COLORS[0], "this code": COLORS[0]}

NOTE = "Thick: mean over n seeds; thin: the seeds"
BARS_NOTE = "Bars: mean over n seeds; whiskers: standard deviation; dots: the seeds"


def styles(labels: Sequence[str]) -> list[dict[str, Any]]:
    """Color and dashes of each group: the color of its algorithm, or else one that no other has."""
    named = lambda label: next((color for word, color in ALGORITHMS.items() if word in label.lower()), "")
    colors = [named(label or "loqa") for label in labels]
    free = cycle([color for color in COLORS[1:] if color not in colors] or COLORS)  # the first is LOQA's
    colors = [color or next(free) for color in colors]
    return [{"color": x, "linestyle": ("-", "--", ":", "-.")[colors[:i].count(x) % 4]} for i, x in enumerate(colors)]


def panels(number: int, size: Sequence[float] = PANEL, columns: int = 3, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of panels of `size` inches, `columns` a row, and its axes [number]; `options`: of `Figure.subplots`."""
    columns = 2 if number == 4 else min(number, columns)
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=200, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for unused in axes[number:]:
        unused.set_axis_off()
    return figure, axes[:number]


def legend_below(figure: Figure, axes: Axes, note: str = "") -> None:
    """Adds the legend of one panel's lines, if it has any, below all panels, under a note; the saved picture grows."""
    lines, labels = axes.get_legend_handles_labels()
    labels = [textwrap.fill(label, 60) for label in labels]
    columns = 18 * figure.get_figwidth() // (8 + max(map(len, labels), default=0))  # about 18 letters an inch
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncols": int(min(max(columns, 1), 3))}
    figure.legend(lines, labels, title=note, title_fontsize=6, **place)


def save(figure: Figure, path: Path) -> list[str]:
    """Writes a figure as PNG and as PDF, or as what the suffix of `path` says, such as .svg; returns the files."""
    suffixes = [""] if path.suffix[1:] in figure.canvas.get_supported_filetypes() else [".png", ".pdf"]
    files = [f"{path}{suffix}" for suffix in suffixes]
    for file in files:
        figure.savefig(file, bbox_inches="tight", pad_inches=0.04)  # with all of a legend below
    return files


@in_style
def seed_curves(groups: Groups, path: Path, columns: Sequence[str] = (), x_axis: str = "iteration") -> list[str]:
    """Draws a panel for each column, or for each that all runs have; raises ValueError if a run lacks one.

    A column may be followed by the limits of its panel, as in "self_play 0.28 0.35".
    """
    runs = sum(groups.values(), [])
    columns = columns or shown_columns(runs)
    figure, grid = panels(len(columns))
    for axes, (column, *limits) in zip(grid, map(str.split, columns), strict=True):
        if lacking := [run for run in runs if column not in run.metrics]:
            raise ValueError(f"{lacking[0].path} has no column {column!r}, but {', '.join(lacking[0].metrics)}")
        draw_seed_curves(axes, groups, column, x_axis)
        axes.set_title(textwrap.fill(title_of(runs, column), 30) + (", closer" if limits else ""))
        papers = {run.published.get(column) for run in runs}
        if len(papers) == 1 and None not in papers:
            axes.axhline(*papers, color="black", linestyle=":", linewidth=0.9, label="the paper")
        limits = limits or ((-0.04, 1.04) if runs[0].game.is_share(column) else ())
        axes.set_ylim(*map(float, limits))
    if len(runs) > 1:
        legend_below(figure, grid[0], NOTE)
    return save(figure, path)


def draw_seed_curves(axes: Axes, groups: Groups, column: str, x_axis: str) -> None:
    """Draws each group's mean of the seeds that are there at each x, and each seed thin behind it."""
    ends, short = [], EngFormatter(sep="")
    for i, ((label, runs), style) in enumerate(zip(groups.items(), styles(list(groups)), strict=True)):
        x, values = over_seeds(runs, x_axis, column)
        numbers = (~np.isnan(values)).sum(0)
        fewer = [f"{numbers[k + 1]} from {short(x[k + 1])} on" for k in np.flatnonzero(np.diff(numbers))[:3]]
        n = ", ".join([f"n = {numbers.max(initial=0)}", *fewer])
        mean = np.nansum(values, 0) / numbers
        axes.plot(x, mean, label=f"{label} ({n})".strip(), marker="o" if x.size == 1 else "", zorder=99 - i, **style)
        if len(runs) > 1:
            axes.plot(x, values.T, linewidth=0.4, alpha=0.45, **style)
        ends.append(x.max(initial=0))
    axes.set_xlabel(UNITS[x_axis])
    if max(ends) > 10 * min(ends) > 0:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def over_seeds(runs: Sequence[SavedRun], x_axis: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """One metric of several runs: x [X], the mean over runs; values [runs, X], NaN where a run has ended.

    At the iterations that all runs have which have not ended before.
    """
    has = [~np.isnan(run.metrics[column]) for run in runs]
    iterations = [run.metrics["iteration"][rows] for run, rows in zip(runs, has, strict=True)]
    shared = reduce(np.union1d, iterations)
    for each in iterations:
        shared = shared[np.isin(shared, each) | (shared > each.max(initial=-1))]
    x, values = np.full((2, len(runs), shared.size), np.nan)
    for i, (run, rows) in enumerate(zip(runs, has, strict=True)):
        here = rows & np.isin(run.metrics["iteration"], shared)
        x[i, : here.sum()], values[i, : here.sum()] = run.metrics[x_axis][here], run.metrics[column][here]
    return np.maximum.accumulate(np.nansum(x, 0) / (~np.isnan(x)).sum(0)), values


@in_style
def group_bars(groups: Groups, path: Path, agent: int = 0) -> list[str]:
    """Draws the bars of each group's last evaluations, a panel each; raises ValueError where the game has none.

    Runs that ended before the others of their group are left out, which the title says.
    """
    figure, grid = panels(len(groups), (max(PANEL[0], 2.9 / len(groups)), 1.4 * PANEL[1]))
    whole = [longest(runs) for runs in groups.values()]
    for axes, (label, members), runs, style in zip(grid, groups.items(), whole, styles(list(groups)), strict=True):
        try:
            names, xlabel, ylabel = runs[0].game.bars
            columns = [x.format(agent=agent) for x in names.values()]
            last = np.array([[run.metrics[column][-1] for column in columns] for run in runs])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{runs[0].path} is not a run with bars of an agent {agent}") from error
        places = np.arange(len(names))
        axes.bar(places, last.mean(0), width=0.65, color=style["color"], alpha=0.45)
        if len(runs) > 1:
            axes.errorbar(places, last.mean(0), last.std(0, ddof=1), fmt="none", color="black", capsize=4)
            spread = places + np.linspace(-0.22, 0.22, len(runs))[:, None]
            axes.scatter(spread, last, s=9, color=style["color"], linewidths=0, zorder=3, clip_on=False)
        papers = [runs[0].published.get(column, np.nan) for column in columns]
        axes.hlines(papers, places - 0.42, places + 0.42, color="black", linestyle=":", clip_on=False)
        axes.set_xticks(places, [f"{name}\n{mean:.2f}" for name, mean in zip(names, last.mean(0), strict=True)])
        n = f"n = {len(runs)}" + (f" of {len(members)}; others ended before" if len(runs) < len(members) else "")
        title = [*textwrap.wrap(label, 26), *textwrap.wrap(f"iteration {runs[0].end}, {n}", 34)]
        axes.set(title="\n".join(title), xlabel=xlabel, ylabel=ylabel, ylim=(0, 1))
        axes.grid(False)
        axes.spines[["top", "right"]].set_visible(False)
    if len(whole[0]) > 1:
        legend_below(figure, axes, BARS_NOTE + ("; dotted: the paper, roughly" if np.isfinite(papers).any() else ""))
    return save(figure, path)


def draw_run(run: Any, game: Game) -> None:
    """Draws curves.png of a `loqa.run.run.Run`, and of a game that has bars cooperation_<i>.png for each agent."""
    metrics, spec = run.metrics(), game_of(game)
    saved = SavedRun(run.directory, "", run.hp_settings, metrics | {"self_play": self_play(metrics)}, spec)
    for i in (0, 1) if spec.bars else ():
        if all(column.format(agent=i) in metrics for column in spec.bars.columns.values()):
            run.write(f"cooperation_{i}.png", partial(group_bars, {f"{game.title}, agent {i}": [saved]}, agent=i))
    columns = [x for x in {**spec.titles, **LEARNING, **spec.more_titles} if x in saved.metrics]
    run.write("curves.png", partial(seed_curves, {"": [saved]}, columns=columns))
