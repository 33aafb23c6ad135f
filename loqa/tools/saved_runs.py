"""Training runs read back from disk, in groups to be compared."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from loqa.games.ipd import STATES
from loqa.run.config import flat
from loqa.run.metrics_file import read_metrics
from loqa.tools.common import split_label


class Column(NamedTuple):
    """How a column of the metrics is named in tables and in figures."""

    head: str  # of its column in a table
    title: str  # of its panel in a figure; "": only in tables
    unit: str  # label of the panel's vertical axis


# The columns that tables and figures show, in their order. `self_play` is the mean of both mean rewards.
TABLE_COLUMNS = {
    **{f"p_0_{state}_C": Column(state, state, "P(cooperate | state)") for state in STATES},
    "self_play": Column("self", "in self-play", "reward a step"),
    "always_cooperate_0_mean_rewards_a": Column("vs AC", "against always-cooperate", "reward a step"),
    "always_cooperate_0_mean_rewards_d": Column("AC's", "always-cooperate against it", "reward a step"),
    "always_defect_0_mean_rewards_a": Column("vs AD", "against always-defect", "reward a step"),
    "always_defect_0_mean_rewards_d": Column("AD's", "", "reward a step"),
    "own_coins_0": Column("own", "own coins, self-play", "coins a step"),
    "other_coins_0": Column("other's", "other's coins, self-play", "coins a step"),
}
HEADS_NOTE = {  # explains the heads of a game's columns
    "ipd": "START to DD: agent 0's P(cooperate) in each state; self: mean reward a step of both players.",
    "coin": (
        "Mean rewards a step. self: in self-play, of both players; vs AC, vs AD: agent 0 against always-cooperate"
        " and always-defect; AC's, AD's: what these get; own, other's: agent 0's coins a step in self-play, of its"
        " own and of the other's colour."
    ),
}

# Every evaluation has the first; by the others the game is recognised.
REQUIRED = ("iteration", "walltime", "env_steps", "mean_rewards_0", "mean_rewards_1")
GAMES = {"coin": "always_defect_0_mean_rewards_a", "ipd": "p_0_START_C"}

# Settings in which the runs of a group may differ.
IGNORED_WHEN_GROUPING = {"seed", "save_dir", "save_every", "checkpoint_every", "eval_every", "eval_episodes"}
IGNORED_WHEN_GROUPING |= {"num_iterations", "max_env_steps", "stop_at", "game.height", "game.width"}


class SavedRun(NamedTuple):
    """A run: its metrics, and what distinguishes it from others."""

    path: Path
    label: str  # of its group, as the user gave it, or ""
    game: str  # "coin" or "ipd"
    seed: int | None
    grid: tuple[int, int] | None  # (height, width), where it is known
    settings: dict[str, Any]  # the `hp` part of its config, flat; empty where there is no config
    metrics: dict[str, np.ndarray]  # the columns of metrics.csv, and `self_play`


Groups = dict[str, list[SavedRun]]  # by label


def shown_columns(runs: Sequence[SavedRun]) -> list[str]:
    """Those of TABLE_COLUMNS that all runs have."""
    return [column for column in TABLE_COLUMNS if all(column in run.metrics for run in runs)]


def read_runs(words: Sequence[str]) -> list[SavedRun]:
    """The runs that words name: a run's directory, a directory of runs, or a CSV file; LABEL=PATH names a group.

    Raises:
      OSError, ValueError: in one sentence, what is wrong.
    """
    runs = []
    for word in words:
        label, path = split_label(word)
        found = [_read_run(file, label) for file in _metric_files(path)]
        found = [run for run in found if run.metrics["iteration"].size]  # others have no evaluation yet
        if not found:
            raise ValueError(f"{path} has no evaluation in it yet")
        runs += found
    games = {run.game: run.path for run in reversed(runs)}
    if len(games) > 1:
        raise ValueError(
            f"two games do not fit in one picture: {games['coin']} is the Coin Game's, {games['ipd']} the IPD's"
        )
    return runs


def group_runs(runs: Sequence[SavedRun], split_grids: bool = True) -> Groups:
    """Runs of the same label; of those without one, runs whose settings differ in no more than seed and length.

    Args:
      runs: in the order of the groups.
      split_grids: runs on different boards are different groups.

    Raises:
      ValueError: a seed is twice in a group, and would count twice.
    """
    unlabelled = [run.settings for run in runs if not run.label and run.settings]
    keys = sorted({key for settings in unlabelled for key in settings} - IGNORED_WHEN_GROUPING)
    values = {key: {str(settings[key]) for settings in unlabelled if key in settings} for key in keys}
    differing = [key for key in keys if len(values[key]) > 1]  # not keys that only newer runs have
    several_grids = split_grids and len({run.grid for run in runs}) > 1
    groups: Groups = {}
    for run in runs:
        parts = [f"{key.split('.')[-1]}={run.settings.get(key)}" for key in differing] if run.settings else []
        label = run.label or ", ".join(parts)
        if several_grids and run.grid:
            label = f"{label} {run.grid[0]}x{run.grid[1]}".strip()
        groups.setdefault(label, []).append(run)
    for label, members in groups.items():
        twice = Counter((run.seed, run.grid) for run in members if run.seed is not None).most_common(1)
        if twice and twice[0][1] > 1:
            first, second = [run.path for run in members if (run.seed, run.grid) == twice[0][0]][:2]
            raise ValueError(
                f"{first} and {second} are both seed {twice[0][0][0]} of {label or 'the same settings'}: "
                "leave one out, or label them (LABEL=PATH)"
            )
    return groups


def _metric_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise ValueError(f"there is no file or directory {str(path)!r}")
    files = [path / "metrics.csv"] if (path / "metrics.csv").exists() else sorted(path.rglob("metrics.csv"))
    files = files or sorted(path.glob("*.csv"))
    if not files:
        raise ValueError(f"{path} has no runs in it (no metrics.csv at any depth, and no CSV files)")
    return files


def _read_run(path: Path, label: str) -> SavedRun:
    """A run's metrics.csv with the config.yaml beside it, or a CSV file.

    Of a file without a config, seed and board are read off its name or its directory's, such as
    coin_3x3/seed_42.csv.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if "\n" not in text:
            raise ValueError("it has no line in it")
        metrics = read_metrics(io.StringIO(text[: text.rfind("\n") + 1]))  # without half a last row
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not a run's metrics: {error}") from error
    game = next((name for name, column in GAMES.items() if column in metrics), None)
    missing = [name for name in REQUIRED if name not in metrics] or ([] if game else list(GAMES.values()))
    if missing:
        raise ValueError(f"{path} is not a run's metrics: it has no column {' or '.join(missing)}")
    metrics["self_play"] = (metrics["mean_rewards_0"] + metrics["mean_rewards_1"]) / 2

    config = path.with_name("config.yaml")
    if path.name == "metrics.csv" and config.exists():
        try:
            settings = flat(yaml.safe_load(config.read_text(encoding="utf-8"))["hp"])
            seed = settings["seed"]
            grid = (settings["game.height"], settings["game.width"]) if game == "coin" else None
        except (KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
            raise ValueError(f"{config} is not a run's configuration: {error}") from error
        return SavedRun(path.parent, label, game, seed, grid, settings, metrics)
    name = f"{path.absolute().parent.name}/{path.stem}"
    seed, board = re.search(r"seed_?(\d+)", name), re.search(r"(\d+)x(\d+)", name)
    grid = (int(board[1]), int(board[2])) if board and game == "coin" else None
    return SavedRun(path, label, game, int(seed[1]) if seed else None, grid, {}, metrics)
