"""An agent: a policy and a Q-network over the same observations, and their parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

Params = Any  # a pytree of arrays, as Flax makes it


class AgentParams(NamedTuple):
    """The parameters of an agent's two networks."""

    actor: Params
    qvalue: Params


@dataclasses.dataclass(frozen=True)
class Agent:
    """Two separate networks; the Q-network also sees the time step, appended last.

    Attributes:
      actor: observation [..., D] -> logits [..., A].
      qvalue: observation and time [..., D+1] -> Q-values over `output_scale` [..., A].
      observation_size: D.
      game_length: T, steps of an episode.
      normalize_time: the Q-network sees t/T instead of t.
      output_scale: what the Q-network's output is multiplied by.
      all_observations: the S observations that exist, [S][D], where they are few, and
      read_table: the row of an observation in a table by state, [..., S, A], [..., D] -> [..., A]. A Q-network
        without memory is then computed once for each of them and each step of time, and read from there.
    """

    actor: nn.Module
    qvalue: nn.Module
    observation_size: int
    game_length: int
    normalize_time: bool = False
    output_scale: float = 1.0
    all_observations: tuple[tuple[float, ...], ...] | None = None
    read_table: Callable | None = None

    def init(self, key: jax.Array) -> AgentParams:
        """New parameters."""

        def init(network, key, size):
            return network.init(key, jnp.zeros(size), network.initial_hidden(), method="step")

        key_actor, key_qvalue = jax.random.split(key)
        size = self.observation_size
        return AgentParams(init(self.actor, key_actor, size), init(self.qvalue, key_qvalue, size + 1))

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> Any:
        """What the policy remembers before the first step."""
        return self.actor.initial_hidden(batch_shape)

    def act(self, params: AgentParams, hidden: Any, observation: jax.Array) -> tuple[jax.Array, Any]:
        """One step of the policy: observation [..., D] -> logits [..., A], hidden."""
        return self.actor.apply(params.actor, observation, hidden, method="step")

    def logits(self, params: AgentParams, observations: jax.Array) -> jax.Array:
        """The policy on a sequence from the start: [T, ..., D] -> [T, ..., A]."""
        return self.actor.apply(params.actor, observations)

    def q_values(self, params: AgentParams, observations: jax.Array) -> jax.Array:
        """Q-values of a sequence from the start: [T, ..., D] -> [T, ..., A]."""
        if self.all_observations is None or not isinstance(self.qvalue.initial_hidden(), tuple):
            return self._q_values(params, observations)
        length = observations.shape[0]
        states = jnp.array(self.all_observations)
        table = self._q_values(params, jnp.broadcast_to(states, (length, *states.shape)))
        batch_axes = [1] * (observations.ndim - 2)
        return self.read_table(table.reshape(length, *batch_axes, *table.shape[1:]), observations)

    def _q_values(self, params: AgentParams, observations: jax.Array) -> jax.Array:
        return self.output_scale * self.qvalue.apply(params.qvalue, self._append_time(observations))

    def _append_time(self, observations: jax.Array) -> jax.Array:
        """[T, ..., D] -> [T, ..., D+1]."""
        time = jnp.arange(observations.shape[0], dtype=jnp.float32)
        if self.normalize_time:
            time = time / self.game_length
        time = time.reshape(-1, *[1] * (observations.ndim - 1))
        return jnp.concatenate([observations, jnp.broadcast_to(time, (*observations.shape[:-1], 1))], axis=-1)
