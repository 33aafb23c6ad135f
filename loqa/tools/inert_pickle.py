"""The arrays in a pickled file, read without executing anything in it.

A pickled file is a program: it may name any function and call it. Here the few names that arrays and plain
containers need become stand-ins that hold data, and any other name is refused.
"""

import pickle
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


class Inert(dict):
    """In place of a mapping, settings or an optimizer: keeps the mapping that it is given, and does nothing."""

    def __init__(self, *args):
        super().__init__(*[arg for arg in args if isinstance(arg, dict)][:1])

    def __setstate__(self, state):
        pass


class PickledDtype:
    """In place of `numpy.dtype`."""

    def __init__(self, code, *_):
        self.code = code

    def __setstate__(self, state):
        self.code = state[1].replace("|", "") + self.code


class PickledArray:
    """In place of an array of NumPy or JAX; `value` is what it holds."""

    def __init__(self, *_):
        self.value = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        self.set(data, dtype, shape, "F" if fortran else "C")

    def set(self, data, dtype, shape, order):
        self.value = np.frombuffer(data, np.dtype(dtype.code)).reshape(shape, order=order)  # refuses objects
        return self


def _jax_array(function, args, state, aval):
    array = PickledArray()
    array.__setstate__(state)
    return array


STAND_INS = {
    "numpy.core.multiarray._reconstruct": PickledArray,
    "numpy.core.numeric._frombuffer": lambda *args: PickledArray().set(*args),
    "numpy.ndarray": PickledArray,
    "numpy.dtype": PickledDtype,
    "jax._src.array._reconstruct_array": _jax_array,
    "jax._src.device_array.reconstruct_device_array": _jax_array,
    "_codecs.encode": lambda text, encoding: text.encode("latin1"),  # how protocol 2 writes bytes
    "collections.OrderedDict": Inert,
    "flax.core.frozen_dict.FrozenDict": Inert,
    "haiku._src.data_structures.FlatMapping": Inert,
    "typing.Any": Inert,
}


class InertUnpickler(pickle.Unpickler):
    """Rebuilds arrays and plain containers; all else that a file names is refused, by name."""

    def find_class(self, module, name):
        full_name = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if full_name in STAND_INS:
            return STAND_INS[full_name]
        if module.split(".")[0] in ("omegaconf", "optax"):
            return Inert
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not data")


# What pickle, NumPy and the zip format raise for a file that is not theirs.
UNREADABLE = (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, ArithmeticError, AttributeError, EOFError)
UNREADABLE += (LookupError, MemoryError, NotImplementedError, RecursionError, TypeError, ValueError)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz or a pickled file by their names, `/` between levels. Nothing in it is executed.

    Raises:
      OSError: it cannot be read.
      ValueError: it is neither, or names what is not data.
    """
    try:
        if zipfile.is_zipfile(path):
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        with open(path, "rb") as file:
            return dict(_flatten(InertUnpickler(file).load()))
    except UNREADABLE as error:
        raise ValueError(f"it cannot be read: {error}") from error


def _flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, PickledArray):
        yield prefix.removesuffix("/"), tree.value
    elif isinstance(tree, dict | list | tuple):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _flatten(value, f"{prefix}{key}/")
