"""Episodes to look at: boards, text, film and strip say what happened."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from loqa.game import COLORS
from loqa.games.coin import TAKEN, CoinGame, coin_scenes, draw_scene, scene_text
from loqa.games.ipd import ipd_strip
from loqa.rollout import Trajectories
from loqa.tools.players import choose_players
from loqa.tools.render import play_episode

GAME = CoinGame(2, 3)


def seen(first, second, coin, owner):
    """What both players observe on GAME; cells are (row, column)."""
    plane = lambda cell: np.eye(6)[cell[0] * 3 + cell[1]]
    mine, theirs = plane(coin) * (owner == 0), plane(coin) * (owner == 1)
    a, b = plane(first), plane(second)
    return [np.concatenate([a, b, mine, theirs]), np.concatenate([b, a, theirs, mine])]


# A goes right onto B's coin; then both step on A's coin; then nothing is taken.
EPISODE = Trajectories(
    np.array(
        [
            seen((0, 0), (1, 2), (0, 1), 1),
            seen((0, 1), (1, 1), (0, 0), 0),
            seen((0, 0), (0, 0), (1, 2), 1),
            seen((1, 0), (0, 1), (1, 2), 1),
        ]
    ),
    None,
    np.array([[1, 0], [0, 2], [3, 1]]),
    np.array([[1.0, -2.0], [-1.0, 1.0], [0.0, 0.0]]),
)
TEXT = """\
A b .
. . B
step 0, score A 0, B 0

a A .
. B .
step 1, score A 1, B -2
A right, B left: A +1, B -2

* . .
. . b
step 2, score A 0, B -1
A left, B up: A -1, B +1

. B .
A . b
step 3, score A 0, B -1
A down, B right
"""


def test_text_says_what_happened():
    assert "\n".join(scene_text(GAME, scene) for scene in coin_scenes(GAME, EPISODE)) == TEXT


def pixels(image, color):
    """Where an image has about this color."""
    color = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.abs(np.asarray(image.convert("RGB"), int) - color).max(-1) < 12


def test_pictures_show_players_coins_and_takes():
    blue, orange, taken = *COLORS[:2], TAKEN
    players = [((0, 0), (1, 2)), ((0, 1), (1, 1)), ((0, 0), (0, 0)), ((1, 0), (0, 1))]
    coins = [((0, 1), orange), ((0, 0), blue), ((1, 2), orange), ((1, 2), orange)]
    where_taken = [None, (0, 1), (0, 0), None]
    for scene, (a, b), (coin, color), take in zip(coin_scenes(GAME, EPISODE), players, coins, where_taken, strict=True):
        image = draw_scene(GAME, scene, ["A", "B"])

        def near(cell, color, image=image):
            top, left = 60 + 120 * cell[0] + 3, 20 + 120 * cell[1] + 3
            return pixels(image, color)[top : top + 114, left : left + 114].sum()

        for cell in np.ndindex(2, 3):
            assert (near(cell, blue) > 1000) == (cell == a)
            assert (near(cell, orange) > 1000) == (cell == b)
            assert (near(cell, taken) > 1000) == (cell == take)
        assert 200 < near(coin, color) < 1000


def test_the_strip_has_the_moves():
    actions = np.array([[t % 2, t % 3 == 0] for t in range(52)], int)
    strip = ipd_strip(actions, ["x", "y"])
    is_blue, is_orange = (pixels(strip, color).sum() for color in (COLORS[4], COLORS[1]))
    assert is_blue / is_orange == pytest.approx((actions == 0).sum() / (actions == 1).sum(), rel=0.15)


def test_episodes_are_those_of_the_seed_and_of_the_seats():
    game, entrants = choose_players(["always-cooperate", "always-defect"], "coin")
    episode = play_episode(game, entrants, 40, 1)
    again = play_episode(game, entrants, 40, 1)
    np.testing.assert_array_equal(episode.actions, again.actions)
    captions = " ".join(scene.caption for scene in coin_scenes(game, episode))
    assert "A -2, B +1" in captions and "A +1, B -2" not in captions  # B is the one that defects
    assert captions.count("step") == 41


def test_both_games_write_a_picture_and_print(tmp_path, tool, capsys):
    tool("render", "random", "random", "--game", "coin", "--steps", "3", "--out", tmp_path / "new" / "x.png")
    assert "B  random (2): " in capsys.readouterr().out
    with Image.open(tmp_path / "new" / "x.gif") as film:
        assert film.n_frames == 4 and film.size[0] == 400
    words = ["tit-for-tat", "always-defect", "--game", "ipd", "--steps", "4"]
    tool("render", *words, "--out", tmp_path / "moves")
    assert "A  CDDD\nB  DDDD\nA  tit-for-tat: -9, -2.250 per step" in capsys.readouterr().out
    assert (tmp_path / "moves.png").exists()


@pytest.mark.parametrize(
    "words, reason",
    [
        (["random", "nobody.npz", "--game", "coin"], "nobody.npz"),
        (["random", "random", "--game", "ipd", "--steps", "0"], "--steps"),
        (["random", "random", "--game", "coin", "--out", "file/x.gif"], "file"),
    ],
)
def test_bad_words_are_one_sentence(tmp_path, monkeypatch, refusal, words, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert reason in refusal("render", *words)


def test_a_reader_that_has_gone_is_no_error():
    tool = "from loqa.tools.common import tool; tool(lambda parser: print('x\\n' * 10**6))()"
    with subprocess.Popen([sys.executable, "-c", tool], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1
