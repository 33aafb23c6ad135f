"""The algorithm, loqa/ itself and loqa/games, knows nothing of what surrounds it."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SURROUNDINGS = {"hydra", "omegaconf", "yaml", "wandb", "matplotlib", "PIL"}
SURROUNDINGS |= {"loqa.run", "loqa.tools", "loqa.figures", "loqa.baselines"}


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


def test_folders_have_one_direction():
    """A folder imports those before it, and nothing of those after it; exact.py, a tool of its own, is left out."""
    order = ["", "games", "figures", "baselines", "run", "tools"]
    for file in sorted((ROOT / "loqa").rglob("*.py")):
        folder = file.relative_to(ROOT / "loqa").parts[0] if file.parent != ROOT / "loqa" else ""
        imported = re.findall(r"^\s*(?:from|import) loqa\.?(\w*)", file.read_text(), re.MULTILINE)
        later = order[order.index(folder) + 1 :]
        assert file.name == "exact.py" or not {*imported} & {*later}, file
    scripts = [(ROOT / name).read_text() for name in ("ipd.py", "coin_train.py")]
    assert not any(re.search(r"import.*(baselines|tools)|loqa\.(baselines|tools)", script) for script in scripts)
