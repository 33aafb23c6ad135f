"""The games against payoff tables, hand-placed states and recorded steps; scripted players."""

import itertools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loqa.games import ipd
from loqa.games.coin import LIKES, CoinGame, CoinSeeker, CoinState, coins_taken
from loqa.games.ipd import COOPERATE, DEFECT, PAYOFFS, MatrixGame
from loqa.rollout import draw_noise, rollout

KEY = jax.random.key(0)
DRAW = jnp.array(0.5)
C, D = COOPERATE, DEFECT
LEFT, RIGHT, UP, DOWN = range(4)


def assert_uniform(counts, probabilities=None):
    """A chi-square statistic within five standard deviations of its mean; `counts` over all outcomes."""
    counts = np.asarray(counts, float)
    probabilities = np.full(counts.shape, 1 / counts.size) if probabilities is None else probabilities
    expected = counts.sum() * probabilities
    freedom = counts.size - 1
    assert ((counts - expected) ** 2 / expected).sum() <= freedom + 5 * np.sqrt(2 * freedom)


# ------------------------------------------------------------------------------------------ the matrix games


IPD = MatrixGame()
# The rewards of players 0 and 1 by both actions, as tables of games are printed.
TABLES = {
    "ipd": {(C, C): (-1, -1), (C, D): (-3, 0), (D, C): (0, -3), (D, D): (-2, -2)},
    "chicken": {(C, C): (3, 3), (C, D): (1, 4), (D, C): (4, 1), (D, D): (0, 0)},
    "stag_hunt": {(C, C): (4, 4), (C, D): (0, 3), (D, C): (3, 0), (D, D): (1, 1)},
    "battle_of_the_sexes": {(C, C): (2, 1), (C, D): (0, 0), (D, C): (0, 0), (D, D): (1, 2)},
    "matching_pennies": {(C, C): (1, -1), (C, D): (-1, 1), (D, C): (-1, 1), (D, D): (1, -1)},
    "custom": {(C, C): (0.1, 5), (C, D): (-0.3, -1e-3), (D, C): (1e7, 6), (D, D): (7.7, 8)},
}
GAMES = {name: MatrixGame(name, payoffs) for name, payoffs in PAYOFFS.items()}
GAMES["custom"] = MatrixGame("custom", ((0.1, -0.3, 1e7, 7.7), (5.0, 6.0, -1e-3, 8.0)))
SEEN = {"START": [0, 0, 0, 0], "CC": [1, 0, 1, 0], "CD": [1, 0, 0, 1], "DC": [0, 1, 1, 0], "DD": [0, 1, 0, 1]}


def test_players_see_both_last_actions_their_own_first():
    assert ipd.STATES[int(IPD.reset(KEY))] == "START"
    seen = np.array(jax.vmap(IPD.observe)(jnp.arange(5)))  # [state, player, 4]
    np.testing.assert_array_equal(seen[:, 0], [SEEN[state] for state in ipd.STATES])
    np.testing.assert_array_equal(seen[:, 1], seen[:, 0][:, [2, 3, 0, 1]])
    np.testing.assert_array_equal(seen[:, 0], ipd.OBSERVATIONS)


@pytest.mark.parametrize("name", TABLES)
def test_matrix_games_pay_by_the_table_and_are_the_same_from_the_other_seat(name):
    """From every state by every pair of actions."""
    game, swapped = GAMES[name], GAMES[name].from_seat(1)
    assert swapped.from_seat(1) == game
    pairs = list(itertools.product(range(5), itertools.product((C, D), repeat=2)))
    states, actions = (np.array(x) for x in zip(*pairs, strict=True))
    step = lambda game, states, actions: jax.vmap(partial(game.step, DRAW))(states, actions)
    after, rewards = step(game, states, actions)
    np.testing.assert_array_equal(rewards, np.array([TABLES[name][pair] for _, pair in pairs], np.float32))
    assert [ipd.STATES[x] for x in after] == ["".join("CD"[a] for a in pair) for _, pair in pairs]
    as_other = np.array([0, 1, 3, 2, 4])  # the states as player 1 sees them
    swapped_after, swapped_rewards = step(swapped, as_other[states], actions[:, ::-1])
    np.testing.assert_array_equal(swapped_rewards, rewards[:, ::-1])
    np.testing.assert_array_equal(swapped_after, as_other[after])


def test_only_symmetric_games_are_the_same_from_both_seats():
    assert GAMES["ipd"].payoffs == IPD.payoffs  # the default
    symmetric = {name for name, game in GAMES.items() if game == game.from_seat(1)}
    assert symmetric == {"ipd", "chicken", "stag_hunt"}


def test_a_table_by_state_is_read_at_the_state_that_is_seen():
    table = jax.random.normal(KEY, (5, 3))
    np.testing.assert_array_equal(np.stack(ipd.visits(jnp.array(ipd.OBSERVATIONS))), np.eye(5))
    np.testing.assert_array_equal(ipd.read_table(table, jnp.array(ipd.OBSERVATIONS)), table)


# -------------------------------------------------------------------------------------------- the Coin Game


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "coin_env.npz") as file:
        return dict(file)


def recorded_states(golden, board):
    return CoinState(*(golden[f"{board}/{name}"] for name in ("players", "coin", "owner")))


def place(first, second, coin, owner):
    return CoinState(np.array([first, second]), np.array(coin), np.array(owner))


def to_numpy(tree):
    return jax.tree.map(np.asarray, tree)


def other_way_round(state):
    """The same position with the players exchanged."""
    return CoinState(state.players[..., ::-1, :], state.coin, 1 - state.owner)


step_3x3 = jax.jit(CoinGame().step)


@partial(jax.jit, static_argnames="game")
def step_all(game, draws, states, actions):
    """One step in each of many games: what is seen before, the states after, the rewards, what is seen then."""
    after, rewards = jax.vmap(game.step)(draws, states, actions)
    return jax.vmap(game.observe)(states), after, rewards, jax.vmap(game.observe)(after)


@pytest.mark.parametrize("height, width", [(3, 3), (5, 4)])
def test_coin_steps_agree_with_recorded_ones(golden, height, width):
    game = CoinGame(height, width)
    of = {name.partition("/")[2]: x for name, x in golden.items() if name.startswith(f"g{height}x{width}/")}
    before = recorded_states(golden, f"g{height}x{width}")
    draws = jax.random.uniform(KEY, (len(of["owner"]),))
    seen, after, rewards, seen_after = step_all(game, draws, before, of["actions"])
    planes = (-1, 2, 4, height, width)

    taken = of["taken"]
    assert 10 < taken.sum() < len(taken) - 10  # the record has both kinds
    np.testing.assert_array_equal(after.players, of["next_players"])
    np.testing.assert_array_equal(rewards, of["reward"])
    np.testing.assert_array_equal(after.owner, of["next_owner"])
    np.testing.assert_array_equal(seen.reshape(planes), of["obs"])
    np.testing.assert_array_equal(seen_after.reshape(planes)[~taken], of["next_obs_if_not_taken"][~taken])
    np.testing.assert_array_equal(after.coin[~taken], of["coin"][~taken])
    assert (after.coin[taken][:, None] != after.players[taken]).any(-1).all()


TAKES = {
    "nobody": (place((0, 0), (2, 2), (1, 1), 0), (DOWN, DOWN), (0, 0)),
    "the owner, player 0": (place((1, 0), (0, 0), (1, 1), 0), (RIGHT, LEFT), (1, 0)),
    "the owner, player 1": (place((0, 0), (0, 1), (1, 1), 1), (LEFT, DOWN), (0, 1)),
    "player 0 takes player 1's": (place((1, 2), (0, 0), (1, 1), 1), (LEFT, LEFT), (1, -2)),
    "player 1 takes player 0's": (place((0, 0), (2, 1), (1, 1), 0), (LEFT, UP), (-2, 1)),
    "both, of player 0": (place((1, 0), (0, 1), (1, 1), 0), (RIGHT, DOWN), (-1, 1)),
    "both, of player 1": (place((1, 2), (2, 1), (1, 1), 1), (LEFT, UP), (1, -1)),
    "both, side by side": (place((1, 2), (1, 2), (1, 1), 0), (LEFT, LEFT), (-1, 1)),
    "left around the board": (place((1, 0), (0, 1), (1, 2), 0), (LEFT, LEFT), (1, 0)),
    "right around the board": (place((1, 2), (0, 1), (1, 0), 0), (RIGHT, LEFT), (1, 0)),
    "up around the board": (place((0, 1), (1, 0), (2, 1), 0), (UP, LEFT), (1, 0)),
    "down around the board": (place((2, 1), (1, 0), (0, 1), 0), (DOWN, LEFT), (1, 0)),
}


@pytest.mark.parametrize("case", TAKES)
def test_coin_hand_placed(case):
    """And with the players exchanged."""
    state, actions, rewards = TAKES[case]
    after, got = step_3x3(DRAW, state, jnp.array(actions))
    np.testing.assert_array_equal(got, rewards)
    taken = rewards != (0, 0)
    assert after.owner == (1 - state.owner if taken else state.owner)
    assert taken or (after.coin == state.coin).all()
    _, got = step_3x3(DRAW, other_way_round(state), jnp.array(actions[::-1]))
    np.testing.assert_array_equal(got, rewards[::-1])


def test_coin_planes_are_me_other_my_coin_their_coin():
    game = CoinGame(2, 3)
    seen = np.array(game.observe(place((0, 1), (1, 2), (1, 0), 1))).reshape(2, 4, 6)
    me, other, coin, nothing = np.eye(6)[1], np.eye(6)[5], np.eye(6)[3], np.zeros(6)
    np.testing.assert_array_equal(seen[0], [me, other, nothing, coin])
    np.testing.assert_array_equal(seen[1], [other, me, coin, nothing])


RESPAWNS = {
    "players apart": (CoinGame(3, 3), place((1, 0), (2, 2), (1, 1), 0), (RIGHT, LEFT), 7),
    "players together": (CoinGame(3, 3), place((1, 0), (1, 2), (1, 1), 1), (RIGHT, LEFT), 8),
    "players on neighbouring cells": (CoinGame(3, 3), place((1, 1), (1, 0), (1, 2), 0), (RIGHT, RIGHT), 7),
    "players on the first and last cell": (CoinGame(3, 3), place((0, 1), (1, 2), (0, 0), 0), (LEFT, DOWN), 7),
    "players on the last and first cell": (CoinGame(3, 3), place((2, 1), (1, 0), (2, 2), 1), (RIGHT, UP), 7),
    "a board of 10x10": (CoinGame(10, 10), place((0, 1), (9, 8), (0, 0), 0), (LEFT, UP), 98),
    "one free cell": (CoinGame(1, 3), place((0, 0), (0, 1), (0, 2), 0), (LEFT, UP), 1),
    "two free cells": (CoinGame(1, 3), place((0, 0), (0, 1), (0, 2), 0), (LEFT, RIGHT), 2),
}


@pytest.mark.parametrize("case", RESPAWNS)
def test_a_taken_coin_reappears_uniformly_where_no_player_stands(case):
    game, state, actions, num_free = RESPAWNS[case]
    states, actions = (jax.tree.map(lambda x: np.stack([x] * 4000), x) for x in (state, np.array(actions)))
    _, after, rewards, _ = step_all(game, jax.random.uniform(KEY, (4000,)), states, actions)
    assert (rewards != 0).any()
    cells = np.asarray(after.coin) @ [game.width, 1]
    players = np.asarray(after.players[0]) @ [game.width, 1]
    free = [cell for cell in range(game.height * game.width) if cell not in players]
    assert len(free) == num_free
    assert set(cells) == set(free)
    assert_uniform([(cells == cell).sum() for cell in free])


def test_coin_reset_is_uniform():
    cells = 9
    keys = jax.random.split(KEY, 20_000)
    state = to_numpy(jax.jit(jax.vmap(CoinGame(3, 3).reset))(keys))
    first, second = np.moveaxis(state.players @ [3, 1], 1, 0)
    coin = state.coin @ [3, 1]
    counts = np.zeros((2, cells, cells, cells), int)
    np.add.at(counts, (state.owner, first, second, coin), 1)

    # Players and owner independent and uniform, the coin uniform over the free cells of each such position.
    i, j, k = np.indices((cells, cells, cells))
    is_free = (k != i) & (k != j)
    probabilities = is_free / is_free.sum(-1, keepdims=True) / cells**2 / 2
    assert not counts[:, ~is_free].any()
    assert_uniform(counts[:, is_free].ravel(), np.stack([probabilities[is_free]] * 2).ravel())


@pytest.mark.parametrize("height, width", [(1, 2), (2, 1), (1, 1), (0, 5), (-2, -2)])
def test_coin_refuses_a_board_without_room(height, width):
    with pytest.raises(ValueError, match=f"{height}x{width} grid has no room"):
        CoinGame(height, width)


def test_coins_taken_counts_what_happened():
    """In 200 steps of two that go for every coin, on 4x7."""
    game, player, greedy = CoinGame(4, 7), CoinSeeker(4, 7), LIKES["always-defect"]
    played = rollout(game, (player, player), (greedy, greedy), draw_noise(KEY, 200, 1))
    seen = np.reshape(played.observations, (201, 2, 4, 28))  # planes: me, the other, my coin, the other's coin
    own, others = np.zeros((2, 200, 2))
    for t, seat in itertools.product(range(200), (0, 1)):
        coin = seen[t, seat, 2] + seen[t, seat, 3]
        counts = own if seen[t, seat, 2].any() else others
        counts[t, seat] = (seen[t + 1, seat, 0] == coin).all()
    got_own, got_others = coins_taken(played.observations[:, :, 0])  # the player is the batch axis
    np.testing.assert_array_equal(got_own, own)
    np.testing.assert_array_equal(got_others, others)
    assert own.sum() > 5 and others.sum() > 5
    np.testing.assert_array_equal(own + others - 2 * others[:, ::-1], played.rewards[..., 0])


# ----------------------------------------------------------------------------------------- scripted players


COOPERATOR, DEFECTOR = "always-cooperate", "always-defect"


@partial(jax.jit, static_argnames="game")
def chances(game, state):
    """If both players were always-cooperate, and if both were always-defect: their probabilities, [2, 4] each."""

    player = CoinSeeker(game.height, game.width)

    def act(script):
        logits, hidden = player.act(LIKES[script], player.initial_hidden((2,)), game.observe(state))
        assert hidden == ()
        return jax.nn.softmax(logits)

    return act(COOPERATOR), act(DEFECTOR)


# Board, where the player is, where the coin is; the best moves towards the coin and those away from it.
WISHES = [
    (CoinGame(5, 5), (2, 1), (2, 3), [RIGHT], [UP, DOWN]),  # left is no farther, around the board
    (CoinGame(5, 5), (0, 0), (0, 4), [LEFT], [RIGHT, UP, DOWN]),  # around the board
    (CoinGame(5, 5), (4, 2), (0, 2), [DOWN], [LEFT, RIGHT, UP]),
    (CoinGame(3, 3), (0, 0), (1, 1), [RIGHT, DOWN], [LEFT, UP]),
    (CoinGame(3, 3), (0, 0), (0, 1), [RIGHT], [UP, DOWN]),  # left is also next to the coin, around the board
    (CoinGame(3, 3), (0, 0), (2, 2), [LEFT, UP], [RIGHT, DOWN]),
    (CoinGame(4, 4), (0, 0), (0, 2), [LEFT, RIGHT], [UP, DOWN]),  # both ways round are equally far
    (CoinGame(4, 4), (0, 0), (2, 2), [LEFT, RIGHT, UP, DOWN], [LEFT, RIGHT, UP, DOWN]),
    (CoinGame(1, 5), (0, 0), (0, 2), [RIGHT], [LEFT, UP, DOWN]),  # a board of one row: up and down stay
]


def mixture(moves):
    return np.isin(range(4), moves) / len(moves)


@pytest.mark.parametrize("game, me, coin, towards, away", WISHES)
def test_scripted_players_move_as_they_wish(game, me, coin, towards, away):
    for seat, owner in itertools.product((0, 1), repeat=2):
        spots = [(0, 0), (0, 0)]  # where the other stands does not matter
        spots[seat] = me
        cooperator, defector = chances(game, place(*spots, coin, owner))
        np.testing.assert_allclose(cooperator[seat], mixture(towards if owner == seat else away), atol=1e-6)
        np.testing.assert_allclose(defector[seat], mixture(towards), atol=1e-6)
