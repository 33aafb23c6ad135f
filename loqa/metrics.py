"""What an evaluation measures, as pure functions of parameters and a key; training does not depend on it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from loqa.agent import Agent, batch_last
from loqa.dice import discounted_sum
from loqa.games.coin import CoinGame, coins_taken
from loqa.games.ipd import OBSERVATIONS, STATES, visits
from loqa.learner import LearnerState
from loqa.losses import PolicyLoss, Side, select
from loqa.optimizers import Loss
from loqa.rollout import Player, draw_noise, rollout

Metrics = dict[str, jax.Array]


def learning_metrics(
    agent: Agent,
    me: LearnerState,
    mine: Side,
    seat: int,
    loss: Loss,
    critic_loss: jax.Array,
    entropy_beta: float,
    discount: float,
) -> Metrics:
    """Losses, entropy, gradient norms and Q-values of the learner in `seat`, on its side of episodes.

    The gradient norms are of each loss alone, before clipping: `grad_agent` of the actor loss with the
    entropy bonus, `grad_opponent` of the shaping loss without its weight. The losses are those of ipd.py.
    """
    gradient = jax.grad(loss, has_aux=True)
    actor_gradient, terms = gradient(me.params, PolicyLoss(1.0, None, entropy_beta))
    shaping_gradient, _ = gradient(me.params, PolicyLoss(None, 1.0, None))
    q_values = agent.q_values(me.params, jnp.moveaxis(mine.observations, -1, 1))[:-1]
    taken = select(batch_last(q_values), mine.actions)
    returns = discounted_sum(mine.rewards, discount)
    return {
        f"loss_agent_{seat}_actor": terms.actor,
        f"loss_agent_{seat}_opponent": terms.shaping,
        f"loss_agent_{seat}_qvalue": critic_loss,
        f"agent{seat}_entropy": -terms.negative_entropy,
        f"grad_agent{seat}_norm": optax.tree.norm(actor_gradient),
        f"grad_opponent{seat}_norm": optax.tree.norm(shaping_gradient),
        f"qvalue_{seat}_mean": taken.mean(),
        f"qvalue_{seat}_bias": (taken - returns).mean(),
    }


def play_metrics(key: jax.Array, agent: Agent, learners: tuple[LearnerState, ...], num_episodes: int) -> Metrics:
    """The agents' play without exploration: mean rewards a step, over `num_episodes` episodes a pair.

    `mean_rewards_0/1`: the learner against itself, or the two learners against each other.
    `always_cooperate_0_mean_rewards_a/d` (and `always_defect_...`): agent 0 (a) against the scripted player (d);
    `..._1_...`: agent 1, if there are two. In the Coin Game `own_coins_0`, `other_coins_0`: the coins a step, of its
    own and of the other, that player 0 takes in the first.
    """
    keys = iter(jax.random.split(key, 1 + 2 * len(learners)))

    def mean_rewards(seat: int, other: Player, params: Any) -> tuple[jax.Array, jax.Array]:
        noise = draw_noise(next(keys), agent.game_length, num_episodes)
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

    The mean over the visits to the state in what was `seen` [T+1, 4, B]; exact for a policy without memory, regardless
    of visits. A state never visited by a policy with memory has no value: NaN.
    """
    seen = jnp.moveaxis(seen, -1, 1) if agent.is_recurrent else jnp.array(OBSERVATIONS)[None]
    p_cooperate = jax.nn.softmax(agent.logits(me.params, seen))[..., 0]
    here = dict(zip(STATES, visits(seen), strict=True))
    return {f"p_{seat}_{state}_C": (x * p_cooperate).sum() / x.sum() for state, x in here.items()}
