"""Evidence that stays: `python -m loqa.tools.report keep RUNS --out DIR` and `... build results`.

`keep` copies what tells of a finished run: its metrics, its configuration, summary.json with the command, the
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

import argparse
import csv
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from loqa.run.metrics_file import read_metrics
from loqa.tools import critic_error
from loqa.tools.command_line import refuse, run_tool, tool_parser
from loqa.tools.group_figures import SHOWN, count, group_bars, seed_curves, threshold_figure
from loqa.tools.heatmap import heat_map, read_league
from loqa.tools.players import agent_files
from loqa.tools.saved_runs import IN_TABLES, SavedRun, group_runs, read_runs
from loqa.tools.tables import decimal, markdown_table
from loqa.tools.thresholds import UNITS, threshold_rows
from loqa.tools.thresholds import markdown as threshold_markdown

KEPT = ("config.yaml", "metrics.csv", "summary.json")
LATE = 1000  # iterations of the table `late`
KEYS = {"title": str, "text": str, "runs": dict, "show": list, "until": int, "league": str}  # of a section

COLUMNS_NOTE = {
    "ipd": "START to DD: agent 0's P(cooperate) in each state; self: mean reward a step of both players.",
    "coin": (
        "Mean rewards a step. self: in self-play, of both players; vs AC, vs AD: agent 0 against always-cooperate"
        " and always-defect; AC's, AD's: what these get; own, other's: agent 0's coins a step in self-play, of its"
        " own and of the other's colour."
    ),
}

Groups = dict[str, list[SavedRun]]


def keep(runs: Sequence[Path], out: Path, with_agents: bool = True) -> list[Path]:
    """Copies finished runs to `out`, each to a directory of the run's name without the time.

    Raises:
      OSError, ValueError: in one sentence, what is not a finished run or is there already. Nothing is copied then.
    """
    copies = {run: out / re.sub(r"_\d{8}-\d{6}(_\d+)?$", "", run.absolute().name) for run in runs}
    files = {}
    for run, copy in copies.items():
        if missing := [name for name in KEPT if not (run / name).exists()]:
            raise ValueError(f"{run} is not a finished run: it has no {missing[0]}")
        with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
            last = int(read_metrics(file)["iteration"][-1])
        if _summary(run).get("iteration") != last:
            raise ValueError(f"{run} is not a finished run: it has gone on to iteration {last}")
        if copy.exists() or list(copies.values()).count(copy) > 1:
            raise ValueError(f"{run} cannot be kept as {copy}: that is there already")
        files[run] = [run / name for name in KEPT] + (agent_files(run) if with_agents else [])
    for run, copy in copies.items():
        for file in files[run]:
            (copy / file.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy / file.relative_to(run))
    return list(copies.values())


def build(directory: Path, say: Callable[[str], object] = print) -> None:
    """Draws and writes everything that `report.yaml` of a directory names; `say` is told how far it is.

    Raises:
      OSError, ValueError: in one sentence, what is wrong.
    """
    text = ["# Results", "", "Written by `python -m loqa.tools.report build` from the files beside it."]
    for name, section in _sections(directory / "report.yaml").items():
        text += ["", f"## {section['title']}"]
        text += ["", section["text"].strip()] if "text" in section else []
        if "league" in section:
            text += ["", _league(directory / section["league"], directory / f"{name}.png")]
            say(name)
            continue
        several = {label: [paths] if isinstance(paths, str) else paths for label, paths in section["runs"].items()}
        runs = read_runs([f"{label}={directory / path}" for label, paths in several.items() for path in paths])
        shown = [_until(run, section["until"]) for run in runs] if "until" in section else runs
        for part in section["show"]:
            groups = group_runs(shown, split_grids=part != "thresholds")
            text += ["", PARTS[part](groups, directory / f"{name}_{part}.png")]
            say(f"{name}: {part}")
        text += ["", _origins(group_runs(runs))]
    (directory / "README.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    say(str(directory / "README.md"))


def _until(run: SavedRun, last: int) -> SavedRun:
    """The run up to an iteration."""
    kept = run.metrics["iteration"] <= last
    if not kept.any():
        raise ValueError(f"{run.path} has no evaluation up to iteration {last}")
    return run._replace(metrics={column: values[kept] for column, values in run.metrics.items()})


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
                raise ValueError(
                    f"{path}: {name}.{key} is {value!r}, but must be a {KEYS[key].__name__} with something in it"
                )
        for key in ("title", "league") if "league" in section else ("title", "runs", "show"):
            if key not in section:
                raise ValueError(f"{path}: {name} has no {key}")
        if wrong := [part for part in section.get("show", ()) if part not in PARTS]:
            raise ValueError(f"{path}: {name} shows {wrong[0]!r}, but must show some of {', '.join(PARTS)}")
    return sections


def _last(groups: Groups, figure: Path) -> str:
    """The table of the last evaluations."""
    return f"{_evaluations(groups, 0)}\n\n{COLUMNS_NOTE[_game(groups)]}"


def _late(groups: Groups, figure: Path) -> str:
    """The table of the means over the last evaluations of each run."""
    return f"{_evaluations(groups, LATE)}\n\nMeans over the evaluations of each run's last {LATE} iterations."


def _evaluations(groups: Groups, window: int) -> str:
    """A line for each run, the means over the evaluations of its last `window` iterations, and for each group."""
    runs = [run for members in groups.values() for run in members]
    columns = {title: "self_play" if title == "self" else column for title, column in IN_TABLES.items()}
    columns = {title: column for title, column in columns.items() if all(column in run.metrics for run in runs)}
    lines = []
    for label, members in groups.items():
        table = []
        for run in members:
            iterations = run.metrics["iteration"]
            kept = iterations >= iterations[-1] - window
            table.append([run.metrics[column][kept].mean() for column in columns.values()])
            when = " to ".join(f"{i:.0f}" for i in np.unique(iterations[kept][[0, -1]]))
            lines.append([label, str(run.seed), when, *map(decimal, table[-1])])
        if len(members) > 1:
            spread = zip(np.mean(table, 0), np.std(table, 0, ddof=1), strict=True)
            cells = [f"**{decimal(mean)}** ({decimal(sd)})" for mean, sd in spread]
            lines.append([f"**{label}**", f"**mean** (sd) of {len(members)}", "", *cells])
    return markdown_table(["", "seed", "iteration", *columns], lines)


def _game(groups: Groups) -> str:
    return next(iter(groups.values()))[0].game


def _bars(groups: Groups, figure: Path) -> str:
    group_bars(groups, 0, [figure])
    return f"![P(cooperate) in each state]({figure.name})"


def _curves(groups: Groups, figure: Path) -> str:
    seed_curves(groups, SHOWN[_game(groups)], "iteration", [figure])
    return f"![Learning curves]({figure.name})"


def _thresholds(groups: Groups, figure: Path) -> str:
    table = threshold_markdown(threshold_rows(groups))
    threshold_figure(groups, list(UNITS), [figure])
    return f"{table}\n![What the thresholds take]({figure.name})"


def _critic_error(groups: Groups, figure: Path) -> str:
    critic_error.check(groups)
    gradients, standard_errors = critic_error.measure()
    critic_error.draw(gradients, groups, [figure])
    table = critic_error.table(gradients, standard_errors)
    return f"{table}\n\n![What an error of the critic does to the gradient]({figure.name})"


PARTS: dict[str, Callable[[Groups, Path], str]] = {
    "last": _last,
    "late": _late,
    "bars": _bars,
    "curves": _curves,
    "thresholds": _thresholds,
    "critic_error": _critic_error,
}


def _league(path: Path, figure: Path) -> str:
    """What players of each kind earn with those of another, and leave them, a step; in both seats."""
    heat_map(*read_league(path), figure)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        kinds, rewards = [row[f"kind_{i}"] for i in (0, 1)], [float(row[f"mean_reward_{i}"]) for i in (0, 1)]
        itself = row["player_0"] == row["player_1"]
        for i in (0, 1):
            other = "itself" if itself else "others of its kind" if kinds[0] == kinds[1] else kinds[1 - i]
            pairs.setdefault((kinds[i], other), []).append((rewards[i], rewards[1 - i]))
    kinds = list(dict.fromkeys(row["kind_0"] for row in rows))
    number = {kind: len({row["player_0"] for row in rows if row["kind_0"] == kind}) for kind in kinds}
    others, lines = ["itself", "others of its kind", *kinds], []
    for kind in kinds:
        means = [np.mean(pairs[kind, other], 0) if (kind, other) in pairs else [] for other in others]
        lines.append([f"{kind} ({number[kind]})", *(" / ".join(map(decimal, mean)) for mean in means)])
    note = "Mean reward a step of the row's player / of its opponent, means over all pairs and both seats."
    return f"{markdown_table(['against', *others], lines)}\n\n{note}\n\n![Heat map]({figure.name})"


def _origins(groups: Groups) -> str:
    """Where the numbers come from: a line for each run."""
    lines = []
    for label, members in groups.items():
        for run in members:
            last = {key: run.metrics[key][-1] for key in ("iteration", "env_steps", "walltime")}
            about = _summary(run.path)
            machine = about.get("machine", {})
            where = [machine["processor"], count(machine["cores"], "core"), machine["device"]] if machine else []
            commits = [
                (commit or "unknown").replace("-dirty", " with changes") for commit in about.get("commits", ())
            ]
            lines.append([label, str(run.seed), f"{last['iteration']:.0f}", f"{last['env_steps'] / 1e6:.1f}M"])
            lines[-1] += [
                f"{last['walltime'] / 60:.1f}",
                ", ".join(re.sub(r"(\w{10})\w{30}", r"\1", c) for c in commits),
            ]
            lines[-1] += [", ".join(where), f"`{about['command']}`" if "command" in about else ""]
    head = ["", "seed", "iterations", "env steps", "minutes", "commits", "on", "command"]
    table = markdown_table(head, lines, text_columns=(0, 5, 6, 7))
    return f"<details><summary>Where these runs come from</summary>\n\n{table}\n\n</details>"


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


def main() -> None:
    parser = tool_parser("report", __doc__)
    commands = parser.add_subparsers(required=True, metavar="keep|build")
    keeping = commands.add_parser("keep", help="copy what tells of finished runs")
    keeping.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's directory")
    keeping.add_argument("--out", type=Path, required=True, help="the directory to copy to")
    keeping.add_argument("--without-agents", action="store_true", help="leave the agents out")
    keeping.set_defaults(
        function=lambda options: print(*keep(options.runs, options.out, not options.without_agents), sep="\n")
    )
    building = commands.add_parser("build", help="draw all figures and write all tables of report.yaml")
    building.add_argument("directory", type=Path, help="where report.yaml is")
    building.set_defaults(function=lambda options: build(options.directory))
    options: argparse.Namespace = parser.parse_args()
    try:
        options.function(options)
    except (OSError, ValueError) as error:
        refuse(parser, error)


if __name__ == "__main__":
    run_tool(main)
