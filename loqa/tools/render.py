"""One episode of two players, to look at: `python -m loqa.tools.render PLAYER_A PLAYER_B`.

A player is a saved agent (.npz), a run's directory with one agent, or a scripted player by name. The Coin Game
becomes an animated GIF of the board, the iterated prisoner's dilemma a picture of its moves (PNG); both are
printed as text, too.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from loqa.games.coin import CoinGame, coins_taken
from loqa.games.ipd import DEFECT
from loqa.rollout import draw_noise, rollout
from loqa.tools.command_line import refuse, run_tool, tool_parser, whole
from loqa.tools.players import Entrant, Game, choose_players

PLAYERS = "AB"
COLORS = ("#0072B2", "#D55E00")  # Okabe and Ito's blue and vermillion, told apart with any colour vision
PALE = ("#CFE4F2", "#FBDFCC")  # where they were
MOVES = ("left", "right", "up", "down")
TAKEN = "#F0E442"  # the cell of a coin that was just taken
WIDTH = 400  # of a picture, in pixels


class Episode(NamedTuple):
    """What players A and B did: arrays of NumPy."""

    observations: np.ndarray  # [T+1, 2, D]
    actions: np.ndarray  # [T, 2]
    rewards: np.ndarray  # [T, 2]

    @property
    def scores(self) -> np.ndarray:
        """The sums of the rewards before each step and at the end: [T+1, 2]."""
        return np.concatenate([np.zeros((1, 2)), self.rewards.cumsum(0)])


def play_episode(game: Game, entrants: tuple[Entrant, Entrant], steps: int, seed: int) -> Episode:
    """One episode; the first player is in seat 0."""
    players, params = (tuple(getattr(one, field) for one in entrants) for field in ("player", "params"))
    played = jax.jit(partial(rollout, game, players))(params, draw_noise(jax.random.key(seed), steps, 1))
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
    """What each step's takes say, "" where no coin was taken: [T]."""
    own, others = (np.asarray(x) for x in coins_taken(episode.observations))
    events = []
    for t, rewards in enumerate(episode.rewards):
        takes = [f"{PLAYERS[i]} takes its coin" for i in (0, 1) if own[t, i]]
        takes += [f"{PLAYERS[i]} takes {PLAYERS[1 - i]}'s coin" for i in (0, 1) if others[t, i]]
        gains = ", ".join(f"{PLAYERS[i]} {rewards[i]:+.0f}" for i in (0, 1) if rewards[i])
        events.append(" and ".join(takes) + f": {gains}" * bool(takes))
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
        notes = [note for note in notes if note]
        for k in range(max(game.height, len(notes))):
            row = " ".join(cells[k]) if k < game.height else " " * (2 * game.width - 1)
            lines.append(f"{row}    {notes[k] if k < len(notes) else ''}".rstrip())
        lines.append("")
    return "\n".join(lines)


def coin_frames(game: CoinGame, episode: Episode, names: tuple[str, str]) -> list[Image.Image]:
    """The pictures of the T+1 states."""
    events, scores = coin_events(episode), episode.scores
    boards = [read_board(game, observation) for observation in episode.observations[:, 0]]
    size = (WIDTH - 40) // max(game.height, game.width)  # of a cell
    left, top = (WIDTH - size * game.width) // 2, 66
    bottom = top + size * game.height
    frames = []
    for t, board in enumerate(boards):
        canvas = Canvas(WIDTH, bottom + 58)
        for i in (0, 1):
            canvas.text((20, 10 + 24 * i), f"{PLAYERS[i]}  {names[i]}", 17, COLORS[i], WIDTH - 130)
            canvas.text((WIDTH - 20, 10 + 24 * i), f"score {scores[t, i]:.0f}", 17, COLORS[i], anchor="ra")
        for cell in np.ndindex(game.height, game.width):
            x, y = left + size * cell[1], top + size * cell[0]
            taken = t > 0 and cell == boards[t - 1].coin and events[t - 1]
            canvas.rectangle((x, y, x + size, y + size), TAKEN if taken else "white", "#BBBBBB")
        # The edges are broken, because who leaves at one comes back at the other.
        for k in range(0, size * max(game.height, game.width), 12):
            for x in (left, left + size * game.width):
                if k < size * game.height:
                    canvas.line((x, top + k, x, top + k + 6), "black")
            for y in (top, bottom):
                if k < size * game.width:
                    canvas.line((left + k, y, left + k + 6, y), "black")

        middle = lambda cell: (left + size * (cell[1] + 0.5), top + size * (cell[0] + 0.5))
        for i in (0, 1):  # where they were
            if t > 0:
                canvas.disc(middle(boards[t - 1].players[i]), 0.1 * size, PALE[i], PALE[i])
        canvas.disc(middle(board.coin), 0.22 * size, PALE[board.owner], COLORS[board.owner], 0.05 * size)
        canvas.text(
            middle(board.coin), PLAYERS[board.owner].lower(), 0.26 * size, COLORS[board.owner], anchor="mm"
        )
        apart = 0.2 * size if board.players[0] == board.players[1] else 0
        for i, cell in enumerate(board.players):
            x, y = middle(cell)
            place = x + apart * (2 * i - 1), y + apart * (2 * i - 1)
            canvas.disc(place, 0.22 * size if apart else 0.33 * size, COLORS[i], "white")
            canvas.text(place, PLAYERS[i], 0.3 * size if apart else 0.4 * size, "white", anchor="mm")
        canvas.text((20, bottom + 10), f"step {t} of {len(episode.actions)}", 14, "#555555")
        canvas.text((20, bottom + 30), events[t - 1] if t else "", 16, "black", WIDTH - 40)
        frames.append(canvas.image())
    return frames


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
        lines.append(f"from step {at}")
        for i in (0, 1):
            lines.append(f"{PLAYERS[i]}  " + "".join("CD"[a] for a in episode.actions[at : at + 50, i]))
    return "\n".join(lines)


def ipd_strip(episode: Episode, names: tuple[str, str]) -> Image.Image:
    """The moves as a picture, 25 a line: blue cooperates, orange defects."""
    columns, size, left, top = 25, 26, 30, 66
    steps = len(episode.actions)
    height = 2 * size + 34  # of a line: step numbers and two rows
    canvas = Canvas(left + columns * size + 12, top + -(-steps // columns) * height + 24)
    for i in (0, 1):
        score = f"{episode.rewards[:, i].sum():.0f}, {episode.rewards[:, i].mean():.2f} a step"
        canvas.text((12, 8 + 24 * i), f"{PLAYERS[i]}  {names[i]}", 17, "black", 380)
        canvas.text((left + columns * size, 8 + 24 * i), score, 17, "black", anchor="ra")
    for t, actions in enumerate(episode.actions):
        x, y = left + t % columns * size, top + t // columns * height
        if t % 5 == 0:
            canvas.text((x + size / 2, y), str(t), 12, "#555555", anchor="ma")
        for i, action in enumerate(actions):
            if t % columns == 0:
                canvas.text((12, y + 18 + i * size + size / 2), PLAYERS[i], 15, "black", anchor="lm")
            box = (x, y + 18 + i * size, x + size, y + 18 + (i + 1) * size)
            canvas.rectangle(box, ("#56B4E9", "#D55E00")[action], "white")
            color = "white" if action == DEFECT else "black"
            canvas.text((x + size / 2, y + 18 + (i + 0.5) * size), "CD"[action], 14, color, anchor="mm")
    canvas.text((12, canvas.height - 22), "C cooperates, D defects; numbers are steps", 12, "#555555")
    return canvas.image()


class Canvas:
    """A white picture, drawn at three times its size so that edges are smooth."""

    SCALE = 3

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self._image = Image.new("RGB", (self.SCALE * width, self.SCALE * height), "white")
        self._draw = ImageDraw.Draw(self._image)

    def _scaled(self, xy: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(self.SCALE * x for x in xy)

    def rectangle(self, box: tuple[float, ...], fill: str, outline: str) -> None:
        self._draw.rectangle(self._scaled(box), fill, outline, self.SCALE)

    def line(self, ends: tuple[float, ...], fill: str) -> None:
        self._draw.line(self._scaled(ends), fill, 2 * self.SCALE)

    def disc(self, middle: tuple[float, float], radius: float, fill: str, outline: str, width: float = 1) -> None:
        self._draw.circle(self._scaled(middle), self.SCALE * radius, fill, outline, round(self.SCALE * width))

    def text(
        self, place: tuple[float, float], text: str, size: float, fill: str, most: float = 0, anchor: str = "la"
    ) -> None:
        """Writes a line, cut off at `most` pixels where that is given."""
        font = ImageFont.load_default(self.SCALE * size)
        while most and font.getlength(text) > self.SCALE * most:
            text = text.removesuffix("...")[:-1] + "..."
        self._draw.text(self._scaled(place), text, fill, font, anchor)

    def image(self) -> Image.Image:
        return self._image.resize((self.width, self.height), Image.Resampling.LANCZOS)


def main() -> None:
    parser = tool_parser("render", __doc__)
    parser.add_argument("player_a", metavar="PLAYER_A", help="who plays in seat 0: agent, run or scripted player")
    parser.add_argument("player_b", metavar="PLAYER_B", help="who plays in seat 1")
    parser.add_argument("--game", choices=("coin", "ipd"), help="the game, where no agent tells it")
    parser.add_argument("--grid", metavar="HxW", help="the Coin Game's board, where no agent tells it (3x3)")
    parser.add_argument("--steps", type=whole(1), default=50, help="steps of the episode (%(default)s)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of everything random (%(default)s)")
    parser.add_argument("--out", type=Path, help="the picture (episode.gif, or episode.png for the IPD)")
    options = parser.parse_args()
    try:
        words = options.player_a, options.player_b
        game, entrants = choose_players(words, options.game, options.grid)
        if len(entrants) != 2:
            raise ValueError(f"two can play, but these are {len(entrants)}: name the file of an agent")
        coin = isinstance(game, CoinGame)
        suffix = ".gif" if coin else ".png"
        out = options.out or Path(f"episode{suffix}")
        if out.suffix != suffix:
            raise ValueError(f"--out is {out}, but the picture of this game is a {suffix} file")
        out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        refuse(parser, error)

    episode = play_episode(game, entrants, options.steps, options.seed)
    names = tuple(one.name for one in entrants)
    try:  # before the text, whose reader may be gone
        if coin:
            save_gif(coin_frames(game, episode, names), coin_events(episode), out)
        else:
            ipd_strip(episode, names).save(out)
    except OSError as error:
        parser.error(f"cannot write {out}: {error}")
    print(coin_text(game, episode) if coin else ipd_text(episode))
    for letter, name, rewards in zip(PLAYERS, names, episode.rewards.T, strict=True):
        print(f"{letter}  {name}: {rewards.sum():.0f}, {rewards.mean():.3f} a step")
    print(out)


if __name__ == "__main__":
    run_tool(main)
