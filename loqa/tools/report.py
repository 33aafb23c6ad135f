"""Results to publish: `python -m loqa.tools.report archive RUNS --out DIR`, `... build results`.

`archive` adds runs to an experiment: all their curves in one CSV, a line for each run in another. `build` reads
`report.yaml` of a directory of experiments (results/ has one), draws every figure, writes every table into its
README.md, and every number that its pages quote. These stand between two marks, as in
`<!--=coin_3x3/ours:self_play:late-->0.329 (0.005)<!--/-->`:

PATH:COLUMN:last|late  mean and standard deviation over seeds, of the last evaluation or the last 1000 iterations
PATH:COLUMN:350        the mean over seeds in iteration 350
PATH:GOAL:seeds|end    how many seeds reach a goal, or do at their end
PATH:GOAL:first|held   median iteration when it is first reached, or by five evaluations in a row
PATH:GOAL:s|steps      median seconds or steps of the environment until it is first reached
LEAGUE.csv:KIND:KIND   what the first kind earns against the second, others if it is the same; _ is a blank
TABLE.csv:ROW:COLUMN   a number of another table, in the row that begins with these two cells; of several rows the
                       mean, or of True and False, how many are True
SECTION                its table

As a COLUMN, always-defect_a and _d are the agent's and always-defect's reward; so for always-cooperate.
PATH@3x3 are the runs of a board, PATH@42-51 those of these seeds.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Self

import numpy as np
import yaml
from PIL import Image
from pydantic import BaseModel, ValidationError, model_validator

from loqa.figures.curves import group_bars, seed_curves
from loqa.figures.runs import Groups, SavedRun, longest, shown_columns, title_of
from loqa.hyperparameters import Text
from loqa.run.trainer import IN_A_ROW
from loqa.tools.common import ArgumentParser, markdown_table, read_csv, tool
from loqa.tools.league import heat_map, kind_means, kind_table, read_league
from loqa.tools.players import SCRIPTED
from loqa.tools.plot import goal_figure, goal_table, median, times
from loqa.tools.saved_runs import archive, group_runs, read_runs

LEAGUE_NOTE = "The row player's mean reward per step, over both seats."
LATE = 1000  # iterations
MARK = re.compile(r"(?<!`)(<!--=(\S+?)-->)(.*?)(<!--/-->)", re.DOTALL)


class Section(BaseModel, extra="forbid"):
    """A section of report.yaml: a table and a figure of groups of runs, or of a league.

    `algorithms` is a table of a league's kinds, with what a learner earns against them, of `exploit`, an exploit.csv,
    and what the goal took the runs that have a kind as their label.
    """

    title: str
    text: str = ""
    runs: dict[str, Text] = {}  # by label, one PATH as in marks, or several with blanks between
    columns: list[Text] = []
    table: Literal["last", "late", "goals", "league", "algorithms", "none"] = "last"
    figure: Literal["bars", "curves", "steps", "goals", "league", "none"] = "none"
    league: str = ""
    exploit: str = ""

    @model_validator(mode="after")
    def _has_what_its_table_shows(self) -> Self:
        shown = {self.table, self.figure}
        if "algorithms" in shown and not (self.league and self.exploit and self.runs):
            raise ValueError("a table of algorithms needs league, exploit and runs")
        if ("league" in shown and not self.league) or ("goals" in shown and not self.runs):
            raise ValueError("a table or figure of a league needs league, one of goals needs runs")
        return self


class Report(BaseModel, extra="forbid"):
    """report.yaml."""

    title: str
    text: str = ""
    pages: list[str] = []  # patterns of the files that quote numbers
    sections: dict[str, Section]


def mean_and_deviation(runs: Sequence[SavedRun], column: str, window: int = 0) -> str:
    """Mean and standard deviation over seeds, of each the mean of the evaluations in its last `window` iterations."""
    means = [run.metrics[column][run.metrics["iteration"] >= run.end - window].mean() for run in runs]
    return f"{np.mean(means):z.3f}" + (f" ({np.std(means, ddof=1):z.3f})" if len(means) > 1 else "")


def last_evaluations(groups: Groups, columns: Sequence[str] = (), window: int = 0) -> str:
    """A table of each group's last evaluations, and of what the paper reports."""
    runs, lines = sum(groups.values(), []), []
    columns = dict.fromkeys(column.split()[0] for column in columns or shown_columns(runs))
    if runs[0].published and columns.keys() & runs[0].published.keys():
        cells = [f"{runs[0].published[column]:.3g}" if column in runs[0].published else "" for column in columns]
        lines.append(["the paper", "", *cells])
    for label, members in groups.items():
        whole = longest(members)
        if lacking := [column for column in columns if any(column not in run.metrics for run in whole)]:
            raise ValueError(f"not all runs of {label} have the column {lacking[0]!r}")
        n = f"{len(whole)}" + (f" of {len(members)}" if len(whole) < len(members) else "")
        cells = [mean_and_deviation(whole, column, window) for column in columns]
        lines.append([f"{label}, iteration {whole[0].end}", n, *cells])
    what = f"mean of the last {window} iterations" if window else "last evaluation"
    return markdown_table([f"{what}, mean (sd)", "seeds", *(title_of(runs, column) for column in columns)], lines)


def algorithm_table(rewards: np.ndarray, kinds: Sequence[str], exploited: Sequence[dict], groups: Groups) -> str:
    """A line for each kind of a league that is not scripted; see `Section`."""
    goal, lines = [*next(iter(groups.values()))[0].game.goals][-1], []  # the hardest
    against = ("itself", "others of its kind", "always-cooperate", "always-defect")
    for kind, row in kind_means(rewards, kinds).items():
        if kind in SCRIPTED:
            continue
        last = {x["agent"]: x for x in exploited if x["kind"] == kind}.values()
        mean = lambda column, last=last: f"{np.mean([float(x[column]) for x in last]):z.3f}" if last else ""
        learner, runs = [mean("agent_reward"), mean("learner_reward")], groups.get(kind, [])
        reached = [median(runs, goal, unit) if runs else "" for unit in ("env_steps", "walltime")]
        lines.append([f"{kind} ({kinds.count(kind)})", *(row.get(x, "") for x in against), *learner, *reached])
    head = ["", "self-play", "cross-play", "vs always-cooperate", "vs always-defect"]
    return markdown_table([*head, "against a learner", "the learner's", f"steps to {goal}", "s"], lines)


def quoted(directory: Path, mark: str) -> str:
    """The number that a mark names (see above); ValueError where there is none."""
    try:
        path, what, how = mark.split(":")
        if path.endswith(".csv"):
            table, one, other = read_csv(directory / path), what.replace("_", " "), how.replace("_", " ")
            if "kind_0" not in table[0]:
                blanks = [{key.replace("_", " "): x.replace("_", " ") for key, x in row.items()} for row in table]
                cells = [row[other] for row in blanks if " ".join([*row.values()][:2]) == one]
                if not cells:
                    raise ValueError(f"no row begins with {one}")
                if {*cells} <= {"True", "False"}:
                    return f"{cells.count('True')} of {len(cells)}"
                return f"{float(cells[0]):.3g}" if len(cells) == 1 else f"{np.mean([float(x) for x in cells]):z.2f}"
            means = kind_means(*read_league(directory / path))
            return means[one]["others of its kind" if one == other else other]
        runs = read_runs([f"{directory / path}"])
        if how in ("seeds", "end"):
            at_end = [run.game.goals[what](run.metrics, run.settings)[-1] for run in runs]
            reached = at_end if how == "end" else np.isfinite(times(runs, what, "iteration"))
            return f"{np.sum(reached)} of {len(runs)}"
        units = {"first": ["iteration"], "held": ["iteration", IN_A_ROW], "s": ["walltime"], "steps": ["env_steps"]}
        if how in units:
            return median(runs, what, *units[how])
        column = re.sub("^always-(cooperate|defect)_", r"always_\1_0_mean_rewards_", what)
        if how in ("last", "late"):
            return mean_and_deviation(longest(runs), column, LATE * (how == "late"))
        return f"{np.mean([run.metrics[column][[*run.metrics['iteration']].index(int(how))] for run in runs]):z.3f}"
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(f"the mark {mark!r} names no number: {error}") from error


def build(directory: Path, draw: bool = True) -> dict[Path, str]:
    """The pages that `report.yaml` of a directory names, and its README.md, as they must be; draws its figures.

    Raises OSError or ValueError.
    """
    try:
        report = Report.model_validate(yaml.safe_load((directory / "report.yaml").read_text("utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise ValueError(f"{directory}/report.yaml is not a report (see docs/tools.md): {error}") from error
    text, tables = [f"# {report.title}", report.text.strip()], {}
    for name, section in report.sections.items():
        tables[name], figures, links = "", {}, []
        if section.runs:
            paths = [(label, path) for label, several in section.runs.items() for path in several.split()]
            runs = read_runs([f"{label}={directory / path}" for label, path in paths])
            groups = group_runs(runs, split_boards=section.table != "goals")
            if section.table == "goals":
                tables[name] = goal_table(groups, [*runs[0].game.goals][-1:])  # the hardest
            elif section.table in ("last", "late"):
                tables[name] = last_evaluations(groups, section.columns, LATE * (section.table == "late"))
            curves = partial(seed_curves, groups, columns=section.columns)
            figures = {"curves": curves, "steps": partial(curves, x_axis="env_steps")}
            figures |= {"bars": partial(group_bars, groups), "goals": partial(goal_figure, groups)}
            experiments = dict.fromkeys(path.partition("@")[0] for _, path in paths)
            links.append(f"Runs: {', '.join(f'[{path}]({path}/runs.csv)' for path in experiments)}.")
        if section.league:
            league = read_league(directory / section.league)
            figures["league"] = partial(heat_map, *league)
            if section.table == "algorithms":
                tables[name] = algorithm_table(*league, read_csv(directory / section.exploit), groups)
            elif section.table == "league":
                tables[name] = kind_table(*league)
            links.append(f"{LEAGUE_NOTE} [All pairs]({section.league})")
        figure = figures.get(section.figure)
        text += [f"## {section.title}", section.text.strip(), tables[name], *links]
        if figure:
            text.append(f"![{section.title}]({name}.png)")
        if figure and draw:
            for file in figure(path=directory / f"{name}.png"):
                picture = Image.open(file).convert("RGB").quantize()  # a third of the bytes
                picture.save(file, optimize=True, dpi=(200, 200))
                print(file, flush=True)
    pages = {directory / "README.md": "\n\n".join(filter(None, text)) + "\n"}
    of = lambda name: f"\n{tables[name]}\n" if name in tables else quoted(directory, name)
    for path in sorted(path for pattern in report.pages for path in directory.glob(pattern)):
        pages[path] = MARK.sub(lambda mark: mark[1] + of(mark[2]) + mark[4], path.read_text("utf-8"))
    return pages


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("command", choices=("archive", "build"))
    parser.add_argument("directories", nargs="+", type=Path, help="runs to archive, or where report.yaml is")
    parser.add_argument("--out", type=Path, help="the experiment to which runs are added")
    parser.add_argument("--agents", action="store_true", help="with their last agents, at half precision")
    options = parser.parse_args()
    if options.command == "build":
        for path, text in build(options.directories[0]).items():
            path.write_text(text, encoding="utf-8")
    elif options.out:
        for run in archive(options.directories, options.out, options.agents):
            is_whole = run.origin["finished_at"] == f"{run.end}"
            print(f"{run.path}: iteration {run.end}", "" if is_whole else "(unfinished)")
    else:
        raise ValueError("archive needs --out")


if __name__ == "__main__":
    main()
