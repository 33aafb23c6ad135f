"""The metrics of an evaluation that all games have: pure functions on which training does not depend."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from loqa.agent import Agent, AgentParams, batch_last
from loqa.dice import discounted_sum
from loqa.hyperparameters import Hyperparameters
from loqa.learner import LearnerState, PolicyLoss
from loqa.losses import PolicyTerms, Side, select
from loqa.rollout import Player, Trajectories, draw_noise, rollout

Metrics = dict[str, jax.Array]


class Evaluation(NamedTuple):
    """The data of an evaluation, from which a game computes metrics of its own."""

    agent: Agent
    learners: tuple[LearnerState, ...]
    self_play: Trajectories  # without exploration, of the learner against itself or of two against each other
    sides: list[Side]  # each learner's own side of episodes with exploration


def learning_metrics(
    hp: Hyperparameters, agent: Agent, params: AgentParams, mine: Side, seat: int, loss: PolicyLoss, q_loss: jax.Array
) -> Metrics:
    """Losses, entropy, gradient norms and Q-values of the learner in `seat`, on its side of episodes.

    The gradient norms are of each term of the policy's `loss` alone, before clipping: `grad_agent` of the actor term
    with the weighted entropy, `grad_opponent` of the shaping term without its weight.
    """
    gradient = jax.grad(loss, has_aux=True)
    actor_gradient, terms = gradient(params, PolicyTerms(1.0, None, hp.actor.train.entropy_beta))
    shaping_gradient, _ = gradient(params, PolicyTerms(None, 1.0, None))
    q_values = agent.q_values(params, jnp.moveaxis(mine.observations, -1, 1))[:-1]
    taken = select(batch_last(q_values), mine.actions)
    returns = discounted_sum(mine.rewards, hp.reward_discount)
    return {
        f"loss_agent_{seat}_actor": terms.actor,
        f"loss_agent_{seat}_opponent": terms.shaping,
        f"loss_agent_{seat}_qvalue": q_loss,
        f"agent{seat}_entropy": -terms.negative_entropy,
        f"grad_agent{seat}_norm": optax.tree.norm(actor_gradient),
        f"grad_opponent{seat}_norm": optax.tree.norm(shaping_gradient),
        f"qvalue_{seat}_mean": taken.mean(),
        f"qvalue_{seat}_bias": (taken - returns).mean(),
    }


def play_metrics(
    key: jax.Array, agent: Agent, learners: tuple[LearnerState, ...], num_episodes: int
) -> tuple[Metrics, Trajectories]:
    """The agents' play without exploration: mean rewards per step over `num_episodes` episodes per pair, and self-play.

    `mean_rewards_0/1`: the learner against itself, or the two learners against each other; the second result is their
    episodes. `always_cooperate_0_mean_rewards_a/d` (and `always_defect_...`): agent 0 (a) against the scripted player
    (d), where the game has it; `..._1_...`: agent 1, if there are two.
    """
    keys = iter(jax.random.split(key, 1 + 2 * len(learners)))

    def played(seat: int, other: Player, params: Any) -> Trajectories:
        noise = draw_noise(next(keys), agent.game_length, num_episodes)
        return rollout(agent.game.from_seat(seat), (agent, other), (learners[seat].params, params), noise)

    together = played(0, agent, learners[-1].params)
    rewards = together.rewards.mean((0, 2))
    metrics = {"mean_rewards_0": rewards[0], "mean_rewards_1": rewards[1]}
    scripted = agent.game.scripted()
    for seat in range(len(learners)):
        for name in ("always-cooperate", "always-defect"):
            if name in scripted:
                rewards = played(seat, *scripted[name]).rewards.mean((0, 2))
                prefix = f"{name.replace('-', '_')}_{seat}_mean_rewards"
                metrics |= {f"{prefix}_a": rewards[0], f"{prefix}_d": rewards[1]}
    return metrics, together


def self_play(metrics: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean reward per step of both players [...]; `metrics`: columns of metrics.csv."""
    return (metrics["mean_rewards_0"] + metrics["mean_rewards_1"]) / 2
