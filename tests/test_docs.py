"""README and docs/: what they show runs."""

import importlib.util
import json
import re
import shlex
import sys
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import ipd
from loqa.baselines import pola
from loqa.figures import curves
from loqa.games import GAMES
from loqa.run import launch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    pattern = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [(page.name, code) for page in PAGES for code in pattern.findall(page.read_text(encoding="utf-8"))]


def commands():
    seen = []
    for page, code in blocks("bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["python"] and words not in seen:
                seen.append(words)
                yield pytest.param(words[1:], id=f"{page} {' '.join(words[1:4])}"[:60])


@pytest.mark.parametrize(("page", "code"), blocks("python"), ids=lambda x: x if x.endswith(".md") else "")
def test_snippets_run(page, code, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(code.replace("iterate(state, 100)", "iterate(state, 1)"), page, "exec"), {"__name__": "snippet"})


# Of each tool what takes long, and what stands for it; what needs the authors' files or a cluster.
RANDOM = np.random.default_rng(0)
TIMES = {name: np.arange(7.0) for name in ("iteration", "walltime", "env_steps")}
STUBS = {
    "exploit": {"exploit": lambda *_: [(0, 0.0, 0.0)]},
    "league": {"draw_noises": lambda *_: None, "play_pairs": lambda *_: np.zeros((2, 8, 2))},
    "exact": {"train": lambda key, name, repeats, **_: exact_results(repeats)},
    "benchmark": {"calibration": lambda: lambda: 1.0, "run_script": lambda *_: (TIMES, 1.0, 1.0)},
    "gradient_noise": {"gradients": lambda *_: RANDOM.normal(1, 1, (2, 7, 3))},
}
ELSEWHERE = ("published", "experiments/ipd_seed42_", "report build")


def exact_results(repeats):
    shapes = {"p_cooperate": 5, "mean_reward": (), "always_defect_reward": (), "tit_for_tat": ()}
    return {name: np.ones(np.append([repeats, 2], shape).astype(int)) for name, shape in shapes.items()}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A directory to run commands in: training learns nothing, in one iteration, and what tools compute is made up."""
    columns = {column for game in GAMES.values() for column in (*game.columns.values(), *game.titles)} - {"self_play"}
    names = sorted({*columns, "mean_rewards_0", "mean_rewards_1"})

    def experiment(game, hp):
        stub = lambda key, state: dict.fromkeys(names, jnp.ones(()))
        return ipd.make_experiment(game, hp)._replace(iteration=iteration, evaluation=stub)

    iteration = lambda state: state._replace(iteration=state.iteration + 1)
    monkeypatch.setattr(pola, "make_iteration", lambda hp, agent: iteration)
    monkeypatch.setattr(curves, "draw_run", lambda *_, **__: None)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    at_exit = []
    monkeypatch.setattr("atexit.register", lambda function, *args: at_exit.append((function, args)))
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)

    def run(words):
        monkeypatch.setattr(sys, "argv", words)
        if words[0] == "-m":
            module = importlib.import_module(words[1])
            for name, stub in STUBS.get(words[1].split(".")[-1], {}).items():
                monkeypatch.setattr(module, name, stub)
            monkeypatch.setattr(sys, "argv", words[1:])
            return module.main()
        short = ["hp.num_iterations=1", "hp.agent_replay_buffer.capacity=2", "wandb.state=disabled"]
        short += ["hp.seed=1"] if any(word.startswith("experiment=") for word in words) else []
        there = [word.replace("range(42,52)", "1") for word in words if not re.match("(hydra.)?launcher", word)]
        monkeypatch.setattr(sys, "argv", [*there, *short, "jax.compilation_cache=false", "jax.num_devices=1"])
        launch.script({"ipd.py": "ipd", "coin_train.py": "coin"}[words[0]], experiment)
        for function, args in at_exit:
            function(*args)

    return run


@pytest.mark.parametrize("words", list(commands()))
def test_commands_run(words, small, capsys):
    if any(part in " ".join(words) for part in ELSEWHERE):
        assert (ROOT / words[0]).exists() or importlib.util.find_spec(words[1])
        return
    small(words)
    out = capsys.readouterr().out
    assert out and "not complete" not in out and "failed" not in out


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_notebook_runs_from_top_to_bottom(monkeypatch):
    monkeypatch.chdir(ROOT / "docs")
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(version_info=(9,), get_ipython=lambda: None))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(Image=lambda data: shown.append(data)))
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: shown.append("figure"))
    shown, names = [], {"__name__": "notebook"}
    for cell in json.loads((ROOT / "docs/loqa.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"]  # which are kept
            code = re.sub(r"iterate\(state, \d+\)", "iterate(state, 1)", "".join(cell["source"]))
            exec(code.replace('["hp=mlp", ', '["hp=mlp", "hp.batch_size=8", ').replace("256", "8"), names)
    assert shown[0] == "figure" and shown[1].startswith(b"GIF")


def test_pages_stay_short():
    """README has at most 1,100 words and 140 lines of 120 characters, a page of docs 900 words."""
    words = {page.name: len(page.read_text(encoding="utf-8").split()) for page in (ROOT / "docs").glob("*.md")}
    assert all(number <= 900 for number in words.values()), words
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(" ".join(lines).split()) <= 1100 and len(lines) <= 140 and max(map(len, lines)) <= 120
