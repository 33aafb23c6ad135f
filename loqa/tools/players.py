"""Players from command-line arguments: agents from disk, those of M-FOS among them, and scripted players."""

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
from loqa.networks import gru
from loqa.rollout import Player
from loqa.run.agents import check_shapes, load_agent, newest_agents, rebuild
from loqa.tools.common import split_label

SCRIPTED = {name for game in GAMES.values() for name in game.rules().scripted()}
TRAINED = re.compile(r"agent_([01])_(\d+)\.npz")  # how training names its agents: which, and when
GAME_OPTION = {"choices": list(GAMES), "help": "the game, where no agent determines it"}  # --game


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
            player, params = MFOSPlayer.of(params.actor, game.observation_size // 4), params.actor
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
    here = [] if (path / "agents").is_dir() else sorted(path.glob("[!.]*.npz"))  # not unfinished ones
    if not (files := here or newest_agents(path)):
        raise ValueError(f"{path} has no saved agents (.npz) in it; loqa.tools.import_agents makes them of pickles")
    return files


def choose_players(
    words: Sequence[str], game_name: str | None = None, all_scripted: bool = False
) -> tuple[Game, list[LeaguePlayer]]:
    """The players that words name, and the game that all of them play.

    A word is a scripted player's name, a path (see `agent_files`), or KIND=PATH to choose its kind. `game_name` is
    needed only where no agent determines the game, which then has its usual board. `all_scripted` adds the others.
    Raises OSError or ValueError, in one sentence, where something cannot play.
    """
    game, players = None, []  # a scripted player is its name until the game is known
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


@dataclasses.dataclass(frozen=True)
class MFOSPlayer:
    """The actor of M-FOS (Lu et al. 2022, arXiv 2205.01447) for the Coin Game.

    Two convolutions and a dense layer, each with ReLU, a GRU, ReLU and a dense layer. It sees the board, and both
    players' last rewards, which follow from this board and the one before. The published meta-GRU is left out: in
    the first episode with an opponent it is a factor of one.
    """

    hidden_size: int  # H, of the GRU
    cells: int  # of the board

    @classmethod
    def of(cls, params: Any, cells: int) -> "MFOSPlayer":
        """The player with parameters of `mfos_params`; raises KeyError, TypeError or ValueError if they do not fit."""
        player = cls(params["bias_hidden"].size, cells)
        jax.eval_shape(player.act, params, player.initial_hidden(), jnp.zeros(4 * cells))
        return player

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> tuple[jax.Array, jax.Array]:
        """The GRU's state [..., H], and no board before [..., 4 cells]."""
        return jnp.zeros((*batch_shape, self.hidden_size)), jnp.zeros((*batch_shape, 4 * self.cells))

    def act(self, params: Any, hidden: tuple, observation: jax.Array) -> tuple[jax.Array, tuple]:
        """One step: params as of `mfos_params`, observation [..., 4 cells] -> logits [..., 4], hidden."""
        hidden, before = hidden
        dense = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"]
        x = jnp.concatenate([observation, jnp.repeat(last_rewards(before, observation), self.cells, -1)], -1)
        for name in ("conv_0", "conv_1", "linear"):
            x = jax.nn.relu(dense(name, x))
        hidden = gru(dense("gates", x), hidden, params["kernel_hidden"], params["bias_hidden"])
        return dense("output", jax.nn.relu(hidden)), (hidden, observation)


def last_rewards(before: jax.Array, now: jax.Array) -> jax.Array:
    """My and the other's reward of the step between two observations, [..., 4 cells] -> [..., 2]."""
    _, _, my_coin, their_coin = jnp.split(before, 4, -1)
    me, other, _, _ = jnp.split(now, 4, -1)
    takes = lambda player, coin: (player * coin).sum(-1)
    mine = takes(me, my_coin + their_coin) - 2 * takes(other, my_coin)
    return jnp.stack([mine, takes(other, my_coin + their_coin) - 2 * takes(me, their_coin)], -1)
