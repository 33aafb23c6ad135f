"""Figures of training runs: `python -m loqa.tools.plot curves|bars|thresholds RUNS`.

curves      training curves: the mean over the seeds, and the seeds
bars        in the IPD P(cooperate) in each state: means, and the seeds
thresholds  what the paper's thresholds take, by grid; with a table

RUNS are runs' directories, directories of runs, or experiments of `report archive`; RUNS@4x4 are those of a board,
RUNS@42-51 of these seeds. LABEL=RUNS names a group, and several words may have the same label. Runs without one are a
group where their settings differ in no more than seed and length.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.ticker import MultipleLocator

from loqa.figures.curves import group_bars, in_style, legend_below, panels, save, seed_curves, styles
from loqa.figures.runs import UNITS, Groups, SavedRun
from loqa.run.trainer import IN_A_ROW
from loqa.tools.common import ArgumentParser, markdown_table, tool
from loqa.tools.saved_runs import group_runs, read_runs

TABLE_NOTE = "Medians over seeds [lowest, highest]; `>`: not by then. Held: by five evaluations in a row."
FIGURE_NOTE = """\
Lines: median over seeds; dots: the seeds; triangles: not by then.
The paper: read off its figure, means of three seeds on one A100."""


def times(runs: Sequence[SavedRun], goal: str, unit: str, in_a_row: int = 1) -> np.ndarray:
    """When each run first reaches a goal, in one of UNITS, by so many evaluations in a row; infinite: never."""
    found = []
    for run in runs:
        try:
            reached = run.game.goals[goal](run.metrics, run.settings)
        except KeyError as error:
            raise ValueError(f"{run.path} is not a run with the goal {goal}: it lacks {error}") from error
        held = np.convolve(reached, np.ones(in_a_row))[: reached.size] == in_a_row
        found.append(run.metrics[unit][held.argmax()] if held.any() else np.inf)
    return np.array(found)


def median(runs: Sequence[SavedRun], goal: str, unit: str, in_a_row: int = 1) -> str:
    """The median of `times` in words, of iterations with their range."""
    when, ends = times(runs, goal, unit, in_a_row), [run.metrics[unit][-1] for run in runs]
    words = lambda x: "never" if x == np.inf else f"{x / 1e6:,.1f}M" if unit == "env_steps" else f"{x:,.0f}"
    if np.isinf(np.median(when)):
        return f"> {words(np.median(ends))}"
    limits = f" [{words(when.min())}, {words(when.max())}]" if len(when) > 1 and unit == "iteration" else ""
    return words(np.median(when)) + limits


def by_board(runs: Sequence[SavedRun]) -> dict[str, list[SavedRun]]:
    """Runs by the size of their board, ascending."""
    order = sorted({run.board for run in runs}, key=lambda board: (len(board), board))
    return {board: [run for run in runs if run.board == board] for board in order}


def square_boards(groups: Groups) -> tuple[Groups, str]:
    """The runs on square boards, and in words which others are left out; ValueError if that is all."""
    runs = sum(groups.values(), [])
    others = {run.board for run in runs if len({*run.board.split("x")}) > 1 or not run.board}
    kept = {label: [run for run in members if run.board not in others] for label, members in groups.items()}
    if not any(kept.values()):
        raise ValueError(f"{runs[0].path} is not a run with thresholds on a known square board")
    left_out = f"\nLeft out, as thresholds are of square boards: {', '.join(sorted(others))}." if others else ""
    return {label: members for label, members in kept.items() if members}, left_out


def goal_table(groups: Groups, goals: Sequence[str] = ()) -> str:
    """A Markdown table: until when each group reaches goals (all of its game) on each board; ValueError if none has."""
    game = next(iter(groups.values()))[0].game
    groups, left_out = square_boards(groups) if game.board else (groups, "")
    paper, lines = game.published_seconds.get("LOQA", {}), []
    for (label, members), goal in product(groups.items(), goals or game.goals):
        for board, runs in by_board(members).items():
            reached = f"{np.isfinite(times(runs, goal, 'iteration')).sum()} of {len(runs)}"
            cells = [median(runs, goal, unit, n) for n in (1, IN_A_ROW) for unit in ("iteration", "walltime")]
            seconds = paper.get(goal, {}).get(int(board.partition("x")[0] or 0), "")
            lines.append([label, f"{goal} {board}", reached, *cells, median(runs, goal, "env_steps"), f"{seconds}"])
    head = ["", "goal", "seeds", "first at iteration", "s", "held at iteration", "s", "steps to first", "the paper, s"]
    return f"{markdown_table(head, lines, (0, 1))}\n\n{TABLE_NOTE}{left_out}"


@in_style
def goal_figure(groups: Groups, path: Path) -> list[str]:
    """Draws what it takes to each goal (columns) in seconds and in iterations (rows) against the size of the grid."""
    groups, left_out = square_boards(groups)
    game = next(iter(groups.values()))[0].game
    if not game.goals:
        raise ValueError(f"the game {game.name} has no goals")
    looks = styles([*groups, *game.published_seconds])
    figure, grid = panels(2 * len(game.goals), columns=len(game.goals), sharex=True, sharey="row")
    for axes, (unit, goal) in zip(grid, product(("walltime", "iteration"), game.goals), strict=True):
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
        for (label, seconds), look in zip(game.published_seconds.items(), looks[len(groups) :], strict=True):
            if unit == "walltime":
                style = {"color": look["color"], "linestyle": ":", "marker": "s", "markersize": 3, "linewidth": 0.8}
                axes.plot([*seconds[goal]], [*seconds[goal].values()], label=f"{label}, the paper", **style)
        axes.set(title=f"{goal} threshold", xlabel="grid size", ylabel=UNITS[unit])
        axes.xaxis.set_major_locator(MultipleLocator(1))
        axes.label_outer()
    for axes in grid:  # after all of a row, which shares it, has data
        axes.set_yscale("log")
    legend_below(figure, grid[0], FIGURE_NOTE + left_out)
    return save(figure, path)


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("figure", choices=("curves", "bars", "thresholds"))
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="see above")
    parser.add_argument("--out", type=Path, help="picture, without a suffix .png and .pdf (experiments/plots/FIGURE)")
    parser.add_argument("--x", choices=UNITS, default="iteration", help="horizontal axis of curves (%(default)s)")
    columns = {"type": lambda text: text.split(","), "default": (), "metavar": "COLUMN,..."}
    parser.add_argument("--metrics", **columns, help="what curves shows, such as own_coins_0,agent0_entropy (a choice)")
    parser.add_argument("--agent", type=int, choices=(0, 1), default=0, help="the learner of bars (%(default)s)")
    options = parser.parse_args()
    out = options.out or Path("experiments/plots") / options.figure
    out.parent.mkdir(parents=True, exist_ok=True)
    groups = group_runs(read_runs(options.runs), split_boards=options.figure != "thresholds")
    if options.figure == "thresholds":
        print(*goal_figure(groups, out), goal_table(groups), sep="\n")
    elif options.figure == "bars":
        print(*group_bars(groups, out, options.agent), sep="\n")
    else:
        print(*seed_curves(groups, out, options.metrics, options.x), sep="\n")


if __name__ == "__main__":
    main()
