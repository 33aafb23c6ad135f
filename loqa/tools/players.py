"""Players from command-line arguments: agents from disk and scripted players."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from loqa.agent import AgentParams
from loqa.game import Game
from loqa.games import GAMES, game_of
from loqa.rollout import Player
from loqa.run.agents import check_shapes, load_agent, newest_agents, rebuild
from loqa.tools.common import split_label
from loqa.tools.mfos import MFOSPlayer

SCRIPTED = {name for game in GAMES.values() for name in game.rules().scripted()}
TRAINED = re.compile(r"agent_([01])_(\d+)\.npz")  # how training names its agents: which, and when


class LeaguePlayer(NamedTuple):
    """Somebody who plays, under a name."""

    name: str
    kind: str  # groups it with others: loqa, naive, published POLA, or a scripted player's own name
    player: Player  # equal where players differ in their parameters only
    params: Any  # what the player's `act` is given


def scripted(game: Game) -> dict[str, LeaguePlayer]:
    """The scripted players of a game, by name."""
    return {name: LeaguePlayer(name, name, *player) for name, player in game.scripted().items()}


def load_player(path: Path) -> tuple[Game, LeaguePlayer]:
    """A saved agent as a player, and the game that it plays.

    Raises OSError where it cannot be read, ValueError where it is not an agent that this version can rebuild.
    """
    params, description = load_agent(path)
    try:
        game, agent = rebuild(description)
        if description.get("network") == "mfos":
            player, params = MFOSPlayer(params.actor["bias_hidden"].size, game.observation_size // 4), params.actor
            jax.eval_shape(player.act, params, player.initial_hidden(), jnp.zeros(game.observation_size))
        else:
            check_shapes(params.actor, jax.eval_shape(agent.init, jax.random.key(0)).actor)
            # Without the Q-network and what belongs to it: agents with equal policies can be batched.
            player = dataclasses.replace(agent, qvalue=None, game_length=0, normalize_time=False, output_scale=1.0)
            params = AgentParams(params.actor, {})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot play: {error}") from error
    hp = description["hp"]
    name, kind = path.stem, description.get("kind", hp["agent_0"])
    if trained := TRAINED.fullmatch(path.name):
        which = "" if hp["just_self_play"] else f" agent {trained[1]}"
        name, kind = f"seed {hp['seed']}{which} @{int(trained[2])}", hp[f"agent_{trained[1]}"]
    return game, LeaguePlayer(name, kind, player, params)


def agent_files(path: Path) -> list[Path]:
    """The saved agents at a path.

    A file is itself. A run's directory is its newest agents. Any other directory is all agents in it, or if
    there are none the newest agents of all runs in it, at any depth. Raises ValueError where there are none.
    """
    if not path.exists():
        raise ValueError(f"there is no file, directory or scripted player {str(path)!r}")
    if not path.is_dir():
        return [path]
    if not (path / "agents").is_dir() and (files := sorted(path.glob("[!.]*.npz"))):  # not unfinished ones
        return files
    if not (newest := newest_agents(path)):
        raise ValueError(f"{path} has no saved agents (.npz) in it; loqa.tools.import_agents makes them of pickles")
    return newest


def add_game_options(parser: argparse.ArgumentParser) -> None:
    """Adds --game and --grid, for `choose_players`."""
    parser.add_argument("--game", choices=list(GAMES), help="the game, where no agent determines it")
    parser.add_argument("--grid", metavar="HxW", help="the board, if it has one and no agent determines it (3x3)")


def choose_players(
    words: Sequence[str], game_name: str | None = None, grid: str | None = None, all_scripted: bool = False
) -> tuple[Game, list[LeaguePlayer]]:
    """The players that words name, and the game that all of them play.

    A word is a scripted player's name, a path (see `agent_files`), or KIND=PATH to choose its kind. `game_name`
    and `grid` (such as "3x3") are needed only where no agent determines the game.
    Raises OSError or ValueError, in one sentence, where something cannot play.
    """
    game = GAMES[game_name].rules() if game_name and not GAMES[game_name].board else None
    if grid:
        if not re.fullmatch(r"\d+x\d+", grid):
            raise ValueError(f"the grid is {grid!r}, but must be HEIGHTxWIDTH, such as 3x3")
        game = next(one for one in GAMES.values() if one.board).rules(*map(int, grid.split("x")))
    players: list[LeaguePlayer | str] = []  # a scripted player is its name until the game is known
    for word in words:
        if word in SCRIPTED:
            players.append(word)
            continue
        kind, path = split_label(word)
        for file in agent_files(path):
            its_game, player = load_player(file)
            game = game or its_game
            if its_game != game:
                its, this = (f"the {x.title}" if its_game.title != game.title else x for x in (its_game, game))
                raise ValueError(f"{file} plays {its}, but this is {this}")
            players.append(player._replace(kind=kind or player.kind))
    if game is None and game_name is None:
        raise ValueError(f"no agent determines the game: add --game {' or --game '.join(GAMES)}")
    game = game or GAMES[game_name].rules()
    if game_name and game_of(game) is not GAMES[game_name]:
        raise ValueError(f"--game is {game_name}, but this is the {game.title}")
    known = scripted(game)
    if unknown := [name for name in words if name in SCRIPTED - known.keys()]:
        raise ValueError(f"the {game.title} has no player {unknown[0]}, but {', '.join(known)}")
    players += [name for name in known if all_scripted and name not in words]
    players = [known[one] if isinstance(one, str) else one for one in players]
    # To names that several have the kind is added, and then a number.
    names = [one.name for one in players]
    names = [f"{x.kind} {x.name}" if names.count(x.name) > 1 and x.kind != x.name else x.name for x in players]
    names = [f"{x} ({names[: i + 1].count(x)})" if names.count(x) > 1 else x for i, x in enumerate(names)]
    return game, [x._replace(name=name) for x, name in zip(players, names, strict=True)]
