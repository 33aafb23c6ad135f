"""The league: who plays, what is measured, and the tables; scripted players against the published numbers."""

import csv
import itertools
import json
import math
import pickle
import zlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import setups
from PIL import Image

from loqa.games.coin import CoinGame
from loqa.games.ipd import PAYOFFS, MatrixGame
from loqa.rollout import draw_noise, rollout
from loqa.tools import league
from loqa.tools.league import compare, kind_table, play_league
from loqa.tools.players import choose_players, scripted

IPD = MatrixGame()
SMALL = ["hp.actor.hidden_size=4", "hp.qvalue.hidden_size=3"]


def save(path, *overrides, seed=0):
    setups.save(path, "coin", *SMALL, *overrides, seed=seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs, a directory of agents, and an agent of the other game."""
    at = tmp_path_factory.mktemp("agents")
    two = ["hp.just_self_play=false", "hp.agent_1=naive", "hp.seed=7"]
    for i in (0, 1):
        for iteration in (90, 100):
            save(at / "runs" / "first" / "agents" / f"agent_{i}_{iteration:06d}.npz", *two, seed=i)
    save(at / "runs" / "second" / "agents" / "agent_0_000050.npz", "hp.qvalue.hidden_size=2", seed=2)
    save(at / "some" / "wide.npz", "hp.actor.layers_before_gru=1", seed=3)
    (at / "some" / ".wide.unfinished.npz").write_text("half of it")
    save(at / "large.npz", "hp.game.height=4")
    setups.save(at / "ipd.npz", "ipd")
    np.savez(at / "foreign.npz", x=np.ones(2))
    (at / "published.pkl").write_bytes(pickle.dumps([1]))
    for i in (0, 1):
        setups.save(at / f"custom_{i}.npz", "ipd", "hp.game_name=custom", f"hp.payoffs=[[{i},2,3,4],[{i},2,3,4]]")
    np.savez(at / "bad.npz", **dict(np.load(at / "some" / "wide.npz")) | {"actor/params/bias_in": np.ones(5)})
    return at


# ------------------------------------------------------------------------------------------------- who plays


def test_words_become_players(folder):
    words = [str(folder / "runs"), f"ours={folder / 'some'}", "random"]
    game, entered = choose_players(words, all_scripted=True)
    assert game == CoinGame(3, 3)
    assert [(one.name, one.kind) for one in entered] == [
        ("seed 7 agent 0 @100", "loqa"),
        ("seed 7 agent 1 @100", "naive"),
        ("seed 42 @50", "loqa"),
        ("wide", "ours"),
        ("random", "random"),
        ("always-cooperate", "always-cooperate"),
        ("always-defect", "always-defect"),
    ]
    assert entered[0].player == entered[1].player != entered[3].player  # who can be batched
    assert entered[0].player == entered[2].player  # whatever their Q-networks are
    assert len(choose_players([str(folder / "runs" / "first" / "agents")])[1]) == 4  # not a run: all of them
    twice = choose_players([str(folder / "runs" / "second")] * 2)[1]
    assert len({one.name for one in twice}) == 2


REFUSED = {
    "nobody": ([], "--game"),
    "nothing there": (["nothing.npz"], "'nothing.npz'"),
    "foreign": (["{}/foreign.npz"], "foreign.npz is not a saved agent"),
    "a pickle": (["{}/published.pkl"], "become such files by python -m loqa.tools.import_agents"),
    "two games of one name": (["{}/custom_0.npz", "{}/custom_1.npz"], "Custom game', payoffs=((1.0, 2.0, "),
    "of other shapes": (["{}/bad.npz"], "bad.npz cannot play"),
    "no agents": (["{}/empty"], "has no saved agents"),
    "two games": (["{}/some", "{}/ipd.npz"], "ipd.npz plays the IPD"),
    "another game by name": (["{}/some", "--game", "ipd"], "--game is ipd, but this is the 3x3 Coin Game"),
    "two grids": (["{}/some", "{}/large.npz"], "large.npz plays the 4x3"),
    "another game": (["{}/ipd.npz", "--game", "coin"], "the IPD"),
    "another game's player": (["tit-for-tat", "--game", "coin"], "no player tit-for-tat"),
    "an empty selection": (["--game", "ipd", "--no-scripted"], "nobody plays"),
    "no episodes": (["random", "--game", "ipd", "--episodes", "1"], "--episodes"),
    "a seed that is none": (["random", "--game", "ipd", "--seed", "x"], "--seed"),
}


@pytest.mark.parametrize("words, reason", REFUSED.values(), ids=REFUSED)
def test_bad_words_are_one_sentence(folder, monkeypatch, refusal, tmp_path, words, reason):
    (folder / "empty").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert reason in refusal("league", *(word.format(folder) for word in words))


# ------------------------------------------------------------------------------------------------- the games

# The published league, 32 episodes per pair: mean reward per step in seats 0 and 1.
PUBLISHED = {
    ("always-cooperate", "always-cooperate"): (0.3469, 0.3475),
    ("always-cooperate", "random"): (0.0531, 0.1056),
    ("always-defect", "always-cooperate"): (0.6306, -0.2694),
    ("always-defect", "always-defect"): (0.0012, -0.0037),
    ("always-defect", "random"): (0.5256, -0.5337),
    ("random", "random"): (-0.0088, 0.0094),
}


def play(game, entered, steps, episodes, tmp_path, seed=0):
    """Rows of a league by the names of the two players."""
    rows = play_league(game, entered, steps, episodes, seed, tmp_path / "league.csv")
    return {(row["player_0"], row["player_1"]): row for row in rows}


def test_scripted_coin_players_earn_what_was_published(tmp_path):
    """Their means are of 32 episodes, ours of 512. Wrong numbers, or none to compare, are found out."""
    ours = play_league(CoinGame(), list(scripted(CoinGame()).values()), 50, 512, 0, tmp_path / "league.csv")
    assert len(ours) == 6  # each pair once
    rows = [[*names, *rewards] for names, rewards in PUBLISHED.items()]
    rows += [[b, a, y, x] for a, b, x, y in rows] + [["somebody", "random", 0.0, 0.0]]
    path = tmp_path / "published.json"
    held = lambda steps=50: compare(path, ours, steps, 512)
    path.write_text(json.dumps({"note": "32 episodes", "scripted": {"steps": 50, "rows": rows}}))
    (line,) = held()
    assert line["agrees"] and (line["section"], line["rows"], line["of"], line["above 4"]) == ("scripted", 12, 13, 0)
    with pytest.raises(ValueError, match="no pair of these players, by the names of their files, in 16 steps"):
        held(16)
    path.write_text(json.dumps({"scripted": {"steps": 50, "rows": [[*rows[0][:2], 0.9, 0.3475], *rows[1:]]}}))
    (line,) = held()
    assert not line["agrees"] and line["farthest"] == "always-cooperate with always-cooperate"
    for text in ("[", "[1]", '{"a": {"rows": 3}}', '{"a": {"steps": 50, "rows": [["random", "random", 1]]}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="is not a published league"):
            held()
    path.write_text(json.dumps({"scripted": {"steps": 50, "rows": rows[-1:]}}))
    with pytest.raises(ValueError, match="no pair of these players"):
        held()


def test_the_tolerance_is_four_standard_errors(tmp_path):
    """Ours of 96 episodes with a deviation of 0.6: the standard error to theirs is 0.6 sqrt(1/32 + 1/96)."""
    row = {"player_0": "a", "player_1": "b", "mean_reward_0": 0.5, "mean_reward_1": 0.5, "sd_0": 0.6, "sd_1": 0.6}
    error = 0.6 * math.sqrt(1 / 32 + 1 / 96)
    for away, agree in ((1.15, True), (1.25, False)):
        rows = [["b", "a", 0.5 + away * error, 0.5 - away * error]]
        (tmp_path / "x.json").write_text(json.dumps({"x": {"steps": 3, "rows": rows}}))
        (line,) = compare(tmp_path / "x.json", [row], 3, 96)
        assert line["agrees"] == agree and line["root mean square"] == f"{away:.2f}"


def test_scripted_ipd_players_do_as_they_are_named(tmp_path):
    known = scripted(IPD)
    names = ["always-cooperate", "always-defect", "tit-for-tat", "grim-trigger", "win-stay-lose-shift"]
    played = play(IPD, [known[name] for name in names], 4, 2, tmp_path)

    def total(first, second):
        a, b = (first, second) if (first, second) in played else (second, first)
        earned = [4 * float(played[a, b][f"mean_reward_{i}"]) for i in (0, 1)]
        return tuple(earned if a == first else earned[::-1])

    for name in names:
        assert total(name, name) == ((-8, -8) if name == "always-defect" else (-4, -4))
    assert total("always-defect", "always-cooperate") == (0, -12)
    assert total("always-defect", "tit-for-tat") == (-6, -9)
    assert total("grim-trigger", "always-defect") == (-9, -6)
    assert total("win-stay-lose-shift", "always-defect") == (-10, -4)  # C D C D: -3 -2 -3 -2


def test_players_tell_their_rules_apart():
    """After D/C, D/C: tit-for-tat forgives, grim trigger does not, and win-stay-lose-shift stays."""
    seen = jnp.array([[0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 1, 0]], jnp.float32)
    expected = {"tit-for-tat": "CDC", "grim-trigger": "CDD", "win-stay-lose-shift": "CDD", "random": "???"}
    for name, moves in expected.items():
        one = scripted(IPD)[name]
        hidden = one.player.initial_hidden(())
        for observation, move in zip(seen, moves, strict=True):
            logits, hidden = one.player.act(one.params, hidden, observation)
            probabilities = {"C": (1, 0), "D": (0, 1), "?": (0.5, 0.5)}[move]
            np.testing.assert_allclose(jax.nn.softmax(logits), probabilities)


def test_a_pair_plays_as_it_would_alone_and_once(tmp_path, monkeypatch, capsys):
    """Batched over pairs of two architectures, whoever else plays; a league that was killed continues."""
    for i in range(3):
        setups.save(tmp_path / f"{i}.npz", "ipd", seed=i)
    game, entered = choose_players([str(tmp_path), "grim-trigger"])
    monkeypatch.setattr(league, "PAIRS_AT_ONCE", 2)
    rows = play(game, entered, 6, 8, tmp_path, seed=3)
    assert len(rows) == 10 and "10/10 pairs" in capsys.readouterr().out
    for i, j in ((0, 2), (1, 3)):
        first, second = entered[i], entered[j]
        name = zlib.crc32(f"{first.name}\n{second.name}".encode())
        noise = draw_noise(jax.random.fold_in(jax.random.key(3), jnp.uint32(name)), 6, 8)
        alone = jax.jit(partial(rollout, game, (first.player, second.player)))
        rewards = alone((first.params, second.params), noise).rewards.mean(0)  # [2, B]
        row = rows[first.name, second.name]
        for seat in (0, 1):
            assert row[f"mean_reward_{seat}"] == pytest.approx(float(rewards[seat].mean()), abs=1e-5)
            assert row[f"sd_{seat}"] == pytest.approx(float(rewards[seat].std(ddof=1)), abs=1e-5)

    text = (tmp_path / "league.csv").read_text()
    lines = text.splitlines(keepends=True)
    (tmp_path / "league.csv").write_text("".join(lines[:6]) + lines[6][:20])  # killed: five rows and a half
    play(game, entered, 6, 8, tmp_path, seed=3)
    assert "5/5 pairs" in capsys.readouterr().out and (tmp_path / "league.csv").read_text() == text
    monkeypatch.setattr(league, "play_pairs", None)  # nothing is left to play
    assert play(game, entered, 6, 8, tmp_path, seed=3).keys() == rows.keys()
    with pytest.raises(TypeError):  # somebody else has to play
        play(game, [entered[0]._replace(name="x"), *entered[1:]], 6, 8, tmp_path, seed=3)
    assert play(game, entered, 6, 8, tmp_path, seed=3).keys() == rows.keys()  # though those pairs were not theirs
    play(game, entered[:2], 6, 8, tmp_path, seed=3)
    assert len(league.read_csv(tmp_path / "league.csv")) == 3
    assert play(game, entered, 6, 8, tmp_path, seed=3).keys() == rows.keys()
    assert len(league.read_csv(tmp_path / "league.csv")) == 10
    with pytest.raises(ValueError, match="league.csv is of another league .*: choose another --out"):
        play(game, entered, 6, 9, tmp_path, seed=3)


def test_seats_that_differ_are_both_played(tmp_path):
    """Battle of the sexes: together they have 2 and 1, or 1 and 2."""
    known, game = scripted(IPD), MatrixGame(payoffs=PAYOFFS["battle_of_the_sexes"])
    rows = play(game, [known["always-cooperate"], known["tit-for-tat"]], 3, 2, tmp_path)
    assert {names: (row["mean_reward_0"], row["mean_reward_1"]) for names, row in rows.items()} == dict.fromkeys(
        itertools.product(("always-cooperate", "tit-for-tat"), repeat=2), (2, 1)
    )


# ------------------------------------------------------------------------------------------------- the report


def test_the_table_has_kinds_once():
    """Two of x and one of y: i earns 10 i + j against j."""
    i, j = np.mgrid[:3, :3]
    head, _, *lines = kind_table(10.0 * i + j, ["x", "x", "y"]).splitlines()
    assert head == "| against | itself | others of its kind | x | y |"
    assert lines == ["| x (2) | 5.500 | 5.500 |  | 7.000 |", "| y (1) | 22.000 |  | 20.500 |  |"]


def test_everything_is_written(folder, tmp_path, tool, capsys):
    words = [folder / "runs" / "first", f"a_kind={folder / 'runs' / 'second'}", "--episodes", "8", "--steps", "5"]
    tool("league", "--no-scripted", "--out", tmp_path, *words, "random")  # in any order
    printed = capsys.readouterr().out
    with open(tmp_path / "league.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and "10/10 pairs" in printed
    assert {row["kind_0"] for row in rows} == {"loqa", "naive", "a_kind", "random"}
    text = (tmp_path / "league.md").read_text()
    assert text in printed and "8 episodes of 5 steps" in text and "| a_kind (1) |" in text
    with Image.open(tmp_path / "league.png") as image:
        assert min(image.size) > 400
    assert (tmp_path / "league.pdf").read_bytes().startswith(b"%PDF")
    (tmp_path / "published.json").write_text('{"x": {"steps": 5, "rows": [["random", "random", 9, 9]]}}')
    with pytest.raises(SystemExit, match="1"):
        tool("league", "--no-scripted", "--out", tmp_path, *words, "random", "--against", tmp_path / "published.json")
    assert "| x | 5 | 1 | 1 | " in capsys.readouterr().out
    assert (tmp_path / "against.csv").read_text().splitlines()[1].endswith(",1,random with random,False")
