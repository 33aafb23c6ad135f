"""Saved runs, in groups that are compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loqa.game import GameSpec
from loqa.hyperparameters import NOT_COMPARED

# Units of training: of all of it, and until a goal is reached.
UNITS = {"walltime": "wall time (s)", "env_steps": "environment steps", "iteration": "iterations"}

LEARNING = {"qvalue_0_mean": "mean of Q", "qvalue_0_bias": "mean error of Q"}  # titles of columns in curves of a run


class SavedRun(NamedTuple):
    """A run: its metrics, and what distinguishes it from others."""

    path: Path
    label: str  # of its group, as the user gave it, or ""
    settings: dict[str, Any]  # the `hp` part of its config, flat
    metrics: dict[str, np.ndarray]  # the columns of metrics.csv, and `self_play`
    game: GameSpec
    origin: Mapping[str, str] = {}  # where it finished; its commit, versions, machine, command

    @property
    def seed(self) -> int | None:
        return self.settings.get("seed")

    @property
    def board(self) -> str:
        """Such as 3x3; "" where it is not known, or there is none."""
        return "x".join(str(self.settings[key]) for key in self.game.board if key in self.settings)

    @property
    def published(self) -> Mapping[str, float]:
        """What the paper reports of this game, by column; empty where it does not."""
        return self.game.published_rewards.get(self.board or self.settings.get("game_name"), {})

    @property
    def end(self) -> int:
        """Its last iteration that was evaluated."""
        return int(self.metrics["iteration"][-1])

    @property
    def compared(self) -> dict[str, Any]:
        """The settings in which the runs of a group are the same."""
        return {key: x for key, x in self.settings.items() if key not in NOT_COMPARED.union(self.game.board)}


Groups = dict[str, list[SavedRun]]  # by label


def longest(runs: Sequence[SavedRun]) -> list[SavedRun]:
    """Those that ended at the last iteration of all: the others are not compared with them."""
    return [run for run in runs if run.end == max(each.end for each in runs)]


def shown_columns(runs: Sequence[SavedRun]) -> list[str]:
    """The columns in tables of their game that all runs have."""
    return [column for column in runs[0].game.titles if all(column in run.metrics for run in runs)] if runs else []


def title_of(runs: Sequence[SavedRun], column: str) -> str:
    """The title of a column, or its name."""
    game = runs[0].game
    return {**game.titles, **LEARNING, **game.more_titles}.get(column, column)
