"""The update that both scripts call: against two whole iterations of the published code, and option by option."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loqa import learner
from loqa.agent import Agent, AgentParams
from loqa.learner import Settings
from loqa.networks import GRUNetwork
from loqa.rollout import Episodes
from loqa.tools.import_agents import gru_network_params

# Parameters, episodes, gradients and results of two iterations of the published code (hidden size 12 and 8).
GOLDEN = np.load(Path(__file__).parent / "golden" / "coin_update.npz")
BATCH, STEPS = 4, 20
AGENT = Agent(GRUNetwork(4, 12, 2), GRUNetwork(4, 8, 2), observation_size=36, game_length=STEPS)
SETTINGS = Settings(discount=0.96, lam=0.9, entropy_beta=0.1, clip_norm=0.1, lr_actor=1e-3, lr_q=1e-2)


def golden_params(prefix):
    """The golden parameters `prefix` in our layout: the GRU's gates concatenated."""
    network = lambda head: gru_network_params(GOLDEN, f"{prefix}/{head}/ScanPOLAGruCell_0/")
    return AgentParams(network("actor_head"), network("qvalue_head"))


def golden_episodes():
    """The golden episodes, with the opponents' logits and Q-values by our networks."""
    observations = GOLDEN["obs"].reshape(BATCH, STEPS + 1, 2, -1)
    opponents = golden_params("opponents")
    time_first = lambda x: jnp.moveaxis(jnp.asarray(x), 0, 1)
    return Episodes(
        observations=time_first(observations[:, :, 0]),
        actions=time_first(GOLDEN["act"][:, :, 0]),
        rewards=time_first(GOLDEN["rew"][:, :, 0]),
        opponent_actions=time_first(GOLDEN["act"][:, :, 1]),
        opponent_rewards=time_first(GOLDEN["rew"][:, :, 1]),
        opponent_logits=time_first(jax.vmap(AGENT.logits)(opponents, observations[:, :, 1])),
        opponent_q_values=time_first(jax.vmap(AGENT.q_values)(opponents, observations[:, :, 1])),
    )


PARAMS, TARGET, EPISODES = golden_params("params"), golden_params("target"), golden_episodes()


def start(settings):
    """The learner before the first golden iteration."""
    return learner.from_params(PARAMS, settings)._replace(target_params=TARGET)


@partial(jax.jit, static_argnames="settings")
def update(state, episodes, settings, iteration=0):
    return learner.update(AGENT, state, episodes, learner.q_episodes(episodes), settings, iteration)


@partial(jax.jit, static_argnames="settings")
def update_actor(state, settings, iteration=0):
    return learner.update_actor(AGENT, state, EPISODES, settings, iteration)


@partial(jax.jit, static_argnames="settings")
def gradients(episodes, settings, iteration=0):
    return learner.actor_gradients(AGENT, PARAMS, episodes, settings, iteration)


def assert_trees_close(actual, expected, relative):
    """Each array relative to its own largest entry, or the tree's for arrays that are nearly 0."""
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.abs(np.asarray(a) - e).max() <= relative * max(np.abs(e).max(), 1e-3 * largest)


def distance(a, b):
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_networks_unroll_as_published():
    log_probs = jax.nn.log_softmax(AGENT.logits(PARAMS, EPISODES.observations)[:, 0])
    q_values = AGENT.q_values(PARAMS, EPISODES.observations)[:, 0]
    np.testing.assert_allclose(log_probs, GOLDEN["unroll0/logp_seq"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(q_values, GOLDEN["unroll0/qvalue_seq"], rtol=1e-4, atol=1e-5)
    values = (jnp.exp(log_probs) * q_values).sum(-1)
    np.testing.assert_allclose(values, GOLDEN["unroll0/value_seq"], rtol=1e-4, atol=1e-5)


def test_actor_gradient_is_the_published_one():
    assert_trees_close(gradients(EPISODES, SETTINGS)[0], golden_params("grad_actor/raw"), 1e-3)


def test_shaping_weight_scales_the_shaping_gradient_as_published():
    settings = dataclasses.replace(SETTINGS, shaping_weight=2.0)
    assert_trees_close(gradients(EPISODES, settings)[0], golden_params("grad_actor/weight2"), 1e-3)


def test_clipping_is_the_published_one():
    """Seen through the update: an SGD step of rate 1 is minus the clipped gradient."""
    settings = dataclasses.replace(SETTINGS, optimizer="sgd", lr_actor=1.0)
    after = update_actor(start(settings), settings).params
    clipped = jax.tree.map(lambda before, after: before - after, PARAMS, after)
    assert_trees_close(clipped, golden_params("grad_actor/clip0.1"), 1e-3)
    np.testing.assert_allclose(optax.tree.norm(clipped), 0.1, rtol=1e-4)


def test_q_loss_and_gradient_are_the_published_ones():
    loss = lambda params: learner.q_loss(AGENT, params, TARGET, learner.q_episodes(EPISODES), SETTINGS)
    value, gradient = jax.jit(jax.value_and_grad(loss))(PARAMS)
    np.testing.assert_allclose(value, GOLDEN["q_loss"], rtol=1e-4)
    assert_trees_close(gradient, golden_params("grad_q/raw"), 1e-3)


def without_rounding_noise(params):
    """Zeros in place of the parameters whose golden gradient is 0 but for rounding.

    Adam makes a full step of such a gradient too, in the direction of the rounding.
    """
    gradient = golden_params("grad_actor/raw")
    is_noise = jax.tree.map(lambda g: np.abs(g) < 1e-6 * np.abs(g).max(), gradient)
    assert sum(n.sum() for n in jax.tree.leaves(is_noise)) < 0.2 * sum(n.size for n in jax.tree.leaves(is_noise))
    return jax.tree.map(lambda n, x: np.where(n, 0.0, x), is_noise, params)


def test_two_iterations_are_the_published_ones():
    state = start(SETTINGS)

    def assert_published(params, name):
        expected = without_rounding_noise(golden_params(name))
        assert_trees_close(without_rounding_noise(params), expected, 1e-4)

    for k in (1, 2):
        assert_published(update_actor(state, SETTINGS, k - 1).params, f"iteration{k}/after_actor")
        state = update(state, EPISODES, SETTINGS, k - 1)
        assert_published(state.params, f"iteration{k}/after_q")
        assert_published(state.target_params, f"iteration{k}/target")


@pytest.mark.parametrize(
    "wrong",
    [{"shaping_weight": -1.0}, {"lam": 1.0}, {"differentiable_current_reward": True}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_the_golden_gradient_tells_mistakes_apart(wrong):
    """The comparisons above can fail: with each mistake the gradient is far from the golden one."""
    golden = golden_params("grad_actor/raw")
    mistaken = gradients(EPISODES, dataclasses.replace(SETTINGS, **wrong))[0]
    assert distance(mistaken, golden) > 1e-2 * max(np.abs(x).max() for x in jax.tree.leaves(golden))


def test_logged_norms_are_the_published_ones():
    from loqa.metrics import learning_metrics

    metrics = jax.jit(lambda state: learning_metrics(AGENT, state, EPISODES, SETTINGS, 0))(start(SETTINGS))
    np.testing.assert_allclose(metrics["grad_agent0_norm"], GOLDEN["grad_agent_norm"], rtol=1e-3)
    np.testing.assert_allclose(metrics["grad_opponent0_norm"], GOLDEN["grad_opponent_norm"], rtol=1e-3)
    np.testing.assert_allclose(metrics["agent0_entropy"], GOLDEN["entropy"], rtol=1e-4)
    np.testing.assert_allclose(metrics["loss_agent_0_qvalue"], GOLDEN["q_loss"], rtol=1e-4)


def test_naive_has_no_shaping_gradient():
    naive = dataclasses.replace(SETTINGS, shaping_weight=0.0)
    separate = dataclasses.replace(SETTINGS, separate=True)
    agent_alone, shaping_alone = gradients(EPISODES, separate)
    assert distance(gradients(EPISODES, naive)[0], agent_alone) < 1e-5
    assert distance(gradients(EPISODES, SETTINGS)[0], jax.tree.map(jnp.add, agent_alone, shaping_alone)) < 1e-5
    assert optax.tree.norm(shaping_alone) > 1
    nothing = gradients(EPISODES, dataclasses.replace(naive, separate=True))[1]
    assert optax.tree.norm(nothing) == 0


def test_shaping_ends_after_exclude_after_step():
    settings = dataclasses.replace(SETTINGS, shaping_iterations=3)
    naive = gradients(EPISODES, dataclasses.replace(SETTINGS, shaping_weight=0.0))
    assert distance(gradients(EPISODES, settings, 2), gradients(EPISODES, SETTINGS, 2)) == 0
    assert distance(gradients(EPISODES, settings, 3), naive) < 1e-5


def test_the_shaping_optimizer_rests_after_exclude_after_step():
    """With an optimizer of its own, no momentum of earlier iterations moves the parameters."""
    settings = dataclasses.replace(
        SETTINGS, separate=True, lr_actor_agent=0.0, lr_actor_opponent=0.1, shaping_iterations=1
    )
    once = update_actor(start(settings), settings, 0)
    assert distance(once.params, PARAMS) > 1e-2
    assert distance(update_actor(once, settings, 1).params, once.params) == 0


def test_separate_optimizers_have_their_own_rates_and_clip_alone():
    """With SGD a step is the sum of the two clipped gradients, each times its own rate."""
    settings = dataclasses.replace(
        SETTINGS, separate=True, optimizer="sgd", lr_actor_agent=0.5, lr_actor_opponent=0.25, shaping_weight=3.0
    )
    after = update_actor(start(settings), settings).params
    clip = lambda gradient: jax.tree.map(lambda x: x * 0.1 / optax.tree.norm(gradient), gradient)
    agent_part, shaping_part = map(clip, gradients(EPISODES, settings))
    expected = jax.tree.map(lambda p, a, s: p - 0.5 * a - 0.25 * s, PARAMS, agent_part, shaping_part)
    assert distance(after, expected) < 1e-6


def test_a_stopped_advantage_leaves_the_q_network_to_its_own_optimizer():
    through = gradients(EPISODES, SETTINGS)[0].qvalue
    stopped = gradients(EPISODES, dataclasses.replace(SETTINGS, stop_grad_advantage=True))[0].qvalue
    assert optax.tree.norm(through) > 1e-2
    assert optax.tree.norm(stopped) == 0


def test_the_q_network_learns_from_the_replayed_episodes():
    replayed = learner.q_episodes(EPISODES)._replace(rewards=EPISODES.rewards + 1.0)
    fresh = update(start(SETTINGS), EPISODES, SETTINGS)
    other = jax.jit(lambda *args: learner.update(AGENT, *args, SETTINGS, 0))(start(SETTINGS), EPISODES, replayed)
    assert distance(fresh.params.actor, other.params.actor) < 1e-6
    assert distance(fresh.params.qvalue, other.params.qvalue) > 1e-4


def test_opponents_are_constants():
    """No gradient flows into the opponents' logits and Q-values, though in self-play they are our own."""

    def loss(opponent_logits, opponent_q_values):
        episodes = EPISODES._replace(opponent_logits=opponent_logits, opponent_q_values=opponent_q_values)
        return sum(learner.policy_losses(AGENT, PARAMS, episodes, SETTINGS))

    args = EPISODES.opponent_logits, EPISODES.opponent_q_values
    assert optax.tree.norm(jax.jit(jax.grad(loss, argnums=(0, 1)))(*args)) == 0


def test_target_moves_by_ema():
    state = start(SETTINGS)
    for gamma in (0.0, 0.25, 1.0):
        moved = learner.update_target(state, dataclasses.replace(SETTINGS, target_ema_gamma=gamma)).target_params
        expected = jax.tree.map(lambda t, p, g=gamma: g * t + (1 - g) * p, TARGET, PARAMS)
        assert distance(moved, expected) < 1e-6
