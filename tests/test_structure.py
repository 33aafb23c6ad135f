"""The algorithm, loqa/ itself and loqa/games, knows nothing of what surrounds it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SURROUNDINGS = {"hydra", "omegaconf", "yaml", "wandb", "matplotlib", "PIL"}
SURROUNDINGS |= {"loqa.run", "loqa.tools", "loqa.baselines"}


def algorithm():
    """The modules of the algorithm, by name."""
    files = [*(ROOT / "loqa").glob("*.py"), *(ROOT / "loqa" / "games").glob("*.py")]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in sorted(files)]
    return [name.removesuffix(".__init__") for name in names]


def test_the_algorithm_imports_nothing_of_its_surroundings():
    assert {"loqa.losses", "loqa.learner", "loqa.rollout", "loqa.games.coin"} <= set(algorithm())
    libraries = "import flax.linen, optax, sys; before = set(sys.modules)"  # Flax imports yaml itself
    program = f"{libraries}; import {', '.join(algorithm())}; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(loaded.stdout.split())
    assert "loqa.losses" in loaded
    assert loaded & SURROUNDINGS == set()
