"""Rollouts: how actions are drawn, who plays whom with which parameters, and what a learner is shown."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loqa.agent import Agent, batch_last
from loqa.games import ipd
from loqa.games.coin import CoinGame
from loqa.losses import Side
from loqa.networks import MLP, GRUNetwork, LogitsTable
from loqa.rollout import Noise, Opponents, draw_noise, play, rollout, sample_actions

KEY = jax.random.key(0)
STEPS, EPISODES = 5, 120
GRID = (np.arange(20_000) + 0.5) / 20_000  # draws that cover [0, 1) evenly: frequencies are exact
LARGEST_DRAW = np.float32(1 - 2.0**-23)  # of jax.random.uniform


def random_params(agent, seed, number=None):
    """Parameters of an agent; of `number` agents, with a leading axis."""
    random = np.random.default_rng(seed)
    axes = () if number is None else (number,)
    fill = lambda x: random.normal(0, 0.5, (*axes, *x.shape)).astype(np.float32)
    return jax.tree.map(fill, jax.eval_shape(agent.init, KEY))


def pick(current, past, slot):
    """The parameters of one opponent."""
    return current if slot == Opponents.CURRENT else jax.tree.map(lambda x: x[slot], past)


# --------------------------------------------------------------------------------------------------- actions


draw_actions = jax.jit(sample_actions)


def frequencies(logits, epsilon):
    logits = np.tile(np.array(logits, np.float32), (GRID.size, 1))
    actions = draw_actions(logits, GRID, epsilon)
    return np.bincount(actions, minlength=logits.shape[1]) / GRID.size


@pytest.mark.parametrize("logits", [[1.0, -2.0], [0.3, -1.0, 2.0, 0.0], [-np.inf, 0.0, -np.inf, 0.0]])
def test_actions_follow_the_policy_mixed_with_uniform_actions(logits):
    weights = np.exp(np.array(logits) - max(logits))
    for epsilon in (0.0, 0.2, 1.0):
        expected = (1 - epsilon) * weights / weights.sum() + epsilon / len(logits)
        np.testing.assert_allclose(frequencies(logits, epsilon), expected, atol=2 / GRID.size)


def test_an_impossible_action_is_never_played():
    for possible in ([0], [1], [3], [0, 2], [1, 3], [0, 1, 2], [1, 2, 3]):
        logits = jnp.where(np.isin(range(4), possible), 0.0, -jnp.inf)
        assert int(sample_actions(logits, jnp.array(0.0))) == possible[0]
        assert int(sample_actions(logits, jnp.array(LARGEST_DRAW))) == possible[-1]
    logits = jax.random.normal(KEY, (2000, 4)).at[:, 3].set(-jnp.inf)  # nor by rounding
    assert int(sample_actions(logits, jnp.full(2000, LARGEST_DRAW)).max()) == 2


def test_actions_are_drawn_for_any_batch_axes():
    random = np.random.default_rng(0)
    logits, uniform = random.normal(size=(3, 4, 5)), random.uniform(size=(3, 4))
    actions = sample_actions(logits, uniform, 0.1)
    assert (actions.shape, actions.dtype) == ((3, 4), jnp.int32)
    for i in np.ndindex(3, 4):
        assert actions[i] == sample_actions(logits[i], uniform[i], 0.1)


# ------------------------------------------------------------------------- the iterated prisoner's dilemma


IPD = ipd.MatrixGame()
IPD_AGENT = Agent(IPD, LogitsTable(2, 5, ipd.read_table), MLP(2, 4), STEPS, False, 1.0)
ipd_rollout = jax.jit(partial(rollout, IPD, (IPD_AGENT, IPD_AGENT)))
ipd_play = jax.jit(partial(play, IPD, IPD_AGENT, epsilon=0.0))
noise_of = jax.jit(draw_noise, static_argnums=(1, 2))


def seen_in_the_ipd(mine, theirs):
    """What a player of these actions [T, B] sees, [T+1, B, 4]."""
    last = np.concatenate([np.eye(2)[mine], np.eye(2)[theirs]], -1)
    return np.concatenate([np.zeros((1, *last.shape[1:])), last])


def test_exchanging_the_players_exchanges_everything():
    one, other = random_params(IPD_AGENT, 1), random_params(IPD_AGENT, 2)
    noise = noise_of(KEY, STEPS, EPISODES)
    swapped_noise = noise._replace(action_uniforms=noise.action_uniforms[:, ::-1])
    played, swapped = ipd_rollout((one, other), noise), ipd_rollout((other, one), swapped_noise)
    assert (played.actions[:, 0] != played.actions[:, 1]).any()
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[:, ::-1]), played, swapped)


def test_both_players_explore():
    stubborn = jax.tree.map(lambda x: np.zeros_like(x), random_params(IPD_AGENT, 1))
    stubborn.actor["params"]["logits"][:, 1] = -100.0  # cooperates always
    noise = noise_of(KEY, STEPS, EPISODES)
    play_with = jax.jit(lambda epsilon: rollout(IPD, (IPD_AGENT,) * 2, (stubborn,) * 2, noise, epsilon))
    for epsilon in (0.0, 0.5, 1.0):
        defections = play_with(epsilon).actions.mean((0, 2))
        np.testing.assert_allclose(defections, [epsilon / 2] * 2, atol=0.1)  # sd 0.02


def test_episodes_are_the_learners_side_and_then_its_opponents():
    past, params = random_params(IPD_AGENT, 1, number=3), random_params(IPD_AGENT, 2)
    slots = np.array([2, 0, Opponents.CURRENT, 2])
    current = random_params(IPD_AGENT, 3)
    episodes = ipd_play(params, Opponents(current, past, slots), noise_of(KEY, STEPS, EPISODES))
    steps, both = (STEPS, EPISODES), (STEPS + 1, 2, EPISODES)
    assert jax.tree.map(jnp.shape, episodes.mine) == Side(None, None, steps, steps, (STEPS + 1, 4, EPISODES))
    assert jax.tree.map(jnp.shape, episodes.opponent) == Side(both, both, steps, steps)
    mine, theirs = np.asarray(episodes.mine.actions), np.asarray(episodes.opponent.actions)
    payoff = np.reshape(ipd.PAYOFFS["ipd"][0], (2, 2))
    assert (mine != theirs).any()
    np.testing.assert_array_equal(episodes.mine.observations, batch_last(seen_in_the_ipd(mine, theirs)))
    np.testing.assert_array_equal(episodes.mine.rewards, payoff[mine, theirs])
    np.testing.assert_array_equal(episodes.opponent.rewards, payoff[theirs, mine])

    # The opponents' logits and Q-values are those of what they saw themselves, with their own parameters.
    theirs_seen = seen_in_the_ipd(theirs, mine)
    logits, q_values = (jax.jit(method) for method in (IPD_AGENT.logits, IPD_AGENT.q_values))
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    for i, slot in enumerate(slots):
        own, its = pick(current, past, slot), slice(30 * i, 30 * i + 30)
        close(episodes.opponent.logits[..., its], batch_last(logits(own, theirs_seen[:, its])))
        close(episodes.opponent.q_values[..., its], batch_last(q_values(own, theirs_seen[:, its])))


def test_the_same_key_plays_the_same_episodes_and_another_does_not():
    params = random_params(IPD_AGENT, 1)
    run = lambda seed: ipd_play(params, Opponents.now(params), noise_of(jax.random.key(seed), STEPS, EPISODES))
    one, again, other = run(0), run(0), run(1)
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert (one.mine.actions != other.mine.actions).any()
    assert (one.opponent.actions != other.opponent.actions).any()
    assert (one.mine.actions != one.opponent.actions).any()  # nor do both players share their noise


# ---------------------------------------------------------------------------------- many opponents at once


COIN = CoinGame(2, 2)
COIN_AGENT = Agent(COIN, GRUNetwork(4, 4, 1), GRUNetwork(4, 4, 1), STEPS, False, 1.0)
SLOTS = (3, Opponents.CURRENT, 0, 3, 1, Opponents.CURRENT)
EPISODES_EACH = 2


@dataclasses.dataclass
class Matches:
    """Episodes against many opponents, each of them played alone as well."""

    params: object
    opponents: Opponents
    noise: Noise
    alone: list  # of each episode: what both did, and the opponent's Q-values


@pytest.fixture(scope="module")
def matches():
    params, current = random_params(COIN_AGENT, 1), random_params(COIN_AGENT, 2)
    past = random_params(COIN_AGENT, 3, number=4)
    noise = noise_of(KEY, STEPS, EPISODES_EACH * len(SLOTS))

    @jax.jit
    def play_alone(theirs, noise):
        played = rollout(COIN, (COIN_AGENT, COIN_AGENT), (params, theirs), noise)
        return played, COIN_AGENT.q_values(theirs, played.observations[:, 1])

    alone = []
    for i, slot in enumerate(np.repeat(SLOTS, EPISODES_EACH)):
        theirs = pick(current, past, slot)
        its_noise = noise._replace(
            reset_keys=noise.reset_keys[i : i + 1],
            step_uniforms=noise.step_uniforms[:, i : i + 1],
            action_uniforms=noise.action_uniforms[:, :, i : i + 1],
        )
        alone.append(play_alone(theirs, its_noise))
    return Matches(params, Opponents(current, past, jnp.array(SLOTS)), noise, alone)


@pytest.mark.parametrize("backend, in_block", [("cpu", 1), ("gpu", 6)])
def test_episodes_do_not_depend_on_which_others_are_played_with_them(monkeypatch, matches, backend, in_block):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)  # without a cache to keep them in all play at once
    block_sizes = []
    opponents_params = Opponents.params

    def note_size(self, slots):
        block_sizes.append(slots.shape[0])
        return opponents_params(self, slots)

    monkeypatch.setattr(Opponents, "params", note_size)
    episodes = jax.jit(lambda *args: play(COIN, COIN_AGENT, *args, epsilon=0.0))(
        matches.params, matches.opponents, matches.noise
    )
    assert set(block_sizes) == {in_block}

    played = jax.tree.map(lambda *x: np.concatenate(x, 2), *(both for both, _ in matches.alone))
    q_values = np.concatenate([q for _, q in matches.alone], 1)
    for seat, side in enumerate(episodes):
        np.testing.assert_array_equal(side.actions, played.actions[:, seat])
        np.testing.assert_array_equal(side.rewards, played.rewards[:, seat])
    np.testing.assert_array_equal(episodes.mine.observations, batch_last(played.observations[:, 0]))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(episodes.opponent.logits, batch_last(played.logits[:, 1]))
    close(episodes.opponent.q_values, batch_last(q_values))


def test_these_opponents_do_play_differently(matches):
    first_logits = np.stack([both.logits[0, 1, 0] for both, _ in matches.alone])
    apart = np.abs(first_logits[:, None] - first_logits[None]).max(-1)
    of_other_params = np.not_equal.outer(np.repeat(SLOTS, EPISODES_EACH), np.repeat(SLOTS, EPISODES_EACH))
    assert (apart[of_other_params] > 1e-3).all()
