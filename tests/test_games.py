"""The games against payoff tables, hand-placed states, recorded steps and a NumPy oracle; scripted players."""

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


# ------------------------------------------------------------------------------ iterated prisoner's dilemma


IPD = MatrixGame()
IPD_OF_THE_OTHER = np.array([0, 1, 3, 2, 4])  # the state as player 1 sees it
REWARDS = {(C, C): (-1, -1), (C, D): (-3, 0), (D, C): (0, -3), (D, D): (-2, -2)}
SEEN = {"START": [0, 0, 0, 0], "CC": [1, 0, 1, 0], "CD": [1, 0, 0, 1], "DC": [0, 1, 1, 0], "DD": [0, 1, 0, 1]}


@pytest.mark.parametrize("actions, rewards", REWARDS.items())
@pytest.mark.parametrize("state", range(5))
def test_ipd_step_pays_by_the_table_and_remembers_both_actions(state, actions, rewards):
    next_state, got = IPD.step(DRAW, jnp.array(state), jnp.array(actions))
    np.testing.assert_array_equal(got, rewards)
    assert ipd.STATES[int(next_state)] == "".join("CD"[a] for a in actions)


def test_ipd_starts_with_nothing_to_see():
    assert ipd.STATES[int(IPD.reset(KEY))] == "START"
    np.testing.assert_array_equal(IPD.observe(IPD.reset(KEY)), np.zeros((2, 4)))


@pytest.mark.parametrize("state", range(5))
def test_ipd_players_see_themselves_first(state):
    seen = np.array(IPD.observe(jnp.array(state)))
    np.testing.assert_array_equal(seen[0], SEEN[ipd.STATES[state]])
    np.testing.assert_array_equal(seen[1], seen[0][[2, 3, 0, 1]])
    np.testing.assert_array_equal(seen[0], ipd.OBSERVATIONS[state])


@pytest.mark.parametrize("actions", REWARDS)
@pytest.mark.parametrize("state", range(5))
def test_ipd_treats_both_players_alike(state, actions):
    other_state = IPD_OF_THE_OTHER[state]
    next_state, rewards = IPD.step(DRAW, jnp.array(state), jnp.array(actions))
    swapped_state, swapped_rewards = IPD.step(DRAW, jnp.array(other_state), jnp.array(actions[::-1]))
    assert swapped_state == IPD_OF_THE_OTHER[next_state]
    np.testing.assert_array_equal(swapped_rewards, rewards[::-1])
    np.testing.assert_array_equal(IPD.observe(jnp.array(other_state)), IPD.observe(jnp.array(state))[::-1])


# The rewards of players 0 and 1 by both actions, as tables of games are printed.
TABLES = {
    "ipd": REWARDS,
    "chicken": {(C, C): (3, 3), (C, D): (1, 4), (D, C): (4, 1), (D, D): (0, 0)},
    "stag_hunt": {(C, C): (4, 4), (C, D): (0, 3), (D, C): (3, 0), (D, D): (1, 1)},
    "battle_of_the_sexes": {(C, C): (2, 1), (C, D): (0, 0), (D, C): (0, 0), (D, D): (1, 2)},
    "matching_pennies": {(C, C): (1, -1), (C, D): (-1, 1), (D, C): (-1, 1), (D, D): (1, -1)},
    "custom": {(C, C): (0.1, 5), (C, D): (-0.3, -1e-3), (D, C): (1e7, 6), (D, D): (7.7, 8)},
}
GAMES = {name: MatrixGame(name, payoffs) for name, payoffs in PAYOFFS.items()}
GAMES["custom"] = MatrixGame("custom", ((0.1, -0.3, 1e7, 7.7), (5.0, 6.0, -1e-3, 8.0)))


@pytest.mark.parametrize("actions", REWARDS)
@pytest.mark.parametrize("name", TABLES)
def test_matrix_games_pay_each_player_by_the_table(name, actions):
    next_state, got = GAMES[name].step(DRAW, IPD.reset(KEY), jnp.array(actions))
    np.testing.assert_array_equal(got, np.array(TABLES[name][actions], np.float32))
    assert ipd.STATES[int(next_state)] == "".join("CD"[a] for a in actions)


@pytest.mark.parametrize("actions", REWARDS)
@pytest.mark.parametrize("name", TABLES)
def test_a_game_with_its_players_exchanged_is_the_same_from_the_other_seat(name, actions):
    game, swapped = GAMES[name], GAMES[name].from_seat(1)
    state, rewards = game.step(DRAW, IPD.reset(KEY), jnp.array(actions))
    swapped_state, swapped_rewards = swapped.step(DRAW, IPD.reset(KEY), jnp.array(actions[::-1]))
    np.testing.assert_array_equal(swapped_rewards, rewards[::-1])
    np.testing.assert_array_equal(swapped.observe(swapped_state), game.observe(state)[::-1])
    assert swapped.from_seat(1) == game


def test_only_symmetric_games_are_the_same_from_both_seats():
    symmetric = {name for name, game in GAMES.items() if game == game.from_seat(1)}
    assert symmetric == {"ipd", "chicken", "stag_hunt"}


def test_the_prisoners_dilemma_is_the_default():
    assert GAMES["ipd"].payoffs == IPD.payoffs


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
    state, actions, rewards = TAKES[case]
    after, got = step_3x3(DRAW, state, jnp.array(actions))
    np.testing.assert_array_equal(got, rewards)
    taken = rewards != (0, 0)
    assert after.owner == (1 - state.owner if taken else state.owner)
    assert taken or (after.coin == state.coin).all()


@pytest.mark.parametrize("case", TAKES)
def test_coin_hand_placed_the_other_way_round(case):
    state, actions, rewards = TAKES[case]
    _, got = step_3x3(DRAW, other_way_round(state), jnp.array(actions[::-1]))
    np.testing.assert_array_equal(got, rewards[::-1])


def test_coin_planes_are_me_other_my_coin_their_coin():
    game = CoinGame(2, 3)
    seen = np.array(game.observe(place((0, 1), (1, 2), (1, 0), 1))).reshape(2, 4, 6)
    me, other, coin, nothing = np.eye(6)[1], np.eye(6)[5], np.eye(6)[3], np.zeros(6)
    np.testing.assert_array_equal(seen[0], [me, other, nothing, coin])
    np.testing.assert_array_equal(seen[1], [other, me, coin, nothing])


def test_coin_treats_both_players_alike(golden):
    game, draws = CoinGame(5, 4), jax.random.uniform(KEY, (120,))
    states, actions = recorded_states(golden, "g5x4"), golden["g5x4/actions"]
    seen, after, rewards, seen_after = step_all(game, draws, states, actions)
    swapped = step_all(game, draws, other_way_round(states), actions[:, ::-1])
    other_seen, other_after, other_rewards, other_seen_after = swapped
    assert (np.asarray(rewards) != 0).any(0).all()
    np.testing.assert_array_equal(other_rewards, rewards[:, ::-1])
    np.testing.assert_array_equal(other_seen, seen[:, ::-1])
    np.testing.assert_array_equal(other_seen_after, seen_after[:, ::-1])
    jax.tree.map(np.testing.assert_array_equal, other_after, other_way_round(after))


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


def test_the_draw_says_where_a_coin_reappears():
    state, actions, _ = TAKES["both, of player 0"]
    places = {tuple(np.array(step_3x3(draw, state, jnp.array(actions))[0].coin)) for draw in (0.0, 0.3, 0.6, 0.999)}
    assert len(places) == 4


class OracleCoinGame:
    """The rules once more, with Python's integers; where a taken coin reappears is looked up."""

    def __init__(self, height, width, players, coin, owner):
        self.size, self.players, self.coin, self.owner = (height, width), players, coin, owner

    def step(self, actions, new_coin):
        for player, action in enumerate(actions):
            row, column = self.players[player]
            row += {UP: -1, DOWN: 1}.get(action, 0)
            column += {LEFT: -1, RIGHT: 1}.get(action, 0)
            self.players[player] = (row % self.size[0], column % self.size[1])
        rewards, taken = [0, 0], False
        for player in (0, 1):
            if self.players[player] == self.coin:
                taken = True
                rewards[player] += 1
                if self.owner != player:
                    rewards[self.owner] -= 2
        if taken:
            self.owner, self.coin = 1 - self.owner, new_coin
            assert new_coin not in self.players
        return rewards, taken

    def observe(self, player):
        planes = np.zeros((4, *self.size), np.float32)
        planes[0][self.players[player]] = 1
        planes[1][self.players[1 - player]] = 1
        planes[2 if self.owner == player else 3][self.coin] = 1
        return planes.ravel()


@pytest.fixture(scope="module")
def random_episode():
    """States and observations [201], actions and rewards [200] of random play on 4x7."""
    game = CoinGame(4, 7)

    @jax.jit
    def play(key):
        key_reset, key_actions, key_steps = jax.random.split(key, 3)

        def step(state, inputs):
            after, rewards = game.step(inputs[0], state, inputs[1])
            return after, (after, rewards)

        first = game.reset(key_reset)
        actions = jax.random.randint(key_actions, (200, 2), 0, 4)
        _, (after, rewards) = jax.lax.scan(step, first, (jax.random.uniform(key_steps, (200,)), actions))
        states = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, after)
        return states, jax.vmap(game.observe)(states), actions, rewards

    return to_numpy(play(jax.random.key(3)))


def test_coin_agrees_with_an_oracle_over_an_episode(random_episode):
    states, observations, actions, rewards = random_episode
    coins = [tuple(coin.tolist()) for coin in states.coin]
    players = [tuple(player.tolist()) for player in states.players[0]]
    oracle = OracleCoinGame(4, 7, players, coins[0], int(states.owner[0]))
    times_taken = 0
    for t in range(200):
        np.testing.assert_array_equal(observations[t], [oracle.observe(0), oracle.observe(1)])
        got, taken = oracle.step(actions[t].tolist(), coins[t + 1])
        times_taken += taken
        np.testing.assert_array_equal(rewards[t], got)
        np.testing.assert_array_equal(states.players[t + 1], oracle.players)
        assert (coins[t + 1], states.owner[t + 1]) == (oracle.coin, oracle.owner)
    np.testing.assert_array_equal(observations[-1], [oracle.observe(0), oracle.observe(1)])
    assert times_taken >= 8


def test_coins_taken_counts_what_happened(random_episode):
    states, observations, _, rewards = random_episode
    own, others = np.zeros((2, 200, 2))
    for t, player in itertools.product(range(200), (0, 1)):
        if (states.players[t + 1, player] == states.coin[t]).all():
            counts = own if states.owner[t] == player else others
            counts[t, player] += 1
    got_own, got_others = coins_taken(observations)  # the player is the batch axis
    np.testing.assert_array_equal(got_own, own)
    np.testing.assert_array_equal(got_others, others)
    assert own.any()
    assert others.any()
    np.testing.assert_array_equal(own + others - 2 * others[:, ::-1], rewards)


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


@pytest.mark.parametrize("seat", [0, 1])
@pytest.mark.parametrize("game, me, coin, towards, away", WISHES)
def test_scripted_players_move_as_they_wish(game, me, coin, towards, away, seat):
    spots = [(0, 0), (0, 0)]  # where the other stands does not matter
    spots[seat] = me
    for owner, best in ((seat, towards), (1 - seat, away)):
        cooperator, defector = chances(game, place(*spots, coin, owner))
        np.testing.assert_allclose(cooperator[seat], mixture(best), atol=1e-6)
        np.testing.assert_allclose(defector[seat], mixture(towards), atol=1e-6)


@pytest.mark.parametrize(
    "scripts, rewards",
    [((DEFECTOR, COOPERATOR), (0.63, -0.27)), ((COOPERATOR, COOPERATOR), (0.347, 0.347))],
    ids=["defect-cooperate", "cooperate-cooperate"],
)
def test_scripted_players_earn_what_is_published(scripts, rewards):
    player = CoinSeeker(3, 3)
    likes = tuple(LIKES[script] for script in scripts)
    played = rollout(CoinGame(), (player, player), likes, draw_noise(KEY, 50, 1000))
    assert played.observations.shape == (51, 2, 1000, 36)
    np.testing.assert_allclose(played.rewards.mean((0, 2)), rewards, atol=0.02)
