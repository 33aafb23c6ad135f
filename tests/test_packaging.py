"""What is installed: the package alone, which works wherever it is, beside whatever else is named conf."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = "import sys; from loqa.scripts.coin_train import main; sys.argv[0] = '/bin/loqa-coin'; main()"


@pytest.fixture
def wheel(tmp_path):
    """The files of the wheel of this checkout."""
    if not all(importlib.util.find_spec(name) for name in ("pip", "setuptools")) or int(version("setuptools")[:2]) < 77:
        pytest.skip("nothing here builds it")
    source, site = tmp_path / "source", tmp_path / "site"
    for name in ("loqa", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("ipd.py", "coin_train.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path]
    subprocess.run([*build, source], check=True, capture_output=True)
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(site)
    return site


def check_where_conf_is_another_package(site, folder):
    """A command finds its configuration in a directory with another conf, and says what is wrong with it.

    Returns what runs Python there.
    """
    (folder / "conf").mkdir(parents=True)
    (folder / "conf/__init__.py").write_text("")
    environment = os.environ | {"PYTHONPATH": str(site)}
    both = {"capture_output": True, "text": True}
    run = lambda *words: subprocess.run([sys.executable, *words], cwd=folder, env=environment, **both)
    refused = run("-c", COMMAND, "hp.batch_size=0")
    assert refused.returncode == 2
    assert refused.stderr == "error: hp.batch_size is 0, but must be greater than or equal to 1\n"
    return run


def test_a_checkout_has_scripts_and_configuration_at_its_root(tmp_path):
    check_where_conf_is_another_package(ROOT, tmp_path)


def test_the_wheel_has_them_in_the_package_and_nothing_beside_it(tmp_path, wheel):
    there, here = ({path.relative_to(at) for path in at.rglob("*.py")} for at in (wheel / "loqa", ROOT / "loqa"))
    assert here <= there
    assert {path.name.split("-")[0] for path in wheel.iterdir()} == {"loqa"}
    files = lambda folder: {path.relative_to(folder) for path in folder.rglob("*.yaml")}
    assert files(wheel / "loqa/scripts/conf") == files(ROOT / "conf")
    commands = next(wheel.glob("*.dist-info/entry_points.txt")).read_text()
    assert "loqa-ipd = loqa.scripts.ipd:main" in commands and "loqa-coin = loqa.scripts.coin_train:main" in commands
    run = check_where_conf_is_another_package(wheel, tmp_path / "project")
    told = run("-c", COMMAND, "--help").stdout
    assert told.startswith("loqa-coin KEY=VALUE") and "hp=loqa_iclr " in told and "launcher=joblib" in told
