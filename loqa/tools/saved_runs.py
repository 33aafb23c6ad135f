"""Training runs read back from disk, and kept in few files; tables of when they reach a goal.

A directory of `archive` is an experiment: curves.csv has the metrics of all its runs, runs.csv a line for each, and
config.yaml the settings that they share.
"""

import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import yaml

from loqa.figures.runs import Groups, SavedRun
from loqa.game import GameSpec
from loqa.metrics import self_play
from loqa.run.agents import newest_agents, read_npz
from loqa.run.config import flat
from loqa.run.metrics_file import read_metrics
from loqa.run.trainer import IN_A_ROW
from loqa.tools.common import markdown_table, split_label, write_csv

REQUIRED = ("iteration", "walltime", "env_steps", "mean_rewards_0", "mean_rewards_1")  # of every evaluation
ORIGIN = ("finished_at", "commit", "versions", "machine", "command")


def read_runs(words: Sequence[str]) -> list[SavedRun]:
    """The runs in directories, each a PATH or LABEL=PATH; raises OSError or ValueError.

    A path may be a run's metrics.csv. What cannot be read is named on stderr and left out, if others can.
    """
    runs, refused = [], []
    for word in words:
        label, path = split_label(word)
        path, found, before = path.parent if path.is_file() else path, [], len(refused)
        for file in sorted([*path.rglob("metrics.csv"), *path.rglob("curves.csv")]):
            try:
                found += [run for run in _read(file, label) if run.metrics["iteration"].size]
            except (ValueError, LookupError, TypeError, AttributeError, OSError, yaml.YAMLError) as error:
                refused.append(f"{file} is not of a run, with config.yaml beside it: {error}")
        if not found and len(refused) == before:
            raise ValueError(f"there are no runs in {path}, or none with an evaluation")
        if not label and len(found) > 1 and len(words) > 1:  # directories that are compared
            found = [run._replace(label=path.absolute().name) for run in found]
        runs += found
    if not runs and refused:
        raise ValueError(refused[0])
    for line in refused:
        print("left out:", *line.split(), file=sys.stderr)
    return runs


def _read(file: Path, label: str) -> Iterator[SavedRun]:
    """The runs of a metrics.csv, which is one, or of a curves.csv."""
    path, text, texts = file.parent, file.read_text(encoding="utf-8-sig"), {}  # -sig: spreadsheets add a mark
    config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    shared = flat(config["hp"])
    if file.name == "metrics.csv":
        texts[""], rows = text[: text.rfind("\n") + 1] or text, [_origin(path)]  # without half a last row
    else:
        head, *lines = text.splitlines() or [""]
        for name, _, numbers in (line.partition(",") for line in lines):
            texts.setdefault(name, [head.partition(",")[2]]).append(numbers)
        rows = csv.DictReader((path / "runs.csv").read_text(encoding="utf-8-sig").splitlines())
    for row in rows:
        metrics = read_metrics("\n".join(texts.get(row["run"], ())) if row["run"] else texts[""])
        if missing := [column for column in REQUIRED if column not in metrics]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        metrics = {name: x for name, x in metrics.items() if not x.size or not np.isnan(x).all()}  # others' columns
        own = {key[3:]: yaml.safe_load(cell) for key, cell in row.items() if key.startswith("hp.") and cell}
        metrics["self_play"] = self_play(metrics)
        origin = {key: row.get(key, "") for key in ORIGIN}
        yield SavedRun(path / row["run"], label, shared | own, metrics, config.get("game"), origin)


def _origin(path: Path) -> dict[str, str]:
    """Of a run's summary.json; it has none before its end."""
    file = path / "summary.json"
    words = json.loads(file.read_text("utf-8")) if file.exists() else {}
    listed = {key: ", ".join(f"{x} {y}" for x, y in words.get(key, {}).items()) for key in ("versions", "machine")}
    commits = ", ".join(x[:10] + x[40:] for x in words.get("commits", ()) if x)  # 40: -dirty
    origin = {"run": "", "finished_at": f"{words.get('iteration', '')}", "commit": commits}
    command = re.sub(r" hp\.save_dir=\S+", "", words.get("command", ""))  # a path of one machine only
    return origin | listed | {"command": command}


def archive(runs: Sequence[Path], out: Path, with_agents: bool = False) -> list[SavedRun]:
    """Adds runs to the experiment in `out`, with what its tables and figures need; returns them.

    A run is named as its directory, without the time; it replaces one of this name of the same settings that is not
    longer, and of any other raises ValueError. Agents are kept at half precision.
    """
    there = {run.path.name: run for run in (read_runs([str(out)]) if (out / "curves.csv").exists() else ())}
    new: dict[str, SavedRun] = {}
    for run in read_runs([str(path) for path in runs]):
        name = re.sub(r"_\d{8}-\d{6}(_\d+)?$", "", run.path.absolute().name).replace(",", " ")
        old = there.get(name, run)
        if name in new or run.compared != old.compared or run.end < old.end:
            raise ValueError(f"{run.path} cannot be {name} of {out}: that is another run, or is longer")
        new[name] = run
    every = dict(sorted((there | new).items()))
    if len(games := {run.game.name for run in every.values()}) > 1:
        raise ValueError(f"the runs of {out} must be of one game, but are of {' and '.join(sorted(games))}")
    settings = [{x: y for x, y in run.settings.items() if x != "save_dir"} for run in every.values()]
    same = lambda key: key != "seed" and all(each.get(key, ...) == settings[0][key] for each in settings)
    shared = {key: value for key, value in settings[0].items() if same(key)}
    text = lambda value: yaml.safe_dump(value, default_flow_style=True).splitlines()[0]
    curves, lines = [], []
    for (name, run), own in zip(every.items(), settings, strict=True):
        columns = [*REQUIRED, *(x for x in run.game.titles if x in run.metrics.keys() - {"self_play"})]
        for row in zip(*(run.metrics[column] for column in columns), strict=True):
            cells = ["" if x != x else f"{x:.0f}" if x.is_integer() else f"{x:.6g}" for x in row]
            curves.append({"run": name} | dict(zip(columns, cells, strict=True)))
        lines.append({"run": name} | {f"hp.{x}": text(y) for x, y in sorted(own.items()) if x not in shared})
        lines[-1] |= {"minutes": f"{run.metrics['walltime'][-1] / 60:.1f}"} | curves[-1] | run.origin
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "curves.csv", curves)
    write_csv(out / "runs.csv", lines)
    (out / "config.yaml").write_text(yaml.safe_dump({"game": games.pop(), "hp": shared}), encoding="utf-8")
    for name, run in new.items() if with_agents else ():
        for file in newest_agents(run.path):
            arrays = {key: x.astype(np.float16) if x.dtype == np.float32 else x for key, x in read_npz(file).items()}
            (out / name / "agents").mkdir(parents=True, exist_ok=True)
            np.savez_compressed(out / name / "agents" / file.name, **arrays)
    return [*new.values()]


def group_runs(runs: Sequence[SavedRun], split_boards: bool = True) -> Groups:
    """Runs of one label, or else of settings that differ in seed and length only; ValueError for a seed twice."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run.compared.items() if not run.label else ():
            values.setdefault(key, set()).add(str(value))
    differing = [key for key in sorted(values) if len(values[key]) > 1]  # not keys that only newer runs have
    several_boards = split_boards and len({run.board for run in runs}) > 1
    groups: Groups = {}
    for run in runs:
        parts = [f"{key.split('.')[-1]}={run.settings[key]}" for key in differing if key in run.settings]
        label = f"{run.label or ', '.join(parts)} {run.board if several_boards else ''}".strip() or "this code"
        for other in groups.setdefault(label, []):
            if run.seed is not None and (run.seed, run.board) == (other.seed, other.board):
                where = f"{other.path} and {run.path} are both seed {run.seed} of {label}"
                raise ValueError(f"{where}: leave one out, or label them (LABEL=PATH)")
        groups[label].append(run)
    return groups


# ----------------------------------------------------------------------------------------------------- goals

GOALS_NOTE = "Medians over seeds [lowest, highest]; `>`: not by then. Held: by five evaluations in a row."


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


def square_boards(groups: Groups) -> tuple[GameSpec, Groups, str]:
    """The game, the runs on square boards, and in words which others are left out; ValueError if that is all."""
    runs = sum(groups.values(), [])
    others = {run.board for run in runs if len({*run.board.split("x")}) > 1 or not run.board}
    kept = {label: [run for run in members if run.board not in others] for label, members in groups.items()}
    kept = {label: members for label, members in kept.items() if members}
    if not kept:
        raise ValueError(f"{runs[0].path} is not a run with thresholds on a known square board")
    left_out = f"\nLeft out, as thresholds are of square boards: {', '.join(sorted(others))}." if others else ""
    return runs[0].game, kept, left_out


def goal_table(groups: Groups, goals: Sequence[str] = ()) -> str:
    """A Markdown table: until when each group reaches goals (all of its game) on each board; ValueError if none has."""
    (game, left_out), lines = (next(iter(groups.values()))[0].game, ""), []
    if game.board:
        game, groups, left_out = square_boards(groups)
    paper = game.published_seconds.get("LOQA", {})
    for (label, members), goal in product(groups.items(), goals or game.goals):
        for board, runs in by_board(members).items():
            reached = f"{np.isfinite(times(runs, goal, 'iteration')).sum()} of {len(runs)}"
            cells = [median(runs, goal, unit, n) for n in (1, IN_A_ROW) for unit in ("iteration", "walltime")]
            seconds = paper.get(goal, {}).get(int(board.partition("x")[0] or 0), "")
            lines.append([label, f"{goal} {board}", reached, *cells, median(runs, goal, "env_steps"), f"{seconds}"])
    head = ["", "goal", "seeds", "first at iteration", "s", "held at iteration", "s", "steps to first", "the paper, s"]
    return f"{markdown_table(head, lines, (0, 1))}\n\n{GOALS_NOTE}{left_out}"
