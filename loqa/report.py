"""Evidence that stays: `python -m loqa.report keep RUNS --out DIR` and `python -m loqa.report build results`.

`keep` copies what tells of a finished run: its metrics, its configuration, summary.json with the command, the
commit and the machine, and its last agents. `build` reads `report.yaml` of a directory of such runs, draws every
figure and writes every table into its README.md. A section of report.yaml:

    coin_3x3:                          # the first part of the names of its figures
      title: Coin Game, 3x3
      text: what the reader should know
      runs: {calibrated critic: coin_3x3/calibrated, published critic: coin_3x3/published}   # groups to compare
      show: [last, curves, thresholds] # tables and figures, in this order

`last` is a table of the last evaluations; `bars`, `curves` and `thresholds` are the figures of loqa.plot, and with
the third comes its table; `critic_error` is that of loqa.critic_error. `league: DIR/league.csv` in place of `runs`
is the heat map and the table of a league.
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

from loqa import critic_error
from loqa.command_line import refuse, run_tool, tool_parser
from loqa.group_figures import SHOWN, group_bars, seed_curves, threshold_figure
from loqa.heatmap import heat_map, read_league
from loqa.players import agent_files
from loqa.saved_runs import IN_TABLES, SavedRun, read_runs
from loqa.thresholds import UNITS, threshold_rows
from loqa.thresholds import markdown as threshold_markdown

KEPT = ("config.yaml", "metrics.csv", "summary.json")

KEYS = dict.fromkeys(("title", "text", "runs", "show", "league"))

Groups = dict[str, list[SavedRun]]


def keep(runs: Sequence[Path], out: Path) -> list[Path]:
    """Copies finished runs to `out`, each to a directory of the run's name without the time.

    Raises:
      OSError, ValueError: in one sentence, what is not a finished run or would be overwritten.
    """
    copies = {run: out / re.sub(r"_\d{8}-\d{6}(_\d+)?$", "", run.absolute().name) for run in runs}
    for run, copy in copies.items():
        if missing := [name for name in KEPT if not (run / name).exists()]:
            raise ValueError(f"{run} is not a finished run: it has no {missing[0]}")
        if copy.exists() or list(copies.values()).count(copy) > 1:
            raise ValueError(f"{run} cannot be kept as {copy}, which is another run's")
    for run, copy in copies.items():
        (copy / "agents").mkdir(parents=True)
        for file in [*(run / name for name in KEPT), *agent_files(run)]:
            shutil.copyfile(file, copy / file.relative_to(run))
    return list(copies.values())


def build(directory: Path, say: Callable[[str], object] = print) -> None:
    """Draws and writes everything that `report.yaml` of a directory names; `say` is told of each file.

    Raises:
      OSError, ValueError: in one sentence, what is wrong.
    """
    sections = yaml.safe_load((directory / "report.yaml").read_text(encoding="utf-8"))
    text = ["# Results", "", "Written by `python -m loqa.report build` from the files beside it."]
    for name, section in sections.items():
        if unknown := section.keys() - KEYS:
            raise ValueError(f"report.yaml: {name} has the key {min(unknown)!r}, but may have {', '.join(KEYS)}")
        for key in ["title"] + ["runs", "show"] * ("league" not in section):
            if key not in section:
                raise ValueError(f"report.yaml: {name} has no {key}")
        text += ["", f"## {section['title']}"]
        text += ["", section["text"].strip()] if "text" in section else []
        figure = lambda what, name=name: directory / f"{name}_{what}.png"
        if "league" in section:
            text += ["", _league(directory / section["league"], directory / f"{name}.png")]
            continue
        groups = {label: read_runs([str(directory / path)]) for label, path in section["runs"].items()}
        for what in section["show"]:
            if what not in PARTS:
                raise ValueError(f"report.yaml: {name} shows {what!r}, but must show some of {', '.join(PARTS)}")
            text += ["", PARTS[what](groups, figure(what))]
            say(f"{name}: {what}")
        text += ["", _origins(groups, directory)]
    (directory / "README.md").write_text("\n".join(text).strip() + "\n", encoding="utf-8")
    say(str(directory / "README.md"))


def _last(groups: Groups, figure: Path) -> str:
    """The table of the last evaluations."""
    columns = {"self": "self_play"} | {title: IN_TABLES[title] for title in IN_TABLES if title != "self"}
    runs = [run for members in groups.values() for run in members]
    columns = {title: column for title, column in columns.items() if all(column in run.metrics for run in runs)}
    columns = dict(sorted(columns.items(), key=lambda item: list(IN_TABLES).index(item[0])))
    lines = [["", "seed", "iteration", *columns], ["---", *["--:"] * (2 + len(columns))]]
    for label, members in groups.items():
        table = np.array([[run.metrics[column][-1] for column in columns.values()] for run in members])
        for run, values in zip(members, table, strict=True):
            lines.append([label, str(run.seed), f"{run.metrics['iteration'][-1]:.0f}", *map(_decimal, values)])
        if len(members) > 1:
            mean, sd = table.mean(0), table.std(0, ddof=1)
            spread = [f"**{_decimal(x)}** ({_decimal(y)})" for x, y in zip(mean, sd, strict=True)]
            lines.append([f"**{label}**", f"**mean** (sd) of {len(members)}", "", *spread])
    return _table(lines)


def _bars(groups: Groups, figure: Path) -> str:
    group_bars(groups, 0, [figure])
    return f"![P(cooperate) in each state]({figure.name})"


def _curves(groups: Groups, figure: Path) -> str:
    game = next(iter(groups.values()))[0].game
    seed_curves(groups, SHOWN[game], "iteration", [figure])
    return f"![Learning curves]({figure.name})"


def _thresholds(groups: Groups, figure: Path) -> str:
    threshold_figure(groups, list(UNITS), [figure])
    return f"{threshold_markdown(threshold_rows(groups))}\n![What the thresholds take]({figure.name})"


def _critic_error(groups: Groups, figure: Path) -> str:
    gradients, deviations = critic_error.measure()
    critic_error.draw(gradients, critic_error.ERRORS, groups, [figure])
    table = critic_error.table(gradients, deviations, critic_error.ERRORS)
    return f"{table}\n\n![What an error of the critic does to the gradient]({figure.name})"


PARTS: dict[str, Callable[[Groups, Path], str]] = {
    "last": _last,
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
    columns = ["itself", "others of its kind", *kinds]
    lines = [["against", *columns], ["---"] + ["--:"] * len(columns)]
    for kind in kinds:
        means = [np.mean(pairs[kind, other], 0) if (kind, other) in pairs else [] for other in columns]
        lines.append([f"{kind} ({number[kind]})", *(" / ".join(map(_decimal, mean)) for mean in means)])
    return f"{_table(lines)}\n\n![Heat map]({figure.name})"


def _origins(groups: Groups, directory: Path) -> str:
    """Where the numbers come from: a line for each run."""
    lines = [["", "seed", "iterations", "env steps", "minutes", "commit", "on", "command"]]
    lines.append(["---"] + ["--:"] * 4 + ["---"] * 3)
    for label, members in groups.items():
        for run in members:
            last = {key: run.metrics[key][-1] for key in ("iteration", "env_steps", "walltime")}
            about = _summary(run.path)
            where = about.get("machine", {})
            machine = f"{where['processor']}, {where['cores']} cores, {where['device']}" if where else ""
            lines.append([label, str(run.seed), f"{last['iteration']:.0f}", f"{last['env_steps'] / 1e6:.1f}M"])
            lines[-1] += [f"{last['walltime'] / 60:.1f}", (about.get("commit") or "")[:10], machine]
            lines[-1].append(f"`{about['command']}`" if "command" in about else "")
    return f"<details><summary>Where these runs come from</summary>\n\n{_table(lines)}\n\n</details>"


def _summary(run: Path) -> dict[str, Any]:
    path = run / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _decimal(x: float) -> str:
    return f"{round(x, 3) + 0.0:.3f}"  # and no -0.000


def _table(lines: Sequence[Sequence[str]]) -> str:
    """As Markdown; the second line tells the alignment."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = tool_parser("report", __doc__)
    commands = parser.add_subparsers(required=True, metavar="keep|build")
    keeping = commands.add_parser("keep", help="copy what tells of finished runs")
    keeping.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's directory")
    keeping.add_argument("--out", type=Path, required=True, help="the directory to copy to")
    keeping.set_defaults(function=lambda options: print(*keep(options.runs, options.out), sep="\n"))
    building = commands.add_parser("build", help="draw all figures and write all tables of report.yaml")
    building.add_argument("directory", type=Path, help="where report.yaml is")
    building.set_defaults(function=lambda options: build(options.directory))
    options: argparse.Namespace = parser.parse_args()
    try:
        options.function(options)
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        refuse(parser, error)


if __name__ == "__main__":
    run_tool(main)
