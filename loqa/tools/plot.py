"""Figures of training runs and of leagues: `python -m loqa.tools.plot curves|bars|thresholds|league RUNS`.

curves      training curves: interquartile mean over seeds and its 95 % bootstrap interval
bars        P(cooperate) in each state of the IPD: means, and the seeds
thresholds  what the paper's thresholds take, by grid; with a table
league      the heat map of a league.csv, in place of RUNS

RUNS are run directories, or directories of runs. LABEL=RUNS names a group, and several words may have the same
label. Runs without one are a group where their settings differ in no more than seed and length.
"""

import csv
import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from functools import partial, reduce
from itertools import groupby, product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from loqa.games.coin import CoinGame
from loqa.games.ipd import STATES, MatrixGame
from loqa.games.payoffs import PAYOFFS
from loqa.run.config import flat
from loqa.run.run import Run
from loqa.thresholds import THRESHOLDS, is_tit_for_tat, self_play
from loqa.tools import saved_runs
from loqa.tools.common import ArgumentParser, tool
from loqa.tools.saved_runs import PUBLISHED, TITLES, UNITS, Groups, SavedRun, shown_columns

# Okabe and Ito's colours, without the yellow, which is pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
REWARDS_3X3 = PUBLISHED["rewards_3x3"]
PANEL = (1.83, 1.65)  # inches: three fill the text width of a paper

STYLE = {"font.size": 7, "axes.titlesize": 7.5, "legend.frameon": False, "pdf.fonttype": 42}  # in points
STYLE |= {"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "patch.linewidth": 0.6}
STYLE |= {"lines.markersize": 4, "lines.linewidth": 1.2, "grid.alpha": 0.25, "grid.linewidth": 0.5, "axes.grid": True}
# The dashes change when the colours are used up.
STYLE |= {"axes.prop_cycle": cycler(linestyle=("-", "--", ":", "-.")) * cycler(color=COLORS)}
in_style = matplotlib.rc_context(STYLE)  # decorates each function that draws

CURVES_NOTE = "Thick: interquartile mean over n seeds; shaded: its 95 % bootstrap interval; thin: the seeds."
FEW_NOTE = "Thick: mean over n seeds; shaded: their range; thin: the seeds."  # which these are of two or three
SUMMARY_NOTE = """\
Large: interquartile mean over seeds and its 95 % bootstrap interval; small: seeds; nothing: not reached.
Published: read off the paper's figure, means of three seeds on one A100."""


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
    """Writes a figure as PNG and as PDF, or as one of them where `path` has that suffix; returns the files."""
    files = [f"{path}"] if path.suffix in (".png", ".pdf") else [f"{path}.png", f"{path}.pdf"]
    for file in files:
        figure.savefig(file, bbox_inches="tight", pad_inches=0.04)  # with all of a legend below
    return files


# -------------------------------------------------------------------------------------- of groups of saved runs


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
        axes.set_title(TITLES.get(column, textwrap.fill(column, 30)))
        if column in REWARDS_3X3 and {run.board for run in runs} == {"3x3"}:
            axes.axhline(REWARDS_3X3[column], color="gray", linestyle=":", linewidth=0.8, label="the paper's agents")
        if column.startswith("p_"):
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
    """Draws P(cooperate | state) of each group's last evaluations, a panel each; raises ValueError for others."""
    figure, grid = panels(len(groups), (max(PANEL[0], 2.9 / len(groups)), 1.4 * PANEL[1]))
    places = np.arange(len(STATES))
    for axes, (label, runs) in zip(grid, groups.items(), strict=True):
        try:
            last = np.array([[run.metrics[f"p_{agent}_{state}_C"][-1] for state in STATES] for run in runs])
        except KeyError as error:
            raise ValueError(f"{runs[0].path} is not a run of the IPD with an agent {agent}") from error
        axes.bar(places, last.mean(0), width=0.65, color=COLORS[4], edgecolor=COLORS[0])
        if len(runs) > 1:  # whiskers: the standard deviation over seeds; dots: the seeds
            axes.errorbar(places, last.mean(0), last.std(0, ddof=1), fmt="none", color="black", capsize=4)
            spread = places + np.linspace(-0.22, 0.22, len(runs))[:, None]
            axes.scatter(spread, last, s=9, color=COLORS[1], linewidths=0, zorder=3, clip_on=False)
        axes.set_xticks(places, [f"{state}\n{mean:.2f}" for state, mean in zip(STATES, last.mean(0), strict=True)])
        ends = sorted({f"{run.metrics['iteration'][-1]:.0f}" for run in runs})
        title = [*textwrap.wrap(label, 26), *textwrap.wrap(f"iteration {', '.join(ends)}, n = {len(runs)}", 34)]
        axes.set(title="\n".join(title), xlabel="state: my last action, theirs", ylabel="P(C | state)", ylim=(0, 1))
        axes.grid(False)
        axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)


@in_style
def threshold_figure(groups: Groups, path: Path) -> list[str]:
    """Draws what it takes to each threshold (columns) in each of UNITS (rows) against the size of the grid."""
    figure, grid = panels(len(UNITS) * len(THRESHOLDS), sharex=True, sharey="row")
    for axes, (unit, threshold) in zip(grid, product(UNITS, THRESHOLDS), strict=True):
        for label, runs in groups.items():
            summaries = saved_runs.summarise(runs, threshold, unit)
            sizes, means = list(summaries), [summary.mean for summary in summaries.values()]
            (line,) = axes.plot(sizes, means, marker="o", label=label)
            for size, summary in summaries.items():
                axes.plot([size] * len(summary.times), summary.times, ".", color=line.get_color(), alpha=0.5)
                axes.plot([size] * 2, (summary.low, summary.high), "-", color=line.get_color())
        for label, seconds in PUBLISHED["seconds"].items() if unit == "walltime" else ():
            axes.plot(PUBLISHED["sizes"], seconds[threshold], "s:", label=f"{label}, published", linewidth=0.8)
        axes.set(title=f"{threshold} threshold", xlabel="grid size", ylabel=UNITS[unit], yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.label_outer()
    legend_below(figure, grid[0], SUMMARY_NOTE)
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
    image = axes.pcolormesh(edges, edges, rewards, cmap="cividis")
    middles = (edges[ends[1:]] + edges[ends[:-1]]) / 2
    for i, j in np.ndindex(len(sizes), len(sizes)):
        mean = rewards[ends[i] : ends[i + 1], ends[j] : ends[j + 1]].mean()
        color = "black" if image.norm(mean) > 0.5 else "white"
        axes.text(middles[j], middles[i], f"{mean:z.2f}", ha="center", va="center", fontsize=5.5, color=color)
    for end in edges[ends[1:-1]]:
        axes.axhline(end, color="black", linewidth=0.6)
        axes.axvline(end, color="black", linewidth=0.6)
    axes.set_xticks(middles, sizes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(middles, sizes)
    axes.set(xlabel="against", ylabel="player", ylim=(edges[-1], 0))
    axes.tick_params(length=0)
    axes.grid(False)
    figure.colorbar(image, shrink=0.8, pad=0.02, label="mean reward a step of the row's player")
    return save(figure, path)


# ------------------------------------------------------------------------------------------- of a run that ends

COLUMNS = dict(zip(("self", "vs AC", "AC's", "vs AD", "AD's"), REWARDS_3X3, strict=True))


def conclude(run: Run, game: CoinGame | MatrixGame) -> None:
    """Prints the Coin Game's rewards beside the paper's, or each agent's P(C), in the IPD whether it is tit-for-tat.

    Draws curves.png, and of matrix games cooperation_<i>.png.
    """
    metrics = run.metrics()
    saved = SavedRun(run.directory, "", flat(run.settings["hp"]), metrics | {"self_play": self_play(metrics)})
    last = {column: values[-1] for column, values in saved.metrics.items()}
    if isinstance(game, CoinGame):
        run.log_line(" " * 12 + "".join(f"{title:>8}" for title in COLUMNS))
        for name, rewards in {"this run": last, "paper, 3x3": REWARDS_3X3}.items():
            run.log_line(f"{name:12}" + "".join(f"{rewards[column]:z8.3f}" for column in COLUMNS.values()))
    else:
        for i in range(2 if "p_1_START_C" in last else 1):
            p_cooperate = ", ".join(f"{state} {last[f'p_{i}_{state}_C']:z.3f}" for state in STATES)
            run.log_line(f"agent {i}: P(C) in {p_cooperate}")
            if game.payoffs == PAYOFFS["ipd"]:
                run.log_line(f"tit-for-tat: {'yes' if is_tit_for_tat(saved.metrics, i)[-1] else 'no'}")
            run.write(f"cooperation_{i}.png", partial(group_bars, {f"{game.title}, agent {i}": [saved]}, agent=i))
    columns = [column for column in TITLES if column in last]
    run.write("curves.png", partial(seed_curves, {"": [saved]}, columns=columns))


def draw(figure: str, runs: list[str], out: Path, x: str, metrics: str | None, agent: int) -> list[str]:
    """Draws a figure; returns the names of its files, and its table."""
    if figure == "league":
        return heat_map(*read_league(Path(runs[0])), out)
    groups = saved_runs.group_runs(saved_runs.read_runs(runs), split_boards=figure != "thresholds")
    if figure == "thresholds":
        return [*threshold_figure(groups, out), saved_runs.threshold_table(groups)]
    if figure == "bars":
        return group_bars(groups, out, agent)
    return seed_curves(groups, out, metrics.split(",") if metrics else [], x)


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("figure", choices=("curves", "bars", "thresholds", "league"))
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="see above")
    parser.add_argument("--out", type=Path, help="the files to write, without suffix (experiments/plots/FIGURE)")
    parser.add_argument("--x", choices=UNITS, default="iteration", help="horizontal axis of curves (%(default)s)")
    parser.add_argument("--metrics", help="columns that curves shows, such as own_coins_0,agent0_entropy (a choice)")
    parser.add_argument("--agent", type=int, choices=(0, 1), default=0, help="the learner of bars (%(default)s)")
    options = parser.parse_args()
    options.out = options.out or Path("experiments/plots") / options.figure
    options.out.parent.mkdir(parents=True, exist_ok=True)
    print(*draw(**vars(options)), sep="\n")


if __name__ == "__main__":
    main()
