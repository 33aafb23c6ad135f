"""The figures: valid files of a sensible size."""

import numpy as np
import pytest
from PIL import Image

from loqa.plot import STATES, Panel, state_probability_bars, training_curves


@pytest.fixture
def metrics():
    iteration = np.arange(0, 7001, 100.0)
    columns = {"iteration": iteration, "env_steps": iteration * 102400, "reward": np.exp(-iteration / 2000)}
    columns["reward"][3] = np.nan
    return columns


def image_size(path):
    with Image.open(path) as image:
        image.load()
        assert np.asarray(image.convert("L")).std() > 5  # something is drawn
        return image.size


@pytest.mark.parametrize("number, shape", [(1, (1, 1)), (3, (1, 3)), (5, (2, 3))])
def test_training_curves(tmp_path, metrics, number, shape):
    panels = [Panel("title", "reward", {"us": "reward"}, {"best": 1.0}, (0, 1.1))] * number
    training_curves(metrics, panels, tmp_path / "curves.png")
    assert image_size(tmp_path / "curves.png") == (690 * shape[1], 540 * shape[0])


def test_training_curves_of_a_single_evaluation(tmp_path, metrics):
    training_curves({k: v[:1] for k, v in metrics.items()}, [Panel("t", "y", {"x": "reward"})], tmp_path / "a.png")
    image_size(tmp_path / "a.png")


@pytest.mark.parametrize("shape", [(5,), (1, 5), (10, 5)])
def test_state_probability_bars(tmp_path, shape):
    state_probability_bars(np.full(shape, 0.5), tmp_path / "bars.png", "IPD")
    assert image_size(tmp_path / "bars.png") == (780, 600)


def test_a_pdf_and_a_wrong_shape(tmp_path):
    state_probability_bars(np.ones(len(STATES)), tmp_path / "bars.pdf", "IPD")
    assert (tmp_path / "bars.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="shape"):
        state_probability_bars(np.ones(4), tmp_path / "bars.png", "IPD")
