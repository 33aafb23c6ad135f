"""Training curves and bars of groups of runs, and the style of all figures."""

import math
import textwrap
from collections.abc import Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from loqa.figures import runs as saved_runs
from loqa.figures.runs import LEARNING, UNITS, Groups, SavedRun, shown_columns, title_of
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

CURVES_NOTE = "Thick: interquartile mean over n seeds; shaded: its 95 % bootstrap interval; thin: the seeds."
FEW_NOTE = "Thick: mean over n seeds; shaded: their range; thin: the seeds."  # which these are of two or three


def panels(number: int, size: Sequence[float] = PANEL, columns: int = 3, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of panels of `size` inches, `columns` a row, and its axes [number]; `options`: of `Figure.subplots`."""
    rows, columns = math.ceil(number / columns), min(number, columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=200, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for unused in axes[number:]:
        unused.set_axis_off()
    return figure, axes[:number]


def legend_below(figure: Figure, axes: Axes, note: str = "") -> None:
    """Adds the legend of one panel's lines below all panels, under a note; the picture grows when it is saved."""
    lines, labels = axes.get_legend_handles_labels()
    labels = [textwrap.fill(label, 60) for label in labels]
    columns = 18 * figure.get_figwidth() // (8 + max(map(len, labels)))  # about 18 letters an inch
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
    """Draws a panel for each column, or for each that all runs have; raises ValueError if a run lacks one."""
    runs = sum(groups.values(), [])
    columns = columns or shown_columns(runs)
    for run in runs:
        if missing := [column for column in columns if column not in run.metrics]:
            raise ValueError(f"{run.path} has no column {missing[0]!r}, but {', '.join(run.metrics)}")
    figure, grid = panels(len(columns))
    for axes, column in zip(grid, columns, strict=True):
        draw_seed_curves(axes, groups, column, x_axis)
        axes.set_title(textwrap.fill(title_of(runs, column), 30))
        published = [run.game.published_rewards.get(run.board, {}) for run in runs]
        if column in published[0] and all(each is published[0] for each in published):
            axes.axhline(published[0][column], color="gray", linestyle=":", linewidth=0.8, label="the paper's agents")
        if runs[0].game.is_share(column):
            axes.set_ylim(-0.04, 1.04)
    if len(runs) > 1:
        legend_below(figure, grid[0], CURVES_NOTE if max(map(len, groups.values())) > 3 else FEW_NOTE)
    return save(figure, path)


def draw_seed_curves(axes: Axes, groups: Groups, column: str, x_axis: str) -> None:
    """Draws each group's interquartile mean and interval, and each seed thin behind it."""
    for label, runs in groups.items():
        x, values = over_seeds(runs, x_axis, column)
        (line,) = axes.plot(x, saved_runs.interquartile_mean(values), label=f"{label} (n = {len(runs)})".strip())
        line.set_marker("o" if x.size == 1 else "")
        color = line.get_color()
        if len(runs) > 1:
            axes.fill_between(x, *saved_runs.bootstrap_interval(values), color=color, alpha=0.25, linewidth=0)
            axes.plot(x, values.T, line.get_linestyle(), color=color, linewidth=0.4, alpha=0.45)
    axes.set_xlabel(UNITS[x_axis])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def over_seeds(runs: Sequence[SavedRun], x_axis: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """One metric of several runs at the iterations that all have: x [X], the mean over runs; values [runs, X]."""
    shared = reduce(np.intersect1d, [run.metrics["iteration"][~np.isnan(run.metrics[column])] for run in runs])
    pairs = [(run.metrics, np.isin(run.metrics["iteration"], shared)) for run in runs]
    x, values = (np.array([metrics[name][rows] for metrics, rows in pairs]) for name in (x_axis, column))
    return x.mean(0), values


@in_style
def group_bars(groups: Groups, path: Path, agent: int = 0) -> list[str]:
    """Draws the bars of each group's last evaluations, a panel each; raises ValueError where the game has none."""
    figure, grid = panels(len(groups), (max(PANEL[0], 2.9 / len(groups)), 1.4 * PANEL[1]))
    for axes, (label, runs) in zip(grid, groups.items(), strict=True):
        try:
            names, xlabel, ylabel = runs[0].game.bars
            last = np.array([[run.metrics[x.format(agent=agent)][-1] for x in names.values()] for run in runs])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{runs[0].path} is not a run with bars of an agent {agent}") from error
        places = np.arange(len(names))
        axes.bar(places, last.mean(0), width=0.65, color=COLORS[4], edgecolor=COLORS[0])
        if len(runs) > 1:  # whiskers: the standard deviation over seeds; dots: the seeds
            axes.errorbar(places, last.mean(0), last.std(0, ddof=1), fmt="none", color="black", capsize=4)
            spread = places + np.linspace(-0.22, 0.22, len(runs))[:, None]
            axes.scatter(spread, last, s=9, color=COLORS[1], linewidths=0, zorder=3, clip_on=False)
        axes.set_xticks(places, [f"{name}\n{mean:.2f}" for name, mean in zip(names, last.mean(0), strict=True)])
        ends = sorted({f"{run.metrics['iteration'][-1]:.0f}" for run in runs})
        title = [*textwrap.wrap(label, 26), *textwrap.wrap(f"iteration {', '.join(ends)}, n = {len(runs)}", 34)]
        axes.set(title="\n".join(title), xlabel=xlabel, ylabel=ylabel, ylim=(0, 1))
        axes.grid(False)
        axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)


def draw_run(run: Any, game: Game) -> None:
    """Draws curves.png of a `loqa.run.run.Run`, and of a game that has bars cooperation_<i>.png for each agent."""
    metrics, spec = run.metrics(), game_of(game)
    saved = SavedRun(run.directory, "", run.hp_settings, metrics | {"self_play": self_play(metrics)}, spec.name)
    for i in (0, 1) if spec.bars else ():
        if all(column.format(agent=i) in metrics for column in spec.bars.columns.values()):
            draw = partial(group_bars, {f"{game.title}, agent {i}": [saved]}, agent=i)
            run.write(f"cooperation_{i}.png", draw)
    columns = [x for x in {**spec.titles, **LEARNING, **spec.more_titles} if x in saved.metrics]
    run.write("curves.png", partial(seed_curves, {"": [saved]}, columns=columns))
