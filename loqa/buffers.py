"""Replay buffers as pytrees: rings of past agents or past episodes, with pure `init`, `add`, `sample`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


class Ring(NamedTuple):
    """The last `capacity` items that were added, in place of the oldest ones when it is full."""

    items: PyTree  # each leaf [capacity, ...]
    added: jax.Array  # int [], how many were ever added


def init(item: PyTree, capacity: int) -> Ring:
    """An empty ring for items shaped like `item`; ValueError for a capacity below 1."""
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}, but must be at least 1")
    items = jax.tree.map(lambda x: jnp.zeros((capacity, *jnp.shape(x)), jnp.result_type(x)), item)
    return Ring(items, jnp.zeros((), jnp.int32))


def capacity(ring: Ring) -> int:
    """The number of items that the ring can hold."""
    return jax.tree.leaves(ring.items)[0].shape[0]


def add(ring: Ring, item: PyTree, where: jax.Array | bool = True) -> Ring:
    """Adds one item, or nothing where `where` is False.

    One slot is written: with the ring donated to the jitted step, nothing else of it is copied.
    """
    slot = ring.added % capacity(ring)

    def write(items, new):
        new = jnp.where(where, new, items[slot])
        return jax.lax.dynamic_update_index_in_dim(items, new, slot, 0)

    return Ring(jax.tree.map(write, ring.items, item), ring.added + jnp.asarray(where, jnp.int32))


def add_batch(ring: Ring, batch: PyTree) -> Ring:
    """Adds the n items of `batch`, each leaf [n, ...]; ValueError for more than the capacity."""
    n = jax.tree.leaves(batch)[0].shape[0]
    if n > capacity(ring):
        raise ValueError(f"{n} items do not fit in a ring of {capacity(ring)}")
    slots = (ring.added + jnp.arange(n)) % capacity(ring)
    items = jax.tree.map(lambda items, new: items.at[slots].set(new), ring.items, batch)
    return Ring(items, ring.added + n)


def sample_indices(ring: Ring, key: jax.Array, n: int) -> jax.Array:
    """n slots, [n], drawn uniformly with replacement from those that hold an item."""
    return jax.random.randint(key, (n,), 0, jnp.minimum(ring.added, capacity(ring)))


def sample(ring: Ring, key: jax.Array, n: int) -> PyTree:
    """n items drawn uniformly with replacement: each leaf [n, ...]."""
    slots = sample_indices(ring, key, n)
    return jax.tree.map(lambda items: items[slots], ring.items)
