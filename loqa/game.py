"""The interface of a game: its rules, pure functions of a state, and all else that the package asks of it."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from loqa.hyperparameters import Hyperparameters

# Okabe and Ito's colors, without the yellow, which is pale on white: of groups in figures, of players in films.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

Columns = Mapping[str, np.ndarray]  # of metrics.csv, by name

# Titles of the columns that every game has; rewards per step.
REWARDS = {
    "self_play": "reward in self-play",
    "always_cooperate_0_mean_rewards_a": "reward vs always-cooperate",
    "always_cooperate_0_mean_rewards_d": "always-cooperate's reward",
    "always_defect_0_mean_rewards_a": "reward vs always-defect",
    "always_defect_0_mean_rewards_d": "always-defect's reward",
}


class Game(Protocol):
    """The rules for two players who act at once. States are pytrees of arrays; `vmap` makes a batch of episodes."""

    title: str  # in a sentence, after "the"
    num_actions: int  # A
    observation_size: int  # D
    # Where they are few, else None: all S observations, [S][D]; and what reads the row of an observation in a table of
    # them, [..., S, A], [..., D] -> [..., A].
    all_observations: tuple[tuple[float, ...], ...] | None
    read_table: Callable[[jax.Array, jax.Array], jax.Array] | None

    @classmethod
    def from_hp(cls, hp: Any) -> "Game":
        """The game that the hyperparameters describe; the class without arguments is the paper's."""

    def from_seat(self, seat: int) -> "Game":
        """The same game, whose player 0 sits in `seat` (0 or 1)."""

    def scripted(self) -> dict[str, tuple[Any, Any]]:
        """Scripted players by name, with the params of their `act`; always-cooperate and -defect are played against."""

    def reset(self, key: jax.Array) -> Any:
        """The state before the first step."""

    def step(self, uniform: jax.Array, state: Any, actions: jax.Array) -> tuple[Any, jax.Array]:
        """Plays `actions` [2], int; `uniform` [] from [0, 1) decides what is random. Next state, rewards [2]."""

    def observe(self, state: Any) -> jax.Array:
        """Both players' observations, each with itself first: [2, D]."""


class Bars(NamedTuple):
    """A figure of an agent's last evaluation: a bar for each of some columns, which are from 0 to 1."""

    columns: dict[str, str]  # by label; {agent} stands for 0 or 1
    xlabel: str
    ylabel: str


class Film(NamedTuple):
    """Pictures of an episode: one, or frames with their durations."""

    frames: Sequence[Any]  # images of Pillow
    durations: Sequence[int]  # milliseconds
    text: str


class GameSpec(NamedTuple):
    """A game as the package knows it: `GAME` of its file in loqa/games. All but the first three have defaults.

    Each of `goals` is a function of the columns of metrics.csv and of the hyperparameters by dotted key, and says in
    which evaluations [...] the goal is reached. Training ends when five in a row reach the one that `hp.stop_at` names.
    """

    name: str  # of its script, of its folder in conf/, and of --game
    rules: type[Game]
    hyperparameters: type[Hyperparameters]
    script: str = ""  # if it is not NAME.py
    published: str = ""  # the preset with which runs are compared
    metrics: Callable[[Any], dict[str, jax.Array]] = lambda evaluation: {}  # of `loqa.metrics.Evaluation`
    titles: Mapping[str, str] = REWARDS  # of the columns in tables
    more_titles: Mapping[str, str] = {}  # of columns that a run's curves add
    columns: Mapping[str, str] = {"reward": "self_play"}  # of the terminal's table: title -> column
    progress_every: int = 100  # iterations in one go: after each, the terminal is updated and Ctrl-C handled
    goals: Mapping[str, Callable[[Columns, Mapping[str, Any]], np.ndarray]] = {}
    summary: Callable[[Game, Columns], list[str]] = lambda game, metrics: []  # the last lines of a run
    bars: Bars | None = None
    board: Sequence[str] = ()  # keys of the size of its board, such as game.height, named as the fields of `rules`
    published_rewards: Mapping[str, Mapping[str, float]] = {}  # board or `game_name` -> column
    published_seconds: Mapping[str, Mapping[str, Mapping[int, float]]] = {}  # who -> goal -> size of the board
    film: Callable[[Game, Any, list[str]], Film] | None = None  # game, an episode, a line for each player

    def is_share(self, column: str) -> bool:
        """True for a column of numbers from 0 to 1."""
        return self.bars is not None and re.sub("[01]", "{agent}", column, count=1) in self.bars.columns.values()


@dataclasses.dataclass(frozen=True)
class MemorylessPlayer:
    """The base of scripted players that remember nothing."""

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> tuple:
        return ()


@dataclasses.dataclass(frozen=True)
class ConstantPlayer(MemorylessPlayer):
    """A scripted player that always takes the action that its `params` are."""

    num_actions: int

    def act(self, params: int, hidden: tuple, observation: jax.Array) -> tuple[jax.Array, tuple]:
        """Observation [..., D] -> logits [..., A]."""
        logits = jnp.where(jnp.arange(self.num_actions) == params, 0.0, -jnp.inf)
        return jnp.broadcast_to(logits, (*observation.shape[:-1], self.num_actions)), hidden
