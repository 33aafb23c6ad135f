"""One episode of two players, to look at: `python -m loqa.tools.render PLAYER_A PLAYER_B`.

A player is a saved agent (.npz), a run's directory with one agent, or a scripted player by name. The Coin Game
becomes an animated GIF of the board, the iterated prisoner's dilemma a picture of its moves (PNG); both are
printed as text, too.
"""

from functools import partial
from pathlib import Path

import jax
import numpy as np

from loqa.game import Game
from loqa.games import game_of
from loqa.rollout import Trajectories, draw_noise, rollout
from loqa.tools.common import ArgumentParser, tool, whole
from loqa.tools.players import GAME_OPTION, LeaguePlayer, choose_players


def play_episode(game: Game, players: tuple[LeaguePlayer, LeaguePlayer], steps: int, seed: int) -> Trajectories:
    """One episode as arrays of NumPy, without the batch axis; the first player is in seat 0."""
    _, _, seats, params = zip(*players, strict=True)
    played = jax.jit(partial(rollout, game, seats))(params, draw_noise(jax.random.key(seed), steps, 1))
    return jax.tree.map(lambda x: np.asarray(x)[:, :, 0], played)


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("players", nargs=2, metavar="PLAYER", help="who plays in seat 0 and in seat 1")
    parser.add_argument("--game", **GAME_OPTION)
    parser.add_argument("--steps", type=whole(1), default=50, help="steps of the episode (%(default)s)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of everything random (%(default)s)")
    parser.add_argument("--out", type=Path, default="experiments/episode", help="the picture (%(default)s)")
    options = parser.parse_args()
    game, players = choose_players(options.players, options.game)
    if len(players) != 2:
        raise ValueError(f"two can play, but these are {len(players)}: name the file of an agent")
    film = game_of(game).film
    if film is None:
        raise ValueError(f"the {game.title} has no film: it is a game without pictures of an episode")
    episode = play_episode(game, players, options.steps, options.seed)
    scores = zip("AB", players, episode.rewards.T, strict=True)
    heads = [f"{letter}  {one.name}: {x.sum():.0f}, {x.mean():.3f} per step" for letter, one, x in scores]
    frames, durations, text = film(game, episode, heads)
    suffix = ".gif" if durations else ".png"
    out = options.out.with_name(options.out.name.removesuffix(".png").removesuffix(".gif") + suffix)
    out.parent.mkdir(parents=True, exist_ok=True)
    animated = {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": 0}
    frames[0].save(out, **animated if durations else {})
    print(text, *heads, out, sep="\n")  # after the picture is written: the text's reader may be gone


if __name__ == "__main__":
    main()
