"""Figures of training runs and of leagues: `python -m loqa.tools.plot curves|bars|thresholds|league ...`.

Each is written as PNG and PDF; `python -m loqa.tools.plot curves --help` says what a picture takes.
"""

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from loqa.tools.command_line import refuse, run_tool, tool_parser, whole
from loqa.tools.group_figures import COLORS, SHOWN, X_AXES, draw_bars, group_bars, seed_curves, threshold_figure
from loqa.tools.heatmap import heat_map, read_league
from loqa.tools.saved_runs import group_runs, read_runs
from loqa.tools.thresholds import UNITS, markdown, threshold_rows

ABOUT_RUNS = """\
RUNS are run directories, directories of runs, or CSV files of metrics. LABEL=RUNS names a group, and several words
may have the same label. Runs without one are a group where their settings differ in no more than seed and length.
A CSV file without a config.yaml tells seed and grid by its name or its directory's, as coin_3x3/seed_42.csv."""


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
    figure = Figure(figsize=(5.2, 4.0), dpi=150, layout="constrained")
    draw_bars(figure.subplots(), np.atleast_2d(probabilities), title)
    figure.savefig(path)


# ---------------------------------------------------------------------------------------------- the command line


def plot_curves(options: argparse.Namespace, paths: list[str]) -> None:
    runs = read_runs(options.runs)
    columns = options.metrics.split(",") if options.metrics else SHOWN[runs[0].game]
    for run in runs:
        if unknown := [column for column in columns if column not in run.metrics]:
            raise ValueError(f"{run.path} has no column {unknown[0]!r}, but {', '.join(run.metrics)}")
    seed_curves(group_runs(runs), columns, options.x, paths)


def plot_bars(options: argparse.Namespace, paths: list[str]) -> None:
    group_bars(group_runs(read_runs(options.runs)), options.agent, paths)


def plot_thresholds(options: argparse.Namespace, paths: list[str]) -> str:
    groups = group_runs(read_runs(options.runs), split_grids=False)
    rows = threshold_rows(groups)
    with open(f"{options.out}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = markdown(rows)
    Path(f"{options.out}.md").write_text(text)
    threshold_figure(groups, [options.unit] if options.unit else list(UNITS), paths)
    return text


def plot_league(options: argparse.Namespace, paths: list[str]) -> None:
    league = read_league(options.csv)
    for path in paths:
        heat_map(*league, path)


def main() -> None:
    parser = tool_parser("plot", __doc__)
    commands = parser.add_subparsers(required=True, metavar="PICTURE")

    def command(name, function, text):
        about = f"{text[0].upper()}{text[1:]}." + f"\n\n{ABOUT_RUNS}" * (name != "league")
        sub = commands.add_parser(name, help=text, description=about, formatter_class=parser.formatter_class)
        if name == "league":
            sub.add_argument("csv", type=Path, metavar="league.csv", help="as loqa.tools.league writes it")
        else:
            sub.add_argument("runs", nargs="+", metavar="RUNS", help="see above")
        out = f"experiments/plots/{name}"
        sub.add_argument("--out", default=out, help="the files to write, without suffix (%(default)s)")
        sub.set_defaults(function=function)
        return sub

    curves = command("curves", plot_curves, "training curves: interquartile mean and interval over seeds")
    curves.add_argument("--x", choices=X_AXES, default="iteration", help="the horizontal axis (%(default)s)")
    curves.add_argument("--metrics", help="columns to draw, such as own_coins_0,agent0_entropy (a choice of six)")
    bars = command("bars", plot_bars, "P(cooperate) in each state of the IPD: mean and sd over seeds")
    bars.add_argument("--agent", type=whole(0), default=0, help="which learner's, 0 or 1 (%(default)s)")
    scaling = command("thresholds", plot_thresholds, "what the paper's thresholds take, by grid; with a table")
    scaling.add_argument("--unit", choices=UNITS, help="draw this one only (all three)")
    command("league", plot_league, "the heat map of a league")

    options = parser.parse_args()
    options.out = options.out.removesuffix(".png").removesuffix(".pdf")
    paths = [f"{options.out}.{suffix}" for suffix in ("png", "pdf")]
    try:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        text = options.function(options, paths)
    except (OSError, ValueError) as error:
        refuse(parser, error)
    print(*[text] * bool(text), *paths, sep="\n")


if __name__ == "__main__":
    run_tool(main)
