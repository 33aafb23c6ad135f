"""LOQA's losses for one episode: arrays in, numbers out.

T is the number of steps of the episode, A the number of actions. Sequences of observations, and so of
logits and Q-values, have T+1 entries, sequences of actions and rewards T. Equations: LOQA section 4 and
Algorithm 2.

Shapes are those of one episode. A batch may follow as the last axes of every array ([T, A] becomes
[T, A, B]), and then of the results ([] becomes [B]): the same as `vmap`, in the layout that is fast.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loqa import devices
from loqa.dice import discounted_sum, loaded_dice_returns, n_step_returns


class Side(NamedTuple):
    """One player's side of an episode: what it played and got, and what its own networks say of it."""

    logits: jax.Array  # [T+1, A], of its policy; log-probabilities serve as well
    q_values: jax.Array  # [T+1, A]
    actions: jax.Array  # [T], int
    rewards: jax.Array  # [T]


class PolicyLoss(NamedTuple):
    """The terms of the policy's loss, each []; to be weighted and added."""

    actor: jax.Array  # -mean_t log pi(a_t|s_t) A_t
    shaping: jax.Array  # -mean_t log pihat'(a'_t|s_t) A_t
    negative_entropy: jax.Array  # minus the mean entropy of pi over the T steps


def state_values(logits: jax.Array, q_values: jax.Array) -> jax.Array:
    """V(s) = sum_a pi(a|s) Q(s,a): [T, A], [T, A] -> [T]."""
    return (jax.nn.softmax(logits, axis=1) * q_values).sum(1)


def select(values: jax.Array, actions: jax.Array) -> jax.Array:
    """The entry of each action: [T, A], [T] -> [T]. A one-hot product: gathers are slow on a CPU."""
    return (values * jax.nn.one_hot(actions, values.shape[1], axis=1)).sum(1)


def td0_advantages(rewards: jax.Array, values: jax.Array, discount: float) -> jax.Array:
    """r_t + discount V_{t+1} - V_t: [T], [T+1] -> [T]."""
    return rewards + discount * values[1:] - values[:-1]


def center_q_values(side: Side, discount: float) -> Side:
    """A batch of one player's sides, with Q-values whose mean error at each step is taken away.

    Qc(s_t,a) = Q(s_t,a) + mean_b(G_t - Q(s_t,a_t)), with G_t the discounted return of the rest of the episode.
    After the last step nothing is left to earn and no action is played: G_T = 0, and V(s_T) is in Q's place.
    Adding any function of time to Q then changes nothing. The correction is a constant for gradients.

    Args:
      side: [T+1, A, B], with the batch last.
      discount: gamma.

    Returns:
      The side with Qc.
    """
    last_value = state_values(side.logits[-1:], side.q_values[-1:])
    q_taken = jnp.concatenate([select(side.q_values[:-1], side.actions), last_value])
    errors = _append_zero(discounted_sum(side.rewards, discount)) - q_taken
    correction = jax.lax.stop_gradient(devices.mean(errors.mean(1)))
    return side._replace(q_values=side.q_values + correction[:, None, None])


def _append_zero(x: jax.Array) -> jax.Array:
    """[T] -> [T+1]."""
    return jnp.concatenate([x, jnp.zeros_like(x[:1])])


def agent_policy_loss(
    mine: Side,
    opponent: Side,
    *,
    discount: float,
    advantage: str,
    stop_grad_advantage: bool,
    terminal_value: bool,
    method: str,
    lam: float,
    n_step: int,
    opponent_reward_baseline: jax.Array | float,
    differentiable_current_reward: bool,
    op_softmax_temp: float,
    stop_grad_normalizing_constant: bool,
    advantage_offset: jax.Array | float,
) -> PolicyLoss:
    """LOQA's loss of one player's policy on one episode (Algorithm 2).

    The actor term is the ordinary policy gradient. The shaping term is LOQA: the opponent is assumed to
    play a softmax of its Q-values, and the Q-value of the action that it took, estimated from the episode,
    depends on our later actions. Making that action more or less probable, by way of its Q-value, is
    rewarded with our own advantage.

    Args:
      mine: our side; differentiable in the logits, and in the Q-values through the TD0 advantage unless it
        is stopped.
      opponent: the opponent's side, with its own rewards and Q-values; a constant here.
      discount: gamma.
      advantage: "TD0", or "MC": the discounted return minus the value, always a constant.
      stop_grad_advantage: take the TD0 advantage of the actor and the shaping term as a constant.
      terminal_value: False on the finite horizon, where values after the last step are 0.
      method: "loaded-dice" or "n_step": how the opponent's return depends on our policy. With "n_step" the
        shaping term has the T+1-n_step steps of a full window, and its advantage is a constant.
      lam: lambda of loaded DiCE.
      n_step: the window of "n_step".
      opponent_reward_baseline: [], the opponent's mean reward over the batch, for "n_step".
      differentiable_current_reward: let our simultaneous action count in the opponent's Q-value of its own
        ("loaded-dice" only).
      op_softmax_temp: temperature of the opponent's softmax.
      stop_grad_normalizing_constant: no gradient through the normaliser of that softmax.
      advantage_offset: [], added to the advantage in the shaping term. A positive offset makes whatever the
        opponent does more worth while to it: kindness, where 0 rewards only what is better for us than average.

    Returns:
      PolicyLoss.

    Raises:
      ValueError: an advantage or method that does not exist, or a window that does not fit.
    """
    if advantage not in ("TD0", "MC"):
        raise ValueError(f"advantage is {advantage!r}, but must be 'TD0' or 'MC'")
    if method not in ("loaded-dice", "n_step"):
        raise ValueError(f"method is {method!r}, but must be 'loaded-dice' or 'n_step'")
    opponent = jax.lax.stop_gradient(opponent)
    log_probs = jax.nn.log_softmax(mine.logits, axis=1)
    log_prob = select(log_probs[:-1], mine.actions)
    values = state_values(mine.logits, mine.q_values)
    opponent_values = state_values(opponent.logits, opponent.q_values)
    if not terminal_value:
        values, opponent_values = values.at[-1].set(0.0), opponent_values.at[-1].set(0.0)

    # The actor term: policy gradient.
    if advantage == "MC":
        advantages = jax.lax.stop_gradient(discounted_sum(mine.rewards, discount) - values[:-1])
    else:
        advantages = td0_advantages(mine.rewards, values, discount)
    if stop_grad_advantage:
        advantages = jax.lax.stop_gradient(advantages)
    actor_loss = -(log_prob * advantages).mean(0)
    negative_entropy = (jnp.exp(log_probs) * log_probs).sum(1)[:-1].mean(0)

    # The opponent's Q-value of the action that it took at each step, as a function of our policy.
    if method == "loaded-dice":
        returns = discounted_sum(opponent.rewards, discount)
        returns = loaded_dice_returns(log_prob, returns, opponent_values[:-1], discount, lam)
        # Our action at t is simultaneous with the opponent's: only what follows it depends on us.
        from_next = opponent.rewards + discount * _append_zero(returns[1:])
        taken_q = returns if differentiable_current_reward else from_next
        shaping_advantages = advantages
    else:
        taken_q = n_step_returns(
            log_prob, opponent.rewards, opponent_values, opponent_reward_baseline, discount, n_step
        )
        kept = taken_q.shape[0]
        if advantage == "MC":
            shaping_advantages = advantages[:kept]
        else:  # the steps with a full window are an episode of their own here, with no value after its end
            kept_values = _append_zero(values[:kept])
            shaping_advantages = td0_advantages(mine.rewards[:kept], kept_values, discount)
        shaping_advantages = jax.lax.stop_gradient(shaping_advantages)

    # The shaping term: the opponent's softmax policy with that Q-value in place of its own.
    kept = taken_q.shape[0]
    taken = jax.nn.one_hot(opponent.actions[:kept], opponent.q_values.shape[1], axis=1)
    shaped_q = jnp.where(taken == 1, taken_q[:, None], opponent.q_values[:kept]) / op_softmax_temp
    normaliser = jax.nn.logsumexp(shaped_q, axis=1)
    if stop_grad_normalizing_constant:
        normaliser = jax.lax.stop_gradient(normaliser)
    opponent_log_prob = taken_q / op_softmax_temp - normaliser
    shaping_loss = -(opponent_log_prob * (shaping_advantages + advantage_offset)).mean(0)
    return PolicyLoss(actor_loss, shaping_loss, negative_entropy)


def q_value_targets(target: Side, *, discount: float, mode: str, td_lambda: float, terminal_value: bool) -> jax.Array:
    """TD(lambda) targets of the Q-values of the actions taken, for one episode.

    G_t = r_t + discount ((1 - td_lambda) N_{t+1} + td_lambda G_{t+1}), where N_t is the target network's
    Q-value of the action taken next ("mean") or of the best one ("argmax"). After the last step, G_T = N_T
    is the target network's V(s_T) or best Q-value, or 0 on the finite horizon. (TD(lambda): Sutton and Barto,
    Reinforcement Learning, 2nd edition, chapter 12.)

    Args:
      target: our side of the episode, with the logits and Q-values of the target network.
      discount: gamma.
      mode: "mean" or "argmax".
      td_lambda: 0 for one-step targets, 1 for Monte Carlo.
      terminal_value: False on the finite horizon.

    Returns:
      [T], constants.

    Raises:
      ValueError: a mode that does not exist.
    """
    if mode == "mean":
        next_values = select(target.q_values[1:-1], target.actions[1:])
        last_value = state_values(target.logits[-1:], target.q_values[-1:])
    elif mode == "argmax":
        next_values = target.q_values[1:-1].max(1)
        last_value = target.q_values[-1:].max(1)
    else:
        raise ValueError(f"mode is {mode!r}, but must be 'mean' or 'argmax'")
    last_value = last_value if terminal_value else jnp.zeros_like(last_value)
    # The recursion unrolled: every step adds r_k and its share of N_{k+1}, the last one all of N_T.
    share = jnp.concatenate([(1.0 - td_lambda) * next_values, last_value])
    return jax.lax.stop_gradient(discounted_sum(target.rewards + discount * share, discount * td_lambda))


def q_value_loss(q_values: jax.Array, target: Side, *, scale: float, **target_options) -> jax.Array:
    """The critic's loss on one episode: Huber (delta 1) between (Q(s_t,a_t) and G_t) / scale, mean over t.

    Args:
      q_values: [T+1, A], differentiable.
      target: our side of the episode, with the logits and Q-values of the target network.
      scale: the scale of the Q-network's output.
      target_options: see `q_value_targets`, which makes G_t.

    Returns:
      [].
    """
    error = (select(q_values[:-1], target.actions) - q_value_targets(target, **target_options)) / scale
    return optax.losses.huber_loss(error).mean(0)
