"""Figures of groups of saved runs, for the text width of a paper; the files are PNG or PDF, by their suffixes."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from loqa.tools import thresholds
from loqa.tools.aggregate import bootstrap_interval, interquartile_mean
from loqa.tools.saved_runs import SavedRun

# Okabe and Ito's colours, told apart with any colour vision; without the yellow, which is pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STATES = ("START", "CC", "CD", "DC", "DD")

PAPER = {"font.size": 7, "axes.titlesize": 7.5, "legend.frameon": False, "pdf.fonttype": 42}  # in points
PAPER |= {"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6}
PAPER |= {"lines.markersize": 4, "lines.linewidth": 1.2}
PANEL = (1.83, 1.65)  # inches: three fill the text width of a paper

X_AXES = {"iteration": "iteration", "env_steps": "environment steps", "walltime": "wall time (s)"}
TITLES = {  # of columns of the metrics: title and label of the vertical axis
    "self_play": ("in self-play", "reward a step"),
    "always_defect_0_mean_rewards_a": ("against always-defect", "reward a step"),
    "always_cooperate_0_mean_rewards_a": ("against always-cooperate", "reward a step"),
    "always_cooperate_0_mean_rewards_d": ("always-cooperate against it", "reward a step"),
    "own_coins_0": ("own coins, self-play", "coins a step"),
    "other_coins_0": ("other's coins, self-play", "coins a step"),
    **{f"p_0_{state}_C": (state, "P(cooperate | state)") for state in STATES},
}
SHOWN = {"coin": list(TITLES)[:6], "ipd": [*list(TITLES)[6:], "self_play"]}  # where no columns are asked for
CURVES_NOTE = "Thick: interquartile mean over seeds; shaded: its 95 % bootstrap interval;\nthin: the seeds."
SUMMARY_NOTE = (
    "Large: interquartile mean over seeds and its 95 % bootstrap interval; small: seeds, open if not reached."
)
PUBLISHED_NOTE = (
    "Published: read off the paper's figure, means of three seeds, on another machine (one A100);\n"
    "where a symbol is missing, the threshold was never reached."
)


def draw_bars(axes, probabilities: np.ndarray, title: str) -> None:
    """The bars of `loqa.tools.plot.state_probability_bars`: probabilities [seeds, 5]."""
    if probabilities.shape[1] != len(STATES):
        raise ValueError(f"expected the shape [5] or [seeds, 5], not {probabilities.shape}")
    seeds = len(probabilities)
    mean, sd = probabilities.mean(0), probabilities.std(0, ddof=min(seeds - 1, 1))
    low, high = np.maximum(mean - sd, 0.0), np.minimum(mean + sd, 1.0)
    x = np.arange(len(STATES))

    axes.bar(x, mean, width=0.65, color=COLORS[4], edgecolor=COLORS[0])
    if seeds > 1:
        axes.errorbar(x, mean, (mean - low, high - mean), fmt="none", color="black", capsize=4, linewidth=1.2)
        offsets = np.linspace(-0.22, 0.22, seeds)
        for offset, values in zip(offsets, probabilities, strict=True):
            axes.scatter(x + offset, values, s=9, color=COLORS[1], linewidths=0, zorder=3, clip_on=False)
    heights = np.maximum(probabilities.max(0), high)
    for position, value, height in zip(x, mean, heights, strict=True):
        axes.annotate(f"{value:.2f}", (position, height), (0, 6), textcoords="offset points", ha="center")
    axes.set_xticks(x, STATES)
    axes.set(title=title, xlabel="state: my last action, theirs", ylabel="P(cooperate | state)")
    axes.set(ylim=(0, 1.1), yticks=np.linspace(0, 1, 6))  # room for the values over full bars
    axes.spines[["top", "right"]].set_visible(False)


def figure_of(
    rows: int, columns: int, legend: Sequence[Line2D], note: str, **options
) -> tuple[Figure, np.ndarray]:
    """A figure with panels [rows, columns], and a legend and a note below them."""
    width = PANEL[0] * max(columns, 2)
    letters = 8 + max(len(line.get_label()) for line in legend)  # of an entry, with its line
    legend_columns = min(max(int(18 * width / letters), 1), 3)
    note_inches = 0.12 * (1 + note.count("\n")) if note else 0
    below = 0.08 + note_inches + 0.15 * -(-len(legend) // legend_columns)
    height = PANEL[1] * rows + below
    figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
    figure.get_layout_engine().set(rect=(0, below / height, 1, 1 - below / height))
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, note_inches / height), "borderaxespad": 0.2}
    figure.legend(handles=legend, ncols=legend_columns, **place)
    figure.text(0.5, 0.03 / height, note, ha="center", va="bottom", fontsize=6, color="0.3")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def group_style(index: int) -> dict:
    """Colour and dashes of a group; dashes change when the colours are used up."""
    return {"color": COLORS[index % len(COLORS)], "linestyle": ("-", "--", ":", "-.")[index // len(COLORS) % 4]}


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


@matplotlib.rc_context(PAPER)
def seed_curves(
    groups: dict[str, list[SavedRun]], columns: Sequence[str], x_axis: str, paths: Sequence[str | Path]
) -> None:
    """Draws a panel for each column: each group's interquartile mean and interval, each seed thin behind it."""
    note = CURVES_NOTE if any(len(runs) > 1 for runs in groups.values()) else ""
    wide = min(len(columns), 3)
    figure, grid = figure_of(-(-len(columns) // wide), wide, group_legend(groups), note)
    for axes, column in zip(grid.flat, columns, strict=False):
        draw_seed_curves(axes, groups, column, x_axis)
        title, ylabel = TITLES.get(column, (column, None))
        axes.set_title(title, fontsize=min(7, 220 / len(title)))
        axes.set(ylabel=ylabel)
        if column.startswith("p_"):
            axes.set_ylim(-0.04, 1.04)
    for axes in grid.flat[len(columns) :]:
        axes.set_axis_off()
    for path in paths:
        figure.savefig(path)


def group_legend(groups: dict[str, list[SavedRun]]) -> list[Line2D]:
    return [
        Line2D([], [], **group_style(i), label=f"{label or 'runs'} ({count(len(runs), 'seed')})")
        for i, (label, runs) in enumerate(groups.items())
    ]


def draw_seed_curves(axes, groups: dict[str, list[SavedRun]], column: str, x_axis: str) -> None:
    """One panel of `seed_curves`."""
    for i, runs in enumerate(groups.values()):
        style = group_style(i)
        for run in runs if len(runs) > 1 else ():
            axes.plot(run.metrics[x_axis], run.metrics[column], **style, linewidth=0.4, alpha=0.45)
        x, values = over_seeds(runs, x_axis, column)
        axes.plot(x, interquartile_mean(values), **style, marker="o" * (x.size == 1) or None)
        if len(runs) > 1 and x.size:
            axes.fill_between(x, *bootstrap_interval(values), color=style["color"], alpha=0.25, linewidth=0)
    axes.set_xlabel(X_AXES[x_axis])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.25, linewidth=0.5)


@matplotlib.rc_context(PAPER)
def group_bars(groups: dict[str, list[SavedRun]], agent: int, paths: Sequence[str | Path]) -> None:
    """Draws P(cooperate | state) of each group's last evaluations, as `state_probability_bars` does.

    Raises ValueError if a run is not one of the IPD with such an agent.
    """
    for run in (run for runs in groups.values() for run in runs):
        if f"p_{agent}_START_C" not in run.metrics:
            raise ValueError(f"{run.path} is not a run of the IPD with an agent {agent}")
    wide = min(len(groups), 3)
    size = PANEL[0] * max(wide, 1.6), PANEL[1] * 1.4 * -(-len(groups) // wide)
    figure = Figure(figsize=size, dpi=200, layout="constrained")
    grid = figure.subplots(-(-len(groups) // wide), wide, squeeze=False)
    for axes, (label, runs) in zip(grid.flat, groups.items(), strict=False):
        last = [[run.metrics[f"p_{agent}_{state}_C"][-1] for state in STATES] for run in runs]
        ends = sorted({int(run.metrics["iteration"][-1]) for run in runs})
        when = "iteration " + " to ".join(str(end) for end in dict.fromkeys((ends[0], ends[-1])))
        draw_bars(axes, np.array(last), f"{textwrap.fill(label, 30)}\n{when}, {count(len(runs), 'seed')}".strip())
    for axes in grid.flat[len(groups) :]:
        axes.set_axis_off()
    for path in paths:
        figure.savefig(path)


@matplotlib.rc_context(PAPER)
def threshold_figure(groups: dict[str, list[SavedRun]], units: Sequence[str], paths: Sequence[str | Path]) -> None:
    """Draws what it takes to each threshold (columns) in each of `units` (rows) against the size of the grid."""
    published = thresholds.PUBLISHED_SECONDS if "walltime" in units else {}
    looks = {
        label: {"color": color, "linestyle": ":", "marker": marker, "linewidth": 0.8, "markersize": 3}
        for label, color, marker in zip(published, ("0.1", "0.4", "0.6"), "s^D", strict=False)
    }
    legend = [
        Line2D([], [], **group_style(i), marker="o", label=label or "this code") for i, label in enumerate(groups)
    ]
    unreached = {"color": "black", "linestyle": "", "marker": "o", "markerfacecolor": "white"}
    legend.append(Line2D([], [], **unreached, label="not reached in these runs"))
    legend += [Line2D([], [], **look, label=f"{label}, published") for label, look in looks.items()]
    note = "\n".join([SUMMARY_NOTE] + [PUBLISHED_NOTE] * bool(published))
    figure, grid = figure_of(len(units), 3, legend, note, sharex=True, sharey="row")
    for line, unit in zip(grid, units, strict=True):
        for axes, threshold in zip(line, thresholds.THRESHOLDS, strict=True):
            for i, runs in enumerate(groups.values()):
                _draw_summaries(axes, runs, threshold, unit, i, 0.14 * (i - (len(groups) - 1) / 2))
            for label in published if unit == "walltime" else ():
                seconds = np.array(published[label][threshold], float)  # NaN is never
                axes.plot(thresholds.PUBLISHED_SIZES, seconds, **looks[label])
            axes.grid(alpha=0.25, linewidth=0.5)
            axes.margins(y=0.17)  # room for the arrows
        # All of a row share the axis. After the drawing: an empty axis of logarithms has no limits.
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    for axes, threshold in zip(grid[0], thresholds.THRESHOLDS, strict=True):
        axes.set_title(f"{threshold} threshold")
    for axes in grid[-1]:
        axes.set_xlabel("grid size")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, unit in zip(grid[:, 0], units, strict=True):
        axes.set_ylabel(thresholds.UNITS[unit])
    for path in paths:
        figure.savefig(path)


def _draw_summaries(axes, runs: Sequence[SavedRun], threshold: str, unit: str, index: int, shift: float) -> None:
    """One group in one panel of `threshold_figure`, shifted aside so that groups do not hide each other."""
    style = group_style(index)
    by_size = thresholds.sizes(runs)
    summaries = {size: thresholds.summarise(members, threshold, unit) for size, members in by_size.items()}
    for size, summary in summaries.items():
        reached = np.isfinite(summary.seeds)
        for values, face in ((summary.ends[reached], style["color"]), (summary.ends[~reached], "none")):
            if len(summary.seeds) > 1:  # each seed, open where it ended before
                looks = {"facecolors": face, "edgecolors": style["color"], "linewidths": 0.5, "alpha": 0.5}
                axes.scatter(np.full(len(values), size + shift), values, 7, **looks)
        if not np.isfinite(summary.mean):
            place, arrow = (size + shift, summary.at_least), {"arrowstyle": "<-", "color": style["color"]}
            axes.annotate("", place, (0, 15), textcoords="offset points", arrowprops=arrow)
            axes.plot(*place, "o", color=style["color"], markerfacecolor="white")
    # Lines are broken where the mean is infinite.
    x, means = np.array(list(summaries)) + shift, np.array([summary.mean for summary in summaries.values()])
    axes.plot(x, np.where(np.isfinite(means), means, np.nan), **style, marker="o")
    for at, summary in zip(x, summaries.values(), strict=True):
        if np.isfinite(summary.mean):
            axes.vlines(at, summary.low, min(summary.high, summary.ends.max()), color=style["color"])


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
