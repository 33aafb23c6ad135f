"""What an evaluation measures, as pure functions of parameters and a key; training does not depend on it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from loqa import losses
from loqa.agent import Agent
from loqa.games import coin_players
from loqa.games.coin import coins_taken
from loqa.games.ipd import OBSERVATIONS, STATES, visits
from loqa.learner import LearnerState, Settings, policy_losses, q_episodes, q_loss
from loqa.rollout import Episodes, Player, draw_noise, rollout

Metrics = dict[str, jax.Array]


def learning_metrics(
    agent: Agent, learner: LearnerState, episodes: Episodes, settings: Settings, index: int
) -> Metrics:
    """Losses, entropy and gradient norms of learner `index` on episodes played as in training.

    The gradient norms are of each loss alone, before clipping: `grad_agent` of the actor loss with the
    entropy bonus, `grad_opponent` of the shaping loss without its weight.
    """

    def agent_loss(params):
        terms = policy_losses(agent, params, episodes, settings)
        return terms.actor + settings.entropy_beta * terms.negative_entropy, terms

    def shaping_loss(params):
        return policy_losses(agent, params, episodes, settings).shaping

    gradient, terms = jax.grad(agent_loss, has_aux=True)(learner.params)
    replayed = q_episodes(episodes)
    q_values = agent.q_values(learner.params, episodes.observations)[:-1]
    taken = losses.select(jnp.moveaxis(q_values, 1, -1), episodes.actions)
    returns = losses.discounted_sum(episodes.rewards, settings.discount)
    return {
        f"loss_agent_{index}_actor": terms.actor,
        f"loss_agent_{index}_opponent": terms.shaping,
        f"loss_agent_{index}_qvalue": q_loss(agent, learner.params, learner.target_params, replayed, settings),
        f"agent{index}_entropy": -terms.negative_entropy,
        f"grad_agent{index}_norm": optax.tree.norm(gradient),
        f"grad_opponent{index}_norm": optax.tree.norm(jax.grad(shaping_loss)(learner.params)),
        f"qvalue_{index}_mean": taken.mean(),
        f"qvalue_{index}_bias": (taken - returns).mean(),
    }


def cooperation(agent: Agent, learner: LearnerState, observations: jax.Array, index: int) -> Metrics:
    """The IPD's P(C) in each of the five states: `p_<index>_<state>_C`.

    The mean over the visits to the state in `observations` [T+1, B, 4]; exact for a policy without memory,
    whatever was visited. A state never visited by a policy with memory has no value: NaN.
    """
    if isinstance(agent.initial_hidden(), tuple):
        observations = jnp.array(OBSERVATIONS)[None]
    p_cooperate = jax.nn.softmax(agent.logits(learner.params, observations))[..., 0]
    return {
        f"p_{index}_{state}_C": (here * p_cooperate).sum() / here.sum()
        for state, here in zip(STATES, visits(observations), strict=True)
    }


def mean_rewards(
    key: jax.Array, game: Any, players: tuple[Player, Player], params: tuple[Any, Any], steps: int, episodes: int
) -> tuple[jax.Array, jax.Array]:
    """Plays episodes without exploration: mean reward a step of each player [2], observations [T+1, 2, B, D]."""
    played = rollout(game, players, params, draw_noise(key, steps, episodes))
    return played.rewards.mean((0, 2)), played.observations


def coin_metrics(
    key: jax.Array, game: Any, agent: Agent, learners: tuple[LearnerState, ...], steps: int, episodes: int
) -> Metrics:
    """The Coin Game's evaluation: the agents against each other and against the scripted players.

    `mean_rewards_0/1`: the learner against itself, or the two learners against each other, and
    `own_coins_0`, `other_coins_0`: how many coins of its own and of the other the first one took a step.
    `always_cooperate_0_mean_rewards_a/d` (and `always_defect_...`): agent 0 (a) against the scripted player
    (d). All are means over episodes and steps.
    """
    keys = iter(jax.random.split(key, 1 + 2 * len(learners)))
    pair = learners[0].params, learners[-1].params
    rewards, observations = mean_rewards(next(keys), game, (agent, agent), pair, steps, episodes)
    own, others = coins_taken(observations[:, 0])
    metrics = {
        "mean_rewards_0": rewards[0],
        "mean_rewards_1": rewards[1],
        "own_coins_0": own.mean(),
        "other_coins_0": others.mean(),
    }
    for i, learner in enumerate(learners):
        for script in ("always_cooperate", "always_defect"):
            scripted = getattr(coin_players, script)(game.height, game.width)
            players, params = (agent, scripted), (learner.params, ())
            rewards, _ = mean_rewards(next(keys), game, players, params, steps, episodes)
            metrics[f"{script}_{i}_mean_rewards_a"] = rewards[0]
            metrics[f"{script}_{i}_mean_rewards_d"] = rewards[1]
    return metrics
