"""The style of all figures: for the text width of a paper, in colours that any colour vision tells apart."""

import math
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, without the yellow, which is pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
PANEL = (1.83, 1.65)  # inches: three fill the text width of a paper

STYLE = {"font.size": 7, "axes.titlesize": 7.5, "legend.frameon": False, "pdf.fonttype": 42}  # in points
STYLE |= {"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "patch.linewidth": 0.6}
STYLE |= {"lines.markersize": 4, "lines.linewidth": 1.2, "grid.alpha": 0.25, "grid.linewidth": 0.5}
# The dashes change when the colours are used up.
STYLE |= {"axes.prop_cycle": cycler(linestyle=("-", "--", ":", "-.")) * cycler(color=COLORS)}
in_style = matplotlib.rc_context(STYLE)  # decorates each function that draws


def panels(number: int, size: tuple[float, float] = PANEL, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of panels of `size` inches, three a row, and its axes [number]; `options`: of `Figure.subplots`."""
    rows, columns = math.ceil(number / 3), min(number, 3)
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
    """Writes a figure as PNG and as PDF, or as one of them where `path` has that suffix; returns the files."""
    files = [f"{path}"] if path.suffix in (".png", ".pdf") else [f"{path}.png", f"{path}.pdf"]
    for file in files:
        figure.savefig(file, bbox_inches="tight", pad_inches=0.04)  # with all of a legend below
    return files
