"""Results to publish: `python -m loqa.tools.report archive RUNS --out DIR`, `... build results`, `... missing results`.

`archive` copies what documents a finished run: its metrics, its configuration, summary.json with the command, the
commits and the machine, and its last agents. `build` reads `report.yaml` of a directory of such runs (its keys are in
docs/tools.md), draws every figure and writes every table into its README.md. `missing` prints which of its `wanted`
runs are not there, with the commands that make them and archive them.
"""

import json
import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, NonNegativeInt, TypeAdapter, ValidationError

from loqa.figures.curves import group_bars, seed_curves
from loqa.figures.runs import Groups, SavedRun, shown_columns, title_of
from loqa.games import GAMES
from loqa.tools import saved_runs
from loqa.tools.common import ArgumentParser, markdown_table, tool
from loqa.tools.league import kind_table
from loqa.tools.players import agent_files
from loqa.tools.plot import heat_map, read_league, threshold_figure
from loqa.tools.saved_runs import group_runs, read_runs

ARCHIVED = ("config.yaml", "metrics.csv", "summary.json")
LEAGUE_NOTE = "Mean reward a step of the row's player / of its opponent, means over all pairs and both seats."


def archive(runs: Sequence[Path], out: Path, with_agents: bool = True) -> list[Path]:
    """Copies finished runs to `out`, without the time in their names; first raises OSError or ValueError.

    A copy that is there already is replaced by a longer run of the same settings, and by no other.
    """
    copies, files = [], {}
    for run in runs:
        copy = out / re.sub(r"_\d{8}-\d{6}(_\d+)?$", "", run.absolute().name)
        if missing := [name for name in ARCHIVED if not (run / name).exists()]:
            raise ValueError(f"{run} is not a finished run: it has no {missing[0]}")
        (new,) = read_runs([str(run)])
        last = int(new.metrics["iteration"][-1])
        if _summary(run).get("iteration") != last:
            raise ValueError(f"{run} is not a finished run: it continued to iteration {last}")
        if copy in copies or copy.exists() and not new.continues(*read_runs([str(copy)])):
            raise ValueError(f"{run} cannot be copied to {copy}: that exists already")
        copies.append(copy)
        originals = [run / name for name in ARCHIVED] + (agent_files(run) if with_agents else [])
        files |= {file: copy / file.relative_to(run) for file in originals}
    for copy in filter(Path.exists, copies):
        shutil.rmtree(copy)
    for file, target in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return copies


def _summary(run: Path) -> dict[str, Any]:
    """A run's summary.json; empty where there is none."""
    path = run / "summary.json"
    try:
        return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a run's summary: {error}") from error


def last_evaluations(groups: Groups, window: int = 0) -> str:
    """A table of each group: means over seeds, and over the evaluations of the last `window` iterations."""
    runs = sum(groups.values(), [])
    columns, lines = shown_columns(runs), []
    for label, members in groups.items():
        table, ends = [], {f"{run.metrics['iteration'][-1]:.0f}" for run in members}
        for run in members:
            late = run.metrics["iteration"] >= run.metrics["iteration"][-1] - window
            table.append([run.metrics[column][late].mean() for column in columns])
        cells = [f"{mean:z.3f}" for mean in np.mean(table, 0)]
        if len(members) > 1:
            cells = [f"{mean} ({sd:z.3f})" for mean, sd in zip(cells, np.std(table, 0, ddof=1), strict=True)]
        lines.append([f"{label}, iteration {', '.join(sorted(ends))}", f"{len(members)}", *cells])
    what = f"mean of the last {window} iterations" if window else "last evaluation"
    return markdown_table([f"{what}, mean (sd)", "seeds", *(title_of(runs, column) for column in columns)], lines)


def each_last_evaluation(groups: Groups) -> str:
    """A table of each run's last evaluation."""
    runs = sum(groups.values(), [])
    columns = shown_columns(runs)
    last = lambda run: [f"{run.metrics[column][-1]:z.3f}" for column in columns]
    lines = [[label, f"{run.seed}", *last(run)] for label, members in groups.items() for run in members]
    return markdown_table(["last evaluation", "seed", *(title_of(runs, column) for column in columns)], lines)


def goal_curves(groups: Groups, path: Path) -> list[str]:
    """Draws what the goals of a game look at, against environment steps."""
    return seed_curves(groups, path, next(iter(groups.values()))[0].game.goal_columns, "env_steps")


PARTS = {  # what `show` may name: its table, its figure
    "last": (last_evaluations, None),
    "late": (partial(last_evaluations, window=1000), None),
    "bars": (None, group_bars),
    "curves": (None, seed_curves),
    "by_steps": (None, partial(seed_curves, x_axis="env_steps")),
    "thresholds": (saved_runs.threshold_table, threshold_figure),
    "reciprocity": (saved_runs.goal_table, goal_curves),
}


class Wanted(BaseModel, extra="forbid"):
    """Runs that a section of report.yaml wants: of `command`, seeds from the first to the last on each board (4x4)."""

    path: str
    command: str
    seeds: tuple[int, int]
    iterations: int
    boards: list[str] = [""]


class Section(BaseModel, extra="forbid"):
    """A section of report.yaml."""

    title: str
    text: str = ""
    runs: dict[str, str | list[str]] = {}
    show: list[Literal[*PARTS]] = []
    until: NonNegativeInt = 2**31
    league: str = ""
    wanted: list[Wanted] = []


def read_sections(directory: Path) -> dict[str, Section]:
    """The sections of a directory's `report.yaml`; raises OSError or ValueError."""
    path = directory / "report.yaml"
    try:
        return TypeAdapter(dict[str, Section]).validate_python(yaml.safe_load(path.read_text("utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        raise ValueError(f"{path}, {'.'.join(map(str, wrong['loc']))}: {wrong['msg']} (see docs/tools.md)") from error


def missing(directory: Path) -> list[str]:
    """What makes the runs that `report.yaml` of a directory wants and that are not there; raises as `read_sections`."""
    lines = []
    for one in (one for section in read_sections(directory).values() for one in section.wanted):
        path, new = directory / one.path, f"experiments/{one.path}"
        runs = read_runs([str(path)]) if any(path.rglob("metrics.csv")) else []
        runs = [
            run for run in runs if run.metrics["iteration"][-1] >= one.iterations or _summary(run.path).get("reached")
        ]
        train = []
        for board in one.boards:
            there = {run.seed for run in runs if board in ("", run.board)}
            if seeds := [f"{seed}" for seed in range(one.seeds[0], one.seeds[1] + 1) if seed not in there]:
                script, *words = one.command.split()
                if board:
                    game = next(one for one in GAMES.values() if script == (one.script or f"{one.name}.py"))
                    words += game.board_words(board)
                train.append(f"# {len(seeds)} of {one.path} {board}".rstrip())
                train.append(f"python {' '.join([script, '-m', *words])} hp.seed={','.join(seeds)} hp.save_dir={new}")
        if train:  # archived once, since what is in the archive is not archived again
            lines += [*train, f"python -m loqa.tools.report archive {new}/*_seed* --out {path}"]
    return lines


def build(directory: Path) -> None:
    """Draws and writes everything that `report.yaml` of a directory names; raises OSError or ValueError."""
    title = directory.absolute().name.capitalize()
    text = [f"# {title}", "Written by `python -m loqa.tools.report build` from the files beside it."]
    for name, section in read_sections(directory).items():
        print(name, flush=True)
        text += [f"## {section.title}", section.text.strip()]
        if section.league:
            rewards, kinds = read_league(directory / section.league)
            heat_map(rewards, kinds, directory / f"{name}.png")
            text += [markdown_table(*kind_table(rewards, kinds)), LEAGUE_NOTE, f"![Heat map]({name}.png)"]
        words = [(label, path) for label, paths in section.runs.items() for path in np.atleast_1d(paths)]
        wanted = {one.path for one in section.wanted}  # these need not be there yet
        words = [(label, path) for label, path in words if path not in wanted or (directory / path).exists()]
        runs = read_runs([f"{label}={directory / path}" for label, path in words])
        shown = []
        for run in runs:
            rows = run.metrics["iteration"] <= section.until
            shown.append(run._replace(metrics={column: values[rows] for column, values in run.metrics.items()}))
        for part in section.show:
            groups = group_runs(shown, split_boards=part != "thresholds")
            table, draw = PARTS[part]
            if table:
                text.append(table(groups))
            if draw:
                draw(groups, directory / f"{name}_{part}.png")
                text.append(f"![{part}]({name}_{part}.png)")
        text.append(_origins(runs, each_last_evaluation(group_runs(shown))) if runs else "")
    (directory / "README.md").write_text("\n\n".join(filter(None, text)) + "\n", encoding="utf-8")


def _origins(runs: Sequence[SavedRun], last: str) -> str:
    """Each run, folded: its `last` evaluation, and where its numbers come from."""
    lines = []
    for run in runs:
        iteration, steps, seconds = (run.metrics[x][-1] for x in ("iteration", "env_steps", "walltime"))
        summary = _summary(run.path)
        commits = [commit[:10] + commit[40:] for commit in summary.get("commits", ()) if commit]  # 40: -dirty
        machine = ", ".join(f"{value}" for value in summary.get("machine", {}).values())
        line = [run.label, str(run.seed), f"{iteration:.0f}", f"{steps / 1e6:.1f}M", f"{seconds / 60:.1f}"]
        lines.append([*line, ", ".join(commits), machine, f"`{summary['command']}`" if summary else ""])
    head = ["", "seed", "iterations", "env steps", "minutes", "commits", "processor, cores, device", "command"]
    table = markdown_table(head, lines, text_columns=(0, 5, 6, 7))
    return f"<details><summary>Each run, its command and machine</summary>\n\n{last}\n\n{table}\n\n</details>"


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("command", choices=("archive", "build", "missing"))
    parser.add_argument("directories", nargs="+", type=Path, help="runs to archive, or where report.yaml is")
    parser.add_argument("--out", type=Path, help="the directory to archive to")
    parser.add_argument("--without-agents", action="store_true", help="archive no agents")
    options = parser.parse_args()
    if options.command == "build":
        build(options.directories[0])
    elif options.command == "missing":
        print(*(missing(options.directories[0]) or ["nothing is missing"]), sep="\n")
    elif options.out:
        print(*archive(options.directories, options.out, not options.without_agents), sep="\n")
    else:
        raise ValueError("archive needs --out")


if __name__ == "__main__":
    main()
