"""The style of all figures: for the text width of a paper, in colours that any colour vision tells apart."""

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, without the yellow, which is pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
PANEL = (1.83, 1.65)  # inches: three fill the text width of a paper

STYLE = {"font.size": 7, "axes.titlesize": 7.5, "legend.frameon": False, "pdf.fonttype": 42}  # in points
STYLE |= {"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6}
STYLE |= {"lines.markersize": 4, "lines.linewidth": 1.2, "grid.alpha": 0.25, "grid.linewidth": 0.5}
STYLE |= {"patch.linewidth": 0.6}
in_style = matplotlib.rc_context(STYLE)  # decorates each function that draws


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of a group's line; the dashes change when the colours are used up."""
    return {"color": COLORS[index % len(COLORS)], "linestyle": ("-", "--", ":", "-.")[index // len(COLORS) % 4]}


def panels(number: int, size: tuple[float, float] = PANEL, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of `number` panels, three a row, each of `size` inches: the figure and the axes [number].

    `options` are those of `Figure.subplots`.
    """
    rows, columns = math.ceil(number / 3), min(number, 3)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=200, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for unused in axes[number:]:
        unused.set_axis_off()
    return figure, axes[:number]


def legend_below(figure: Figure, axes: Axes, note: str = "") -> None:
    """Adds the legend of one panel's lines below all panels, under a note, and makes room for both."""
    lines, labels = axes.get_legend_handles_labels()
    width, height = figure.get_size_inches()
    width = max(width, 2 * PANEL[0])
    columns = min(max(int(18 * width / (8 + max(map(len, labels)))), 1), 3)
    legend = figure.legend(lines, labels, ncols=columns, loc="outside lower center", title=note, title_fontsize=6)
    legend.get_title().set(color="0.3", ha="center")
    note_height = 0.12 * (1 + note.count("\n")) if note else 0
    figure.set_size_inches(width, height + 0.08 + note_height + 0.15 * math.ceil(len(labels) / columns))


def save(figure: Figure, path: str | Path) -> list[str]:
    """Writes a figure as PNG and as PDF, or as one of them where `path` has that suffix; returns the files."""
    files = [f"{path}"] if str(path).endswith((".png", ".pdf")) else [f"{path}.png", f"{path}.pdf"]
    for file in files:
        figure.savefig(file)
    return files
