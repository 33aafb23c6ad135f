"""Figures of training runs and of leagues: `python -m loqa.tools.plot curves|bars|thresholds|league ...`.

Each is written as PNG and PDF; `python -m loqa.tools.plot curves --help` lists its options.
"""

import argparse
from pathlib import Path

from loqa.tools.aggregate import UNITS, threshold_rows, threshold_table
from loqa.tools.common import one_line_errors, run_tool, tool_parser, whole, write_csv
from loqa.tools.figures import X_AXES, group_bars, heat_map, read_league, seed_curves, threshold_figure
from loqa.tools.saved_runs import group_runs, read_runs

ABOUT_RUNS = """\
RUNS are run directories, directories of runs, or CSV files of metrics. LABEL=RUNS names a group, and several words
may have the same label. Runs without one are a group where their settings differ in no more than seed and length.
Of a CSV file without a config.yaml, seed and grid are read off its name or its directory's, as
coin_3x3/seed_42.csv."""


def plot_curves(options: argparse.Namespace) -> list[str]:
    runs = read_runs(options.runs)
    columns = options.metrics.split(",") if options.metrics else []
    for run in runs:
        if unknown := [column for column in columns if column not in run.metrics]:
            raise ValueError(f"{run.path} has no column {unknown[0]!r}, but {', '.join(run.metrics)}")
    return seed_curves(group_runs(runs), options.out, columns, options.x)


def plot_bars(options: argparse.Namespace) -> list[str]:
    return group_bars(group_runs(read_runs(options.runs)), options.out, options.agent)


def plot_thresholds(options: argparse.Namespace) -> list[str]:
    groups = group_runs(read_runs(options.runs), split_grids=False)
    rows = threshold_rows(groups)
    write_csv(f"{options.out}.csv", rows)
    text = threshold_table(rows)
    Path(f"{options.out}.md").write_text(text)
    return [text, *threshold_figure(groups, options.out, [options.unit] if options.unit else list(UNITS))]


def plot_league(options: argparse.Namespace) -> list[str]:
    return heat_map(*read_league(options.csv), options.out)


FIGURES = {
    "curves": (plot_curves, "training curves: interquartile mean and interval over seeds"),
    "bars": (plot_bars, "P(cooperate) in each state of the IPD: mean and sd over seeds"),
    "thresholds": (plot_thresholds, "what the paper's thresholds take, by grid; with a table"),
    "league": (plot_league, "the heat map of a league"),
}


def main() -> None:
    parser = tool_parser("plot", __doc__)
    commands = parser.add_subparsers(required=True, metavar="FIGURE")
    of = {}
    for name, (function, text) in FIGURES.items():
        about = f"{text[0].upper()}{text[1:]}." + ("" if name == "league" else f"\n\n{ABOUT_RUNS}")
        of[name] = commands.add_parser(name, help=text, description=about, formatter_class=parser.formatter_class)
        out = f"experiments/plots/{name}"
        of[name].add_argument("--out", default=out, help="the files to write, without suffix (%(default)s)")
        of[name].set_defaults(function=function)
    for name in ("curves", "bars", "thresholds"):
        of[name].add_argument("runs", nargs="+", metavar="RUNS", help="see above")
    of["league"].add_argument("csv", type=Path, metavar="league.csv", help="as loqa.tools.league writes it")
    of["curves"].add_argument("--x", choices=X_AXES, default="iteration", help="the horizontal axis (%(default)s)")
    of["curves"].add_argument("--metrics", help="columns, such as own_coins_0,agent0_entropy (a choice of six)")
    of["bars"].add_argument("--agent", type=whole(0), default=0, help="which learner's, 0 or 1 (%(default)s)")
    of["thresholds"].add_argument("--unit", choices=UNITS, help="draw this one only (all three)")

    options = parser.parse_args()
    options.out = options.out.removesuffix(".png").removesuffix(".pdf")
    with one_line_errors(parser):
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        written = options.function(options)
    print(*written, sep="\n")


if __name__ == "__main__":
    run_tool(main)
