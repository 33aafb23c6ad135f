"""Figures of runs: their style, training curves and bars."""

import os
from contextlib import suppress
from unittest.mock import patch

with patch.dict(os.environ):  # they are files: a backend that a notebook's shell names may not even be installed here
    _backend = os.environ.pop("MPLBACKEND", "")
    import matplotlib
if _backend:
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _backend  # for who else draws in this process
