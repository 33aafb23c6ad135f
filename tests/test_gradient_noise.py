"""Signal and noise of gradients: what is known of synthetic ones, the losses, and the tool."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import setups
from PIL import Image

from loqa import losses
from loqa.rollout import Opponents, draw_noise, play
from loqa.tools import gradient_noise
from loqa.tools.common import read_csv
from loqa.tools.gradient_noise import gradients, load, statistics

SMALL = {"coin": ("hp.actor.hidden_size=4", "hp.qvalue.hidden_size=3", "hp.game.game_length=6")}
SMALL["ipd"] = ("hp.game_length=6",)


def save(path, script, **options):
    return setups.save(path, script, *SMALL[script], **options)


# -------------------------------------------------------------------------------------------------- statistics


def noisy(means, deviation, number, seed=0):
    """Gradients [N, L, P] with means [L, P], and of every lambda the same noise."""
    noise = np.random.default_rng(seed).normal(size=(number, 1, np.shape(means)[-1]))
    return np.asarray(means) + deviation * noise


def test_signal_noise_and_ratio_are_the_known_ones():
    size = 1000
    signal, noise, ratio, cosine = statistics(noisy(np.full((2, size), 0.5), 2.0, 256))
    np.testing.assert_allclose(signal, 0.5 * size**0.5, rtol=0.03)
    np.testing.assert_allclose(noise, 2.0 * size**0.5, rtol=0.02)  # of one batch, not of their mean
    np.testing.assert_allclose(ratio, 1 / 16, rtol=0.06)
    np.testing.assert_allclose(cosine, 1.0)


def test_noise_alone_is_no_signal():
    """Over the number of batches, the squared length of its mean is 1000, and the product of two halves 0 +- 63."""
    found = [statistics(noisy(np.zeros((1, 1000)), 1.0, 32, seed))[:, 0] for seed in range(20)]
    signal, noise, ratio, _ = np.array(found).T
    assert 4 <= np.isnan(signal).sum() <= 16 and (np.isnan(ratio) == np.isnan(signal)).all()
    assert np.nanmax(signal**2) < 4 * 2 * 1000**0.5 / 32 and np.nanmax(ratio) < 0.02
    np.testing.assert_allclose(noise, 1000**0.5, rtol=0.03)


def test_signal_alone_has_no_noise_and_the_angles_that_it_has():
    means = np.array([[0.0, 2.0], [3.0, 3.0], [5.0, 0.0]])
    with np.errstate(divide="ignore"):
        signal, noise, ratio, cosine = statistics([means] * 4)
    np.testing.assert_allclose(signal, [2.0, 18**0.5, 5.0])
    np.testing.assert_allclose(noise, 0.0, atol=1e-6)
    assert (ratio > 1e12).all()
    np.testing.assert_allclose(cosine, [0.0, 0.5**0.5, 1.0], atol=1e-12)


def test_common_noise_does_not_turn_gradients_the_same_way():
    """Right angles stay so: means of all batches would have the cosine 0.2, of noise that both lambdas share."""
    means = np.zeros((2, 1000))
    means[0, :500] = means[1, 500:] = 0.7
    *_, cosine = statistics(noisy(means, 2.0, 32))
    assert cosine[0] == pytest.approx(0.0, abs=0.1) and cosine[1] == pytest.approx(1.0)


# -------------------------------------------------------------------------------------------------- the losses


def test_the_ends_are_the_published_losses_with_centered_q_values(tmp_path, monkeypatch):
    """Monte Carlo for the opponent is lambda 1, the one-step advantage of ours is lambda 0; without kindness."""
    monkeypatch.setattr(gradient_noise, "LAMBDAS", (0.0, 1.0))
    _, agent, settings, params = load(save(tmp_path / "agent.npz", "coin"))
    noise = draw_noise(jax.random.key(1), 6, 8)
    shaping, actor = gradients(agent, settings, params, noise)
    episodes = play(agent.game, agent, params, Opponents.now(params), noise, 0.0)
    hp = settings[0]
    options = losses.PolicyOptions(stop_grad_advantage=True, terminal_value=hp.qvalue.terminal == "bootstrap")

    def published(actor):
        sides = agent.side(params._replace(actor=actor), episodes.mine), episodes.opponent
        terms = losses.agent_policy_loss(*(losses.center_q_values(side, 0.96) for side in sides), options)
        return jnp.stack([terms.shaping.mean(), terms.actor.mean()])

    expected = jax.tree.leaves(jax.jacobian(published)(params.actor))
    expected = np.concatenate([np.reshape(x, (2, -1)) for x in expected], 1)
    assert np.abs(expected).max(1).min() > 1e-3
    np.testing.assert_allclose(shaping[-1], expected[0], atol=1e-6)
    np.testing.assert_allclose(actor[0], expected[1], atol=1e-6)
    for each in (shaping, actor):  # every lambda counts
        assert (np.abs(np.diff(each, axis=0)).max(1) > 1e-5).all()


def test_play_is_as_in_training(tmp_path, monkeypatch):
    """With the preset's exploration, and with the length of the agent's own episodes."""
    seen = []
    monkeypatch.setattr(gradient_noise, "play", lambda *args: seen.append(args) or play(*args))
    _, agent, settings, params = load(save(tmp_path / "ipd.npz", "ipd"))
    gradients.lower(agent, settings, params, draw_noise(jax.random.key(1), 6, 2))
    assert agent.game_length == 6 and seen[0][-1] == 0.2


# -------------------------------------------------------------------------------------------------- the tool


def test_the_tables_and_the_figure(tmp_path, monkeypatch, tool, capsys):
    monkeypatch.setattr(gradient_noise, "BATCH", 8)
    monkeypatch.setattr(gradient_noise, "LAMBDAS", (0.0, 0.5, 1.0))
    agents = [save(tmp_path / f"agent_0_{iteration:06}.npz", "ipd") for iteration in (1, 20)]
    tool("gradient_noise", *agents, "--batches", 2, "--out", tmp_path / "new" / "picture")
    out = capsys.readouterr().out
    assert "seed 42 @1, 2 batches of 8 episodes" in out and "seed 42 @20" in out
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 * (2 + 3)
    assert lines[0].count("shaping ") == lines[0].count("actor ") == 4
    assert [line.split()[1] for line in lines[2:5]] == ["0", "0.5", "1"]
    rows = read_csv(tmp_path / "new" / "picture.csv")
    assert [row["agent"] for row in rows[2:4]] == ["seed 42 @1", "seed 42 @20"] and rows[4]["lambda"] == "0.5"
    with Image.open(tmp_path / "new" / "picture.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
    assert (tmp_path / "new" / "picture.pdf").read_bytes().startswith(b"%PDF")


def test_what_cannot_be_measured_is_one_sentence(tmp_path, refusal):
    agent = save(tmp_path / "agent.npz", "coin")
    player = save(tmp_path / "player.npz", "coin", policy_only=True)
    np.savez(tmp_path / "foreign.npz", x=np.ones(2))
    for words, reason in {
        (agent, "--batches", 3): "--batches is 3, but must be even",
        (agent, "--batches", 0): "must be a whole number of at least 2",
        (tmp_path / "foreign.npz",): "is not a saved agent",
        (tmp_path / "nothing.npz",): "there is no file",
        (player,): "has no Q-network",
    }.items():
        assert reason in refusal("gradient_noise", *words, "--out", tmp_path / "picture")
    assert not (tmp_path / "picture.png").exists()
