"""Figures of runs: their style, training curves and bars."""

import os
from contextlib import suppress

# They are files, and need no backend: one that a shell has from a notebook may not even be installed here.
_backend = os.environ.pop("MPLBACKEND", None)
import matplotlib  # noqa: E402

if _backend is not None:  # for who else draws in this process
    os.environ["MPLBACKEND"] = _backend
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _backend
