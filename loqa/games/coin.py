"""The Coin Game (Lerer and Peysakhovich 2017, arXiv 1707.01068; LOQA section 5.2) on any H x W torus."""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loqa.game import COLORS, REWARDS, Columns, Film, GameSpec, MemorylessPlayer
from loqa.hyperparameters import Count, GRUActor, GRUQValue, Hyperparameters, Section
from loqa.metrics import Evaluation, Metrics, self_play
from loqa.rollout import Trajectories

# What each action adds to (row, column), and its name.
MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))
MOVE_NAMES = ("left", "right", "up", "down")


class Board(Section):
    height: Count
    width: Count
    game_length: Count

    def contradictions(self):
        if self.height * self.width < 3:
            yield ("width", f"larger where height is {self.height}: a board needs 3 cells, for two players and a coin")


class CoinHyperparameters(Hyperparameters):
    """hp of coin_train.py"""

    epsilon_greedy: ClassVar[float] = 0.0  # no key: training episodes are played by the policy alone
    game: Board
    stop_at: Literal["weak", "medium", "strong"] | None
    actor: GRUActor
    qvalue: GRUQValue

    @property
    def game_length(self) -> int:
        return self.game.game_length

    @property
    def run_name(self) -> str:
        return f"coin_{self.game.height}x{self.game.width}_seed{self.seed}"

    def contradictions(self):
        yield from super().contradictions()
        if self.stop_at is not None and self.game.height != self.game.width:
            board = f"{self.game.height}x{self.game.width} board"
            yield "stop_at", f"null on a {board}: the thresholds are of square ones"


class CoinState(NamedTuple):
    """The places of everything; positions are (row, column)."""

    players: jax.Array  # int [2, 2]: player 0, player 1
    coin: jax.Array  # int [2]
    owner: jax.Array  # int []: whose coin it is, 0 or 1


@dataclasses.dataclass(frozen=True)
class CoinGame:
    """Two players, one coin that one of them owns.

    Whoever steps on the coin takes it for +1, both at once if both do; if a player that does not own it takes it, the
    owner gets -2. A taken coin reappears uniformly on a cell where no player stands, and the other player owns it.
    """

    height: int = 3
    width: int = 3

    num_actions = 4
    all_observations = None
    read_table = None

    def __post_init__(self):
        if min(self.height, self.width) < 1 or self.height * self.width < 3:
            raise ValueError(f"a {self.height}x{self.width} grid has no room for two players and a coin")

    @classmethod
    def from_hp(cls, hp: CoinHyperparameters) -> "CoinGame":
        return cls(hp.game.height, hp.game.width)

    @property
    def title(self) -> str:
        return f"{self.height}x{self.width} Coin Game"

    @property
    def observation_size(self) -> int:
        return 4 * self.height * self.width

    def from_seat(self, seat: int) -> "CoinGame":
        return self  # both seats are alike

    def scripted(self) -> dict[str, tuple["CoinSeeker", tuple[int, int]]]:
        return {name: (CoinSeeker(self.height, self.width), likes) for name, likes in LIKES.items()}

    def reset(self, key: jax.Array) -> CoinState:
        """Players and owner uniform and independent; the coin uniform off the players."""
        key_players, key_owner, key_coin = jax.random.split(key, 3)
        size = jnp.array([self.height, self.width])
        players = jax.random.randint(key_players, (2, 2), 0, size)
        owner = jax.random.randint(key_owner, (), 0, 2)
        return CoinState(players, self._free_cell(jax.random.uniform(key_coin), players), owner)

    def step(self, uniform: jax.Array, state: CoinState, actions: jax.Array) -> tuple[CoinState, jax.Array]:
        """Moves both players by `actions` [2], int; `uniform` [] from [0, 1) says where a taken coin reappears."""
        # A one-hot product reads MOVES: a gather inside the rollout is slow on a CPU.
        moves = (jax.nn.one_hot(actions, 4, dtype=jnp.int32)[:, :, None] * jnp.array(MOVES)).sum(1)
        players = (state.players + moves) % jnp.array([self.height, self.width])
        takes = (players == state.coin).all(-1)
        owns = jnp.arange(2) == state.owner
        rewards = 1.0 * takes - 2.0 * (owns & takes[::-1])
        taken = takes.any()
        coin = jnp.where(taken, self._free_cell(uniform, players), state.coin)
        owner = jnp.where(taken, 1 - state.owner, state.owner)
        return CoinState(players, coin, owner), rewards

    def observe(self, state: CoinState) -> jax.Array:
        """Both players' observations, [2, 4 H W]: one-hot planes of itself, the other, its coin, the other's coin."""
        plane = lambda position: jax.nn.one_hot(self._cell(position), self.height * self.width)
        (first, second), coin = plane(state.players), plane(state.coin)
        coins = coin * (state.owner == 0), coin * (state.owner == 1)
        seen = [first, second, *coins], [second, first, *coins[::-1]]
        return jnp.stack([jnp.concatenate(planes) for planes in seen])

    def _cell(self, position: jax.Array) -> jax.Array:
        """Row-major index of the cell at `position` [..., 2]."""
        return position[..., 0] * self.width + position[..., 1]

    def _free_cell(self, uniform: jax.Array, players: jax.Array) -> jax.Array:
        """The position that `uniform`, from [0, 1), draws among those where neither of `players` [2, 2] stands."""
        first, second = jnp.sort(self._cell(players))
        free = self.height * self.width - jnp.where(first == second, 1, 2)
        # The draw-th free cell: step over the taken cells at or before it, in order.
        draw = jnp.minimum((uniform * free).astype(jnp.int32), free - 1)
        draw += draw >= first
        draw += (draw >= second) & (first != second)
        return jnp.stack([draw // self.width, draw % self.width])


def coins_taken(observations: jax.Array) -> tuple[jax.Array, jax.Array]:
    """1 where a player took its own coin, and the other's, from what it saw: [T+1, ..., D] -> [T, ...], [T, ...]."""
    me, _, my_coin, their_coin = jnp.split(observations, 4, axis=-1)
    return (me[1:] * my_coin[:-1]).sum(-1), (me[1:] * their_coin[:-1]).sum(-1)


@dataclasses.dataclass(frozen=True)
class CoinSeeker(MemorylessPlayer):
    """A scripted player: prefers moves by the distance to the coin after them; breaks ties uniformly.

    Its `params` are two of LIKES, for a coin of its own and one of the other: +1 to come near, -1 to go away, 0 not to
    care. Distances are L1 on the torus of `height` x `width`.
    """

    height: int
    width: int

    def act(self, params: tuple, hidden: tuple, observation: jax.Array) -> tuple[jax.Array, tuple]:
        """Observation [..., 4 H W] -> logits [..., 4]: 0 for the best moves, -inf for the others."""
        likes_own, likes_others = params
        me, _, my_coin, their_coin = jnp.split(observation, 4, axis=-1)
        distance = jnp.array(_distances_after_moves(self.height, self.width))
        wish = likes_own * my_coin + likes_others * their_coin
        badness = jnp.einsum("...i,...j,ijk->...k", me, wish, distance)
        best = badness == badness.min(-1, keepdims=True)
        return jnp.where(best, 0.0, -jnp.inf), hidden


LIKES = {"always-cooperate": (1, -1), "always-defect": (1, 1), "random": (0, 0)}


def _distances_after_moves(height: int, width: int) -> np.ndarray:
    """By the player's cell and the coin's: the distance after each move, [H W, H W, 4]."""
    size = np.array([height, width])
    cells = np.stack(np.divmod(np.arange(height * width), width), -1)
    after = (cells[:, None] + np.array(MOVES)) % size
    apart = np.abs(after[:, None] - cells[None, :, None])
    return np.minimum(apart, size - apart).sum(-1).astype(np.float32)


# ----------------------------------------------------------------------------- what is measured, said and drawn

# Both rewards per step, times n = 2 (size // 2), must exceed these in one evaluation: in self-play, the mean of
# both players, and of the agent against always-defect.
THRESHOLDS = {"weak": (0.05, -1.2), "medium": (0.1, -0.5), "strong": (0.2, -0.2)}

# What the paper reports: rewards per step on 3x3 at iteration 6000, means of ten seeds.
REWARDS_3X3 = dict(zip(REWARDS, (0.316, 0.352, 0.318, -0.054, 0.123), strict=True))

# And seconds of wall time to each of THRESHOLDS on boards of 3 to 7, read off the scaling figure: means of three seeds,
# batch size 2048, one A100. Infinite: never.
_ = math.inf
_LOQA = (150, 150, 250, 400, 1200), (150, 200, 320, 580, 2700), (300, 320, 700, 1300, 2900)
_POLA = (1500, 1550, 2600, 2700, 5200), (4100, 2450, 9200, 6000, 14600), (24000, _, _, _, _)
_MFOS = (2300, 5600, 8400, 8500, 4300), (6000, 10200, _, _, _), (_, _, _, _, _)
SECONDS = {
    who: {name: dict(zip(range(3, 8), times, strict=True)) for name, times in zip(THRESHOLDS, of_each, strict=True)}
    for who, of_each in {"LOQA": _LOQA, "POLA": _POLA, "M-FOS": _MFOS}.items()
}


def threshold_passed(metrics: Columns, settings: Mapping[str, Any], threshold: str) -> np.ndarray:
    """The evaluations [...] in which one of THRESHOLDS is passed; `settings`: hp by dotted key, of a square board."""
    need_self_play, need_against_defect = THRESHOLDS[threshold]
    scale, against_defect = 2 * (settings["game.height"] // 2), metrics["always_defect_0_mean_rewards_a"]
    return (scale * self_play(metrics) > need_self_play) & (scale * against_defect > need_against_defect)


def own_and_other_coins(evaluation: Evaluation) -> Metrics:
    """`own_coins_0`, `other_coins_0`: the coins per step, of its own and of the other, that player 0 takes."""
    own, others = coins_taken(evaluation.self_play.observations[:, 0])
    return {"own_coins_0": own.mean(), "other_coins_0": others.mean()}


def summary(game: CoinGame, metrics: Columns) -> list[str]:
    """The last rewards, on 3x3 beside the paper's."""
    last = {"self_play": self_play(metrics)[-1]} | {name: values[-1] for name, values in metrics.items()}
    rows = {"this run": last} | ({"paper, 3x3": REWARDS_3X3} if game == CoinGame() else {})
    head = " " * 12 + "".join(f"{title:>8}" for title in ("self", "vs AC", "AC's", "vs AD", "AD's"))
    return [head, *(f"{name:12}" + "".join(f"{row[x]:z8.3f}" for x in REWARDS) for name, row in rows.items())]


PALE = {"a": "#CFE4F2", "b": "#FBDFCC"}  # the coins, in their owners' colors
TAKEN = "#F0E442"  # the cell of a coin that was just taken


class Scene(NamedTuple):
    """A state of the Coin Game. Cells are (row, column)."""

    pieces: dict[str, tuple[int, int]]  # A and B are the players; a or b, the last one, is the coin, by its owner
    taken: tuple[int, int] | None  # where a coin was just taken
    caption: str


def coin_scenes(game: CoinGame, episode: Trajectories) -> list[Scene]:
    """The T+1 states of an episode."""
    scenes = []
    for t, observation in enumerate(episode.observations[:, 0]):
        planes = zip("ABab", observation.reshape(4, -1), strict=True)
        pieces = {letter: divmod(int(plane.argmax()), game.width) for letter, plane in planes if plane.any()}
        taken, caption = None, "step {}, score A {:.0f}, B {:.0f}".format(t, *episode.rewards[:t].sum(0))
        if t:
            caption += "\nA {}, B {}".format(*(MOVE_NAMES[action] for action in episode.actions[t - 1]))
        if t and episode.rewards[t - 1].any():
            caption += ": A {:+.0f}, B {:+.0f}".format(*episode.rewards[t - 1])
            taken = list(scenes[-1].pieces.values())[-1]
        scenes.append(Scene(pieces, taken, caption))
    return scenes


def scene_text(game: CoinGame, scene: Scene) -> str:
    """The board and the caption as text; * is where both players are."""
    cells = np.full((game.height, game.width), ".")
    for letter, cell in scene.pieces.items():
        cells[cell] = "*" if cells[cell] == "A" else letter
    return "\n".join([*map(" ".join, cells), scene.caption, ""])


def draw_scene(game: CoinGame, scene: Scene, heads: list[str]) -> Any:
    """The board, with a line for each player above it, and the caption below it."""
    from PIL import Image, ImageDraw, ImageFont  # here, because training does without

    size = 360 // max(game.height, game.width)  # of a cell, in pixels
    left, top, bottom = 200 - size * game.width // 2, 60, 66 + size * game.height
    image, font = Image.new("RGB", (400, bottom + 50), "white"), ImageFont.load_default(15)
    draw = ImageDraw.Draw(image)
    for i, head in enumerate(heads):
        draw.text((20, 8 + 22 * i), head, COLORS[i], font)
    draw.text((20, bottom), scene.caption, "black", font)
    corner = lambda cell: np.array((left + size * cell[1], top + size * cell[0]))
    for cell in np.ndindex(game.height, game.width):
        color = TAKEN if cell == scene.taken else "white"
        draw.rectangle([*corner(cell), *(corner(cell) + size)], color, "#BBBBBB")
    together = scene.pieces["A"] == scene.pieces["B"]
    for letter, cell in scene.pieces.items():
        shift = {"A": -0.2, "B": 0.2}.get(letter, 0.0) if together else 0.0
        radius = size * (0.2 if together or letter in PALE else 0.33)
        center, color = corner(cell) + size * (0.5 + shift), COLORS["AB".index(letter.upper())]
        draw.ellipse([*(center - radius), *(center + radius)], PALE.get(letter, color), color, 2)
        ink, letter_font = color if letter in PALE else "white", ImageFont.load_default(radius)
        draw.text(center, letter, ink, letter_font, anchor="mm")
    return image


def film(game: CoinGame, episode: Trajectories, heads: list[str]) -> Film:
    """The board at each step; a taken coin is shown longer."""
    scenes = coin_scenes(game, episode)
    durations = [900 if scene.taken else 400 for scene in scenes[:-1]] + [3000]
    text = "\n".join(scene_text(game, scene) for scene in scenes)
    return Film([draw_scene(game, scene, heads) for scene in scenes], durations, text)


GAME = GameSpec(
    name="coin",
    rules=CoinGame,
    hyperparameters=CoinHyperparameters,
    script="coin_train.py",
    published="loqa_iclr_published",
    metrics=own_and_other_coins,
    titles=REWARDS | {"own_coins_0": "own coins", "other_coins_0": "other's coins"},
    # Rewards and coins per step, of agent 0; `self` is the mean of both, `AC's` always-cooperate's reward.
    columns={"self": "self_play", "vs AC": "always_cooperate_0_mean_rewards_a"}
    | {"AC's": "always_cooperate_0_mean_rewards_d", "vs AD": "always_defect_0_mean_rewards_a"}
    | {"own": "own_coins_0", "other's": "other_coins_0"},
    progress_every=5,
    goals={name: partial(threshold_passed, threshold=name) for name in THRESHOLDS},
    summary=summary,
    board=("game.height", "game.width"),
    published_rewards={"3x3": REWARDS_3X3},
    published_seconds=SECONDS,
    film=film,
)
