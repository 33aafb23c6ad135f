"""Naive, LOLA and POLA learners: gradients against finite differences and closed forms, and cases by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from setups import make_agent, make_hp, training

from loqa.agent import AgentParams
from loqa.baselines import exact
from loqa.baselines.pola import descend, dice_losses, make_objective, mean_kl, player_loss
from loqa.games.ipd import PAYOFFS, MatrixGame
from loqa.losses import Side
from loqa.run.agents import save_agent
from loqa.run.config import ConfigError
from loqa.tools.players import load_player

GAMMA = 0.96
# A table of logits and a small critic: policies of which everything is known, and quick to compile.
TABLE = ("~hp.actor.hidden_size", "~hp.actor.layers_before_gru", "~hp.qvalue.layers_before_gru")
TABLE += ("hp.actor.network=logits", "hp.qvalue.network=mlp", "hp.qvalue.hidden_size=4")


def simulated_values(theta, other, payoffs, steps, xp=np):
    """Discounted sums of rewards [2], from the probabilities of the four outcomes step by step."""
    mine, theirs = 1 / (1 + xp.exp(-theta)), 1 / (1 + xp.exp(-other))
    seen = ((0, 0), (1, 1), (2, 3), (3, 2), (4, 4))  # START, CC, CD, DC, DD as both see them
    joint = xp.stack(
        [xp.stack([(a if x else 1 - a) * (b if y else 1 - b) for x, y in ((1, 1), (1, 0), (0, 1), (0, 0))])
         for a, b in ((mine[i], theirs[j]) for i, j in seen)]
    )  # fmt: skip
    outcome, total = joint[0], 0.0
    rewards = xp.stack([xp.asarray(payoffs[0]), xp.asarray(payoffs[1])[np.array([0, 2, 1, 3])]])
    for t in range(steps):
        total = total + GAMMA**t * rewards @ outcome
        outcome = outcome @ joint[1:]
    return total


def numeric_gradient(function, x, step):
    moves = step * np.eye(x.size)
    return np.array([(function(x + move) - function(x - move)) / (2 * step) for move in moves])


def value_functions(game):
    """Of both players, by the own policy and the other's: in closed form, and simulated."""
    payoffs = [PAYOFFS[game], PAYOFFS[game][::-1]]
    closed = [lambda a, b, p=p: exact.exact_values(a, b, p, GAMMA)[0] for p in payoffs]
    return closed, [lambda a, b, p=p: simulated_values(a, b, p, 400)[0] for p in payoffs]


@pytest.fixture
def policies():
    return np.random.default_rng(0).normal(size=(2, 5))


# ------------------------------------------------------------------------------------------------------ exact


@pytest.mark.parametrize("game", ["ipd", "battle_of_the_sexes"])
def test_the_closed_form_is_the_discounted_sum(game, policies):
    with jax.enable_x64(True):
        values = exact.exact_values(*policies, PAYOFFS[game], GAMMA)
    np.testing.assert_allclose(values, simulated_values(*policies, PAYOFFS[game], 600), rtol=1e-9)


def test_lola_and_pola_agree_with_finite_differences(policies, monkeypatch):
    (value, other_value), (simulated, other_simulated) = value_functions("battle_of_the_sexes")
    theta, other = policies
    s = exact.PUBLISHED["lola"]._replace(lr_inner=0.5, lr_outer=2.0)

    def looked_ahead(x):
        return simulated(x, other + s.lr_inner * numeric_gradient(lambda y: other_simulated(y, x), other, 1e-4))

    def update(learner, settings, proximal_steps=1):
        monkeypatch.setattr(exact, "MAX_PROXIMAL_STEPS", proximal_steps)
        with jax.enable_x64(True):
            ahead = lambda x: exact.look_ahead(x, other, value, other_value, settings.lr_inner)
            return np.array(jax.jit(lambda x: learner(x, ahead, settings))(theta))

    lola, naive = (update(exact.lola, s._replace(lr_inner=rate)) for rate in (s.lr_inner, 0.0))
    one_step, two_steps = (update(exact.pola, s._replace(beta=beta), n) for n, beta in ((1, 0.0), (2, 0.7)))
    np.testing.assert_allclose(lola, theta + 2.0 * numeric_gradient(looked_ahead, theta, 1e-3), rtol=1e-4)
    own = numeric_gradient(lambda x: simulated(x, other), theta, 1e-4)
    np.testing.assert_allclose(naive, theta + 2.0 * own, rtol=1e-6)
    assert np.abs(lola - naive).max() > 0.1
    # POLA without its divergence, after one step, is LOLA; the divergence's gradient is 0 there.
    np.testing.assert_allclose(one_step, lola, rtol=1e-12)

    def kl(x):
        p, q = 1 / (1 + np.exp(-theta)), 1 / (1 + np.exp(-x))
        return np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))

    expected = lola + 2.0 * numeric_gradient(lambda x: looked_ahead(x) - 0.7 * kl(x), lola, 1e-3)
    np.testing.assert_allclose(two_steps, expected, rtol=1e-4)


def test_kl_divergences_by_hand():
    half, quarter = jnp.zeros(5), jnp.full(5, jnp.log(1 / 3))  # p = 1/2 and 1/4
    by_hand = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    np.testing.assert_allclose(exact.kl_divergence(half, quarter), by_hand, rtol=1e-5)
    logs = [jnp.log(jnp.broadcast_to(jnp.array([p, 1 - p])[:, None], (3, 2, 4))) for p in (0.5, 0.25)]
    np.testing.assert_allclose(mean_kl(*logs), by_hand, rtol=1e-5)


def test_exact_learners_end_as_published(tmp_path):
    """On POLA's payoffs LOLA and POLA find tit-for-tat, and naive learners defect; the files of the tool."""
    payoffs, key = exact.GAMES["pola"], jax.random.key(0)
    results = {name: exact.train(key, name, payoffs, s, 3) for name, s in exact.PUBLISHED.items()}
    assert {name: int(x["tit_for_tat"].all(1).sum()) for name, x in results.items()} == dict(naive=0, lola=3, pola=3)
    assert results["naive"]["p_cooperate"].max() < 0.05
    table = exact.write(tmp_path, "pola", jax.device_get(results), exact.PUBLISHED)
    assert "| lola | pola | 3 of 3 | 1.00 |" in table
    assert {path.name for path in tmp_path.iterdir()} == {"exact.csv", "exact.png", "exact.pdf"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--game chess", "--game: invalid choice: 'chess'"),
        ("--beta -1", "--beta: '-1' must be a number of at least 0 and below 2^32"),
    ],
)
def test_what_exact_refuses(words, sentence, refusal):
    assert sentence in refusal("exact", *words.split())


# ---------------------------------------------------------------------------------------------------- sampled


def test_dice_losses_by_hand():
    """Gradient -discount^t A_t, and second derivatives -discount^u A_u with u the later of the two steps."""
    rewards, values = jnp.array([1.0, 0.0, 2.0]), jnp.array([0.5, 1.0, 0.0, 4.0])
    g2 = 2 + 0.5 * 4
    g1, g0 = 0.5 * g2, 1 + 0.25 * g2
    advantages = np.array([g0 - 0.5, g1 - 1.0, g2])
    policy, value = (lambda log_prob, i=i: dice_losses(log_prob, rewards, values, 0.5)[i] for i in (0, 1))
    log_prob, weighted = jnp.log(jnp.array([0.3, 0.6, 0.9])), advantages * [1, 0.5, 0.25]
    np.testing.assert_allclose(value(log_prob), (advantages**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(policy))(log_prob), -weighted, rtol=1e-5)
    later = np.maximum.outer(range(3), range(3))
    np.testing.assert_allclose(jax.jit(jax.hessian(policy))(log_prob), -weighted[later], rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda v: dice_losses(log_prob, rewards, v, 0.5)[1]))(values)
    np.testing.assert_allclose(gradient, [*-2 * advantages, 0.0], rtol=1e-6)  # V_T is a constant


def zeros(agent):
    return jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(agent.init, jax.random.key(0)))


def test_an_inner_step_by_hand():
    """Two episodes of one step from a uniform policy and value 0: descending -mean A (onehot - 1/2), no KL yet."""
    hp = make_hp("ipd", "hp=pola", *TABLE, "hp.game_length=1")
    agent = make_agent("ipd", hp)
    params = zeros(agent)
    nothing = None, None
    mine = Side(*nothing, jnp.array([[0, 1]]), jnp.array([[1.0, 3.0]]), jnp.zeros((2, 4, 2)))
    theirs = Side(*nothing, jnp.array([[1, 1]]), jnp.array([[0.0, 0.0]]), jnp.zeros((2, 4, 2)))
    loss = partial(player_loss, agent=agent, discount=GAMMA, beta=10.0)
    gradient = jax.jit(jax.grad(loss))(params, params, params, mine, theirs)
    after = descend(params, gradient, AgentParams(0.1, 0.0))
    expected = np.zeros((5, 2))
    expected[0] = 0.1 * (1.0 * np.array([0.5, -0.5]) + 3.0 * np.array([-0.5, 0.5])) / 2
    np.testing.assert_allclose(after.actor["params"]["logits"], expected, atol=1e-7)
    assert all((x == 0).all() for x in jax.tree.leaves(after.qvalue))


def test_the_sampled_gradient_is_the_exact_one():
    """LOLA-DiCE of tables of logits, within its standard error."""
    steps, batches, lr_inner = 5, 64, 1.0
    sizes = f"hp.game_length={steps}", "hp.batch_size=2048", f"hp.lookahead.lr_inner={lr_inner}"
    hp = make_hp("ipd", "hp=lola", *TABLE, *sizes, "hp.game_name=ipd", "hp.payoffs=null")
    agent = make_agent("ipd", hp)
    tables = np.random.default_rng(1).normal(size=(2, 5, 2)).astype(np.float32)
    pair = [zeros(agent)._replace(actor={"params": {"logits": jnp.array(x)}}) for x in tables]

    def sampled(key):
        gradient = jax.grad(make_objective(hp, agent))(pair[0], *pair, MatrixGame(), key)
        return -gradient.actor["params"]["logits"]

    def value(a, b):
        return simulated_values(a[:, 0] - a[:, 1], b[:, 0] - b[:, 1], PAYOFFS["ipd"], steps, jnp)[0]

    ahead = lambda a, b: value(a, b + lr_inner * jax.grad(value)(b, a))
    expected, naive = jax.jit(lambda *x: (jax.grad(ahead)(*x), jax.grad(value)(*x)))(*tables)
    samples = jax.jit(lambda keys: jax.lax.map(sampled, keys))(jax.random.split(jax.random.key(2), batches))
    errors = samples.std(0, ddof=1) / batches**0.5
    assert np.abs((samples.mean(0) - expected) / errors).max() < 4
    assert np.median(errors) < 0.01
    assert np.abs((expected - naive) / errors).max() > 20  # what looking ahead adds is seen


# -------------------------------------------------------------------------------------------------------- runs


def test_an_update_and_its_agents_in_the_league(tmp_path):
    small = "hp.batch_size=4", "hp.game_length=3", "hp.lookahead.outer_steps=2"
    hp, _, repeat, state = training("ipd", "hp=pola", *TABLE, *small)
    assert hp.env_steps_per_iteration == 2 * 2 * (1 + 2) * 4 * 3  # learners, outer steps, batches, B, T
    learners = repeat(state, 1).learners
    for me in learners:  # two steps of Adam each
        assert 0 < jnp.abs(me.params.actor["params"]["logits"]).max() <= 2 * 0.003 * 1.01
    path = tmp_path / "agent_1_000001.npz"
    save_agent(path, learners[1].params, {"game": "ipd", "hp": hp.model_dump()})
    game, player = load_player(path)
    assert (game.payoffs, player.kind) == (exact.GAMES["pola"], "pola")


def test_lola_is_one_step_without_divergences():
    for script in ("ipd", "coin"):
        look = make_hp(script, "hp=lola").lookahead
        assert (look.inner_steps, look.outer_steps, look.inner_beta, look.outer_beta) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["hp=pola", "hp.agent_1=loqa"], "hp.agent_1 is 'loqa', but must be lola or pola"),
        (["hp.agent_0=lola"], "hp.agent_0 is 'lola', but must be lola or pola with the presets of these names"),
        (["hp=lola", "hp.just_self_play=true"], "hp.just_self_play is true, but must be false for LOLA and POLA"),
        (["hp=lola", "hp.epsilon_greedy=0.1"], "hp.epsilon_greedy is 0.1, but must be 0"),
    ],
)
def test_what_the_presets_refuse(overrides, sentence):
    with pytest.raises(ConfigError) as caught:
        make_hp("ipd", *overrides)
    assert sentence in str(caught.value)
