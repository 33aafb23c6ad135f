"""Saved runs in groups that are compared, and aggregates over their seeds.

Interquartile means and bootstrap intervals are robust where seeds are few (Agarwal et al. 2021, arXiv 2108.13264).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loqa.game import GameSpec
from loqa.games import game_of_run

# Units of training: of all of it, and until a goal is reached.
UNITS = {"walltime": "wall time (s)", "env_steps": "environment steps", "iteration": "iterations"}

LEARNING = {"qvalue_0_mean": "mean of Q", "qvalue_0_bias": "mean error of Q"}  # titles of columns in curves of a run

# Settings in which the runs of a group may differ.
IGNORED_WHEN_GROUPING = {"seed", "save_dir", "save_every", "checkpoint_every", "eval_every", "eval_episodes"}
IGNORED_WHEN_GROUPING |= {"num_iterations", "max_env_steps", "stop_at"}


class SavedRun(NamedTuple):
    """A run: its metrics, and what distinguishes it from others."""

    path: Path
    label: str  # of its group, as the user gave it, or ""
    settings: dict[str, Any]  # the `hp` part of its config, flat
    metrics: dict[str, np.ndarray]  # the columns of metrics.csv, and `self_play`
    game_name: str | None = None  # None in runs of earlier versions

    @property
    def game(self) -> GameSpec:
        return game_of_run(self.game_name, self.settings, self.metrics)

    @property
    def seed(self) -> int | None:
        return self.settings.get("seed")

    @property
    def board(self) -> str:
        """Such as 3x3; "" where it is not known, or there is none."""
        return self.game.board_of(self.settings)

    @property
    def compared(self) -> dict[str, Any]:
        """The settings in which the runs of a group are the same."""
        ignored = IGNORED_WHEN_GROUPING.union(self.game.board)
        return {key: value for key, value in self.settings.items() if key not in ignored}

    def continues(self, other: "SavedRun") -> bool:
        """Whether it is longer than another run of the same settings."""
        mine, its = self.compared, other.compared
        same = all(mine.get(key) == its.get(key) for key in mine | its)
        return same and self.metrics["iteration"][-1] > other.metrics["iteration"][-1]


Groups = dict[str, list[SavedRun]]  # by label


def shown_columns(runs: Sequence[SavedRun]) -> list[str]:
    """The columns in tables of their game that all runs have."""
    return [column for column in runs[0].game.titles if all(column in run.metrics for run in runs)] if runs else []


def title_of(runs: Sequence[SavedRun], column: str) -> str:
    """The title of a column, or its name."""
    game = runs[0].game
    return {**game.titles, **LEARNING, **game.more_titles}.get(column, column)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean without the highest and the lowest quarter, each rounded down: [seeds, ...] -> [...]."""
    cut = len(values) // 4
    return np.sort(values, 0)[cut : len(values) - cut].mean(0)


def bootstrap_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of the interquartile mean: [seeds, ...] -> low [...], high [...]."""
    draws = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    means = [interquartile_mean(values[draw]) for draw in draws]
    # A quantile that is one of the means: between a finite and an infinite one there is nothing.
    return tuple(np.quantile(means, (0.025, 0.975), axis=0, method="inverted_cdf"))
