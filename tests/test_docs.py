"""README and docs/: what they show runs."""

import json
import re
import shlex
import sys
import types
from pathlib import Path

import pytest

from loqa.run.config import CONFIGS, parse
from loqa.run.launch import compose

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    pattern = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [(page.name, code) for page in PAGES for code in pattern.findall(page.read_text(encoding="utf-8"))]


def commands():
    for page, code in blocks("bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["python"]:
                yield pytest.param(words[1:], id=f"{page} {' '.join(words[1:4])}"[:60])


@pytest.mark.parametrize(("page", "code"), blocks("python"), ids=lambda x: x if x.endswith(".md") else "")
def test_snippets_run(page, code, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(code.replace("iterate(state, 100)", "iterate(state, 1)"), page, "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize("words", list(commands()))
def test_commands_are_understood(words, monkeypatch):
    if words[0] == "-m":  # a tool
        assert (ROOT / f"{words[1].replace('.', '/')}.py").exists() or words[1] == "venv"
        return
    assert (ROOT / words[0]).exists()
    script = {"ipd.py": "ipd", "coin_train.py": "coin"}.get(words[0])
    overrides = [word for word in words[1:] if re.match("~|(?!hydra.launcher).*=", word)]
    if script and "-m" not in words and not any(word.startswith("experiment") for word in overrides):
        parse(compose(script, overrides), CONFIGS[script])


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
