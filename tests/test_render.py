"""Episodes to look at: boards, text, film and strip say what happened."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from loqa.games.coin import CoinGame
from loqa.tools import render
from loqa.tools.players import choose_players
from loqa.tools.render import (
    Episode,
    coin_events,
    coin_frames,
    coin_text,
    ipd_strip,
    ipd_text,
    play_episode,
    save_gif,
)

GAME = CoinGame(2, 3)


def seen(first, second, coin, owner):
    """What both players observe on GAME; cells are (row, column)."""
    plane = lambda cell: np.eye(6)[cell[0] * 3 + cell[1]]
    mine, theirs = plane(coin) * (owner == 0), plane(coin) * (owner == 1)
    a, b = plane(first), plane(second)
    return [np.concatenate([a, b, mine, theirs]), np.concatenate([b, a, theirs, mine])]


# A goes right onto B's coin; then both step on A's coin; then nothing is taken.
EPISODE = Episode(
    np.array(
        [
            seen((0, 0), (1, 2), (0, 1), 1),
            seen((0, 1), (1, 1), (0, 0), 0),
            seen((0, 0), (0, 0), (1, 2), 1),
            seen((1, 0), (0, 1), (1, 2), 1),
        ]
    ),
    np.array([[1, 0], [0, 2], [3, 1]]),
    np.array([[1.0, -2.0], [-1.0, 1.0], [0.0, 0.0]]),
)
EVENTS = ["A takes B's coin: A +1, B -2", "A takes its coin and B takes A's coin: A -1, B +1", ""]
TEXT = """\
A b .    step   0   score A 0, B 0
. . B    then A right, B left

a A .    step   1   score A 1, B -2
. B .    A takes B's coin: A +1, B -2
         then A left, B up

* . .    step   2   score A 0, B -1
. . b    A takes its coin and B takes A's coin: A -1, B +1
         then A down, B right

. B .    step   3   score A 0, B -1
A . b
"""


def test_coin_text_says_what_happened():
    assert coin_events(EPISODE) == EVENTS
    assert coin_text(GAME, EPISODE) == TEXT


def near(frame, cell, color):
    """How many pixels of a cell have about this colour."""
    size, top = 120, 66
    x, y = 20 + size * cell[1], top + size * cell[0]
    pixels = np.asarray(frame.convert("RGB"), int)[y + 3 : y + size - 3, x + 3 : x + size - 3]
    color = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(pixels - color).max(-1) < 12).sum()


def test_the_film_shows_players_coins_and_takes(tmp_path):
    frames = coin_frames(GAME, EPISODE, ("a player of a very long name that must be cut off somewhere", "x"))
    save_gif(frames, EVENTS, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 4 and film.size[0] == 400
        shown, durations = [], []
        for i in range(4):
            film.seek(i)
            shown.append(film.convert("RGB"))
            durations.append(film.info["duration"])
    assert durations == [500, 900, 900, 3000]
    blue, orange, taken = *render.COLORS[:2], render.TAKEN
    players = [((0, 0), (1, 2)), ((0, 1), (1, 1)), ((0, 0), (0, 0)), ((1, 0), (0, 1))]
    coins = [((0, 1), orange), ((0, 0), blue), ((1, 2), orange), ((1, 2), orange)]
    where_taken = [None, (0, 1), (0, 0), None]
    for frame, (a, b), (coin, color), take in zip(shown, players, coins, where_taken, strict=True):
        for cell in np.ndindex(2, 3):
            assert (near(frame, cell, blue) > 1000) == (cell == a)
            assert (near(frame, cell, orange) > 1000) == (cell == b)
            assert (near(frame, cell, taken) > 1000) == (cell == take)
        assert 200 < near(frame, coin, color) < 1000


def test_ipd_moves_as_text_and_picture(tmp_path):
    actions = np.array([[t % 2, t % 3 == 0] for t in range(52)], int)
    episode = Episode(np.zeros((53, 2, 4)), actions, -np.ones((52, 2)))
    first, *rest = ipd_text(episode).splitlines()
    assert first == "from step 0" and rest[0] == "A  " + "CD" * 25 and rest[1].startswith("B  DCCDCC")
    assert rest[2:] == ["from step 50", "A  CD", "B  CD"]
    ipd_strip(episode, ("x", "y"), tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as image:
        pixels = np.asarray(image.convert("RGB"), int)
    is_blue, is_orange = (
        (np.abs(pixels - color).max(-1) < 12).sum() for color in ([0x56, 0xB4, 0xE9], [0xD5, 0x5E, 0x00])
    )
    assert is_blue / is_orange == pytest.approx((actions == 0).sum() / (actions == 1).sum(), rel=0.15)


def test_episodes_are_those_of_the_seed_and_of_the_seats():
    game, entrants = choose_players(["always-cooperate", "always-defect"], grid="2x3")
    episode = play_episode(game, entrants, 40, 1)
    again = play_episode(game, entrants, 40, 1)
    np.testing.assert_array_equal(episode.actions, again.actions)
    events = " ".join(coin_events(episode))
    assert "B takes A's coin" in events and "A takes B's coin" not in events  # B is the one that defects
    assert episode.scores[-1, 1] > episode.scores[-1, 0]
    assert coin_text(game, episode).count("step") == 41


def run_render(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["render", *map(str, words)])
    render.main()


def test_both_games_write_a_picture_and_print(tmp_path, monkeypatch, capsys):
    run_render(
        monkeypatch, "random", "random", "--grid", "2x3", "--steps", "3", "--out", tmp_path / "new" / "x.gif"
    )
    assert "B  random (2): " in capsys.readouterr().out and (tmp_path / "new" / "x.gif").exists()
    monkeypatch.chdir(tmp_path)
    run_render(monkeypatch, "tit-for-tat", "always-defect", "--game", "ipd", "--steps", "4")
    assert "A  CDDD\nB  DDDD\nA  tit-for-tat: -9, -2.250 a step" in capsys.readouterr().out
    assert (tmp_path / "episode.png").exists()


@pytest.mark.parametrize(
    "words, reason",
    [
        (["random", "nobody.npz", "--grid", "3x3"], "nobody.npz"),
        (["random", "random"], "--game"),
        (["random", "random", "--grid", "3x3", "--out", "x.png"], ".gif"),
        (["random", "random", "--game", "ipd", "--out", "x.gif"], ".png"),
        (["random", "random", "--game", "ipd", "--steps", "0"], "--steps"),
        (["random", "random", "--grid", "3x3", "--out", "file/x.gif"], "file"),
    ],
)
def test_bad_words_are_one_sentence(tmp_path, monkeypatch, capsys, words, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        run_render(monkeypatch, *words)
    assert reason in capsys.readouterr().err.splitlines()[-1]


def test_a_reader_that_has_gone_is_no_error():
    tool = "from loqa.tools.common import run_tool; run_tool(lambda: print('x\\n' * 10**6))"
    with subprocess.Popen([sys.executable, "-c", tool], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1
