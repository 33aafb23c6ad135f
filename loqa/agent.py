"""An agent: a policy and a Q-network over the same observations, and their parameters."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from loqa.game import Game
from loqa.hyperparameters import Hyperparameters
from loqa.losses import Side
from loqa.networks import MLP, GRUNetwork, LogitsTable

Params = Any  # a pytree of arrays, as Flax makes it


class AgentParams(NamedTuple):
    """The parameters of an agent's two networks, or of several agents with a leading axis."""

    actor: Params
    qvalue: Params


@dataclasses.dataclass(frozen=True)
class Agent:
    """Two separate networks, the policy's and the Q-network, which also sees the time step, appended last."""

    game: Game
    actor: nn.Module  # observation [..., D] -> logits [..., A]
    qvalue: nn.Module  # observation and time [..., D+1] -> Q-values over `output_scale` [..., A]
    game_length: int  # T, steps of an episode
    normalize_time: bool  # the Q-network sees t/T instead of t
    output_scale: float  # what the Q-network's output is multiplied by

    @classmethod
    def from_hp(cls, game: Game, hp: Hyperparameters) -> "Agent":
        """The agent that the hyperparameters describe."""
        networks = _network(game, hp.actor, 1.0), _network(game, hp.qvalue, hp.qvalue.output_scale)
        return cls(game, *networks, hp.game_length, hp.qvalue.time == "normalized", hp.qvalue.output_scale)

    def init(self, key: jax.Array) -> AgentParams:
        """New parameters."""
        init = lambda network, key, size: network.init(key, jnp.zeros(size), network.initial_hidden(), method="step")
        key_actor, key_qvalue = jax.random.split(key)
        size = self.game.observation_size
        return AgentParams(init(self.actor, key_actor, size), init(self.qvalue, key_qvalue, size + 1))

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> Any:
        """The policy's memory before the first step."""
        return self.actor.initial_hidden(batch_shape)

    def act(self, params: AgentParams, hidden: Any, observation: jax.Array) -> tuple[jax.Array, Any]:
        """One step of the policy: observation [..., D] -> logits [..., A], hidden."""
        return self.actor.apply(params.actor, observation, hidden, method="step")

    def logits(self, params: AgentParams, observations: jax.Array) -> jax.Array:
        """The policy on a sequence from the start: [T, ..., D] -> [T, ..., A]."""
        return self.actor.apply(params.actor, observations)

    def q_values(self, params: AgentParams, observations: jax.Array) -> jax.Array:
        """Q-values of a sequence from the start: [T, ..., D] -> [T, ..., A]."""

        def run_network(observations):
            time = jnp.arange(observations.shape[0], dtype=jnp.float32)
            time = time / self.game_length if self.normalize_time else time
            time = jnp.broadcast_to(time.reshape(-1, *[1] * (observations.ndim - 1)), (*observations.shape[:-1], 1))
            inputs = jnp.concatenate([observations, time], axis=-1)
            return self.output_scale * self.qvalue.apply(params.qvalue, inputs)

        if self.game.all_observations is None or self.qvalue.is_recurrent:
            return run_network(observations)
        # Few observations and no memory: computed once for each of them and each step, and read from there.
        length, states = observations.shape[0], jnp.array(self.game.all_observations)
        table = run_network(jnp.broadcast_to(states, (length, *states.shape)))
        batch_axes = [1] * (observations.ndim - 2)
        return self.game.read_table(table.reshape(length, *batch_axes, *table.shape[1:]), observations)

    def side(self, params: AgentParams, side: Side) -> Side:
        """The side of B episodes, batch last, with the outputs of this agent's networks on its observations."""
        observations = jnp.moveaxis(side.observations, -1, 1)
        logits, q_values = self.logits(params, observations), self.q_values(params, observations)
        return side._replace(logits=batch_last(logits), q_values=batch_last(q_values))


def batch_last(x: jax.Array) -> jax.Array:
    """[T, B, A] -> [T, A, B]."""
    return jnp.moveaxis(x, 1, -1)


def _network(game: Game, part: Any, output_scale: float) -> nn.Module:
    """The network that `hp.actor` or `hp.qvalue` describes, with an output for each action of the game."""
    if part.network == "logits":
        if game.all_observations is None:
            raise ValueError(f"a table of logits is for games with few observations, not for the {game.title}")
        return LogitsTable(game.num_actions, len(game.all_observations), game.read_table)
    if part.network == "mlp":
        return MLP(game.num_actions, part.hidden_size, output_scale)
    return GRUNetwork(game.num_actions, part.hidden_size, part.layers_before_gru, output_scale)
