"""What an evaluation measures, as pure functions of parameters and a key; training does not depend on it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from loqa import losses
from loqa.agent import Agent, batch_last
from loqa.games.coin import CoinGame, coins_taken
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
    """Losses, entropy and gradient norms of the learner in `seat`, on episodes against the agents as they are now.

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


def play_metrics(key: jax.Array, hp: Hyperparameters, agent: Agent, learners: tuple[LearnerState, ...]) -> Metrics:
    """How the agents play, without exploration: mean rewards a step, over `hp.eval_episodes` episodes a pair.

    `mean_rewards_0/1`: the learner against itself, or the two learners against each other.
    `always_cooperate_0_mean_rewards_a/d` (and `always_defect_...`): agent 0 (a) against the scripted player (d);
    `..._1_...`: agent 1, if there are two. In the Coin Game `own_coins_0`, `other_coins_0`: the coins a step, of its
    own and of the other, that player 0 takes in the first.
    """
    keys = iter(jax.random.split(key, 1 + 2 * len(learners)))

    def mean_rewards(seat: int, other: Player, params: Any) -> tuple[jax.Array, jax.Array]:
        noise = draw_noise(next(keys), hp.game_length, hp.eval_episodes)
        pair = learners[seat].params, params
        played = rollout(agent.game.from_seat(seat), (agent, other), pair, noise)
        return played.rewards.mean((0, 2)), played.observations[:, 0]

    rewards, observations = mean_rewards(0, agent, learners[-1].params)
    metrics = {"mean_rewards_0": rewards[0], "mean_rewards_1": rewards[1]}
    if isinstance(agent.game, CoinGame):
        own, others = coins_taken(observations)
        metrics |= {"own_coins_0": own.mean(), "other_coins_0": others.mean()}
    scripted = agent.game.scripted()
    for seat in range(len(learners)):
        for name in ("always-cooperate", "always-defect"):
            rewards, _ = mean_rewards(seat, *scripted[name])
            prefix = f"{name.replace('-', '_')}_{seat}_mean_rewards"
            metrics |= {f"{prefix}_a": rewards[0], f"{prefix}_d": rewards[1]}
    return metrics


def cooperation(agent: Agent, me: LearnerState, seen: jax.Array, seat: int) -> Metrics:
    """The IPD's P(C) in each of the five states: `p_<seat>_<state>_C`.

    The mean over the visits to the state in what was `seen` [T+1, B, 4]; exact for a policy without memory, whatever
    was visited. A state never visited by a policy with memory has no value: NaN.
    """
    seen = seen if agent.is_recurrent else jnp.array(OBSERVATIONS)[None]
    p_cooperate = jax.nn.softmax(agent.logits(me.params, seen))[..., 0]
    here = dict(zip(STATES, visits(seen), strict=True))
    return {f"p_{seat}_{state}_C": (x * p_cooperate).sum() / x.sum() for state, x in here.items()}
