"""The Coin Game (Lerer and Peysakhovich 2017, arXiv 1707.01068; LOQA section 5.2) on any H x W torus."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loqa.hyperparameters import CoinHyperparameters

# What each action adds to (row, column): left, right, up, down.
MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))


class CoinState(NamedTuple):
    """Where everything is; positions are (row, column)."""

    players: jax.Array  # int [2, 2]: player 0, player 1
    coin: jax.Array  # int [2]
    owner: jax.Array  # int []: whose coin it is, 0 or 1


@dataclasses.dataclass(frozen=True)
class CoinGame:
    """Two players, one coin that one of them owns.

    Whoever steps on the coin takes it for +1, both at once if both do; when a player that does not own it
    takes it, the owner gets -2. A taken coin reappears uniformly on a cell where no player stands, and
    belongs to the other player then.
    """

    height: int = 3
    width: int = 3

    num_actions = 4
    all_observations = None
    read_table = None

    def __post_init__(self):
        if min(self.height, self.width) < 1 or self.height * self.width < 3:
            what = f"a {self.height}x{self.width} grid has no room for two players and a coin"
            raise ValueError(f"{what}: height and width must be at least 1 and height x width at least 3")

    @classmethod
    def from_hp(cls, hp: CoinHyperparameters) -> "CoinGame":
        """The game on the board that the hyperparameters give."""
        return cls(hp.game.height, hp.game.width)

    @property
    def observation_size(self) -> int:
        return 4 * self.height * self.width

    def from_seat(self, seat: int) -> "CoinGame":
        """The game itself: it is the same from both seats."""
        return self

    def scripted(self) -> dict[str, tuple["CoinSeeker", tuple[int, int]]]:
        """The scripted players by name, with their `params`."""
        return {name: (CoinSeeker(self.height, self.width), likes) for name, likes in LIKES.items()}

    def reset(self, key: jax.Array) -> CoinState:
        """Players and owner uniform and independent; the coin uniform off the players."""
        key_players, key_owner, key_coin = jax.random.split(key, 3)
        size = jnp.array([self.height, self.width])
        players = jax.random.randint(key_players, (2, 2), 0, size)
        owner = jax.random.randint(key_owner, (), 0, 2)
        return CoinState(players, self._free_cell(jax.random.uniform(key_coin), players), owner)

    def step(self, uniform: jax.Array, state: CoinState, actions: jax.Array) -> tuple[CoinState, jax.Array]:
        """Moves both players by `actions` [2], int; returns the next state and the rewards [2], float.

        `uniform` [], drawn from [0, 1), says where a taken coin reappears.
        """
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
        """What each player sees, [2, 4 H W]: one-hot planes of itself, the other, its coin, the other's coin."""
        cells = self.height * self.width
        first, second = jax.nn.one_hot(self._cell(state.players), cells)
        coin = jax.nn.one_hot(self._cell(state.coin), cells)
        mine, theirs = coin * (state.owner == 0), coin * (state.owner == 1)
        return jnp.stack(
            [jnp.concatenate([first, second, mine, theirs]), jnp.concatenate([second, first, theirs, mine])]
        )

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
    """How often a player took its own coin, and the other's, from what it saw: [T+1, ..., D] -> [T, ...] each."""
    me, _, my_coin, their_coin = jnp.split(observations, 4, axis=-1)
    return (me[1:] * my_coin[:-1]).sum(-1), (me[1:] * their_coin[:-1]).sum(-1)


@dataclasses.dataclass(frozen=True)
class CoinSeeker:
    """A scripted player: prefers moves by their distance to the coin after them; breaks ties uniformly.

    Its `params` are what it likes, of LIKES: +1 to come near to a coin of its own, or of the other; -1 to go
    away; 0 not to care. Distances are L1 on the torus, of `height` x `width`.
    """

    height: int
    width: int

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> tuple:
        return ()

    def act(self, params: tuple, hidden: tuple, observation: jax.Array) -> tuple[jax.Array, tuple]:
        """Observation [..., 4 H W] -> logits [..., 4]: 0 for the best moves, -inf for the others."""
        likes_own, likes_others = params
        me, _, my_coin, their_coin = jnp.split(observation, 4, axis=-1)
        # For each cell of mine and each of the coin: the distance after each move, [HW, HW, 4].
        distance = jnp.array(_distances_after_moves(self.height, self.width))
        wish = likes_own * my_coin + likes_others * their_coin
        badness = jnp.einsum("...i,...j,ijk->...k", me, wish, distance)
        best = badness == badness.min(-1, keepdims=True)
        return jnp.where(best, 0.0, -jnp.inf), hidden


# What they like: coins of their own, and of the other.
LIKES = {"always-cooperate": (1, -1), "always-defect": (1, 1), "random": (0, 0)}


def _distances_after_moves(height: int, width: int) -> np.ndarray:
    size = np.array([height, width])
    cells = np.stack(np.divmod(np.arange(height * width), width), -1)
    after = (cells[:, None] + np.array(MOVES)) % size
    apart = np.abs(after[:, None] - cells[None, :, None])
    return np.minimum(apart, size - apart).sum(-1).astype(np.float32)
