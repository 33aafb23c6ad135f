"""Test settings: most of the tests' time is compilation, so that is cheap and done once.

XLA optimizes less, and the workers and the processes that the tests start share what they compile. The directory
lasts for a session, since what a killed process leaves half written there would stay; JAX_COMPILATION_CACHE_DIR
names one that is kept.
"""

import importlib
import os
import shutil
import sys
import tempfile

import pytest
from hydra.core.hydra_config import HydraConfig

ENVIRONMENT = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def pytest_configure(config):
    """Before JAX is imported; workers inherit it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache = tempfile.mkdtemp(prefix="loqa-tests-")
        config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))


@pytest.fixture(autouse=True)
def no_job_of_hydra():
    """A script that ran in this process leaves Hydra's configuration, which says what the command is."""
    yield
    HydraConfig.instance().cfg = None


@pytest.fixture
def tool(monkeypatch):
    """Runs a tool in this process: its name, and the words of its command line."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        importlib.import_module(f"loqa.{'baselines' if name == 'exact' else 'tools'}.{name}").main()

    return run


@pytest.fixture
def refusal(tool, capsys):
    """Runs a tool that refuses its words; gives the sentence with which it ends."""

    def run(*words):
        with pytest.raises(SystemExit, match="2"):
            tool(*words)
        return capsys.readouterr().err.splitlines()[-1]

    return run
