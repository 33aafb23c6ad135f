"""One episode of two players, to look at: `python -m loqa.tools.render PLAYER_A PLAYER_B`.

A player is a saved agent (.npz), a run's directory with one agent, or a scripted player by name. The Coin Game
becomes an animated GIF of the board, the iterated prisoner's dilemma a picture of its moves (PNG); both are
printed as text, too.
"""

import math
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from loqa.games.coin import CoinGame, coins_taken
from loqa.rollout import draw_noise, rollout
from loqa.tools.common import one_line_errors, run_tool, tool_parser, whole
from loqa.tools.players import Game, LeaguePlayer, add_game_options, choose_players
from loqa.tools.style import COLORS, in_style, save

PLAYERS = "AB"
PALE = ("#CFE4F2", "#FBDFCC")  # of the players' colours: their coins, and where they were
TAKEN = "#F0E442"  # the cell of a coin that was just taken
MOVES = ("left", "right", "up", "down")
STRIP = 25  # moves in a line of the IPD's picture


class Episode(NamedTuple):
    """What players A and B did: arrays of NumPy."""

    observations: np.ndarray  # [T+1, 2, D]
    actions: np.ndarray  # [T, 2]
    rewards: np.ndarray  # [T, 2]

    @property
    def scores(self) -> np.ndarray:
        """The sums of the rewards before each step and at the end: [T+1, 2]."""
        return np.concatenate([np.zeros((1, 2)), self.rewards.cumsum(0)])


def play_episode(game: Game, players: tuple[LeaguePlayer, LeaguePlayer], steps: int, seed: int) -> Episode:
    """One episode; the first player is in seat 0."""
    seats, params = tuple(one.player for one in players), tuple(one.params for one in players)
    played = jax.jit(partial(rollout, game, seats))(params, draw_noise(jax.random.key(seed), steps, 1))
    observations, _, actions, rewards = jax.device_get(played)
    return Episode(observations[:, :, 0], actions[:, :, 0], rewards[:, :, 0])


# ------------------------------------------------------------------------------------------------ the Coin Game


class Board(NamedTuple):
    """A state of the Coin Game, read from what player A saw. Cells are (row, column)."""

    players: list[tuple[int, int]]
    coin: tuple[int, int]
    owner: int


def read_board(game: CoinGame, observation: np.ndarray) -> Board:
    """Observation [4 H W] -> Board."""
    planes = observation.reshape(4, -1)
    cell = lambda plane: tuple(int(x) for x in divmod(int(plane.argmax()), game.width))
    return Board([cell(planes[0]), cell(planes[1])], cell(planes[2] + planes[3]), int(planes[3].any()))


def coin_events(episode: Episode) -> list[str]:
    """Who took which coin in each step, "" where nobody did: [T]."""
    own, others = (np.asarray(x) for x in coins_taken(episode.observations))
    events = []
    for t, rewards in enumerate(episode.rewards):
        takes = [f"{PLAYERS[i]} takes its coin" for i in (0, 1) if own[t, i]]
        takes += [f"{PLAYERS[i]} takes {PLAYERS[1 - i]}'s coin" for i in (0, 1) if others[t, i]]
        gains = ", ".join(f"{PLAYERS[i]} {rewards[i]:+.0f}" for i in (0, 1) if rewards[i])
        events.append(f"{' and '.join(takes)}: {gains}" if takes else "")
    return events


def coin_text(game: CoinGame, episode: Episode) -> str:
    """The episode as text: A and B are the players (* both), a and b the coins that they own."""
    events, scores, lines = coin_events(episode), episode.scores, []
    for t, observation in enumerate(episode.observations[:, 0]):
        board = read_board(game, observation)
        cells = np.full((game.height, game.width), ".")
        cells[board.coin] = "ab"[board.owner]
        for i, cell in enumerate(board.players):
            cells[cell] = "*" if board.players[0] == board.players[1] else PLAYERS[i]
        notes = [f"step {t:3}   score A {scores[t, 0]:.0f}, B {scores[t, 1]:.0f}", events[t - 1] if t else ""]
        if t < len(episode.actions):
            notes.append("then " + ", ".join(f"{PLAYERS[i]} {MOVES[a]}" for i, a in enumerate(episode.actions[t])))
        blank = " " * (2 * game.width - 1)
        for row, note in zip_longest(map(" ".join, cells), filter(None, notes), fillvalue=None):
            lines.append(f"{row or blank}    {note or ''}".rstrip())
        lines.append("")
    return "\n".join(lines)


@in_style
def coin_frames(game: CoinGame, episode: Episode, names: tuple[str, str]) -> list[Image.Image]:
    """The pictures of the T+1 states."""
    boards = [read_board(game, observation) for observation in episode.observations[:, 0]]
    cell = 3.6 / max(game.height, game.width)  # inches
    width, height = cell * game.width, cell * game.height
    total = height + 1.24
    frames = []
    for t, (board, event) in enumerate(zip(boards, ["", *coin_events(episode)], strict=True)):
        figure = Figure(figsize=(4, total), dpi=100)
        axes = figure.add_axes(((1 - width / 4) / 2, 0.58 / total, width / 4, height / total))
        for i, (name, score) in enumerate(zip(names, episode.scores[t], strict=True)):
            look = {"y": 1 - (0.12 + 0.25 * i) / total, "va": "top", "color": COLORS[i], "fontsize": 10}
            figure.text(0.05, s=f"{PLAYERS[i]}  {name if len(name) <= 30 else f'{name[:27]}...'}", **look)
            figure.text(0.95, s=f"score {score:.0f}", ha="right", **look)
        figure.text(0.05, 0.5 / total, f"step {t} of {len(boards) - 1}\n{event}", va="top", fontsize=9)
        _draw_board(axes, game, board, 72 * cell)
        if t:  # where they were
            rows, columns = zip(*boards[t - 1].players, strict=True)
            axes.scatter(np.add(columns, 0.5), np.add(rows, 0.5), (14 * cell) ** 2, PALE, zorder=0.5)
        if event:
            axes.add_patch(Rectangle(boards[t - 1].coin[::-1], 1, 1, color=TAKEN, zorder=0))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    return frames


def _draw_board(axes: Axes, game: CoinGame, board: Board, size: float) -> None:
    """Draws the cells, the coin and the players; `size` is that of a cell in points."""
    axes.set(xlim=(0, game.width), ylim=(game.height, 0))
    axes.set_xticks(range(game.width), [])
    axes.set_yticks(range(game.height), [])
    axes.tick_params(length=0)
    axes.grid(color="0.73", alpha=1)
    # The edges are broken, because who leaves at one comes back at the other.
    axes.spines[:].set(linewidth=1.5, linestyle=(0, (3, 3)))
    both = board.players[0] == board.players[1]
    tokens = [("ab"[board.owner], board.coin, 0.0, 0.22, PALE[board.owner], COLORS[board.owner])]
    for letter, cell, shift, color in zip(PLAYERS, board.players, (-0.2, 0.2), COLORS, strict=False):
        tokens.append((letter, cell, shift if both else 0.0, 0.22 if both else 0.33, color, "white"))
    for letter, (row, column), shift, radius, face, color in tokens:
        x, y, points = column + 0.5 + shift, row + 0.5 + shift, 2 * radius * size
        axes.scatter(x, y, points**2, face, edgecolors=color, linewidths=0.03 * size)
        axes.text(x, y, letter, color=color, fontsize=0.55 * points, ha="center", va="center_baseline")


def save_gif(frames: list[Image.Image], events: list[str], path: Path) -> None:
    """Writes an endless GIF that stops a little where a coin was taken, and at the end."""
    durations = [500] + [900 if event else 400 for event in events]
    durations[-1] = 3000
    # One palette for all frames: the file is less than half as large.
    palette = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames])).quantize(64)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)


# ----------------------------------------------------------------------------- the iterated prisoner's dilemma


def ipd_text(episode: Episode) -> str:
    """The moves as text, 50 a line."""
    lines = []
    for at in range(0, len(episode.actions), 50):
        moves = ["".join("CD"[a] for a in actions[at : at + 50]) for actions in episode.actions.T]
        lines += [f"from step {at}", f"A  {moves[0]}", f"B  {moves[1]}"]
    return "\n".join(lines)


@in_style
def ipd_strip(episode: Episode, names: tuple[str, str], path: Path) -> None:
    """Draws the moves, STRIP a line: blue cooperates, orange defects."""
    lines = math.ceil(len(episode.actions) / STRIP)
    figure = Figure(figsize=(4.6, 0.6 + 0.55 * lines), dpi=150, layout="constrained")
    players = zip(PLAYERS, names, episode.rewards.T, strict=True)
    scores = [f"{x}  {name}: {rewards.sum():.0f}, {rewards.mean():.2f} a step" for x, name, rewards in players]
    figure.suptitle("\n".join(scores), fontsize=8)
    figure.supxlabel("C cooperates, D defects; numbers are steps", fontsize=6, color="0.35")
    for line, axes in enumerate(figure.subplots(lines, squeeze=False).flat):
        moves = episode.actions[STRIP * line : STRIP * (line + 1)].T
        axes.pcolormesh(
            moves, cmap=ListedColormap((COLORS[4], COLORS[1])), vmin=0, vmax=1, edgecolors="white", linewidth=1
        )
        for (i, t), move in np.ndenumerate(moves):
            axes.text(
                t + 0.5, i + 0.5, "CD"[move], ha="center", va="center_baseline", color=("black", "white")[move]
            )
        steps = range(0, moves.shape[1], 5)
        axes.set_xticks([t + 0.5 for t in steps], [STRIP * line + t for t in steps])
        axes.set_yticks((0.5, 1.5), PLAYERS)
        axes.set(xlim=(0, STRIP), ylim=(2, 0))
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
    save(figure, path)


def main() -> None:
    parser = tool_parser("render", __doc__)
    parser.add_argument("player_a", metavar="PLAYER_A", help="who plays in seat 0: agent, run or scripted player")
    parser.add_argument("player_b", metavar="PLAYER_B", help="who plays in seat 1")
    add_game_options(parser)
    parser.add_argument("--steps", type=whole(1), default=50, help="steps of the episode (%(default)s)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of everything random (%(default)s)")
    parser.add_argument("--out", type=Path, help="the picture (episode.gif, or episode.png for the IPD)")
    options = parser.parse_args()
    with one_line_errors(parser):
        words = options.player_a, options.player_b
        game, players = choose_players(words, options.game, options.grid)
        if len(players) != 2:
            raise ValueError(f"two can play, but these are {len(players)}: name the file of an agent")
        coin = isinstance(game, CoinGame)
        suffix = ".gif" if coin else ".png"
        out = options.out or Path(f"episode{suffix}")
        if out.suffix != suffix:
            raise ValueError(f"--out is {out}, but the picture of this game is a {suffix} file")
        out.parent.mkdir(parents=True, exist_ok=True)

    episode = play_episode(game, players, options.steps, options.seed)
    names = tuple(one.name for one in players)
    with one_line_errors(parser):  # before the text, whose reader may be gone
        if coin:
            save_gif(coin_frames(game, episode, names), coin_events(episode), out)
        else:
            ipd_strip(episode, names, out)
    print(coin_text(game, episode) if coin else ipd_text(episode))
    for letter, name, rewards in zip(PLAYERS, names, episode.rewards.T, strict=True):
        print(f"{letter}  {name}: {rewards.sum():.0f}, {rewards.mean():.3f} a step")
    print(out)


if __name__ == "__main__":
    run_tool(main)
