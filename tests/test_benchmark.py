"""The benchmark's arithmetic; the times themselves are not tested."""

import csv
import sys

import numpy as np
import pytest

from loqa.tools import benchmark


def test_the_median_is_of_the_chunks_after_compilation(tmp_path, monkeypatch, capsys):
    """Chunks of 4 iterations and 800 steps; the first row is before compilation, the second after it."""
    columns = {"iteration": [0, 4, 8, 12, 16], "walltime": [1.0, 9.0, 9.4, 9.9, 10.3]}
    metrics = {name: np.array(values) for name, values in columns.items()} | {"env_steps": np.arange(5) * 800}
    called = []
    monkeypatch.setattr(benchmark, "run_script", lambda *args: called.append(args) or (metrics, 2.0, 1.5))
    monkeypatch.setattr(benchmark, "calibration", lambda: lambda: 0.2)
    monkeypatch.setattr(sys, "argv", ["benchmark", "ipd hp=mlp", "--chunks", "3", "--csv", str(tmp_path / "x.csv")])
    benchmark.main()
    assert [(name, words[-1], rows) for name, words, rows in called] == [
        ("ipd", "jax.num_devices=1", 5),
        ("ipd", "jax.num_devices=auto", 5),
    ]
    assert "ipd hp=mlp, auto, 0.5 units an iteration, 100 ms" in capsys.readouterr().out
    with open(tmp_path / "x.csv", newline="") as file:
        row, _ = csv.DictReader(file)
    assert float(row["environment steps/s"]) == pytest.approx(2000)
    assert float(row["s to the first iteration"]) == pytest.approx(2 + 9 - 3 * 0.1)
