"""Figures of training runs and of leagues: `python -m loqa.tools.plot curves|bars|thresholds|league RUNS`.

curves      training curves: the mean over seeds, and the seeds
bars        in the IPD P(cooperate) in each state: means, and the seeds
thresholds  what the paper's thresholds take, by grid; with a table
league      the heat map of a league.csv, in place of RUNS

RUNS are runs' directories, directories of runs, or experiments of `report archive`. LABEL=RUNS names a group, and
several words may have the same label. Runs without one are a group where their settings differ in no more than seed
and length.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby, product
from pathlib import Path

import numpy as np
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MultipleLocator

from loqa.figures.curves import group_bars, in_style, legend_below, panels, save, seed_curves, styles
from loqa.figures.runs import UNITS, Groups
from loqa.tools.common import ArgumentParser, tool
from loqa.tools.saved_runs import by_board, goal_table, group_runs, read_runs, square_boards, times

GOAL_NOTE = """\
Lines: median over seeds; dots: the seeds; triangles: not by then.
The paper: read off its figure, means of three seeds on one A100."""


@in_style
def goal_figure(groups: Groups, path: Path) -> list[str]:
    """Draws what it takes to each goal (columns) in seconds and in iterations (rows) against the size of the grid."""
    game, groups, left_out = square_boards(groups)
    published, units = game.published_seconds, ("walltime", "iteration")
    looks = styles([*groups, *published])
    figure, grid = panels(2 * len(game.goals), columns=len(game.goals), sharex=True, sharey="row")
    for axes, (unit, goal) in zip(grid, product(units, game.goals), strict=True):
        for (label, members), look in zip(groups.items(), looks, strict=False):
            middle = {}
            for board, runs in by_board(members).items():
                when = np.maximum(times(runs, goal, unit), 1.0)  # 0, where a run begins with it, has no logarithm
                size = int(board.partition("x")[0])
                middle[size] = np.median(when)
                ends = np.array([run.metrics[unit][-1] for run in runs])
                for x, marker in ((when, "."), (np.where(np.isfinite(when), np.nan, ends), "^")):
                    axes.plot([size] * len(x), x, marker, color=look["color"], alpha=0.6, clip_on=False)
            axes.plot([*middle], [x if np.isfinite(x) else np.nan for x in middle.values()], label=label, **look)
        for (label, seconds), look in zip(published.items(), looks[len(groups) :], strict=True):
            if unit == "walltime":
                sizes, when = zip(*seconds[goal].items(), strict=True)
                style = {"color": look["color"], "linestyle": ":", "marker": "s", "markersize": 3, "linewidth": 0.8}
                axes.plot(sizes, when, label=f"{label}, the paper", **style)
        axes.set(title=f"{goal} threshold", xlabel="grid size", ylabel=UNITS[unit])
        axes.xaxis.set_major_locator(MultipleLocator(1))
        axes.label_outer()
    for axes in grid:  # after all of a row, which shares it, has data
        axes.set_yscale("log")
    legend_below(figure, grid[0], GOAL_NOTE + left_out)
    return save(figure, path)


def read_league(path: Path) -> tuple[np.ndarray, list[str]]:
    """Of a league.csv: rewards [N, N], the mean over both seats; kinds. Raises ValueError if it is none."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        kinds = {row["player_0"]: row["kind_0"] for row in rows}
        seen = defaultdict(list)  # by who earns it, and against whom
        for row, seat in product(rows, (0, 1)):
            seen[row[f"player_{seat}"], row[f"player_{1 - seat}"]].append(float(row[f"mean_reward_{seat}"]))
        rewards = np.array([[np.mean(dict(seen)[a, b]) for b in kinds] for a in kinds])
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not a whole league.csv, it lacks {error}") from error
    return rewards, list(kinds.values())


@in_style
def heat_map(rewards: np.ndarray, kinds: Sequence[str], path: Path) -> list[str]:
    """Draws what each row's player earns a step against each column's, [N, N], and the means by kind.

    Players stand by kind; one of a kind of few takes more room, so that the kind's name has its place.
    """
    sizes = {kind: len(list(group)) for kind, group in groupby(kinds)}
    edges = np.concatenate([[0], np.cumsum([max(1, 4 / sizes[kind]) for kind in kinds])])
    ends = np.cumsum([0, *sizes.values()])
    side = 1.6 + max(0.075 * edges[-1], 1.2)
    figure, (axes,) = panels(1, (side + 0.7, side))
    low, high = np.quantile(rewards, (0.05, 0.95))  # a few extreme pairs would leave one color to all others
    image = axes.pcolormesh(edges, edges, rewards, cmap="cividis", vmin=low, vmax=high)
    middles = (edges[ends[1:]] + edges[ends[:-1]]) / 2
    for i, j in np.ndindex(len(sizes), len(sizes)):
        mean = rewards[ends[i] : ends[i + 1], ends[j] : ends[j + 1]].mean()
        outline = [withStroke(linewidth=1.6, foreground="white")]  # to be read on any color
        axes.text(middles[j], middles[i], f"{mean:z.2f}", ha="center", va="center", fontsize=6, path_effects=outline)
    for end in edges[ends[1:-1]]:
        axes.axhline(end, color="black", linewidth=0.6)
        axes.axvline(end, color="black", linewidth=0.6)
    axes.set_xticks(middles, sizes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(middles, sizes)
    axes.set(xlabel="against", ylabel="player", ylim=(edges[-1], 0))
    axes.tick_params(length=0)
    axes.grid(False)
    figure.colorbar(image, shrink=0.8, pad=0.02, extend="both", label="mean reward a step of the row's player")
    return save(figure, path)


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("figure", choices=("curves", "bars", "thresholds", "league"))
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="see above")
    parser.add_argument("--out", type=Path, help="picture, without a suffix .png and .pdf (experiments/plots/FIGURE)")
    parser.add_argument("--x", choices=UNITS, default="iteration", help="horizontal axis of curves (%(default)s)")
    parser.add_argument("--metrics", help="columns that curves shows, such as own_coins_0,agent0_entropy (a choice)")
    parser.add_argument("--agent", type=int, choices=(0, 1), default=0, help="the learner of bars (%(default)s)")
    options = parser.parse_args()
    out = options.out or Path("experiments/plots") / options.figure
    out.parent.mkdir(parents=True, exist_ok=True)
    if options.figure == "league":
        lines = heat_map(*read_league(Path(options.runs[0])), out)
    else:
        groups = group_runs(read_runs(options.runs), split_boards=options.figure != "thresholds")
        if options.figure == "thresholds":
            lines = [*goal_figure(groups, out), goal_table(groups)]
        elif options.figure == "bars":
            lines = group_bars(groups, out, options.agent)
        else:
            lines = seed_curves(groups, out, options.metrics.split(",") if options.metrics else [], options.x)
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
