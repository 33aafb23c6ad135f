"""Figures of training runs: arrays in, a file out (PNG or PDF, by its suffix)."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

# Okabe and Ito's colours, told apart with any colour vision; without the yellow, which is pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STATES = ("START", "CC", "CD", "DC", "DD")


class Panel(NamedTuple):
    """One of the panels of `training_curves`."""

    title: str
    ylabel: str
    curves: Mapping[str, str]  # label -> column of the metrics
    reference: Mapping[str, float] = MappingProxyType({})  # label -> height of a dashed line
    ylim: tuple[float, float] | None = None


def training_curves(metrics: dict[str, np.ndarray], panels: list[Panel], path: str | Path) -> None:
    """Draws the panels, three a row, against `iteration` (below) and `env_steps` (above)."""
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows), dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, metrics, panel)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(path)


def _draw_panel(axes, metrics: dict[str, np.ndarray], panel: Panel) -> None:
    iteration, env_steps = metrics["iteration"], metrics["env_steps"]
    marker = "o" if len(iteration) < 2 else None  # a single evaluation is a point
    for (label, column), color in zip(panel.curves.items(), COLORS * 2, strict=False):
        axes.plot(iteration, metrics[column], color=color, linewidth=1.6, marker=marker, label=label)
    for (label, height), color in zip(panel.reference.items(), ("0.25", "0.5", "0.65") * 3, strict=False):
        axes.axhline(height, color=color, linestyle=(0, (5, 3)), linewidth=1.0, label=label, zorder=1)
    axes.set(title=panel.title, xlabel="iteration", ylabel=panel.ylabel, ylim=panel.ylim)
    axes.grid(alpha=0.25)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=(1, 2, 5, 10), integer=True))
    if len(panel.curves) + len(panel.reference) > 1:
        axes.legend(fontsize=8, framealpha=0.85)
    if iteration[-1] > 0:
        steps_each = env_steps[-1] / iteration[-1]
        top = axes.secondary_xaxis("top", functions=(lambda x: x * steps_each, lambda x: x / steps_each))
        top.xaxis.set_major_formatter(EngFormatter(sep=""))
        top.set_xlabel("environment steps", fontsize=8)
        top.tick_params(labelsize=8)


def state_probability_bars(probabilities: np.ndarray, path: str | Path, title: str) -> None:
    """Draws P(cooperate) in START, CC, CD, DC, DD: bars are means over seeds, dots are the seeds.

    Whiskers are the standard deviation over seeds, cut off at 0 and 1.

    Args:
        probabilities: [5] of one agent, or [seeds, 5].
        path: the file to write.
        title: above the picture.

    Raises ValueError for another shape.
    """
    probabilities = np.atleast_2d(probabilities)
    if probabilities.shape[1] != len(STATES):
        raise ValueError(f"expected the shape [5] or [seeds, 5], not {probabilities.shape}")
    seeds = len(probabilities)
    mean, sd = probabilities.mean(0), probabilities.std(0, ddof=min(seeds - 1, 1))
    low, high = np.maximum(mean - sd, 0.0), np.minimum(mean + sd, 1.0)
    x = np.arange(len(STATES))

    figure = Figure(figsize=(5.2, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
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
    figure.savefig(path)
