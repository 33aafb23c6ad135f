"""Exact Q-values of the iterated prisoner's dilemma, and what the losses' expected gradient is with them."""

import numpy as np
from PIL import Image

from loqa.tools import critic_error
from loqa.tools.critic_error import DISCOUNT, GAME_LENGTH, exact_q_values, expected_gradients


def test_q_values_where_the_state_tells_nothing():
    """The other cooperates with 1/2 whatever we do: -2 or -1 now, and -1.5 in each step that follows."""
    q_values = exact_q_values()
    for t in (0, 20, GAME_LENGTH - 1):
        rest = -1.5 * sum(DISCOUNT**k for k in range(1, GAME_LENGTH - t))
        np.testing.assert_allclose(q_values[t], np.tile([-2 + rest, -1 + rest], (5, 1)), rtol=1e-12)
    assert (q_values[-1] == 0).all()


def test_naive_learners_defect_whatever_the_error_and_loqa_shapes_where_it_is_small():
    measured = expected_gradients((-20.0, 0.0, 5.0), batches=8) / 1e3
    gradients, deviations = measured[:, :, 0]
    actor, shaping = gradients[:, 0], gradients[:, 1]
    # p (1 - p) times the advantage of cooperating, -1, times how often a state is met: once in 50 steps, or in
    # a quarter of the other 49.
    expected = -0.25 * np.array([1, *[49 / 4] * 4]) / 50
    assert (np.abs(actor - expected) < 5 * deviations[:, 0] + 1e-6).all()
    assert (np.abs(shaping[0]) < 0.02).all()  # Q far too low: no shaping is left
    total = gradients[1].sum(0)
    assert total[1] > 0 and total[3] > 0 and total[2] < 0 and total[4] < 0  # towards tit-for-tat
    assert (shaping[2, [1, 2, 4]] < -0.05).all()  # Q too high: towards defection
    # Centred Q-values have no error: whatever was added, the gradients are those of the exact ones.
    centred = measured[0, :, 1]
    np.testing.assert_allclose(centred, np.broadcast_to(centred[1], centred.shape), atol=1e-5)
    assert (np.abs(centred - gradients[1]) < 0.01).all()


def test_the_figure_and_the_table(tmp_path, monkeypatch, capsys):
    measured = np.stack([np.ones((36, 2, 2, 5)), np.full((36, 2, 2, 5), 0.1)])
    monkeypatch.setattr(critic_error, "expected_gradients", lambda: measured)
    monkeypatch.setattr("sys.argv", ["critic_error", "--out", str(tmp_path / "picture")])
    critic_error.main()
    assert "| centered | shaping | +5 | +1.0 ± 0.1 |" in capsys.readouterr().out
    with Image.open(tmp_path / "picture.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
    assert (tmp_path / "picture.pdf").read_bytes().startswith(b"%PDF")
