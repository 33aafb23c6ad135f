"""Differentiable returns: DiCE's magic box and loaded DiCE, for one episode, time first.

A batch may follow as the last axes of every array: [T] becomes [T, B].

DiCE: Foerster et al. 2018, arXiv 1802.05098. Loaded DiCE: Farquhar, Whiteson, Foerster 2019,
arXiv 1909.10549. Their use on the opponent's return: LOQA, section 4.
"""

import jax
import jax.numpy as jnp
import numpy as np


def magic_box(log_prob: jax.Array) -> jax.Array:
    """DiCE's magic box, exp(x - stop_gradient(x)): 1 forward, and its derivative is itself times that of x."""
    return jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))


def discounted_sum(x: jax.Array, discount: float) -> jax.Array:
    """sum_{k>=t} discount^(k-t) x_k for each step t; [T] -> [T].

    A product with the triangular matrix of the powers: one matmul, in full float32 precision on every device, instead
    of a loop of T small steps.
    """
    if discount == 0:
        return x
    steps = np.arange(x.shape[0])
    ahead = np.maximum(steps[None, :] - steps[:, None], 0)
    powers = np.triu(np.power(np.float64(discount), ahead)).astype(np.float32)
    return jnp.tensordot(powers, x, 1, precision=jax.lax.Precision.HIGHEST)


def box_differences(log_prob: jax.Array) -> jax.Array:
    """d_t = box(l_0 + .. + l_t) - box(l_0 + .. + l_{t-1}), 0 forward, with the gradient of l_t alone: [T] -> [T]."""
    until_now = discounted_sum(log_prob[::-1], 1.0)[::-1]
    return magic_box(until_now) - magic_box(until_now - log_prob)


def loaded_dice_returns(
    log_prob: jax.Array, returns: jax.Array, advantages: jax.Array, discount: float, lam: float
) -> jax.Array:
    """The opponent's discounted returns Rhat_t, [T], as a differentiable function of our policy.

    Rhat_t = R_t + z_t, with z_t = A_t d_t + discount lam z_{t+1}, and d_t of `box_differences`. Forward this is R_t;
    backward, dRhat_t / dl_k = (discount lam)^(k-t) A_k for k >= t, and 0 for k < t.

    Args:
      log_prob: [T], l_t, log-probabilities of our own actions, differentiable.
      returns: [T], R_t, the opponent's discounted returns; a constant.
      advantages: [T], A_t, the opponent's advantages by any estimate; a constant. R_t - V_t in LOQA's paper.
      discount: gamma.
      lam: lambda; 0 credits an action at its own step only, 1 at all steps before it.
    """
    returns, advantages = jax.lax.stop_gradient((returns, advantages))
    return returns + discounted_sum(advantages * box_differences(log_prob), discount * lam)


def n_step_returns(
    log_prob: jax.Array, rewards: jax.Array, values: jax.Array, baseline: jax.Array, discount: float, n: int
) -> jax.Array:
    """The opponent's n-step Q-values Qhat_t as a differentiable function of our policy: [T+1-n], of full windows.

    Qhat_t = sum_{k=t}^{t+n-1} discount^(k-t) rho_k + discount^n V_{t+n}, with
    rho_k = (r_k - baseline) box(sg(l_t) + l_{t+1} + .. + l_k) + baseline.

    Args:
      log_prob: [T], l_t, log-probabilities of our own actions, differentiable.
      rewards: [T], r_t, the opponent's rewards.
      values: [T+1], V_t, the opponent's values; a constant.
      baseline: [], the opponent's mean reward over the batch and its steps.
      discount: gamma.
      n: the window, at least 1 and at most T.

    Raises:
      ValueError: when there is no step with a full window.
    """
    num_steps = rewards.shape[0]
    if not 1 <= n <= num_steps:
        raise ValueError(f"n is {n}, but a window must have 1 to {num_steps} steps")
    kept = num_steps + 1 - n
    window = np.arange(kept)[:, None] + np.arange(n)[None, :]
    responsible = jnp.asarray(log_prob)[window].at[:, 0].set(0.0)  # our action at t itself was simultaneous
    terms = (rewards[window] - baseline) * magic_box(jnp.cumsum(responsible, axis=1)) + baseline
    powers = np.power(np.float32(discount), np.arange(n))
    return jnp.einsum("kn...,n->k...", terms, powers) + discount**n * jax.lax.stop_gradient(values[n:])
