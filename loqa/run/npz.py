"""Pytrees as .npz files: an array for each leaf, named by its path."""

import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np


def leaf_name(path: tuple) -> str:
    """The name of a leaf of a pytree by its path, such as `learners/0/params/actor/params/dense_0/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their names."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a file whose checksums are right. Nothing in it is executed.

    Raises:
      OSError: it cannot be read.
      ValueError: it is damaged, or has something else than arrays.
    """
    name = Path(path).name
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{name} is not a zip file of arrays, or was cut off")
    try:
        with zipfile.ZipFile(path) as file:
            if damaged := file.testzip():
                raise ValueError(f"in {damaged}")
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # a damaged zip file can raise anything
        # Not NumPy's words for objects: they advise to load the file with the code in it.
        what = "has Python objects in it" if "pickle" in str(error) else f"is damaged ({error})"
        raise ValueError(f"{name} {what}") from error
