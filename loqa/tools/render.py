"""One episode of two players, to look at: `python -m loqa.tools.render PLAYER_A PLAYER_B`.

A player is a saved agent (.npz), a run's directory with one agent, or a scripted player by name. The Coin Game
becomes an animated GIF of the board, the iterated prisoner's dilemma a picture of its moves (PNG); both are
printed as text, too.
"""

import math
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from loqa.games.coin import CoinGame
from loqa.rollout import Trajectories, draw_noise, rollout
from loqa.tools.common import ArgumentParser, tool, whole
from loqa.tools.players import Game, LeaguePlayer, add_game_options, choose_players
from loqa.tools.plot import COLORS

MOVES = ("left", "right", "up", "down")
PALE = {"a": "#CFE4F2", "b": "#FBDFCC"}  # the coins, in their owners' colours
TAKEN = "#F0E442"  # the cell of a coin that was just taken
STRIP = 25  # moves in a line of the IPD's picture


def play_episode(game: Game, players: tuple[LeaguePlayer, LeaguePlayer], steps: int, seed: int) -> Trajectories:
    """One episode as arrays of NumPy, without the batch axis; the first player is in seat 0."""
    _, _, seats, params = zip(*players, strict=True)
    played = jax.jit(partial(rollout, game, seats))(params, draw_noise(jax.random.key(seed), steps, 1))
    return jax.tree.map(lambda x: np.asarray(x)[:, :, 0], played)


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
            caption += "\nA {}, B {}".format(*(MOVES[action] for action in episode.actions[t - 1]))
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


def draw_scene(game: CoinGame, scene: Scene, heads: list[str]) -> Image.Image:
    """The board, with a line for each player above it, and the caption below it."""
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


def ipd_strip(actions: np.ndarray, heads: list[str]) -> Image.Image:
    """A picture of the moves [T, 2] below `heads`, STRIP a line: blue cooperates, orange defects."""
    size, top = 28, 30 + 22 * len(heads)
    image = Image.new("RGB", (60 + size * STRIP, top + 3 * size * math.ceil(len(actions) / STRIP)), "white")
    draw = ImageDraw.Draw(image)
    text = partial(draw.text, fill="black", font=ImageFont.load_default(15))
    text((20, 12), "\n".join(heads), spacing=8)
    for (t, i), move in np.ndenumerate(actions):
        line, column = divmod(t, STRIP)
        x, y = 40 + size * column, top + size * (3 * line + i)
        draw.rectangle([x, y, x + size - 2, y + size - 2], (COLORS[4], COLORS[1])[move])
        text((x + size / 2 - 1, y + size / 2), "CD"[move], anchor="mm")
        if i == 0 and column % 5 == 0:
            text((x + size / 2, y - 4), str(t), anchor="mb")
        if column == 0:
            text((26, y + size / 2), "AB"[i], anchor="mm")
    return image


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("player_a", metavar="PLAYER_A", help="who plays in seat 0: agent, run or scripted player")
    parser.add_argument("player_b", metavar="PLAYER_B", help="who plays in seat 1")
    add_game_options(parser)
    parser.add_argument("--steps", type=whole(1), default=50, help="steps of the episode (%(default)s)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of everything random (%(default)s)")
    parser.add_argument("--out", type=Path, help="the picture (experiments/episode.gif, or .png for the IPD)")
    options = parser.parse_args()
    game, players = choose_players((options.player_a, options.player_b), options.game, options.grid)
    if len(players) != 2:
        raise ValueError(f"two can play, but these are {len(players)}: name the file of an agent")
    suffix = ".gif" if isinstance(game, CoinGame) else ".png"
    out = options.out or Path(f"experiments/episode{suffix}")
    if out.suffix != suffix:
        raise ValueError(f"--out is {out}, but the picture of this game is a {suffix} file")
    out.parent.mkdir(parents=True, exist_ok=True)
    episode = play_episode(game, players, options.steps, options.seed)
    scores = zip("AB", players, episode.rewards.T, strict=True)
    heads = [f"{letter}  {one.name}: {x.sum():.0f}, {x.mean():.3f} a step" for letter, one, x in scores]
    if isinstance(game, CoinGame):
        scenes = coin_scenes(game, episode)
        film = [draw_scene(game, scene, heads) for scene in scenes]
        durations = [900 if scene.taken else 400 for scene in scenes[:-1]] + [3000]
        film[0].save(out, save_all=True, append_images=film[1:], duration=durations, loop=0)
        text = "\n".join(scene_text(game, scene) for scene in scenes)
    else:
        ipd_strip(episode.actions, heads).save(out)
        text = "\n".join(f"{'AB'[i]}  {''.join('CD'[a] for a in episode.actions[:, i])}" for i in (0, 1))
    print(text, *heads, out, sep="\n")  # after the picture is written: the text's reader may be gone


if __name__ == "__main__":
    main()
