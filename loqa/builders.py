"""From the `hp` part of a config to the game and the networks."""

from typing import Any

import flax.linen as nn

from loqa.agent import Agent
from loqa.games import ipd
from loqa.games.coin import CoinGame
from loqa.games.ipd import MatrixGame
from loqa.games.payoffs import TITLES
from loqa.networks import MLP, GRUNetwork, LogitsTable
from loqa.run.config import parse_hp


def ipd_game_and_agent(hp: Any) -> tuple[MatrixGame, Agent]:
    """The iterated prisoner's dilemma, or another game of `hp.game_name`, and its agent."""
    game = MatrixGame(TITLES[hp.game_name], hp.matrix_payoffs)
    if hp.actor.network == "logits":
        actor = LogitsTable(game.num_actions, len(ipd.STATES), ipd.read_table)
    else:
        actor = _network(hp.actor, game.num_actions)
    agent = Agent(
        actor=actor,
        qvalue=_network(hp.qvalue, game.num_actions),
        observation_size=game.observation_size,
        game_length=hp.game_length,
        normalize_time=hp.qvalue.time == "normalized",
        output_scale=hp.qvalue.output_scale,
        all_observations=tuple(map(tuple, ipd.OBSERVATIONS.tolist())),
        read_table=ipd.read_table,
    )
    return game, agent


def coin_game_and_agent(hp: Any) -> tuple[CoinGame, Agent]:
    """The Coin Game and its agent."""
    game = CoinGame(hp.game.height, hp.game.width)
    agent = Agent(
        actor=GRUNetwork(game.num_actions, hp.actor.hidden_size, hp.actor.layers_before_gru),
        qvalue=GRUNetwork(game.num_actions, hp.qvalue.hidden_size, hp.qvalue.layers_before_gru),
        observation_size=game.observation_size,
        game_length=hp.game_length,
        normalize_time=hp.qvalue.time == "normalized",
        output_scale=hp.qvalue.output_scale,
    )
    return game, agent


def game_and_agent(script: str, hp: Any) -> tuple[MatrixGame | CoinGame, Agent]:
    """The game and the agent of script "ipd" or "coin"."""
    return {"ipd": ipd_game_and_agent, "coin": coin_game_and_agent}[script](hp)


def rebuild(description: dict[str, Any]) -> tuple[MatrixGame | CoinGame, Agent]:
    """The game and the agent of a saved agent, from its description (see `loqa.run.agents.load_agent`).

    Raises:
      ConfigError: the description is not one of this version.
    """
    return game_and_agent(description["game"], parse_hp(description["game"], description["hp"]))


def _network(part: Any, num_outputs: int) -> nn.Module:
    if part.network == "mlp":
        return MLP(num_outputs, part.hidden_size)
    return GRUNetwork(num_outputs, part.hidden_size, part.layers_before_gru)
