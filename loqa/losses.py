"""LOQA's losses for one episode, pure functions of arrays: section 4 and Algorithm 2 of the paper.

T is the number of steps of the episode, A the number of actions, and primes mark the opponent. Actions and rewards
have T entries; observations, logits and Q-values have T+1, the last one after the last step.

A batch may follow as the last axis of every array ([T, A] becomes [T, A, B]), and then of the results ([] becomes
[B]): the same as `vmap`, in the layout that is fast. (The default `reward_baseline` is the mean over this batch.)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from loqa.dice import discounted_sum, loaded_dice_returns, n_step_returns


class Side(NamedTuple):
    """One player's side of an episode: its actions, its rewards and the outputs of its own networks."""

    logits: jax.Array | None  # [T+1, A], of its policy; log-probabilities serve as well
    q_values: jax.Array | None  # [T+1, A]
    actions: jax.Array  # [T], int
    rewards: jax.Array  # [T]
    observations: jax.Array | None = None  # [T+1, D]; the losses do not read them, but `Agent.side` does


class PolicyOptions(NamedTuple):
    """Options of `agent_policy_loss`. The defaults are the paper's settings, as in its published code."""

    discount: float = 0.96  # gamma
    advantage: str = "TD0"  # TD0, MC or GAE: the estimate of our advantage
    gae_lambda: float = 0.0  # of GAE, in the actor term: 0 is TD0, 1 Monte Carlo up to V(s_T)
    stop_grad_advantage: bool = False  # no gradient through TD0 and GAE; there is none through MC
    terminal_value: bool = True  # False: the finite horizon, where V(s_T) is 0
    kindness: float = 0.0  # share of the opponent's advantage that is added to ours in the actor term
    method: str = "loaded-dice"  # loaded-dice or n_step: how the opponent's return depends on our policy
    lam: float = 0.9  # of loaded DiCE: how far an action's credit reaches back
    opponent_gae_lambda: float = 1.0  # of the opponent's advantage: 1 is Monte Carlo
    n_step: int = 2  # window of n_step
    differentiable_current_reward: bool = False  # include our simultaneous action (loaded-dice only)
    op_softmax_temp: float = 1.0  # temperature of the opponent's softmax
    stop_grad_normalizing_constant: bool = False  # no gradient through the normalizer of that softmax


class PolicyTerms(NamedTuple):
    """The terms of the policy's loss, each []; or their weights, where None leaves a term out."""

    actor: jax.Array  # -mean_t log pi(a_t|s_t) (A_t + kindness A'_t)
    shaping: jax.Array  # -mean_t log pihat'(a'_t|s_t) A_t
    negative_entropy: jax.Array  # minus the mean entropy of pi over the T steps


def agent_policy_loss(
    mine: Side, opponent: Side, options: PolicyOptions = PolicyOptions(), reward_baseline: ArrayLike | None = None
) -> PolicyTerms:
    """LOQA's loss of one player's policy on one episode (Algorithm 2).

    The actor term is the ordinary policy gradient. The shaping term is LOQA: the opponent is assumed to play a softmax
    of its Q-values. The Q-value of the action that it took is estimated from the episode and depends on our later
    actions. Where our advantage was positive, the gradient makes that action more probable, by way of its Q-value.

    Written out, with the paper's loaded DiCE and constant advantages, the gradient of their sum is that of
    `-mean_t log pi(a_t|s_t) w_t`, where `w_t = A_t + (kindness + gamma / temperature * E_t) A'_t`: our advantage, plus
    the opponent's times what it has lately done for us,
    `E_t = sum_{k<t} (gamma lam)^(t-1-k) (1 - pihat'(a'_k|s_k)) A_k`, with A_k of the shaping term (`own_advantages`).

    Args:
      mine: our side; differentiable in the logits, and in the Q-values through the advantage unless it is stopped.
      opponent: the opponent's side; a constant here.
      options: see `PolicyOptions`.
      reward_baseline: [], the opponent's mean reward over the batch and its steps, for "n_step"; None: the mean of
        `opponent.rewards`.

    Raises:
      ValueError: shapes that do not fit, an advantage or method that does not exist, or a window that does not fit.
    """
    _check_shapes(mine, opponent)
    opponent = jax.lax.stop_gradient(opponent)
    log_probs = jax.nn.log_softmax(mine.logits, axis=1)
    log_prob = select(log_probs[:-1], mine.actions)
    their_advantages = opponent_advantages(opponent, options)
    if reward_baseline is None:
        reward_baseline = opponent.rewards.mean()
    taken_q = differentiable_q_values(log_prob, opponent, their_advantages, options, reward_baseline)
    actor_advantages, shaping_advantages = own_advantages(mine, options)
    return PolicyTerms(
        actor=-(log_prob * (actor_advantages + options.kindness * their_advantages)).mean(0),
        shaping=shaping_loss(taken_q, opponent, shaping_advantages, options),
        negative_entropy=(jnp.exp(log_probs) * log_probs).sum(1)[:-1].mean(0),
    )


def own_advantages(mine: Side, options: PolicyOptions) -> tuple[jax.Array, jax.Array]:
    """Our advantages A_t in the actor term, [T], and in the shaping term, [T], or [T+1-n_step] with "n_step".

    With GAE the shaping term still has the TD error. There A_t is credited to our later actions. GAE contains those
    actions' own TD errors, so it would credit whatever is good for both players, though the opponent did not choose it.
    With "n_step" only the steps with a full window count in the shaping term; TD errors have no value after the last.
    """
    if options.advantage not in ("TD0", "MC", "GAE"):
        raise ValueError(f"advantage is {options.advantage!r}, but must be 'TD0', 'MC' or 'GAE'")
    is_mc = options.advantage == "MC"
    values = _values(mine, options.terminal_value and not is_mc)
    actor = shaping = gae_advantages(mine.rewards, values, options.discount, 1.0 if is_mc else 0.0)
    if options.advantage == "GAE":
        actor = gae_advantages(mine.rewards, values, options.discount, options.gae_lambda)
    if options.stop_grad_advantage or is_mc:
        actor, shaping = jax.lax.stop_gradient((actor, shaping))
    if options.method == "n_step":
        kept = len(mine.rewards) + 1 - options.n_step
        if not is_mc:
            shaping = gae_advantages(mine.rewards[:kept], _append_zero(values[:kept]), options.discount, 0.0)
        shaping = jax.lax.stop_gradient(shaping[:kept])
    return actor, shaping


def opponent_advantages(opponent: Side, options: PolicyOptions) -> jax.Array:
    """The opponent's advantages A'_t, [T]. Its return R'_t ends with the episode, so V'(s_T) counts as 0."""
    values = _values(opponent, terminal_value=False)
    return gae_advantages(opponent.rewards, values, options.discount, options.opponent_gae_lambda)


def differentiable_q_values(
    log_prob: jax.Array, opponent: Side, advantages: jax.Array, options: PolicyOptions, reward_baseline: ArrayLike
) -> jax.Array:
    """Qhat_t, the opponent's Q-value of the action that it took at step t, as a function of our policy.

    With loaded DiCE it is r'_t + gamma Rhat_{t+1}, with "n_step" the sum over a window, of `n_step_returns`. Our action
    at step t is simultaneous with the opponent's, so only what follows counts, unless `differentiable_current_reward`:
    then it is Rhat_t.

    `log_prob` [T]: of our actions, differentiable; `advantages` [T]: A'_t. Returns [T], or [T+1-n_step] with "n_step".
    """
    if options.method == "loaded-dice":
        returns = discounted_sum(opponent.rewards, options.discount)
        returns_hat = loaded_dice_returns(log_prob, returns, advantages, options.discount, options.lam)
        if options.differentiable_current_reward:
            return returns_hat
        return opponent.rewards + options.discount * _append_zero(returns_hat[1:])
    if options.method == "n_step":
        values = _values(opponent, options.terminal_value)
        return n_step_returns(log_prob, opponent.rewards, values, reward_baseline, options.discount, options.n_step)
    raise ValueError(f"method is {options.method!r}, but must be 'loaded-dice' or 'n_step'")


def shaping_loss(taken_q: jax.Array, opponent: Side, advantages: jax.Array, options: PolicyOptions) -> jax.Array:
    """-mean_t log pihat'(a'_t|s_t) A_t over the K steps of `taken_q` and `advantages`, both [K] -> [].

    pihat' is the softmax of the opponent's Q-values, with `taken_q` in place of its own for the action that it took.
    """
    kept = taken_q.shape[0]
    taken = jax.nn.one_hot(opponent.actions[:kept], opponent.q_values.shape[1], axis=1)
    shaped_q = jnp.where(taken == 1, taken_q[:, None], opponent.q_values[:kept]) / options.op_softmax_temp
    normalizer = jax.nn.logsumexp(shaped_q, axis=1)
    if options.stop_grad_normalizing_constant:
        normalizer = jax.lax.stop_gradient(normalizer)
    return -((taken_q / options.op_softmax_temp - normalizer) * advantages).mean(0)


def q_value_loss(q_values: jax.Array, actions: jax.Array, targets: jax.Array, scale: float = 1.0) -> jax.Array:
    """The critic's loss: Huber (delta 1) between Q(s_t,a_t) / scale and G_t / scale, [T+1, A], [T], [T] -> [].

    `q_values` are differentiable; `targets` are G_t, see `q_value_targets`; `scale` is that of the Q-network's output.
    """
    return optax.losses.huber_loss((select(q_values[:-1], actions) - targets) / scale).mean(0)


def q_value_targets(target: Side, *, discount: float, mode: str, td_lambda: float, terminal_value: bool) -> jax.Array:
    """TD(lambda) targets G_t of the Q-values of the actions taken, a constant [T]; see `lambda_returns`.

    Args:
      target: our side of the episode, with the logits and Q-values of the target network.
      discount: gamma.
      mode: the value of the next step: "mean", its action's Q-value, and at the end V(s_T); "argmax", the best Q-value.
      td_lambda: lambda; 0 for one-step targets, 1 for Monte Carlo up to the value after the last step.
      terminal_value: False on the finite horizon, where the value after the last step is 0.

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
    next_values = jnp.concatenate([next_values, last_value])
    return jax.lax.stop_gradient(lambda_returns(target.rewards, next_values, discount, td_lambda))


def center_q_values(side: Side, discount: float, batch_mean: Callable = lambda x: x.mean(1)) -> Side:
    """A batch of one player's sides, [T+1, A, B], with Q-values shifted at each step so that their mean error is 0.

    Qc(s_t,a) = Q(s_t,a) + mean_b(G_t - Q(s_t,a_t)), with G_t the discounted return of the rest of the episode.
    After the last step nothing is left to earn and no action is played: G_T = 0, and V(s_T) is in Q's place.
    Adding any function of time to Q then changes nothing. The correction is a constant for gradients. `batch_mean` is
    the mean over the batch, [T+1, B] -> [T+1], which may be larger than what is here.
    """
    last_value = state_values(side.logits[-1:], side.q_values[-1:])
    q_taken = jnp.concatenate([select(side.q_values[:-1], side.actions), last_value])
    errors = _append_zero(discounted_sum(side.rewards, discount)) - q_taken
    correction = jax.lax.stop_gradient(batch_mean(errors))
    return side._replace(q_values=side.q_values + correction[:, None, None])


def state_values(logits: jax.Array, q_values: jax.Array) -> jax.Array:
    """V(s) = sum_a pi(a|s) Q(s,a): [T, A], [T, A] -> [T]."""
    return (jax.nn.softmax(logits, axis=1) * q_values).sum(1)


def select(values: jax.Array, actions: jax.Array) -> jax.Array:
    """The entry of each action: [T, A], [T] -> [T]. A one-hot product: gathers are slow on a CPU."""
    return (values * jax.nn.one_hot(actions, values.shape[1], axis=1)).sum(1)


def lambda_returns(rewards: jax.Array, next_values: jax.Array, discount: float, lam: float) -> jax.Array:
    """TD(lambda) returns G_t = r_t + discount ((1 - lam) V_{t+1} + lam G_{t+1}), with G_T = V_T: [T], [T] -> [T].

    `next_values`: V_1 to V_T. (Sutton and Barto, Reinforcement Learning, 2nd edition, chapter 12.)
    """
    # The recursion unrolled: every step adds r_k and its share of V_{k+1}, the last one all of V_T.
    share = jnp.concatenate([(1.0 - lam) * next_values[:-1], next_values[-1:]])
    return discounted_sum(rewards + discount * share, discount * lam)


def gae_advantages(rewards: jax.Array, values: jax.Array, discount: float, gae_lambda: float) -> jax.Array:
    """Generalized advantage estimates sum_{k>=t} (discount gae_lambda)^(k-t) delta_k: [T], [T+1] -> [T].

    delta_t = r_t + discount V_{t+1} - V_t is the TD error: the estimate at lambda 0. At lambda 1 it is the return
    minus the value. (GAE: Schulman et al. 2016, arXiv 1506.02438.)
    """
    return lambda_returns(rewards, values[1:], discount, gae_lambda) - values[:-1]


def _values(side: Side, terminal_value: bool) -> jax.Array:
    """V(s_t) of a side, [T+1]; without a terminal value, on the finite horizon, V(s_T) is 0."""
    values = state_values(side.logits, side.q_values)
    return values if terminal_value else values.at[-1].set(0.0)


def _append_zero(x: jax.Array) -> jax.Array:
    """[T] -> [T+1], also where T is 0."""
    return jnp.concatenate([x, jnp.zeros((1, *x.shape[1:]), x.dtype)])


def _check_shapes(*sides: Side) -> None:
    """Raises ValueError where the arrays of the sides are not [T+1, A], [T+1, A], [T], [T], with one batch shape."""
    for side in sides:
        if side.logits is None or side.q_values is None:
            raise ValueError("a side has no logits or no Q-values: see `Side`")
        steps, *batch = jnp.shape(sides[0].rewards)
        rows = jnp.shape(side.logits)
        want = [(steps + 1, *rows[1:2], *batch)] * 2 + [(steps, *batch)] * 2
        for name, expected in zip(Side._fields, want, strict=False):  # of all but the observations
            if (shape := jnp.shape(getattr(side, name))) != expected:
                raise ValueError(f"{name} has the shape {shape}, but must have {expected}: time, action, batch")
