"""Training runs read back from disk, kept in few files, and put into groups.

A directory of `archive` is an experiment: curves.csv has the metrics of all its runs, runs.csv a line for each, and
config.yaml the settings that they share.
"""

import json
import math
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import yaml
from flax.traverse_util import unflatten_dict

from loqa.figures.runs import Groups, SavedRun
from loqa.games import GAMES
from loqa.metrics import self_play
from loqa.run.agents import newest_agents, read_npz
from loqa.run.config import flat
from loqa.run.directory import write_whole
from loqa.run.metrics_file import read_metrics
from loqa.tools.common import read_csv, split_label, write_csv

REQUIRED = ("iteration", "walltime", "env_steps", "mean_rewards_0", "mean_rewards_1")  # of every evaluation
ORIGIN = ("finished_at", "commit", "versions", "machine", "command")


def read_runs(words: Sequence[str]) -> list[SavedRun]:
    """The runs in directories, each a PATH or LABEL=PATH; raises OSError or ValueError.

    A path may be a run's metrics.csv. PATH@3x3 are the runs of a board, PATH@42-51 those of these seeds. What cannot be
    read is named on stderr and left out, if others can.
    """
    runs, refused = [], []
    names = [split_label(word)[1].absolute().name for word in words]
    for word in words:
        label, path = split_label(word)
        which = ""
        if not path.exists():
            name, _, which = path.name.partition("@")
            path = path.with_name(name)
        files = [path] if path.is_file() else sorted([*path.rglob("metrics.csv"), *path.rglob("curves.csv")])
        if not files:
            raise ValueError(f"there are no runs in {path}")
        found = []
        for file in files:
            try:
                found += [*_read(file, label)]
            except (ValueError, LookupError, TypeError, AttributeError, OSError, yaml.YAMLError) as error:
                refused.append(f"{file} is not of a run, with config.yaml beside it: {error}")
        found = [run for run in found if _is_of(run, which)]
        if which and not found:
            raise ValueError(f"{path} has no runs of {which}")
        alike = len(found) > 1 and all(run.compared == found[0].compared for run in found)
        if alike and not label and len(words) > 1 and names.count(path.absolute().name) < 2:  # directories to compare
            found = [run._replace(label=path.absolute().name) for run in found]
        runs += found
    if not runs:
        raise ValueError(refused[0])
    for line in refused:
        print("left out:", *line.split(), file=sys.stderr)
    return runs


def _is_of(run: SavedRun, which: str) -> bool:
    """Whether it is of a board, such as 3x3, or of one of the seeds 42-51; all are of ""."""
    seeds = re.fullmatch(r"(\d+)-(\d+)", which)
    return int(seeds[1]) <= run.seed <= int(seeds[2]) if seeds else which in ("", run.board)


def _read(file: Path, label: str) -> Iterator[SavedRun]:
    """The runs of a metrics.csv, which is one, or of a curves.csv."""
    path, text = file.parent, file.read_text(encoding="utf-8-sig")  # -sig: spreadsheets add a mark
    config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    if (game := GAMES.get(config.get("game"))) is None:
        raise ValueError("it names no game")
    if file.name == "curves.csv":
        head, *lines = (line.partition(",") for line in text.splitlines())  # the run, a comma, its metrics
        by_run = groupby(lines, lambda line: line[0])
        texts = {run: "\n".join(numbers for _, _, numbers in (head, *of_run)) for run, of_run in by_run}
        rows = read_csv(path / "runs.csv")
    else:
        rows, texts = [_origin(path)], {"": text[: text.rfind("\n") + 1] or text}  # without half a last row
    for row in rows:
        metrics = read_metrics(texts.get(row["run"], ""))
        if missing := [column for column in REQUIRED if column not in metrics]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        if not metrics["iteration"].size:
            raise ValueError("it has no evaluation yet")
        metrics = {name: x for name, x in metrics.items() if not np.isnan(x).all()}  # without columns of others
        metrics["self_play"] = self_play(metrics)
        own = {key[3:]: yaml.safe_load(cell) for key, cell in row.items() if key.startswith("hp.") and cell}
        origin = {key: row.get(key, "") for key in ORIGIN}
        yield SavedRun(path / row["run"], label, flat(config["hp"]) | own, metrics, game, origin)


def _origin(path: Path) -> dict[str, str]:
    """Of a run's summary.json; it has none before its end."""
    file = path / "summary.json"
    words = json.loads(file.read_text("utf-8")) if file.exists() else {}
    listed = {key: ", ".join(f"{x} {y}" for x, y in words.get(key, {}).items()) for key in ("versions", "machine")}
    commits = ", ".join(x[:10] + x[40:] for x in words.get("commits", ()) if x)  # 40: -dirty
    origin = {"run": "", "finished_at": f"{words.get('iteration', '')}", "commit": commits}
    command = shlex.split(words.get("command", ""))
    command = shlex.join(word for word in command if not word.startswith("hp.save_dir="))  # a path of one machine only
    return origin | listed | {"command": command}


def archive(paths: Sequence[Path], out: Path, with_agents: bool = False) -> list[SavedRun]:
    """Adds runs to the experiment in `out`, with what its tables and figures need; returns them.

    A run is named as its directory, without the time; it replaces one of this name, seed and settings that is not
    longer, with its agents, and of any other raises ValueError. Agents are kept at half precision.
    """
    there = {run.path.name: run for run in (read_runs([str(out)]) if (out / "curves.csv").exists() else ())}
    new: dict[str, SavedRun] = {}
    identity = lambda run: (run.compared, run.seed, run.board)
    for run in read_runs([str(path) for path in paths]):
        name = re.sub(r"_\d{8}-\d{6}(_\d+)?$", "", run.path.absolute().name).replace(",", " ")
        old = there.get(name, run)
        if name in new or identity(run) != identity(old) or run.end < old.end:
            raise ValueError(f"{run.path} cannot be {name} of {out}: that is another run, or is longer")
        new[name] = run
    runs = dict(sorted((there | new).items()))
    if len(games := {run.game.name for run in runs.values()}) > 1:
        raise ValueError(f"the runs of {out} must be of one game, but are of {' and '.join(sorted(games))}")
    settings = [{x: y for x, y in run.settings.items() if x != "save_dir"} for run in runs.values()]
    shared = {x: y for x, y in settings[0].items() if x != "seed" and all(own.get(x, ...) == y for own in settings)}
    curves, lines = [], []
    for (name, run), own in zip(runs.items(), settings, strict=True):
        columns = [*REQUIRED, *(x for x in run.game.titles if x in run.metrics.keys() - {"self_play"})]
        for row in zip(*(run.metrics[column] for column in columns), strict=True):
            cells = ["" if np.isnan(x) else f"{x:.0f}" if x.is_integer() else f"{x:.6g}" for x in row]
            curves.append({"run": name} | dict(zip(columns, cells, strict=True)))
        in_a_line = partial(yaml.safe_dump, default_flow_style=True, width=math.inf)
        differing = {f"hp.{x}": in_a_line(y).splitlines()[0] for x, y in sorted(own.items()) if x not in shared}
        line = {"run": name} | differing
        lines.append(line | {"minutes": f"{run.metrics['walltime'][-1] / 60:.1f}"} | curves[-1] | run.origin)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "curves.csv", partial(write_csv, rows=curves))
    write_whole(out / "runs.csv", partial(write_csv, rows=lines))
    config = yaml.safe_dump({"game": games.pop(), "hp": unflatten_dict(shared, sep=".")})  # nested as a run's
    write_whole(out / "config.yaml", lambda path: path.write_text(config, encoding="utf-8"))
    for name, run in new.items():
        if name in there and run.end > there[name].end:
            for file in (out / name / "agents").glob("*.npz"):
                file.unlink()
        for file in newest_agents(run.path) if with_agents else ():
            arrays = {key: x.astype(np.float16) if x.dtype == np.float32 else x for key, x in read_npz(file).items()}
            (out / name / "agents").mkdir(parents=True, exist_ok=True)
            np.savez_compressed(out / name / "agents" / file.name, **arrays)
    return [*new.values()]


def group_runs(runs: Sequence[SavedRun], split_boards: bool = True) -> Groups:
    """Runs of one label, or else of settings that differ in seed and length only; ValueError for a seed twice."""
    compared = [run.compared for run in runs if not run.label]
    text = lambda x: str(int(x) if isinstance(x, float) and x.is_integer() else x)  # 0.0 is 0
    values = lambda key: {text(each[key]) for each in compared if key in each}  # not of runs older than the key
    differing = [key for key in sorted(set().union(*compared)) if len(values(key)) > 1]
    several_boards = split_boards and len({run.board for run in runs}) > 1
    groups: Groups = {}
    for run in runs:
        parts = [f"{key.split('.')[-1]}={text(run.settings[key])}" for key in differing if key in run.settings]
        label = f"{run.label or ', '.join(parts)} {run.board if several_boards else ''}".strip() or "this code"
        for other in groups.setdefault(label, []):
            if run.seed is not None and (run.seed, run.board) == (other.seed, other.board):
                where = f"{other.path} and {run.path} are both seed {run.seed} of one setting"
                raise ValueError(f"{where}: leave one out, or label them (LABEL=PATH)")
        groups[label].append(run)
    return groups
