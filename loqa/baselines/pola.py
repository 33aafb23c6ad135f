"""LOLA-DiCE and POLA-DiCE, sampled: `python ipd.py hp=pola`, `python coin_train.py hp=lola`.

A learner looks ahead: it computes what the opponent's next gradient steps would be, on episodes of their own, and
differentiates its own return after them through these steps. LOLA takes one step so an update; POLA takes many,
and a KL divergence keeps its policy close to what it was. DiCE and LOLA-DiCE: Foerster et al. 2018, arXiv
1802.05098. POLA-DiCE: Zhao et al. 2022, arXiv 2210.10125. The agent is LOQA's, with V(s) = sum_a pi(a|s) Q(s,a);
the value network of POLA's authors has one output, and does not see the time.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from loqa.agent import Agent, AgentParams, batch_last
from loqa.dice import box_differences, discounted_sum
from loqa.game import Game
from loqa.hyperparameters import Hyperparameters
from loqa.learner import Iteration, TrainState
from loqa.losses import Side, select, state_values
from loqa.rollout import draw_noise, rollout


def dice_losses(
    log_prob: jax.Array, rewards: jax.Array, values: jax.Array, discount: float
) -> tuple[jax.Array, jax.Array]:
    """The losses of one player's policy and value on one episode, for gradients by either policy, to every order.

    With G_t = sum_{k>=t} discount^(k-t) r_k + discount^(T-t) V_T, A_t = G_t - V_t (GAE with lambda 1), a constant,
    and c_t = l_0 + .. + l_t: policy -sum_t discount^t A_t (box(c_t) - box(c_{t-1})), value sum_t (G_t - V_t)^2.
    Up to a constant the first is minus DiCE's objective, sum_t discount^t box(c_t) r_t, with V_T and a baseline.

    `log_prob` [T]: l_t, of the actions of both players together, differentiable in both policies; `values` V_t [T+1]
    are so in the value loss. A batch may follow as the last axis, here and in the results.
    """
    targets = jax.lax.stop_gradient(discounted_sum(rewards.at[-1].add(discount * values[-1]), discount))
    errors = targets - values[:-1]
    powers = discount ** jnp.arange(len(rewards), dtype=rewards.dtype)
    return -jnp.tensordot(powers, jax.lax.stop_gradient(errors) * box_differences(log_prob), 1), (errors**2).sum(0)


def mean_kl(old: jax.Array, new: jax.Array) -> jax.Array:
    """KL(old || new) = sum_a p_old (log p_old - log p_new), log-probabilities [T, A, B], mean over T and B: []."""
    return (jnp.exp(old) * (old - new)).sum(1).mean()


def log_probs(agent: Agent, params: AgentParams, observations: jax.Array) -> jax.Array:
    """The policy's log-probabilities before each action, from a zero hidden state: [T+1, D, B] -> [T, A, B]."""
    return jax.nn.log_softmax(batch_last(agent.logits(params, jnp.moveaxis(observations[:-1], -1, 1))), axis=1)


def player_loss(
    params: AgentParams,
    other: AgentParams,
    reference: AgentParams,
    mine: Side,
    theirs: Side,
    *,
    agent: Agent,
    discount: float,
    beta: float,
) -> jax.Array:
    """The loss of a player: its DiCE losses, means over the batch, plus beta KL(reference || params): [].

    The player has `params`, the other player `other`: its policy is differentiable, too. `mine` and `theirs` are their
    sides of B episodes, which they played. `reference`, not used with beta 0, is where the policy shall stay close to.
    """
    side = agent.side(params, mine)
    mine_log_probs = jax.nn.log_softmax(side.logits[:-1], axis=1)
    log_prob = select(mine_log_probs, mine.actions)
    log_prob += select(log_probs(agent, other, theirs.observations), theirs.actions)
    values = state_values(jax.lax.stop_gradient(side.logits), side.q_values)
    policy, value = dice_losses(log_prob, mine.rewards, values, discount)
    loss = policy.mean() + value.mean()
    if beta:
        loss += beta * mean_kl(log_probs(agent, reference, mine.observations), mine_log_probs)
    return loss


def descend(params: AgentParams, direction: AgentParams, rates: AgentParams) -> AgentParams:
    """params - rate * direction, with a rate for each of the two networks."""
    step = lambda rate, x, d: jax.tree.map(lambda x, d: x - rate * d, x, d)
    return AgentParams(*map(step, rates, params, direction))


def make_objective(hp: Hyperparameters, agent: Agent) -> Callable[..., jax.Array]:
    """The objective of a learner: (theta, me, opponent, game, key) -> its loss after the opponent's next steps.

    It is differentiable in theta, the learner's parameters, of which these steps are a function, too; `me` and
    `opponent` are what both are before the update, and the learner is player 0 of `game`.
    """
    look, loss = hp.lookahead, partial(player_loss, agent=agent, discount=hp.reward_discount)
    inner_rates = AgentParams(look.lr_inner, hp.qvalue.train.lr_loss_qvalue)

    def play(game: Game, pair: tuple[AgentParams, AgentParams], key: jax.Array) -> list[Side]:
        """Both players' sides of a new batch of episodes: data, with no gradient of its own."""
        noise = draw_noise(key, hp.game_length, hp.batch_size)
        both = rollout(game, (agent, agent), jax.lax.stop_gradient(pair), noise)
        return [both.side(0), both.side(1)]

    def objective(theta: AgentParams, me: AgentParams, opponent: AgentParams, game: Game, key: jax.Array) -> jax.Array:
        @jax.checkpoint  # else the gradient keeps the episodes and hidden states of all inner steps
        def inner_step(phi: AgentParams, key: jax.Array) -> tuple[AgentParams, None]:
            mine, theirs = play(game, (theta, phi), key)
            gradient = jax.grad(loss)(phi, theta, opponent, theirs, mine, beta=look.inner_beta)
            return descend(phi, gradient, inner_rates), None

        key_inner, key_outer = jax.random.split(key)
        phi, _ = jax.lax.scan(inner_step, opponent, jax.random.split(key_inner, look.inner_steps))
        return loss(theta, phi, me, *play(game, (theta, phi), key_outer), beta=look.outer_beta)

    return objective


def make_iteration(hp: Hyperparameters, agent: Agent) -> Iteration:
    """One update of both learners, from the same snapshot of each other; a pure function of the state."""
    gradient, adam = jax.grad(make_objective(hp, agent)), optax.scale_by_adam()
    rates = AgentParams(hp.actor.train.lr_loss_actor, hp.qvalue.train.lr_loss_qvalue)

    def update(game: Game, me: AgentParams, opponent: AgentParams, key: jax.Array) -> AgentParams:
        """The outer steps of one learner, with an Adam of their own."""

        def outer_step(carry, key):
            theta, moments = carry
            direction, moments = adam.update(gradient(theta, me, opponent, game, key), moments)
            return (descend(theta, direction, rates), moments), None

        keys = jax.random.split(key, hp.lookahead.outer_steps)
        return jax.lax.scan(outer_step, (me, adam.init(me)), keys)[0][0]

    def iteration(state: TrainState) -> TrainState:
        keys = jax.random.split(jax.random.fold_in(state.key, state.iteration))
        pair = [me.params for me in state.learners]
        new = [update(agent.game.from_seat(i), pair[i], pair[1 - i], keys[i]) for i in (0, 1)]
        learners = tuple(me._replace(params=x) for me, x in zip(state.learners, new, strict=True))
        return state._replace(iteration=state.iteration + 1, learners=learners)

    return iteration
