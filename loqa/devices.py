"""One iteration on several devices: each plays and differentiates its share of the episodes.

The state is the same on all devices, and so is what is drawn at random: a share is cut from the whole. What is
averaged over the batch is averaged over the devices too. So any number of them learns the same, up to rounding.
Outside of `on_devices` everything here leaves its arguments as they are.

Or each device has seeds of its own, and nothing is shared: `spread`.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "devices"
SEEDS = "seeds"  # the axis of devices that share nothing


def number() -> int:
    """How many devices share the iteration that is traced."""
    try:
        return jax.lax.axis_size(AXIS)
    except NameError:  # not within `on_devices`
        return 1


def share(x: jax.Array, axis: int) -> jax.Array:
    """This device's share of an array that all have, cut along an axis."""
    if number() == 1:
        return x
    size = x.shape[axis] // number()
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(AXIS) * size, size, axis)


def mean(tree: Any) -> Any:
    """The mean over the devices of what each has."""
    return tree if number() == 1 else jax.lax.pmean(tree, AXIS)


def whole(x: jax.Array, axis: int) -> jax.Array:
    """The array of which each device has a share, cut along an axis."""
    return x if number() == 1 else jax.lax.all_gather(x, AXIS, axis=axis, tiled=True)


def first(number: int, axis: str = AXIS) -> Mesh:
    """The first devices, on which an iteration is shared, or seeds are spread."""
    return jax.make_mesh((number,), (axis,), (AxisType.Auto,), devices=jax.devices()[:number])


def on_devices(function: Callable, number: int) -> Callable:
    """A function of the same arguments that `number` devices share; all get the whole arguments and results."""
    if number == 1:
        return function
    same = PartitionSpec()
    return jax.shard_map(function, mesh=first(number), in_specs=same, out_specs=same, check_vma=False)


def replicate(tree: Any, number: int) -> Any:
    """The arrays on each of `number` devices, as `on_devices` returns them: else its first call compiles alone."""
    return tree if number == 1 else jax.device_put(tree, NamedSharding(first(number), PartitionSpec()))


def of_each(number: int) -> NamedSharding:
    """Where the arrays of seeds are: equal parts of their first axis on each of the first devices."""
    return NamedSharding(first(number, SEEDS), PartitionSpec(SEEDS))


def spread(function: Callable, number: int) -> Callable:
    """A function of arrays with a first axis, of which `number` devices compute an equal part each, and alone."""
    parts = PartitionSpec(SEEDS)
    return jax.shard_map(function, mesh=first(number, SEEDS), in_specs=parts, out_specs=parts, check_vma=False)


def one_of_one(function: Callable) -> Callable:
    """`function` for arguments, and a result, with one more axis before the others, of length one."""
    without = lambda tree: jax.tree.map(lambda x: x[0], tree)
    return lambda *args: jax.tree.map(lambda x: x[None], function(*map(without, args)))
