"""The losses: against the published implementation's numbers, and what the mathematics promises."""

import itertools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loqa.dice import discounted_sum, loaded_dice_returns
from loqa.losses import (
    PolicyOptions,
    Side,
    agent_policy_loss,
    center_q_values,
    differentiable_q_values,
    gae_advantages,
    opponent_advantages,
    own_advantages,
    q_value_loss,
    q_value_targets,
    select,
    shaping_loss,
    state_values,
)

# Inputs and outputs of the published code, computed in float32 on a CPU.
GOLDEN = np.load(Path(__file__).parent / "golden" / "losses.npz")
CASES = ("coin_T6", "ipd_T6", "coin_T50")
VARIANTS = {
    "loaded_dice_td0": {},
    "loaded_dice_mc": {"advantage": "MC"},
    "loaded_dice_current": {"differentiable_current_reward": True},
    "loaded_dice_stopnorm": {"stop_grad_normalizing_constant": True},
    "loaded_dice_temp2_dd1": {"op_softmax_temp": 2.0, "lam": 1.0},
    "n_step2_td0": {"method": "n_step", "n_step": 2},
    "n_step3_mc": {"method": "n_step", "n_step": 3, "advantage": "MC"},
    "n_step5_td0": {"method": "n_step", "n_step": 5},
}
GAMMA, LAM = 0.96, 0.9
PUBLISHED_TARGETS = {"discount": GAMMA, "mode": "mean", "td_lambda": 0.0, "terminal_value": True}


def inputs(case):
    names = ("logits", "q", "op_logits", "op_q", "actions", "rewards", "opponent_reward_baseline")
    return {name: GOLDEN[f"{case}/in/{name}"] for name in names}


def opponent_side(x, player=1):
    """The side with the second networks; as target networks they are of player 0."""
    return Side(x["op_logits"], x["op_q"], x["actions"][:, player], x["rewards"][:, player])


def policy_terms(x, logits, q_values, **options):
    """[actor, shaping, negative entropy] of player 0."""
    mine = Side(logits, q_values, x["actions"][:, 0], x["rewards"][:, 0])
    return jnp.stack(agent_policy_loss(mine, opponent_side(x), PolicyOptions(**options), x["opponent_reward_baseline"]))


def critic_loss(x, q_values, scale=1.0, **options):
    return q_value_loss(q_values, x["actions"][:, 0], targets(x, **options), scale)


def terms_and_gradients(x, **options):
    """The terms [3], and their gradients [3, T+1, A] in the logits and in the Q-values."""
    twice = lambda *networks: (policy_terms(x, *networks, **options),) * 2
    gradients, terms = jax.jit(jax.jacrev(twice, argnums=(0, 1), has_aux=True))(x["logits"], x["q"])
    return terms, gradients


def assert_close(actual, expected, relative):
    """Relative to the largest entry: a gradient's small entries are sums that cancel."""
    assert actual.shape == expected.shape
    error = np.abs(np.asarray(actual) - expected).max()
    assert error <= relative * max(np.abs(expected).max(), 1e-8), error


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", CASES)
def test_policy_loss_is_the_published_one(case, variant):
    if f"{case}/{variant}/losses" not in GOLDEN:
        pytest.skip("the window does not fit the short cases")
    x = inputs(case)
    terms, gradients = terms_and_gradients(x, **VARIANTS[variant])
    assert_close(terms, GOLDEN[f"{case}/{variant}/losses"], 1e-4)
    for name, gradient in zip(("grad_logits", "grad_q"), gradients, strict=True):
        for term in range(3):
            assert_close(gradient[term], GOLDEN[f"{case}/{variant}/{name}"][term], 1e-3)


@pytest.mark.parametrize("mode", ["mean", "argmax"])
@pytest.mark.parametrize("case", CASES)
def test_q_loss_is_the_published_one(case, mode):
    x = inputs(case)
    loss = partial(critic_loss, x, mode=mode)
    assert_close(loss(x["q"]), GOLDEN[f"{case}/q_loss_{mode}/loss"], 1e-4)
    assert_close(jax.grad(loss)(x["q"]), GOLDEN[f"{case}/q_loss_{mode}/grad_q"], 1e-3)


def test_golden_gradients_tell_each_option_apart():
    """The comparison above can fail: no two variants have nearly the same gradients."""
    gradients = [[GOLDEN[f"coin_T50/{name}/{part}"][:2] for part in ("grad_logits", "grad_q")] for name in VARIANTS]
    for one, other in itertools.combinations(map(np.stack, gradients), 2):
        assert np.abs(one - other).max() > 1e-2 * np.abs(one).max()


def episode(seed=0, steps=7, actions=3):
    rng = np.random.default_rng(seed)
    logits, q, op_logits, op_q = rng.normal(size=(4, steps + 1, actions)).astype(np.float32)
    return {
        "logits": logits,
        "q": q,
        "op_logits": op_logits,
        "op_q": op_q,
        "actions": rng.integers(0, actions, (steps, 2)),
        "rewards": rng.normal(size=(steps, 2)).astype(np.float32),
        "opponent_reward_baseline": np.float32(0.3),
    }


def test_discounted_sum_by_hand():
    np.testing.assert_allclose(discounted_sum(jnp.array([1.0, 2.0, 4.0]), 0.5), [3.0, 4.0, 4.0])
    np.testing.assert_allclose(discounted_sum(jnp.array([1.0, 2.0, 4.0]), 0.0), [1.0, 2.0, 4.0])
    np.testing.assert_allclose(discounted_sum(jnp.array([1.0, 2.0, 4.0]), 1.0), [7.0, 6.0, 4.0])


@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0])
def test_loaded_dice_gradient_is_the_formula(lam):
    """dRhat_t / dl_k = (gamma lam)^(k-t) A_k for k >= t, and exactly 0 before."""
    rng = np.random.default_rng(1)
    log_prob, returns, advantages = rng.normal(size=(3, 6)).astype(np.float32)
    returns_of = jax.jit(lambda log_prob: loaded_dice_returns(log_prob, returns, advantages, GAMMA, lam))
    jacobian = np.asarray(jax.jacobian(returns_of)(log_prob))
    for t in range(6):
        for k in range(6):
            expected = (GAMMA * lam) ** (k - t) * advantages[k] if k >= t else 0.0
            np.testing.assert_allclose(jacobian[t, k], expected, rtol=1e-5, atol=1e-7 if k >= t else 0)


def shaping_gradient_by_time(x, **options):
    """[k, A]: the gradient of the shaping term in our logits, advantage stopped."""
    shaping = lambda logits: policy_terms(x, logits, x["q"], stop_grad_advantage=True, **options)[1]
    return jax.jit(jax.grad(shaping))(x["logits"])


def only_the_advantage_of(x, t):
    """The episode with an advantage at step t alone: rewards are ours only there, and our Q-values are 0."""
    rewards = x["rewards"].copy()
    rewards[:, 0] = 0.0
    rewards[t, 0] = 1.0
    return x | {"rewards": rewards, "q": np.zeros_like(x["q"])}


@pytest.mark.parametrize("options", [{}, {"method": "n_step", "n_step": 3}], ids=["loaded-dice", "n_step"])
def test_our_present_action_does_not_count_in_the_opponents_q_value(options):
    """Qhat_t depends on what we do after step t, and on nothing before."""
    x = only_the_advantage_of(episode(), t=2)
    gradient = shaping_gradient_by_time(x, **options)
    np.testing.assert_array_equal(gradient[:3], 0.0)
    assert np.abs(gradient[3]).max() > 1e-3


def test_shaping_makes_the_opponents_good_deeds_pay():
    """By hand: the opponent did us good (A_0 = 1) with action 1; raising its later return raises log pihat.

    d(-loss)/dl_1 = A_0 (1 - pihat) gamma (R'_1 - V'_1) / steps, so with R' above V' the gradient pushes our
    action at step 1 up: we repay.
    """
    x = episode(steps=2, actions=2)
    x["rewards"] = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    x["actions"] = np.array([[0, 1], [0, 0]])
    x["logits"], x["q"], x["op_logits"], x["op_q"] = np.zeros((4, 3, 2), np.float32)
    gradient = jax.jit(jax.grad(lambda logits: policy_terms(x, logits, x["q"])[1]))(x["logits"])
    probability = np.exp(GAMMA) / (1 + np.exp(GAMMA))  # of action 1 at step 0, whose Qhat is gamma * 1
    in_l1 = -1.0 * (1 - probability) * GAMMA * (1.0 - 0.0) / 2
    np.testing.assert_allclose(gradient[1], [in_l1 * 0.5, -in_l1 * 0.5], rtol=1e-5)  # dl_1/dlogits is 1 - pi, -pi


@pytest.mark.parametrize("options", [{}, {"advantage": "MC", "method": "n_step", "n_step": 3}])
def test_a_batch_in_the_last_axis_is_vmap(options):
    episodes = [episode(seed) for seed in range(4)]
    terms = jax.jit(lambda x: policy_terms(x, x["logits"], x["q"], **options))
    one_by_one = jnp.stack([terms(x) for x in episodes], axis=-1)
    batch = jax.tree.map(lambda *x: np.stack(x, -1), *episodes)
    batch["opponent_reward_baseline"] = episodes[0]["opponent_reward_baseline"]
    np.testing.assert_allclose(terms(batch), one_by_one, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------- centring


@pytest.mark.parametrize(
    "options",
    [
        {"advantage": "TD0"},
        {"advantage": "GAE", "gae_lambda": 0.7, "opponent_gae_lambda": 0.4, "kindness": 0.2, "terminal_value": False},
        {"advantage": "MC", "method": "n_step", "n_step": 3},
    ],
    ids=lambda options: options["advantage"],
)
def test_with_centring_a_function_of_time_added_to_a_critic_changes_no_gradient(options):
    """Any to ours and any other to all the opponents'; without centring it does change them."""
    batch = jax.tree.map(lambda *x: jnp.stack(x, -1), *(episode(seed) for seed in range(8)))
    to_mine, to_theirs = 5 * np.random.default_rng(0).normal(size=(2, 8, 1, 1))

    @partial(jax.jit, static_argnums=0)
    def gradients(centered, mine_shift, their_shift):
        def loss(logits, q_values):
            mine = Side(logits, q_values + mine_shift, batch["actions"][:, 0], batch["rewards"][:, 0])
            theirs = opponent_side(batch)
            theirs = theirs._replace(q_values=theirs.q_values + their_shift)
            if centered:
                mine, theirs = (center_q_values(side, GAMMA) for side in (mine, theirs))
            terms = agent_policy_loss(mine, theirs, PolicyOptions(**options), 0.3)
            return (terms.actor + terms.shaping).mean()

        both = jax.grad(loss, argnums=(0, 1))(batch["logits"], batch["q"])
        return jnp.concatenate([x.ravel() for x in both])

    nothing = np.zeros((8, 1, 1))
    np.testing.assert_allclose(gradients(True, to_mine, to_theirs), gradients(True, nothing, nothing), atol=2e-6)
    for shifts in ((to_mine, nothing), (nothing, to_theirs)):
        assert np.abs(gradients(False, *shifts) - gradients(False, nothing, nothing)).max() > 1e-3


def test_centring_by_hand():
    """Two episodes of one step: the returns are 1 and 3, the taken Q-values 0 and 1, and V(s_T) is 4 and 2."""
    q_values = jnp.array([[[0.0, 7.0], [9.0, 1.0]], [[4.0, 2.0], [4.0, 2.0]]])  # [T+1, A, B]
    side = Side(jnp.zeros((2, 2, 2)), q_values, jnp.array([[0, 1]]), jnp.array([[1.0, 3.0]]))
    correction = center_q_values(side, GAMMA).q_values - q_values
    np.testing.assert_allclose(correction, np.broadcast_to([[[1.5]], [[-3.0]]], (2, 2, 2)))


def test_kindness_adds_a_share_of_the_opponents_advantage_to_the_actor_term_alone():
    x = episode()
    of = lambda kindness: policy_terms(x, x["logits"], x["q"], kindness=kindness, opponent_gae_lambda=0.6)
    (actor, *others), (kinder, *same) = of(0.0), of(0.5)
    assert others == same
    values = state_values(x["op_logits"], x["op_q"]).at[-1].set(0.0)
    log_prob = select(jax.nn.log_softmax(x["logits"])[:-1], x["actions"][:, 0])
    theirs = gae_advantages(x["rewards"][:, 1], values, GAMMA, 0.6)
    np.testing.assert_allclose(kinder - actor, -0.5 * (log_prob * theirs).mean(), rtol=1e-4)


def targets(x, **options):
    return q_value_targets(opponent_side(x, player=0), **(PUBLISHED_TARGETS | options))


@pytest.mark.parametrize("mode", ["mean", "argmax"])
@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_td_lambda_targets_are_the_recursion(mode, terminal, lam):
    """G_t = r_t + gamma ((1 - lambda) N_{t+1} + lambda G_{t+1}), with G_T = N_T."""
    x = episode(3)
    q, actions = x["op_q"], x["actions"][:, 0]
    following = [q[t].max() if mode == "argmax" else q[t, actions[t]] for t in range(1, len(actions))]
    last = q[-1].max() if mode == "argmax" else state_values(x["op_logits"], q)[-1]
    following.append(last if terminal else 0.0)
    expected, later = [], following[-1]
    for reward, value in reversed(list(zip(x["rewards"][:, 0], following, strict=True))):
        later = reward + GAMMA * ((1 - lam) * value + lam * later)
        expected.append(later)
    actual = targets(x, mode=mode, td_lambda=lam, terminal_value=terminal)
    np.testing.assert_allclose(actual, expected[::-1], rtol=1e-5)


def test_q_loss_is_huber_on_the_scaled_error():
    x = episode(5)
    error = (select(x["q"][:-1], x["actions"][:, 0]) - targets(x)) / 2.0
    huber = np.where(np.abs(error) < 1, 0.5 * error**2, np.abs(error) - 0.5)
    np.testing.assert_allclose(critic_loss(x, x["q"], 2.0), huber.mean(), rtol=1e-5)
    assert critic_loss(x, x["q"], 2.0) < critic_loss(x, x["q"], 1.0)


WINDOWS = [{"method": "n_step", "n_step": n} for n in (0, 8, 10)]


@pytest.mark.parametrize("options", [{"advantage": "TD1"}, {"method": "dice"}, *WINDOWS])
def test_what_does_not_exist_is_refused(options):
    x = episode()
    with pytest.raises(ValueError, match="must"):
        policy_terms(x, x["logits"], x["q"], **options)
    with pytest.raises(ValueError, match="must be 'mean' or 'argmax'"):
        targets(x, mode="max")


# ----------------------------------------------------------------------------------------------- advantages


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 1.0])
def test_gae_is_the_discounted_sum_of_td_errors(gae_lambda):
    rng = np.random.default_rng(6)
    rewards, values = rng.normal(size=5).astype(np.float32), rng.normal(size=6).astype(np.float32)
    expected, later = [], 0.0
    for t in reversed(range(5)):
        later = rewards[t] + GAMMA * values[t + 1] - values[t] + GAMMA * gae_lambda * later
        expected.append(later)
    np.testing.assert_allclose(gae_advantages(rewards, values, GAMMA, gae_lambda), expected[::-1], rtol=1e-4)


def test_td0_and_mc_are_the_ends_of_gae():
    case = "coin_T50"
    x = inputs(case)
    terms, gradients = terms_and_gradients(x, advantage="GAE", gae_lambda=0.0)
    assert_close(terms, GOLDEN[f"{case}/loaded_dice_td0/losses"], 1e-4)
    assert_close(gradients[0], GOLDEN[f"{case}/loaded_dice_td0/grad_logits"], 1e-3)
    finite = {"terminal_value": False, "stop_grad_advantage": True}
    (actor, *_), gradients = terms_and_gradients(x, advantage="GAE", gae_lambda=1.0, **finite)
    assert_close(actor, GOLDEN[f"{case}/loaded_dice_mc/losses"][0], 1e-4)
    assert_close(gradients[0][0], GOLDEN[f"{case}/loaded_dice_mc/grad_logits"][0], 1e-3)


def test_the_differentiable_return_with_gae_by_hand():
    """T = 4, gamma 1/2, lambda 1/2: TD errors -5, -1, 2.5, 7, each counted with a quarter a step."""
    rewards, values = jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([8.0, 4.0, 2.0, 1.0])
    opponent = Side(jnp.zeros((5, 1)), jnp.append(values, 9.0)[:, None], jnp.zeros(4, int), rewards)  # one action
    options = PolicyOptions(discount=0.5, lam=1.0, opponent_gae_lambda=0.5, differentiable_current_reward=True)
    advantages = opponent_advantages(opponent, options)
    np.testing.assert_allclose(advantages, [-4.984375, 0.0625, 4.25, 7.0])
    returns = lambda log_prob: differentiable_q_values(log_prob, opponent, advantages, options, 0.0)
    np.testing.assert_array_equal(returns(jnp.zeros(4)), [4.0, 6.0, 8.0, 8.0])  # forward, the return
    jacobian = jax.jacobian(returns)(jnp.zeros(4))
    np.testing.assert_allclose(jacobian[0], [-4.984375, 0.03125, 1.0625, 0.875])
    np.testing.assert_allclose(jacobian[2], [0.0, 0.0, 4.25, 3.5])


@pytest.mark.parametrize(
    ("stopped", "temperature", "gae_lambda"), [(False, 1.0, 0.0), (False, 2.5, 0.5), (True, 2.5, 1.0)]
)
def test_the_gradient_is_a_sum_of_weighted_advantages(stopped, temperature, gae_lambda):
    """A_t + (kindness + gamma / temperature E_t) A'_t, E_t = sum_{k<t} (gamma lam)^(t-1-k) (1 - pihat_k) delta_k.

    With the normalizer stopped there is no pihat: Advantage Alignment (Duque et al. 2025, ICLR).
    """
    x = episode(7, steps=9)
    mine, opponent = Side(x["logits"], x["q"], x["actions"][:, 0], x["rewards"][:, 0]), opponent_side(x)
    options = PolicyOptions(
        advantage="GAE", gae_lambda=0.8, opponent_gae_lambda=gae_lambda, op_softmax_temp=temperature,
        stop_grad_normalizing_constant=stopped, stop_grad_advantage=True, terminal_value=False, kindness=0.3,
    )  # fmt: skip

    def td_errors(side):
        values = np.array(state_values(side.logits, side.q_values))
        values[-1] = 0.0
        return side.rewards + GAMMA * values[1:] - values[:-1]

    steps = range(len(mine.rewards))
    gae = lambda errors, lam: np.array([sum((GAMMA * lam) ** (k - t) * errors[k] for k in steps[t:]) for t in steps])
    from_next = [sum(GAMMA ** (k - t) * opponent.rewards[k] for k in steps if k >= t) for t in steps]
    counts = []
    for t in steps:
        q = opponent.q_values[t].copy()
        q[opponent.actions[t]] = from_next[t]  # r'_t + gamma R'_{t+1}
        counts.append(1.0 if stopped else 1.0 - jax.nn.softmax(q / temperature)[opponent.actions[t]])
    good = np.array(counts) * td_errors(mine)
    trace = np.array([sum((GAMMA * LAM) ** (t - 1 - k) * good[k] for k in range(t)) for t in steps])
    weights = gae(td_errors(mine), 0.8) + (0.3 + GAMMA / temperature * trace) * gae(td_errors(opponent), gae_lambda)
    product = lambda y: -(select(jax.nn.log_softmax(y, axis=1)[:-1], mine.actions) * weights).mean()
    loss = lambda y: sum(agent_policy_loss(mine._replace(logits=y), opponent, options)[:2])
    gradient, expected = (jax.jit(jax.grad(each))(x["logits"]) for each in (loss, product))
    np.testing.assert_allclose(gradient, expected, atol=1e-5 * float(np.abs(expected).max()))


def test_gae_in_the_shaping_term_would_pay_for_what_the_opponent_did_not_do():
    """The opponent's actions change nothing, so there is nothing to shape: why the TD error stays there.

    Two steps, our action changes both rewards; all sixteen episodes with their probabilities, exact critics.
    """
    ours, theirs, p = jnp.array([1.0, 3.0]), jnp.array([2.0, -1.0]), 0.4  # p: of our action 1
    a, b, c, d = jnp.meshgrid(*[jnp.arange(2)] * 4, indexing="ij")
    mine_played, opponent_played = jnp.stack([a, b]).reshape(2, 16), jnp.stack([c, d]).reshape(2, 16)
    pi = jnp.array([1 - p, p])
    probability = jnp.prod(pi[mine_played], 0) / 4  # the opponent plays uniformly
    everywhere = lambda q: jnp.broadcast_to(jnp.asarray(q)[:, :, None], (3, 2, 16))
    q_mine = everywhere([ours + GAMMA * pi @ ours, ours, jnp.zeros(2)])
    q_theirs = everywhere(jnp.stack([jnp.full(2, (1 + GAMMA) * pi @ theirs), jnp.full(2, pi @ theirs), jnp.zeros(2)]))
    opponent = Side(jnp.zeros((3, 2, 16)), q_theirs, opponent_played, theirs[mine_played])
    options = PolicyOptions(
        advantage="GAE", gae_lambda=0.9, opponent_gae_lambda=0.5, stop_grad_advantage=True,
        terminal_value=False, stop_grad_normalizing_constant=True,
    )  # fmt: skip

    def expected_loss(logits, which):
        mine = Side(logits[:, :, None] + jnp.zeros(16), q_mine, mine_played, ours[mine_played])
        both = dict(zip(("actor", "shaping"), own_advantages(mine, options), strict=True))
        log_prob = select(jax.nn.log_softmax(mine.logits, axis=1)[:-1], mine_played)
        taken_q = differentiable_q_values(log_prob, opponent, opponent_advantages(opponent, options), options, 0.0)
        return shaping_loss(taken_q, opponent, both[which], options) @ probability

    logits = jnp.broadcast_to(jnp.log(pi), (3, 2))
    gradient = jax.jit(jax.grad(expected_loss), static_argnums=1)
    np.testing.assert_allclose(gradient(logits, "shaping"), 0.0, atol=1e-6)
    assert jnp.abs(gradient(logits, "actor")).max() > 0.1


def test_nothing_is_shaped_in_an_episode_of_one_step():
    """Our only action is simultaneous with the opponent's only one."""
    x = episode(steps=1)
    shaping = lambda logits: policy_terms(x, logits, x["q"], stop_grad_advantage=True)[1]
    loss, gradient = jax.jit(jax.value_and_grad(shaping))(x["logits"])
    assert jnp.isfinite(loss)
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("field", Side._fields[:4])
def test_a_batch_in_the_wrong_place_is_refused(field):
    batch = jax.tree.map(lambda *x: jnp.stack(x, -1), *map(episode, range(4)))
    mine = Side(batch["logits"], batch["q"], batch["actions"][:, 0], batch["rewards"][:, 0])
    wrong = mine._replace(**{field: jnp.moveaxis(getattr(mine, field), -1, 0)})
    for sides in ((wrong, opponent_side(batch)), (mine, wrong)):
        with pytest.raises(ValueError, match="has the shape .* but must have"):
            agent_policy_loss(*sides)
    with pytest.raises(ValueError, match="a side has no logits"):
        agent_policy_loss(mine, opponent_side(batch)._replace(logits=None))
