"""Test settings: most of the tests' time is compilation, so the compiler optimises less."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import pytest
from hydra.core.hydra_config import HydraConfig


@pytest.fixture(autouse=True)
def no_job_of_hydra():
    """A script that ran in this process leaves Hydra's configuration, which says what the command is."""
    yield
    HydraConfig.instance().cfg = None
