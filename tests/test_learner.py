"""The update of ipd.py's iteration: against two whole iterations of the published code, and option by option.

The iteration is the scripts' own; in place of playing it gets the episodes of the golden data.
"""

from functools import cache
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import setups

import ipd
from loqa import learner
from loqa.agent import AgentParams, batch_last
from loqa.learner import TrainState
from loqa.losses import Side
from loqa.rollout import Episodes
from loqa.tools.import_agents import gru_network_params

# Parameters, episodes, gradients and results of two iterations of the published code (hidden size 12 and 8).
GOLDEN = np.load(Path(__file__).parent / "golden" / "coin_update.npz")
BATCH, STEPS = 4, 20
PUBLISHED = ["hp=loqa_iclr_published", f"hp.batch_size={BATCH}", f"hp.game.game_length={STEPS}"]
PUBLISHED += ["hp.actor.hidden_size=12", "hp.qvalue.hidden_size=8", "hp.actor.train.clip_grad.max_norm=0.1"]
PUBLISHED += ["hp.agent_replay_buffer.mode=disabled"]
# A step of SGD at rate 1 is minus the gradient, and a critic at rate 0 leaves it to be seen.
GRADIENT = ["hp.actor.train.optimizer=sgd", "hp.actor.train.lr_loss_actor=1", "hp.actor.train.lr_loss_actor_agent=1"]
GRADIENT += ["hp.actor.train.lr_loss_actor_opponent=1", "hp.actor.train.clip_grad.max_norm=1e9"]
GRADIENT += ["hp.differentiable_opponent.exclude_after_step=3"]
CLIPPED = "hp.actor.train.clip_grad.max_norm=0.1"
NO_CRITIC = ["hp.qvalue.train.lr_loss_qvalue=0"]
NAIVE = ["hp.just_self_play=false", "hp.agent_0=naive"]


def make_hp(*overrides):
    return setups.make_hp("coin", *PUBLISHED, *overrides)


AGENT = setups.make_agent("coin", make_hp())


def golden_params(prefix):
    """The golden parameters `prefix` in our layout: the GRU's gates concatenated."""
    network = lambda head: gru_network_params(GOLDEN, f"{prefix}/{head}/ScanPOLAGruCell_0/")
    return AgentParams(network("actor_head"), network("qvalue_head"))


def golden_episodes():
    """The golden episodes, with the opponents' logits and Q-values by our networks."""
    observations = GOLDEN["obs"].reshape(BATCH, STEPS + 1, 2, -1)
    opponents = golden_params("opponents")
    time_first = lambda x: jnp.moveaxis(jnp.asarray(x), 0, 1)
    of_opponents = lambda f: batch_last(time_first(jax.vmap(f)(opponents, observations[:, :, 1])))
    played = [(time_first(GOLDEN["act"][:, :, i]), time_first(GOLDEN["rew"][:, :, i])) for i in (0, 1)]
    return Episodes(
        Side(None, None, *played[0], batch_last(time_first(observations[:, :, 0]))),
        Side(of_opponents(AGENT.logits), of_opponents(AGENT.q_values), *played[1]),
    )


PARAMS, TARGET, EPISODES = golden_params("params"), golden_params("target"), golden_episodes()


def start(hp, params=PARAMS):
    """The learner before the first golden iteration."""
    return learner.init_learner(AGENT, hp, params)._replace(target_params=TARGET)


@cache
def program(rest):
    """One compiled iteration on given episodes, a function of the floats among the hyperparameters."""

    def step(floats, me, iteration, episodes):
        hp = setups.together(rest, floats)
        state = TrainState(jax.random.key(0), jnp.asarray(iteration), (me,) * hp.num_learners)
        with mock.patch.object(ipd, "play", lambda *args: episodes):
            return ipd.make_iteration(hp, AGENT)(state).learners[0]

    return jax.jit(step)


def iterate(hp, me, iteration=0):
    """The learner after an iteration on the golden episodes."""
    rest, floats = setups.apart(hp)
    return program(rest)(floats, me, iteration, EPISODES)


@cache
def gradient(*overrides, iteration=0):
    """The gradient of the policy's step."""
    hp = make_hp(*GRADIENT, *NO_CRITIC, *overrides)
    after = iterate(hp, start(hp), iteration).params
    return jax.tree.map(lambda before, after: before - after, PARAMS, after)


def assert_trees_close(actual, expected, relative):
    """Each array relative to its own largest entry, or the tree's for arrays that are nearly 0."""
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.abs(np.asarray(a) - e).max() <= relative * max(np.abs(e).max(), 1e-3 * largest)


def distance(a, b):
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_networks_unroll_as_published():
    side = AGENT.side(PARAMS, EPISODES.mine)
    log_probs, q_values = jax.nn.log_softmax(side.logits[..., 0]), side.q_values[..., 0]
    np.testing.assert_allclose(log_probs, GOLDEN["unroll0/logp_seq"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(q_values, GOLDEN["unroll0/qvalue_seq"], rtol=1e-4, atol=1e-5)
    values = (jnp.exp(log_probs) * q_values).sum(-1)
    np.testing.assert_allclose(values, GOLDEN["unroll0/value_seq"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("golden", "overrides"),
    [("raw", ()), ("weight2", ("hp.opponent_differentiation_weight=2",)), ("clip0.1", (CLIPPED,))],
)
def test_the_policy_gradient_is_the_published_one(golden, overrides):
    # A difference of parameters has their rounding in it: 1e-7 beside entries of 1e-3.
    assert_trees_close(gradient(*overrides), golden_params(f"grad_actor/{golden}"), 1e-3)


def test_the_clipped_gradient_has_the_norm():
    np.testing.assert_allclose(optax.tree.norm(gradient(CLIPPED)), 0.1, rtol=1e-4)


def test_critic_loss_and_gradient_are_the_published_ones():
    loss = lambda params: ipd.critic_loss(make_hp(), AGENT, params, TARGET, EPISODES.mine)
    value, grad = jax.jit(jax.value_and_grad(loss))(PARAMS)
    np.testing.assert_allclose(value, GOLDEN["q_loss"], rtol=1e-4)
    assert_trees_close(grad, golden_params("grad_q/raw"), 1e-3)


def without_rounding_noise(params):
    """Zeros in place of the parameters whose golden gradient is 0 but for rounding.

    Adam makes a full step of such a gradient too, in the direction of the rounding.
    """
    golden = golden_params("grad_actor/raw")
    is_noise = jax.tree.map(lambda g: np.abs(g) < 1e-6 * np.abs(g).max(), golden)
    assert sum(n.sum() for n in jax.tree.leaves(is_noise)) < 0.2 * sum(n.size for n in jax.tree.leaves(is_noise))
    return jax.tree.map(lambda n, x: np.where(n, 0.0, x), is_noise, params)


def test_two_iterations_are_the_published_ones():
    hp, policy_alone = make_hp(), make_hp(*NO_CRITIC)

    def assert_published(params, name):
        expected = without_rounding_noise(golden_params(name))
        assert_trees_close(without_rounding_noise(params), expected, 1e-4)

    me = start(hp)
    for k in (1, 2):
        assert_published(iterate(policy_alone, me, k - 1).params, f"iteration{k}/after_actor")
        me = iterate(hp, me, k - 1)
        assert_published(me.params, f"iteration{k}/after_q")
        assert_published(me.target_params, f"iteration{k}/target")


def test_the_golden_gradient_tells_a_mistake_apart():
    """The comparisons above can fail; test_losses.py has one for each option."""
    golden, wrong = golden_params("grad_actor/raw"), gradient("hp.opponent_differentiation_weight=0.5")
    assert distance(wrong, golden) > 1e-2 * max(np.abs(x).max() for x in jax.tree.leaves(golden))


def test_logged_norms_are_the_published_ones():
    hp = make_hp()
    with mock.patch.object(ipd, "play", lambda *args: EPISODES):
        state = TrainState(jax.random.key(0), jnp.array(0), (start(hp),))
        metrics = jax.jit(ipd.make_evaluation(hp, AGENT, lambda evaluation: {}))(jax.random.key(0), state)
    np.testing.assert_allclose(metrics["grad_agent0_norm"], GOLDEN["grad_agent_norm"], rtol=1e-3)
    np.testing.assert_allclose(metrics["grad_opponent0_norm"], GOLDEN["grad_opponent_norm"], rtol=1e-3)
    np.testing.assert_allclose(metrics["agent0_entropy"], GOLDEN["entropy"], rtol=1e-4)
    np.testing.assert_allclose(metrics["loss_agent_0_qvalue"], GOLDEN["q_loss"], rtol=1e-4)


SEPARATE = "hp.actor.train.separate=enabled"
NO_SHAPING_STEP, NO_AGENT_STEP = "hp.actor.train.lr_loss_actor_opponent=0", "hp.actor.train.lr_loss_actor_agent=0"


def test_a_naive_learner_raises_its_own_return_only():
    agent_alone = gradient(SEPARATE, NO_SHAPING_STEP)
    shaping_alone = gradient(SEPARATE, NO_AGENT_STEP)
    assert optax.tree.norm(shaping_alone) > 1
    assert distance(gradient(*NAIVE), agent_alone) < 1e-5
    assert distance(gradient(), jax.tree.map(jnp.add, agent_alone, shaping_alone)) < 1e-5
    assert optax.tree.norm(gradient(*NAIVE, SEPARATE, NO_AGENT_STEP)) == 0
    kind = "hp.actor.train.kindness=0.3"
    assert distance(gradient(*NAIVE, kind), agent_alone) < 1e-5 < distance(gradient(kind), gradient())


def test_shaping_ends_after_exclude_after_step():
    assert distance(gradient(iteration=2), gradient()) == 0
    assert distance(gradient(iteration=3), gradient(*NAIVE)) < 1e-5


def test_the_shaping_optimizer_waits_after_exclude_after_step():
    """With an optimizer of its own, no momentum of earlier iterations moves the parameters."""
    options = SEPARATE, NO_AGENT_STEP, "hp.actor.train.lr_loss_actor_opponent=0.1", *NO_CRITIC
    hp = make_hp(*options, "hp.differentiable_opponent.exclude_after_step=1")
    once = iterate(hp, start(hp), 0)
    assert distance(once.params, PARAMS) > 1e-2
    assert distance(iterate(hp, once, 1).params, once.params) == 0


def test_separate_optimizers_have_their_own_rates_and_clip_alone():
    """With SGD a step is the sum of the two clipped gradients, each times its own rate."""
    options = SEPARATE, "hp.opponent_differentiation_weight=3"
    clip = lambda gradient: jax.tree.map(lambda x: x * 0.1 / optax.tree.norm(gradient), gradient)
    agent_part = clip(gradient(*options, NO_SHAPING_STEP))
    shaping_part = clip(gradient(*options, NO_AGENT_STEP))
    rates = "hp.actor.train.lr_loss_actor_agent=0.5", "hp.actor.train.lr_loss_actor_opponent=0.25"
    step = gradient(*options, CLIPPED, *rates)
    assert distance(step, jax.tree.map(lambda a, s: 0.5 * a + 0.25 * s, agent_part, shaping_part)) < 1e-6


def test_a_stopped_advantage_leaves_the_q_network_to_its_own_optimizer():
    assert optax.tree.norm(gradient().qvalue) > 1e-2
    assert optax.tree.norm(gradient("hp.actor.train.stop_grad_advantage=true").qvalue) == 0


def test_the_q_network_learns_from_the_replayed_episodes():
    hp = make_hp("hp.qvalue.replay_buffer.mode=enabled", "hp.qvalue.replay_buffer.capacity=1000")
    stored = jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), EPISODES.mine._replace(rewards=EPISODES.mine.rewards + 1))
    me = start(hp)
    ring = me.replay
    for _ in range(20):
        ring = learner.buffers.add_batch(ring, stored)
    fresh, other = iterate(hp, me), iterate(hp, me._replace(replay=ring))
    assert distance(fresh.params.actor, other.params.actor) < 1e-6
    assert distance(fresh.params.qvalue, other.params.qvalue) > 1e-4


def test_opponents_are_constants():
    """No gradient flows into the opponents' logits and Q-values, though in self-play they are our own."""

    def loss(opponent):
        return sum(ipd.policy_terms(make_hp(), AGENT, PARAMS, EPISODES._replace(opponent=opponent)))

    logits, q_values = EPISODES.opponent[:2]
    of_two = lambda logits, q_values: loss(EPISODES.opponent._replace(logits=logits, q_values=q_values))
    assert optax.tree.norm(jax.jit(jax.grad(of_two, argnums=(0, 1)))(logits, q_values)) == 0


def test_target_moves_by_ema():
    moved = learner.step_target(start(make_hp()), 0.25).target_params
    expected = jax.tree.map(lambda t, p: 0.25 * t + 0.75 * p, TARGET, PARAMS)
    assert distance(moved, expected) < 1e-6
