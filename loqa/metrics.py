"""What an evaluation measures, as pure functions of parameters and a key; training does not depend on it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from loqa import losses
from loqa.agent import Agent, batch_last
from loqa.games import Game
from loqa.games.coin import CoinGame, coins_taken
from loqa.games.coin_players import LIKES, ScriptedPlayer
from loqa.games.ipd import OBSERVATIONS, STATES, visits
from loqa.hyperparameters import Hyperparameters
from loqa.learner import LearnerState
from loqa.rollout import Episodes, Player, draw_noise, rollout

Metrics = dict[str, jax.Array]


def learning_metrics(
    hp: Hyperparameters,
    agent: Agent,
    me: LearnerState,
    episodes: Episodes,
    seat: int,
    policy_losses: Callable[..., losses.PolicyLoss],
    critic_loss: Callable[..., jax.Array],
) -> Metrics:
    """Losses, entropy and gradient norms of the learner in `seat` on episodes played as in training.

    The gradient norms are of each loss alone, before clipping: `grad_agent` of the actor loss with the
    entropy bonus, `grad_opponent` of the shaping loss without its weight. The losses are those of ipd.py.
    """

    def agent_loss(params):
        terms = policy_losses(hp, agent, params, episodes)
        return terms.actor + hp.actor.train.entropy_beta * terms.negative_entropy, terms

    def shaping_loss(params):
        return policy_losses(hp, agent, params, episodes).shaping

    gradient, terms = jax.grad(agent_loss, has_aux=True)(me.params)
    q_values = agent.q_values(me.params, episodes.mine.observations)[:-1]
    taken = losses.select(batch_last(q_values), episodes.mine.actions)
    returns = losses.discounted_sum(episodes.mine.rewards, hp.reward_discount)
    return {
        f"loss_agent_{seat}_actor": terms.actor,
        f"loss_agent_{seat}_opponent": terms.shaping,
        f"loss_agent_{seat}_qvalue": critic_loss(hp, agent, me.params, me.target_params, episodes.mine),
        f"agent{seat}_entropy": -terms.negative_entropy,
        f"grad_agent{seat}_norm": optax.tree.norm(gradient),
        f"grad_opponent{seat}_norm": optax.tree.norm(jax.grad(shaping_loss)(me.params)),
        f"qvalue_{seat}_mean": taken.mean(),
        f"qvalue_{seat}_bias": (taken - returns).mean(),
    }


def cooperation(agent: Agent, me: LearnerState, observations: jax.Array, seat: int) -> Metrics:
    """The IPD's P(C) in each of the five states: `p_<seat>_<state>_C`.

    The mean over the visits to the state in `observations` [T+1, B, 4]; exact for a policy without memory,
    whatever was visited. A state never visited by a policy with memory has no value: NaN.
    """
    if not agent.is_recurrent:
        observations = jnp.array(OBSERVATIONS)[None]
    p_cooperate = jax.nn.softmax(agent.logits(me.params, observations))[..., 0]
    return {
        f"p_{seat}_{state}_C": (here * p_cooperate).sum() / here.sum()
        for state, here in zip(STATES, visits(observations), strict=True)
    }


def mean_rewards(
    key: jax.Array, game: Game, players: tuple[Player, Player], params: tuple[Any, Any], steps: int, episodes: int
) -> tuple[jax.Array, jax.Array]:
    """Plays episodes without exploration: mean reward a step of each player [2], observations [T+1, 2, B, D]."""
    played = rollout(game, players, params, draw_noise(key, steps, episodes))
    return played.rewards.mean((0, 2)), played.observations


def matrix_game_metrics(
    key: jax.Array, hp: Hyperparameters, agent: Agent, learners: tuple[LearnerState, ...], episodes: list[Episodes]
) -> Metrics:
    """The IPD's evaluation: mean rewards of the agents against each other, and P(C) in each state.

    `episodes` are each learner's, played as in training.
    """
    pair = learners[0].params, learners[-1].params
    rewards, _ = mean_rewards(key, agent.game, (agent, agent), pair, hp.game_length, hp.eval_episodes)
    metrics = {"mean_rewards_0": rewards[0], "mean_rewards_1": rewards[1]}
    for seat, me in enumerate(learners):
        metrics |= cooperation(agent, me, episodes[seat].mine.observations, seat)
    return metrics


def coin_metrics(
    key: jax.Array, hp: Hyperparameters, agent: Agent, learners: tuple[LearnerState, ...], episodes: list[Episodes]
) -> Metrics:
    """The Coin Game's evaluation: the agents against each other and against the scripted players.

    `mean_rewards_0/1`: the learner against itself, or the two learners against each other, and
    `own_coins_0`, `other_coins_0`: how many coins of its own and of the other the first one took a step.
    `always_cooperate_0_mean_rewards_a/d` (and `always_defect_...`): agent 0 (a) against the scripted player
    (d). All are means over episodes and steps. `episodes`, played as in training, are not used.
    """
    del episodes
    game: CoinGame = agent.game
    length = hp.game_length, hp.eval_episodes
    keys = iter(jax.random.split(key, 1 + 2 * len(learners)))
    pair = learners[0].params, learners[-1].params
    rewards, observations = mean_rewards(next(keys), game, (agent, agent), pair, *length)
    own, others = coins_taken(observations[:, 0])
    metrics = {
        "mean_rewards_0": rewards[0],
        "mean_rewards_1": rewards[1],
        "own_coins_0": own.mean(),
        "other_coins_0": others.mean(),
    }
    scripted = ScriptedPlayer(game.height, game.width)
    for seat, me in enumerate(learners):
        for name in ("always-cooperate", "always-defect"):
            params = me.params, LIKES[name]
            rewards, _ = mean_rewards(next(keys), game, (agent, scripted), params, *length)
            prefix = f"{name.replace('-', '_')}_{seat}_mean_rewards"
            metrics |= {f"{prefix}_a": rewards[0], f"{prefix}_d": rewards[1]}
    return metrics
