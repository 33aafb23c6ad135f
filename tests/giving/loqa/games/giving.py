"""Giving: what each of two players gives, 0, 1 or 2, is worth `factor` times as much to the other."""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from loqa.game import REWARDS, ConstantPlayer, GameSpec
from loqa.hyperparameters import Actor, Count, Hyperparameters, Positive, QValue


class GivingHyperparameters(Hyperparameters):
    """The keys that all games have are inherited; here are its own, and the networks that it allows."""

    epsilon_greedy: ClassVar[float] = 0.0  # no key
    game_length: Count
    factor: Positive
    stop_at: Literal["generous"] | None
    actor: Actor
    qvalue: QValue

    @property
    def run_name(self) -> str:
        return f"giving_seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Giving:
    """The rules. The state is what each gave last, int [2]; -1: nothing yet."""

    factor: float = 2.0

    title = "game of giving"
    num_actions = 3
    observation_size = 6  # one-hot, mine first
    all_observations = read_table = None

    @classmethod
    def from_hp(cls, hp):
        return cls(hp.factor)

    def from_seat(self, seat):
        return self

    def scripted(self):
        return {"always-cooperate": (ConstantPlayer(3), 2), "always-defect": (ConstantPlayer(3), 0)}

    def reset(self, key):
        return jnp.full(2, -1)

    def step(self, uniform, state, actions):
        return actions, self.factor * actions[::-1] - actions

    def observe(self, state):
        mine = jax.nn.one_hot(state, 3)
        return jnp.concatenate([mine, mine[::-1]], axis=1)


GAME = GameSpec(
    name="giving",
    rules=Giving,
    hyperparameters=GivingHyperparameters,
    metrics=lambda evaluation: {"given_0": evaluation.self_play.actions[:, 0].astype(jnp.float32).mean()},
    titles=REWARDS | {"given_0": "given per step"},
    columns={"reward": "mean_rewards_0", "given": "given_0"},
    goals={"generous": lambda metrics, settings: metrics["given_0"] > 1.8},
    summary=lambda game, metrics: [f"agent 0 gives {metrics['given_0'][-1]:.2f} of 2"],
)
