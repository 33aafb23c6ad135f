"""Figures of training runs and of leagues: `python -m loqa.tools.plot curves|bars|thresholds|league RUNS`.

curves      training curves: interquartile mean over seeds and its 95 % bootstrap interval
bars        P(cooperate) in each state of the IPD: means, and the seeds
thresholds  what the paper's thresholds take, by grid; with a table
league      the heat map of a league.csv, in place of RUNS

RUNS are run directories, directories of runs, or CSV files of metrics, such as coin_3x3/seed_42.csv, with seed and
grid in the name. LABEL=RUNS names a group, and several words may have the same label. Runs without one are a group
where their settings differ in no more than seed and length.
"""

from pathlib import Path

from loqa.tools.aggregate import UNITS, threshold_table
from loqa.tools.common import one_line_errors, run_tool, tool_parser
from loqa.tools.figures import group_bars, heat_map, read_league, seed_curves, threshold_figure
from loqa.tools.saved_runs import group_runs, read_runs


def draw(figure: str, runs: list[str], out: Path, x: str, metrics: str | None, agent: int) -> list[str]:
    """Draws a figure; returns the names of its files, and its table."""
    if figure == "league":
        return heat_map(*read_league(Path(runs[0])), out)
    groups = group_runs(read_runs(runs), split_boards=figure != "thresholds")
    if figure == "thresholds":
        return [*threshold_figure(groups, out), threshold_table(groups)]
    if figure == "bars":
        return group_bars(groups, out, agent)
    return seed_curves(groups, out, metrics.split(",") if metrics else [], x)


def main() -> None:
    parser = tool_parser("plot", __doc__)
    parser.add_argument("figure", choices=("curves", "bars", "thresholds", "league"))
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="see above")
    parser.add_argument("--out", type=Path, help="the files to write, without suffix (experiments/plots/FIGURE)")
    parser.add_argument("--x", choices=UNITS, default="iteration", help="horizontal axis of curves (%(default)s)")
    parser.add_argument("--metrics", help="columns that curves shows, such as own_coins_0,agent0_entropy (a choice)")
    parser.add_argument("--agent", type=int, choices=(0, 1), default=0, help="the learner of bars (%(default)s)")
    options = parser.parse_args()
    options.out = options.out or Path("experiments/plots") / options.figure
    with one_line_errors(parser):
        options.out.parent.mkdir(parents=True, exist_ok=True)
        print(*draw(**vars(options)), sep="\n")


if __name__ == "__main__":
    run_tool(main)
