"""Results to publish: `python -m loqa.tools.report archive RUNS --out DIR` and `... build results`.

`archive` copies what documents a finished run: its metrics, its configuration, summary.json with the command, the
commits and the machine, and its last agents. `build` reads `report.yaml` of a directory of such runs, draws every
figure and writes every table into its README.md. A section of report.yaml:

    coin_3x3:                          # the first part of the names of its figures
      title: Coin Game, 3x3
      text: what the reader should know
      runs: {calibrated critic: coin_3x3/calibrated, published critic: [a, b]}   # groups to compare
      show: [last, late, curves, thresholds]   # tables and figures, in this order

`last` is a table of the last evaluations, `late` of their means over the last thousand iterations; `bars`,
`curves` and `thresholds` are the figures of loqa.tools.plot, and with the third comes its table; `critic_error`
is that of loqa.tools.critic_error. `until: 2000` shows the runs up to that iteration only. `league: FILE.csv` in
place of `runs` is the heat map and the table of a league.
"""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from loqa.run.metrics_file import read_metrics
from loqa.tools import critic_error
from loqa.tools.aggregate import threshold_rows, threshold_table
from loqa.tools.common import count, decimal, markdown_table, one_line_errors, run_tool, tool_parser
from loqa.tools.figures import group_bars, heat_map, read_league, seed_curves, threshold_figure
from loqa.tools.players import agent_files
from loqa.tools.saved_runs import HEADS_NOTE, TABLE_COLUMNS, Groups, SavedRun, group_runs, read_runs, shown_columns

ARCHIVED = ("config.yaml", "metrics.csv", "summary.json")
LATE = 1000  # iterations of the table `late`
KEYS = {"title": str, "text": str, "runs": dict, "show": list, "until": int, "league": str}  # of a section

# --------------------------------------------------------------------------------------------------------- archive


def archive(runs: Sequence[Path], out: Path, with_agents: bool = True) -> list[Path]:
    """Copies finished runs to `out`, each to a directory of the run's name without the time.

    Raises:
      OSError, ValueError: in one sentence, what is not a finished run or exists already. Nothing is copied then.
    """
    copies = {run: out / re.sub(r"_\d{8}-\d{6}(_\d+)?$", "", run.absolute().name) for run in runs}
    files = {}
    for run, copy in copies.items():
        if missing := [name for name in ARCHIVED if not (run / name).exists()]:
            raise ValueError(f"{run} is not a finished run: it has no {missing[0]}")
        with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
            last = int(read_metrics(file)["iteration"][-1])
        if _summary(run).get("iteration") != last:
            raise ValueError(f"{run} is not a finished run: it continued to iteration {last}")
        if copy.exists() or list(copies.values()).count(copy) > 1:
            raise ValueError(f"{run} cannot be copied to {copy}: that exists already")
        files[run] = [run / name for name in ARCHIVED] + (agent_files(run) if with_agents else [])
    for run, copy in copies.items():
        for file in files[run]:
            (copy / file.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy / file.relative_to(run))
    return list(copies.values())


def _summary(run: Path) -> dict[str, Any]:
    """A run's summary.json; empty where there is none."""
    path = run / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(summary, dict):
        raise ValueError(f"{path} is not a run's summary")
    return summary


# ----------------------------------------------------------------------------------------------------------- build


def build(directory: Path, progress: Callable[[str], object] = print) -> None:
    """Draws and writes everything that `report.yaml` of a directory names.

    Raises:
      OSError, ValueError: in one sentence, what is wrong.
    """
    text = ["# Results", "Written by `python -m loqa.tools.report build` from the files beside it."]
    for name, section in _sections(directory / "report.yaml").items():
        text.append(f"## {section['title']}")
        if "text" in section:
            text.append(section["text"].strip())
        if "league" in section:
            text.append(_league(directory / section["league"], directory / f"{name}.png"))
            progress(name)
            continue
        several = {label: [paths] if isinstance(paths, str) else paths for label, paths in section["runs"].items()}
        runs = read_runs([f"{label}={directory / path}" for label, paths in several.items() for path in paths])
        shown = [_until(run, section["until"]) for run in runs] if "until" in section else runs
        for part in section["show"]:
            groups = group_runs(shown, split_grids=part != "thresholds")
            text.append(PARTS[part](groups, directory / f"{name}_{part}.png"))
            progress(f"{name}: {part}")
        text.append(_origins(group_runs(runs)))
    (directory / "README.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    progress(str(directory / "README.md"))


def _until(run: SavedRun, last: int) -> SavedRun:
    """The run up to an iteration."""
    shown = run.metrics["iteration"] <= last
    if not shown.any():
        raise ValueError(f"{run.path} has no evaluation up to iteration {last}")
    return run._replace(metrics={column: values[shown] for column, values in run.metrics.items()})


def _sections(path: Path) -> dict[str, dict[str, Any]]:
    """The sections of report.yaml, each with a title, and with a league or with runs and what to show of them."""
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(sections, dict) or not all(isinstance(section, dict) for section in sections.values()):
        raise ValueError(f"{path} must have sections, such as described by --help")
    for name, section in sections.items():
        for key, value in section.items():
            if key not in KEYS:
                raise ValueError(f"{path}: {name} has the key {key!r}, but may have {', '.join(KEYS)}")
            if not isinstance(value, KEYS[key]) or not value:
                needed = f"a {KEYS[key].__name__} with something in it"
                raise ValueError(f"{path}: {name}.{key} is {value!r}, but must be {needed}")
        needed = {"title", "league"} if "league" in section else {"title", "runs", "show"}
        if missing := sorted(needed - section.keys()):
            raise ValueError(f"{path}: {name} has no {missing[0]}")
        if wrong := [part for part in section.get("show", ()) if part not in PARTS]:
            raise ValueError(f"{path}: {name} shows {wrong[0]!r}, but must show some of {', '.join(PARTS)}")
    return sections


def _last(groups: Groups, figure: Path) -> str:
    game = next(iter(groups.values()))[0].game
    return f"{_evaluations(groups, 0)}\n\n{HEADS_NOTE[game]}"


def _late(groups: Groups, figure: Path) -> str:
    return f"{_evaluations(groups, LATE)}\n\nMeans over the evaluations of each run's last {LATE} iterations."


def _evaluations(groups: Groups, window: int) -> str:
    """A line for each run, the means over the evaluations of its last `window` iterations, and for each group."""
    columns = shown_columns([run for members in groups.values() for run in members])
    lines = []
    for label, members in groups.items():
        table = []
        for run in members:
            iterations = run.metrics["iteration"]
            late = iterations >= iterations[-1] - window
            table.append([run.metrics[column][late].mean() for column in columns])
            when = " to ".join(f"{i:.0f}" for i in np.unique(iterations[late][[0, -1]]))
            lines.append([label, str(run.seed), when, *map(decimal, table[-1])])
        if len(members) > 1:
            spread = zip(np.mean(table, 0), np.std(table, 0, ddof=1), strict=True)
            cells = [f"**{decimal(mean)}** ({decimal(sd)})" for mean, sd in spread]
            lines.append([f"**{label}**", f"**mean** (sd) of {len(members)}", "", *cells])
    return markdown_table(["", "seed", "iteration", *(TABLE_COLUMNS[column].head for column in columns)], lines)


def _thresholds(groups: Groups, figure: Path) -> str:
    table = threshold_table(threshold_rows(groups))
    return f"{table}\n{_drawn('What the thresholds take', threshold_figure, groups, figure)}"


def _critic_error(groups: Groups, figure: Path) -> str:
    critic_error.check(groups)
    measured = critic_error.measure()
    title = "What an error of the critic does to the gradient"
    return f"{critic_error.table(measured)}\n\n{_drawn(title, critic_error.draw, measured, groups, figure)}"


def _drawn(title: str, draw: Callable[..., object], *args: Any) -> str:
    """Draws a figure, whose file is the last argument; returns the Markdown that shows it."""
    draw(*args)
    return f"![{title}]({args[-1].name})"


PARTS: dict[str, Callable[[Groups, Path], str]] = {
    "last": _last,
    "late": _late,
    "bars": partial(_drawn, "P(cooperate) in each state", group_bars),
    "curves": partial(_drawn, "Learning curves", seed_curves),
    "thresholds": _thresholds,
    "critic_error": _critic_error,
}


def _league(path: Path, figure: Path) -> str:
    """What players of each kind earn with those of another, and leave them, a step; in both seats."""
    rewards, names, kinds = read_league(path)
    heat_map(rewards, names, kinds, figure)
    kind, itself = np.array(kinds), np.eye(len(names), dtype=bool)
    same = kind[:, None] == kind
    others = {"itself": itself, "others of its kind": same & ~itself}
    others |= {other: (kind == other) & ~same for other in dict.fromkeys(kinds)}
    lines = []
    for player in dict.fromkeys(kinds):
        pairs = [(kind == player)[:, None] & against for against in others.values()]
        means = [
            f"{decimal(rewards[x].mean())} / {decimal(rewards.T[x].mean())}" if x.any() else "" for x in pairs
        ]
        lines.append([f"{player} ({kinds.count(player)})", *means])
    note = "Mean reward a step of the row's player / of its opponent, means over all pairs and both seats."
    return f"{markdown_table(['against', *others], lines)}\n\n{note}\n\n![Heat map]({figure.name})"


def _origins(groups: Groups) -> str:
    """Where the numbers come from: a line for each run."""
    lines = []
    for label, members in groups.items():
        for run in members:
            iteration, steps, seconds = (run.metrics[x][-1] for x in ("iteration", "env_steps", "walltime"))
            line = [label, str(run.seed), f"{iteration:.0f}", f"{steps / 1e6:.1f}M", f"{seconds / 60:.1f}"]
            summary = _summary(run.path)
            commits = [
                (commit or "unknown").replace("-dirty", " with changes") for commit in summary.get("commits", ())
            ]
            machine = summary.get("machine", {})
            where = [machine["processor"], count(machine["cores"], "core"), machine["device"]] if machine else []
            line += [re.sub(r"(\w{10})\w{30}", r"\1", ", ".join(commits)), ", ".join(where)]
            lines.append([*line, f"`{summary['command']}`" if "command" in summary else ""])
    head = ["", "seed", "iterations", "env steps", "minutes", "commits", "on", "command"]
    table = markdown_table(head, lines, text_columns=(0, 5, 6, 7))
    return f"<details><summary>Where these runs come from</summary>\n\n{table}\n\n</details>"


def main() -> None:
    parser = tool_parser("report", __doc__)
    commands = parser.add_subparsers(required=True, metavar="archive|build", dest="command")
    archiving = commands.add_parser("archive", help="copy what documents finished runs")
    archiving.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's directory")
    archiving.add_argument("--out", type=Path, required=True, help="the directory to copy to")
    archiving.add_argument("--without-agents", action="store_true", help="leave the agents out")
    building = commands.add_parser("build", help="draw all figures and write all tables of report.yaml")
    building.add_argument("directory", type=Path, help="where report.yaml is")
    options = parser.parse_args()
    with one_line_errors(parser):
        if options.command == "build":
            build(options.directory)
        else:
            print(*archive(options.runs, options.out, not options.without_agents), sep="\n")


if __name__ == "__main__":
    run_tool(main)
