"""The rings against a list of what was added; past agents, past episodes and opponents drawn from them."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import setups

from loqa import buffers, learner
from loqa.agent import Agent
from loqa.games.ipd import MatrixGame
from loqa.losses import Side
from loqa.networks import MLP
from loqa.rollout import Opponents, draw_opponents

KEY = jax.random.key(0)
add, add_batch = jax.jit(buffers.add), jax.jit(buffers.add_batch)
sample = jax.jit(buffers.sample, static_argnums=2)


def make_item(number):
    """A pytree whose every entry says which item it is of."""
    return {"matrix": np.full((2, 3), number, np.float32), "rest": (np.array(number, np.int32),)}


def make_batch(numbers):
    return jax.tree.map(lambda *x: np.stack(x), *map(make_item, numbers))


def numbers_in(items):
    """Which items these are [...], checking that each is whole."""
    (numbers,) = items["rest"]
    np.testing.assert_array_equal(items["matrix"], np.broadcast_to(numbers[..., None, None], items["matrix"].shape))
    return np.asarray(numbers)


def ring_of(capacity, number):
    """A ring after `number` items, numbered from 1: an empty slot reads 0."""
    ring = buffers.init(make_item(0), capacity)
    for i in range(1, number + 1):
        ring = add(ring, make_item(i))
    return ring


# ----------------------------------------------------------------------------------------------------- rings


def test_a_new_ring_is_empty():
    ring = buffers.init(make_item(3), 5)
    assert (int(ring.added), buffers.capacity(ring)) == (0, 5)
    assert not numbers_in(ring.items).any()
    assert ring.items["rest"][0].dtype == jnp.int32


def test_a_ring_without_room_is_refused():
    with pytest.raises(ValueError, match="capacity is 0, but must be at least 1"):
        buffers.init(make_item(0), 0)


def test_adding_nowhere_changes_nothing():
    ring = ring_of(3, 5)
    jax.tree.map(np.testing.assert_array_equal, add(ring, make_item(9), jnp.array(False)), ring)
    jax.tree.map(np.testing.assert_array_equal, add(ring, make_item(9), jnp.array(True)), add(ring, make_item(9)))


def test_the_newest_items_replace_the_oldest_of_a_full_ring():
    """The ring against a list: items one by one (0) and batches of 3 and 5, which go around its end."""
    ring, slots, counter = buffers.init(make_item(0), 5), [0] * 5, itertools.count(1)
    for size in (3, 0, 5, 0, 0, 3, 3, 5, 3, 0, 5):
        numbers = list(itertools.islice(counter, size or 1))
        ring = add_batch(ring, make_batch(numbers)) if size else add(ring, make_item(numbers[0]))
        for number in numbers:
            slots[(number - 1) % 5] = number
        assert int(ring.added) == numbers[-1]
        np.testing.assert_array_equal(numbers_in(ring.items), slots)


def test_a_batch_larger_than_the_ring_is_refused():
    with pytest.raises(ValueError, match="4 items do not fit in a ring of 3"):
        buffers.add_batch(ring_of(3, 0), make_batch([1, 2, 3, 4]))
    full = buffers.add_batch(ring_of(3, 1), make_batch([2, 3, 4]))
    np.testing.assert_array_equal(numbers_in(full.items), [4, 2, 3])


@pytest.mark.parametrize("added", [1, 8])
def test_samples_are_uniform_over_the_items_held(added):
    drawn = numbers_in(sample(ring_of(5, added), KEY, 4000))
    held = range(max(1, added - 4), added + 1)
    assert set(drawn) == set(held)  # never 0, an empty slot
    counts = np.array([(drawn == number).sum() for number in held])
    expected = 4000 / len(held)
    assert np.abs(counts - expected).max() <= 4 * np.sqrt(expected)
    another = numbers_in(sample(ring_of(5, added), jax.random.key(1), 4000))
    assert added == 1 or (drawn != another).any()


@pytest.mark.parametrize("where", [True, False])
def test_a_donated_ring_is_written_in_place(where):
    ring = buffers.init(jnp.zeros(1000), 50)
    compiled = jax.jit(buffers.add, donate_argnums=0).lower(ring, jnp.ones(1000), jnp.array(where)).compile()
    size = ring.items.nbytes
    assert compiled.memory_analysis().temp_size_in_bytes < size / 10  # no copy on the way
    address = ring.items.unsafe_buffer_pointer()
    after = compiled(ring, jnp.ones(1000), jnp.array(where))
    assert ring.items.is_deleted()
    assert after.items.unsafe_buffer_pointer() == address
    assert float(after.items.sum()) == 1000 * where


# ---------------------------------------------------------------------------- rings in the training loop


AGENT = Agent(MatrixGame(), MLP(2, 3), MLP(2, 3), game_length=3, normalize_time=False, output_scale=1.0)
make_hp = partial(setups.make_hp, "coin", "hp.game.game_length=3", "hp.batch_size=16")


def init_learners(*overrides):
    """What `learner.init` gives, with zeros for numbers."""
    hp = make_hp(*overrides)
    state = jax.eval_shape(partial(learner.init, AGENT, hp), KEY)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state.learners), hp


def numbered(params, number):
    return jax.tree.map(lambda x: np.full(x.shape, number, np.float32), params)


def numbers_of_agents(ring):
    """Which agents are in the slots, checking that each is whole."""
    first, *others = (np.asarray(x).reshape(x.shape[0], -1) for x in jax.tree.leaves(ring.items))
    for leaf in (first, *others):
        np.testing.assert_array_equal(leaf, np.broadcast_to(first[:, :1], leaf.shape))
    return np.asarray(first[:, 0])


@pytest.mark.parametrize(
    "overrides, capacity",
    [
        (["hp.num_iterations=10"], 4),  # after 0, 3, 6 and 9 iterations
        (["hp.num_iterations=9"], 3),
        (["hp.num_iterations=10", "hp.agent_replay_buffer.capacity=2"], 2),
        (["hp.num_iterations=10", f"hp.max_env_steps={16 * 3 * 7}"], 3),  # seven iterations
    ],
)
def test_the_ring_of_past_agents_has_no_slot_that_is_never_used(overrides, capacity):
    (me,), _ = init_learners("hp.agent_replay_buffer.update_freq=3", *overrides)
    assert buffers.capacity(me.past) == capacity
    assert jax.tree.map(lambda x: x[0].shape, me.past.items) == jax.tree.map(jnp.shape, me.params)


def test_there_are_only_the_rings_that_are_asked_for():
    (me,), _ = init_learners("hp.agent_replay_buffer.mode=disabled", "hp.num_iterations=2")
    assert (me.past, me.replay) == (None, None)
    both, _ = init_learners(
        "hp.just_self_play=false",
        "hp.num_iterations=2",
        "hp.qvalue.replay_buffer.mode=enabled",
        "hp.qvalue.replay_buffer.capacity=20",
    )
    assert len(both) == 2
    for me in both:
        assert buffers.capacity(me.past) == 1
        assert me.replay.items.observations.shape == (20, 4, 4)


@pytest.mark.parametrize("capacity, slots", [(10, [0, 3, 6, 9]), (3, [9, 3, 6])])
def test_the_agent_is_remembered_at_iteration_0_and_every_update_freq(capacity, slots):
    (me,), _ = init_learners(
        "hp.agent_replay_buffer.update_freq=3", f"hp.agent_replay_buffer.capacity={capacity}", "hp.num_iterations=10"
    )
    remember = jax.jit(partial(learner.remember_agent, update_freq=3))
    for i in range(10):
        me = remember(me._replace(params=numbered(me.params, i)), iteration=jnp.array(i))
        assert int(me.past.added) == i // 3 + 1
    np.testing.assert_array_equal(numbers_of_agents(me.past), slots)


def past_agents(number, capacity):
    """A current agent of -1, and a ring in which the agent in slot i is of i + 1, or of 0 where there is none."""
    params = jax.eval_shape(AGENT.init, KEY)
    slots = [numbered(params, i + 1 if i < number else 0) for i in range(capacity)]
    items = jax.tree.map(lambda *x: jnp.array(np.stack(x)), *slots)
    return numbered(params, -1), buffers.Ring(items, np.array(number, np.int32))


@pytest.mark.parametrize(
    "batch_size, opponents, frac, episodes_against_current",
    [(16, None, 0.0, 0), (16, None, 0.3, 4), (16, None, 1.0, 16), (16, 8, 0.5, 8), (100, None, 0.29, 29)],
)
def test_exactly_the_last_episodes_meet_the_current_agent(batch_size, opponents, frac, episodes_against_current):
    hp = make_hp(
        f"hp.batch_size={batch_size}",
        f"hp.agent_replay_buffer.cur_agent_frac={frac}",
        f"hp.agent_replay_buffer.opponents_per_batch={'null' if opponents is None else opponents}",
    )
    current, ring = past_agents(number=3, capacity=5)
    drawn = draw_opponents(KEY, current, ring, hp.num_opponents, hp.num_current_opponents)
    assert drawn.slots.shape == (opponents or batch_size,)
    of_episodes = np.repeat(np.asarray(drawn.slots), batch_size // drawn.slots.shape[0])
    against_past = batch_size - episodes_against_current
    np.testing.assert_array_equal(of_episodes[against_past:], Opponents.CURRENT)
    assert set(of_episodes[:against_past]) <= {0, 1, 2}  # slots that hold an agent

    plays = jax.tree.leaves(drawn.params(drawn.slots))[0].reshape(drawn.slots.shape[0], -1)[:, 0]
    np.testing.assert_array_equal(plays, np.where(drawn.slots == Opponents.CURRENT, -1, drawn.slots + 1))


def test_past_opponents_are_drawn_uniformly_one_for_each_episode():
    current, ring = past_agents(number=7, capacity=4)
    slots, other = (draw_opponents(jax.random.key(seed), current, ring, 3000, 0).slots for seed in (0, 1))
    assert np.abs(np.bincount(slots, minlength=4) - 750).max() <= 4 * np.sqrt(750)
    assert (slots != other).any()


def test_without_past_agents_the_one_opponent_is_the_current_agent():
    current, _ = past_agents(number=0, capacity=1)
    opponents = draw_opponents(KEY, current, None, 16, 0)
    np.testing.assert_array_equal(opponents.slots, [Opponents.CURRENT])
    params = opponents.params(opponents.slots)
    assert all((x == -1).all() and x.shape[0] == 1 for x in jax.tree.leaves(params))


def make_episodes(numbers):
    """Episodes of three steps whose every entry says which episode and which step it is of."""
    number, step = np.array(numbers), np.arange(4)[:, None]
    entries = (10 * number + step).astype(np.int32)
    observations = np.stack([entries] * 4, 1).astype(np.float32)
    return Side(None, None, entries[:-1], entries[:-1].astype(np.float32), observations)


def numbers_of_episodes(episodes):
    numbers = np.asarray(episodes.actions[0]) // 10
    jax.tree.map(np.testing.assert_array_equal, episodes, make_episodes(numbers))
    return set(numbers)


def test_replayed_episodes_are_whole_and_of_those_stored():
    (me,), _ = init_learners(
        "hp.num_iterations=2",
        "hp.batch_size=16",
        "hp.qvalue.replay_buffer.mode=enabled",
        "hp.qvalue.replay_buffer.capacity=20",
    )
    replay = jax.jit(learner.replay_episodes)
    seen = []
    for i, keys in enumerate(jax.random.split(KEY, (3, 12))):
        new = make_episodes(range(16 * i + 1, 16 * i + 17))
        for key in keys[1:]:
            seen.append(numbers_of_episodes(replay(me, new, key)[1]))
        me, drawn = replay(me, new, keys[0])
        seen.append(numbers_of_episodes(drawn))
        assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, new)
        held = set(range(max(1, 16 * i - 3), 16 * i + 17))  # the new ones, too
        assert set().union(*seen[-12:]) == held
