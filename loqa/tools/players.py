"""Who can play: agents from disk and scripted players, by the words of a command line."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from loqa.games import coin_players, ipd_players
from loqa.games.coin import CoinGame
from loqa.games.ipd import MatrixGame
from loqa.rollout import Player
from loqa.run.agents import load_agent, rebuild
from loqa.tools.common import split_label

Game = CoinGame | MatrixGame

TRAINED = re.compile(r"agent_([01])_(\d+)\.npz")  # how training names its agents: which, and when


@dataclasses.dataclass(frozen=True)
class Policy:
    """An agent without its Q-network: what plays. Agents with equal policies differ in parameters only."""

    network: nn.Module

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> Any:
        return self.network.initial_hidden(batch_shape)

    def act(self, params: Any, hidden: Any, observation: jax.Array) -> tuple[jax.Array, Any]:
        """One step: observation [..., D] -> logits [..., A], hidden."""
        return self.network.apply(params, observation, hidden, method="step")


class LeaguePlayer(NamedTuple):
    """Somebody who plays, under a name."""

    name: str
    kind: str  # groups it with others: loqa, naive, published POLA, or a scripted player's own name
    player: Player
    params: Any  # what the player's `act` is given


def scripted(game: Game) -> dict[str, LeaguePlayer]:
    """The scripted players of a game, by name."""
    if isinstance(game, CoinGame):
        any_of_them = coin_players.ScriptedPlayer(game.height, game.width)
        players = {name: (any_of_them, likes) for name, likes in coin_players.LIKES.items()}
    else:
        players = {name: (ipd_players.TablePlayer(), table) for name, table in ipd_players.TABLES.items()}
        players["grim-trigger"] = ipd_players.GrimTrigger(), ()
    return {name: LeaguePlayer(name, name, *player) for name, player in players.items()}


def load_player(path: Path) -> tuple[Game, LeaguePlayer]:
    """A saved agent as a player, and the game that it plays.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not an agent that this version can rebuild.
    """
    try:
        params, description = load_agent(path)
    except ValueError as error:
        hint = "a published agent must be imported first, by python -m loqa.tools.import_agents"
        raise ValueError(f"{error} ({hint})") from error
    try:
        game, agent = rebuild(description)
        hp, actor = description["hp"], params.actor
        size, hidden = jnp.zeros(game.observation_size), agent.initial_hidden()
        made = jax.eval_shape(lambda: agent.actor.init(jax.random.key(0), size, hidden, method="step"))
        if jax.tree.map(jnp.shape, actor) != jax.tree.map(jnp.shape, made):
            raise ValueError("its arrays are not of the shapes that its description gives")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot play: {error}") from error
    name, kind = path.stem, description.get("kind", hp["agent_0"])
    if trained := TRAINED.fullmatch(path.name):
        index = int(trained[1])
        name = f"seed {hp['seed']}{'' if hp['just_self_play'] else f' agent {index}'} @{int(trained[2])}"
        kind = hp[f"agent_{index}"]
    return game, LeaguePlayer(name, kind, Policy(agent.actor), actor)


def agent_files(path: Path) -> list[Path]:
    """The saved agents at a path.

    A file is itself. A run's directory is its newest agents. Any other directory is all agents in it, or if
    there are none the newest agents of all runs in it, at any depth.

    Raises:
      ValueError: nothing is there.
    """
    if not path.is_dir():
        if path.exists():
            return [path]
        raise ValueError(f"there is no file, directory or scripted player {str(path)!r}")
    if not (path / "agents").is_dir() and (files := sorted(path.glob("[!.]*.npz"))):  # not unfinished ones
        return files
    files = []
    for directory in sorted(path.rglob("agents")):
        matches = {file: TRAINED.fullmatch(file.name) for file in sorted(directory.iterdir())}
        iterations = {file: int(match[2]) for file, match in matches.items() if match}
        files += [file for file, iteration in iterations.items() if iteration == max(iterations.values())]
    if not files:
        raise ValueError(f"{path} has no saved agents in it")
    return files


def add_game_options(parser: argparse.ArgumentParser) -> None:
    """Adds --game and --grid, for `choose_players`."""
    parser.add_argument("--game", choices=("coin", "ipd"), help="the game, where no agent determines it")
    parser.add_argument("--grid", metavar="HxW", help="the Coin Game's board, where no agent determines it (3x3)")


def choose_players(
    words: Sequence[str], game_name: str | None = None, grid: str | None = None, all_scripted: bool = False
) -> tuple[Game, list[LeaguePlayer]]:
    """The players that words name, and the game that all of them play.

    Args:
      words: each a scripted player's name or a path (see `agent_files`), or KIND=PATH to choose its kind.
      game_name: "coin" or "ipd"; None: that of the agents.
      grid: the Coin Game's board, such as "3x3"; None: that of the agents.
      all_scripted: adds all scripted players of the game.

    Raises:
      OSError, ValueError: in one sentence, what cannot play.
    """
    board = re.fullmatch(r"(\d+)x(\d+)", grid or "")
    if grid and not board:
        raise ValueError(f"the grid is {grid!r}, but must be HEIGHTxWIDTH, such as 3x3")
    if grid and game_name == "ipd":
        raise ValueError("the iterated prisoner's dilemma has no grid")
    game = CoinGame(int(board[1]), int(board[2])) if board else MatrixGame() if game_name == "ipd" else None
    names = {name for each in (CoinGame(), MatrixGame()) for name in scripted(each)}
    players: list[LeaguePlayer | str] = []  # a scripted player is its name until the game is known
    for word in words:
        if word in names:
            players.append(word)
            continue
        kind, path = split_label(word)
        for file in agent_files(path):
            its_game, player = load_player(file)
            game = game or its_game
            if its_game != game:
                raise ValueError(f"{file} plays {title(its_game)}, but this is {title(game)}")
            players.append(player._replace(kind=kind or player.kind))
    if game is None and game_name is None:
        raise ValueError("no agent determines the game: add --game coin or --game ipd")
    game = game or CoinGame()
    if game_name == "coin" and not isinstance(game, CoinGame):
        raise ValueError(f"these agents play {title(game)}, but --game is coin")
    known = scripted(game)
    if unknown := [name for name in words if name in names - known.keys()]:
        raise ValueError(f"{title(game)} has no player {unknown[0]}, but {', '.join(known)}")
    if all_scripted:
        players += [name for name in known if name not in words]
    return game, _with_unique_names([known[one] if isinstance(one, str) else one for one in players])


def title(game: Game) -> str:
    """A game's name in a sentence."""
    return f"the {game.height}x{game.width} Coin Game" if isinstance(game, CoinGame) else "the IPD"


def _with_unique_names(players: list[LeaguePlayer]) -> list[LeaguePlayer]:
    """Adds the kind to names that several have, and then a number."""
    names = [one.name for one in players]
    names = [f"{x.kind} {x.name}" if names.count(x.name) > 1 and x.kind != x.name else x.name for x in players]
    names = [f"{x} ({names[: i + 1].count(x)})" if names.count(x) > 1 else x for i, x in enumerate(names)]
    return [x._replace(name=name) for x, name in zip(players, names, strict=True)]
