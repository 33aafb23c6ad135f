"""The league: who plays, what is measured, and the tables; scripted players against the published numbers."""

import csv
import math
import sys
import zlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import setups
from omegaconf import OmegaConf
from PIL import Image

from loqa.agent import AgentParams
from loqa.games.coin import CoinGame
from loqa.games.ipd import MatrixGame
from loqa.rollout import draw_noise, rollout
from loqa.run.agents import save_agent
from loqa.run.config import CONFIGS, parse
from loqa.run.launch import compose
from loqa.tools import league
from loqa.tools.league import mean_interval, play_league, table_lines
from loqa.tools.players import LeaguePlayer, choose_players, scripted

IPD = MatrixGame()
SMALL = ["hp.actor.hidden_size=4", "hp.qvalue.hidden_size=3"]


def save(path, script="coin", overrides=(), seed=0):
    """Saves an agent with random parameters."""
    cfg = compose(script, [*(SMALL if script == "coin" else []), *overrides])
    agent = setups.make_agent(script, parse(cfg, CONFIGS[script]).hp)
    random = np.random.default_rng(seed)
    fill = lambda x: 2.0 * random.normal(size=x.shape).astype(np.float32)
    params = AgentParams(*jax.tree.map(fill, jax.eval_shape(agent.init, jax.random.key(0))))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_agent(path, params, {"game": script, "hp": OmegaConf.to_container(cfg.hp, resolve=True)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs, a directory of agents, and an agent of the other game."""
    at = tmp_path_factory.mktemp("agents")
    two = ["hp.just_self_play=false", "hp.agent_1=naive", "hp.seed=7"]
    for i in (0, 1):
        for iteration in (90, 100):
            save(at / "runs" / "first" / "agents" / f"agent_{i}_{iteration:06d}.npz", overrides=two, seed=i)
    save(at / "runs" / "second" / "agents" / "agent_0_000050.npz", overrides=["hp.qvalue.hidden_size=2"], seed=2)
    save(at / "some" / "wide.npz", overrides=["hp.actor.layers_before_gru=1"], seed=3)
    (at / "some" / ".wide.unfinished.npz").write_text("half of it")
    save(at / "large.npz", overrides=["hp.game.height=4"])
    save(at / "ipd.npz", "ipd")
    np.savez(at / "foreign.npz", x=np.ones(2))
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
    "of other shapes": (["{}/bad.npz"], "bad.npz cannot play"),
    "no agents": (["{}/empty"], "has no saved agents"),
    "two games": (["{}/some", "{}/ipd.npz"], "ipd.npz plays the IPD"),
    "another game by name": (["{}/some", "--game", "ipd"], "wide.npz plays the 3x3 Coin Game"),
    "two grids": (["{}/some", "{}/large.npz"], "large.npz plays the 4x3"),
    "another grid": (["{}/some", "--grid", "5x5"], "the 5x5 Coin Game"),
    "another game": (["{}/ipd.npz", "--game", "coin"], "the IPD"),
    "a grid for the IPD": (["--game", "ipd", "--grid", "3x3"], "the 3x3 Coin Game"),
    "no grid": (["--grid", "3"], "HEIGHTxWIDTH"),
    "a small grid": (["--grid", "1x2"], "no room"),
    "another game's player": (["tit-for-tat", "--grid", "3x3"], "no player tit-for-tat"),
    "an empty selection": (["--game", "ipd", "--no-scripted"], "nobody plays"),
    "no episodes": (["random", "--game", "ipd", "--episodes", "1"], "--episodes"),
    "a seed that is none": (["random", "--game", "ipd", "--seed", "x"], "--seed"),
}


def run_league(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["league", *map(str, words)])
    league.main()


@pytest.mark.parametrize("words, reason", REFUSED.values(), ids=REFUSED)
def test_bad_words_are_one_sentence(folder, monkeypatch, capsys, tmp_path, words, reason):
    (folder / "empty").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run_league(monkeypatch, *(word.format(folder) for word in words))
    assert reason in capsys.readouterr().err.splitlines()[-1]


# ------------------------------------------------------------------------------------------------- the games

# The published league, 32 episodes a pair: mean reward a step in seats 0 and 1.
PUBLISHED = {
    ("always-cooperate", "always-cooperate"): (0.3469, 0.3475),
    ("always-cooperate", "random"): (0.0531, 0.1056),
    ("always-defect", "always-cooperate"): (0.6306, -0.2694),
    ("always-defect", "always-defect"): (0.0012, -0.0037),
    ("always-defect", "random"): (0.5256, -0.5337),
    ("random", "random"): (-0.0088, 0.0094),
}


def test_scripted_coin_players_earn_what_was_published():
    """Their means are of 32 episodes, ours of 512: within four standard deviations of the difference."""
    entered = list(scripted(CoinGame()).values())
    names = [one.name for one in entered]
    played = play_league(CoinGame(), entered, 50, 512, 0)
    reward, own_coins, other_coins = (played[name] for name in ("mean_reward", "own_coins", "other_coins"))
    assert reward.shape == (3, 3, 2, 512)
    for (first, second), published in PUBLISHED.items():
        rewards = reward[names.index(first), names.index(second)]
        tolerance = 4 * rewards.std(-1, ddof=1) * math.sqrt(1 / 32 + 1 / 512)
        assert (np.abs(rewards.mean(-1) - published) < tolerance).all(), (first, second)
        swapped = reward[names.index(second), names.index(first)][::-1]
        tolerance = 4 * rewards.std(-1, ddof=1) * math.sqrt(2 / 512)
        assert (np.abs(rewards.mean(-1) - swapped.mean(-1)) < tolerance).all(), (first, second)
    # A coin of one's own is +1, the other's is +1 for oneself and -2 for the other.
    np.testing.assert_allclose(reward, own_coins + other_coins - 2 * other_coins[:, :, ::-1], atol=1e-5, rtol=0)


def test_scripted_ipd_players_do_as_they_are_named():
    known = scripted(IPD)
    names = ["always-cooperate", "always-defect", "tit-for-tat", "grim-trigger", "win-stay-lose-shift"]
    played = play_league(IPD, [known[name] for name in names], 4, 2, 0)
    total = lambda first, second: tuple(
        (4 * played["mean_reward"][names.index(first), names.index(second), :, 0]).tolist()
    )
    for name in names:
        assert total(name, name) == ((-8, -8) if name == "always-defect" else (-4, -4))
    assert total("always-defect", "always-cooperate") == (0, -12)
    assert total("always-defect", "tit-for-tat") == (-6, -9)
    assert total("grim-trigger", "always-defect") == (-9, -6)
    assert total("win-stay-lose-shift", "always-defect") == (-10, -4)  # C D C D: -3 -2 -3 -2
    assert played.keys() == {"mean_reward"}


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


def test_a_pair_plays_as_it_would_alone(tmp_path, monkeypatch, capsys):
    """Batched over pairs and architectures, chunk by chunk, whoever else plays."""
    for i in range(3):
        save(tmp_path / f"{i}.npz", "ipd", seed=i)
    game, entered = choose_players([str(tmp_path), "grim-trigger"])
    monkeypatch.setattr(league, "PAIRS_AT_ONCE", 2)
    reward = play_league(game, entered, 6, 8, 3)["mean_reward"]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["4/16", "8/16", "12/16", "16/16"]
    for i, j in ((2, 0), (1, 3)):
        first, second = entered[i], entered[j]
        name = zlib.crc32(f"{first.name}\n{second.name}".encode())
        noise = draw_noise(jax.random.fold_in(jax.random.key(3), jnp.uint32(name)), 6, 8)
        alone = jax.jit(partial(rollout, game, (first.player, second.player)))
        alone = alone((first.params, second.params), noise)
        np.testing.assert_allclose(reward[i, j], alone.rewards.mean(0), atol=1e-6)
    assert np.abs(reward[0, 1] - reward[0, 2]).max() > 0


# ------------------------------------------------------------------------------------------------- the report


def test_the_bootstrap_interval_is_that_of_a_mean():
    samples = np.random.default_rng(0).normal(5.0, 2.0, (3, 400))
    low, high = mean_interval(samples)
    expected = samples.mean(-1) + 1.96 * np.outer((-1, 1), samples.std(-1) / 20)
    np.testing.assert_allclose((low, high), expected, atol=0.03)
    np.testing.assert_array_equal(mean_interval(samples), (low, high))


def test_groups_take_each_side_from_its_seat():
    """LeaguePlayer i earns 10 i + j against j in seat 0, and 100 more in seat 1."""
    entered = [LeaguePlayer(name, kind, None, ()) for name, kind in (("a", "x"), ("b", "y"), ("c", "x"))]
    i, j = np.mgrid[:3, :3]
    rewards = np.stack([10 * i + j, 100 + 10 * j + i], -1)[..., None] + np.zeros(4)
    lines = table_lines(entered, {"mean_reward": rewards, "own_coins": -rewards, "other_coins": rewards})
    assert [(line["player"], line["opponent"], line["group"], line["pairs"]) for line in lines] == [
        ("x", "x", "self", "2"),
        ("y", "y", "self", "1"),
        ("x", "x", "within a kind", "2"),
        ("x", "y", "between kinds", "4"),
    ]
    heads = ["reward", "opponent's reward", "own coins"]
    means = [[line[head].split()[0] for head in heads] for line in lines]
    assert means == [["11.000", "111.000", "-11.000"]] * 3 + [["61.000", "61.000", "-61.000"]]
    deviations = [line["sd"] for line in lines]
    assert deviations[1] == "" and deviations[3] == f"{np.std([1, 21, 101, 121], ddof=1):.3f}"


def test_everything_is_written(folder, tmp_path, monkeypatch, capsys):
    first, second = folder / "runs" / "first", f"a_kind={folder / 'runs' / 'second'}"
    run_league(monkeypatch, "--no-scripted", "--out", tmp_path, first, "--episodes", "8", "--steps", "5", second)
    printed = capsys.readouterr().out
    with open(tmp_path / "league.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3**2 and "9/9 pairs" in printed
    for row in rows:
        for seat in "01":
            low, mean, high = (float(row[f"mean_reward_{seat}{x}"]) for x in ("_low", "", "_high"))
            assert low <= mean + 1e-6 and mean <= high + 1e-6
            earned = float(row[f"own_coins_{seat}"]) + float(row[f"other_coins_{seat}"])
            assert mean <= earned + 1e-6
    assert [row["group"] for row in rows].count("self") == 3
    text = (tmp_path / "league.md").read_text()
    assert text in printed and "8 episodes of 5 steps" in text
    tex = (tmp_path / "league.tex").read_text()
    assert r"a\_kind" in tex and {line.count("&") for line in tex.splitlines() if "&" in line} == {9}
    with Image.open(tmp_path / "league.png") as image:
        assert min(image.size) > 500
    assert (tmp_path / "league.pdf").read_bytes().startswith(b"%PDF")
