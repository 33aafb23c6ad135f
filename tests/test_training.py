"""What the loop promises: same seed, same bits, and new noise in each iteration; two learners in two seats."""

from functools import cache, partial

import jax
import numpy as np
import pytest
import setups
from omegaconf import OmegaConf
from repeated_noise import repeat_noise

import ipd
from loqa import learner
from loqa.games import GAMES
from loqa.run.agents import load_params, save_agent
from loqa.run.launch import compose
from loqa.run.trainer import next_stop

# The Q replay buffer keeps the episodes, so that a test can look at them.
OPTIONS = ["hp.batch_size=8", "hp.game_length=6", "hp.qvalue.replay_buffer.mode=enabled", "hp.num_iterations=4"]


@cache
def program():
    """A jitted loop of the IPD's training step, and how to start it with a seed."""
    hp, agent, iterate, _ = setups.training("ipd", *OPTIONS)
    return iterate, lambda seed: learner.init(agent, hp, jax.random.key(seed))


def run(seed, *chunks):
    iterate, state = program()[0], program()[1](seed)
    for chunk in chunks:
        state = iterate(state, chunk)
    return state


def assert_same_bits(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def actions(state):
    """The learner's actions in the stored episodes: [iteration, B, T]."""
    replay = state.learners[0].replay
    return np.asarray(replay.items.actions)[: int(replay.added)].reshape(-1, 8, 6)


def test_same_seed_same_run():
    assert_same_bits(run(3, 4), run(3, 4))


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1), (3, 1), (2, 2)], ids=str)
def test_where_a_run_is_cut_changes_no_bit(chunks):
    """Evaluating and saving cut the loop into chunks."""
    assert_same_bits(run(3, *chunks), run(3, 4))


def test_each_iteration_draws_new_noise():
    first, second, *_ = actions(run(3, 4))
    # Nearly the same policy twice (a learning rate of 1e-3): equal actions could only come from equal noise.
    assert (first != second).mean() > 0.2
    hp, agent, _, state = setups.training("ipd", *OPTIONS)
    first, second = actions(learner.repeat(repeat_noise(ipd.make_iteration)(hp, agent))(state, 2))
    assert (first == second).mean() > 0.9  # as in the authors' loop


def test_seeds_differ_from_the_start():
    assert (actions(run(3, 1))[0] != actions(run(4, 1))[0]).mean() > 0.2
    q_networks = [jax.tree.leaves(program()[1](seed).learners[0].params.qvalue) for seed in (3, 4)]
    assert any((x != y).any() for x, y in zip(*q_networks, strict=True))


def test_two_learners_start_from_different_parameters():
    first, second = setups.training("ipd", *OPTIONS, "hp.just_self_play=false")[3].learners
    pairs = zip(jax.tree.leaves(first.params.qvalue), jax.tree.leaves(second.params.qvalue), strict=True)
    assert any((x != y).any() for x, y in pairs)


# Both players are paid for their own action, player 0 for C and player 1 for D, and a little for the other's.
PAYOFFS = ((4.0, 3.875, 2.0, 1.875), (5.0, 5.125, 7.0, 7.125))


@cache
def two_learners():
    """The jitted loop, the evaluation, and how to start, of two learners; they explore nothing."""
    options = ["hp.just_self_play=false", "hp.game_name=custom", f"hp.payoffs={[*map(list, PAYOFFS)]}".replace(" ", "")]
    options += ["hp.epsilon_greedy=0", "hp.actor.train.lr_loss_actor=0.1"]
    hp, agent, iterate, _ = setups.training("ipd", *OPTIONS, *options)
    evaluate = jax.jit(ipd.make_evaluation(hp, agent, GAMES["ipd"].metrics))
    return iterate, evaluate, lambda: learner.init(agent, hp, jax.random.key(hp.seed))


def test_each_learner_is_paid_for_its_own_seat():
    iterate, _, start = two_learners()
    for payoff, ring in zip(PAYOFFS, [me.replay for me in iterate(start(), 2).learners], strict=True):
        mine = np.asarray(ring.items.actions)[:16]
        after = np.asarray(ring.items.observations)[:16, 1:]
        np.testing.assert_array_equal(after[..., 1], mine)  # it sees itself first
        theirs = after[..., 3].astype(int)
        np.testing.assert_array_equal(np.asarray(ring.items.rewards)[:16], np.array(payoff)[2 * mine + theirs])
        assert len(set(zip(mine.ravel(), theirs.ravel(), strict=True))) == 4


def test_each_learner_learns_what_is_good_in_its_own_seat():
    iterate, evaluate, start = two_learners()
    metrics = evaluate(jax.random.key(1), iterate(start(), 60).without_buffers())
    assert metrics["p_0_START_C"] > 0.8 and metrics["p_1_START_C"] < 0.2
    assert metrics["mean_rewards_0"] > 3.4 and metrics["mean_rewards_1"] > 6.6


def test_the_evaluation_knows_both_seats():
    """Player 0 always cooperates and player 1 always defects, and then the other way round."""
    _, evaluate, start = two_learners()
    state = start().without_buffers()
    always = [jax.tree.map(lambda x, d=d: x.at[..., d].set(100.0), state.learners[0].params.actor) for d in (0, 1)]
    for actors, rewards in ((always, (3.875, 7.0)), (always[::-1], (2.0, 5.125))):
        pairs = zip(state.learners, actors, strict=True)
        learners = tuple(one._replace(params=one.params._replace(actor=actor)) for one, actor in pairs)
        metrics = evaluate(jax.random.key(1), state._replace(learners=learners))
        for i in range(2):
            assert metrics[f"mean_rewards_{i}"] == rewards[i]
            assert metrics[f"p_{i}_DC_C"] == (actors[i] is always[0])
            returns = np.mean([rewards[i] * (1 - 0.96**k) / 0.04 for k in range(1, 7)])
            got = metrics[f"qvalue_{i}_mean"] - metrics[f"qvalue_{i}_bias"]
            np.testing.assert_allclose(got, returns, rtol=1e-4)


def test_two_learners_of_the_coin_game_have_metrics_of_their_own():
    """As shapes: nothing is computed."""
    small = ["hp.batch_size=8", "hp.game.game_length=5", "hp.just_self_play=false", "hp.agent_0=naive"]
    hp = setups.make_hp("coin", *small)
    agent = setups.make_agent("coin", hp)
    state = jax.eval_shape(partial(learner.init, agent, hp), jax.random.key(0))
    after = jax.eval_shape(ipd.make_iteration(hp, agent), state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    metrics = jax.eval_shape(ipd.make_evaluation(hp, agent, GAMES["coin"].metrics), jax.random.key(0), state)
    names = {f"always_{x}_{i}_mean_rewards_{y}" for x in ("cooperate", "defect") for i in (0, 1) for y in "ad"}
    names |= {"mean_rewards_0", "mean_rewards_1", "qvalue_0_mean", "qvalue_1_mean"}
    assert names <= metrics.keys()


def test_next_stop():
    assert next_stop(0, 1000, 100, 250) == 100
    assert next_stop(200, 1000, 100, 250) == 250
    assert next_stop(950, 970, 100, 250) == 970


def test_learners_start_from_a_saved_agent(tmp_path):
    params, path = run(7, 4).learners[0].params, tmp_path / "agent.npz"
    save_agent(path, params, {"game": "ipd", "iteration": 4, "hp": OmegaConf.to_container(compose("ipd", OPTIONS).hp)})
    hp = setups.make_hp("ipd", *OPTIONS, "hp.just_self_play=false")
    agent = setups.make_agent("ipd", hp)
    state = learner.init(agent, hp, jax.random.key(0), load_params(str(path), agent))
    for one in state.learners:
        assert_same_bits(one.params, params)
        assert_same_bits(one.target_params, params)
        assert all(not np.any(x) for x in jax.tree.leaves((one.actor_optimizer, one.qvalue_optimizer)))
