"""Test settings: most of the tests' time is compilation, so the compiler optimises less."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
