"""What a run may use of its machine: cores, memory, and the devices that share each batch."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any

import jax

from loqa.hyperparameters import Hyperparameters
from loqa.run.config import ConfigError

# Devices of a CPU that `auto` takes at most. Each has the buffers in full, and repeats what is not split: by the
# processor time of an iteration, 16 with a core each make the IPD 8 times as fast as one does, 32 10 times.
MOST_OF_CPU = 16


def cores(root: Path = Path("/")) -> int:
    """How many cores of the CPU this process may use: by its affinity, and by the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for group, version_1 in _control_groups("cpu", root):
        with suppress(OSError, ValueError, IndexError):
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if version_1 else ("cpu.max",)
            quota, period = map(int, " ".join((group / file).read_text() for file in files).split())  # not "max"
            if quota > 0:
                allowed = min(allowed, max(1, math.ceil(quota / period)))
    return allowed


def memory(root: Path = Path("/")) -> int:
    """How many bytes this process may use: what the machine has, or its container may have."""
    allowed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**63
    for group, version_1 in _control_groups("memory", root):
        with suppress(OSError, ValueError):
            allowed = min(allowed, int((group / f"memory.{'limit_in_bytes' if version_1 else 'max'}").read_text()))
    return allowed


def _control_groups(controller: str, root: Path) -> Iterator[tuple[Path, bool]]:
    """The control groups that limit this process, and whether they are of version 1."""
    groups = root / "sys/fs/cgroup"
    try:  # its own group of those on the machine; within a container this is often the root
        own = [line.split(":", 2)[1:] for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for controllers, name in own:
        version_1 = controller in controllers.split(",")
        if controllers and not version_1:
            continue
        mount = groups / controller if version_1 else groups
        group = mount / name.lstrip("/")
        for folder in (group, *group.parents):  # a limit of any group above holds, too
            yield folder, version_1
            if folder == mount:
                break


def count_devices(option: int | str, hp: Hyperparameters, bytes_each: int = 0) -> int:
    """How many devices share a batch of episodes and its opponents; raises ConfigError if they cannot.

    `bytes_each`: of the state, which each has in full. `auto` leaves half of the memory that CPU devices share.
    """
    available, parts = len(jax.devices()), math.gcd(hp.batch_size, hp.agent_replay_buffer.opponents_per_batch or 0)
    if option == "auto":
        most = available
        if jax.default_backend() == "cpu":
            most = min(available, max(1, memory() // 2 // max(bytes_each, 1)))
        most = 1 if hp.lookahead else most  # LOLA and POLA share nothing: each device would do all of it
        return max(number for number in range(1, most + 1) if parts % number == 0)
    if option > available or parts % option:
        allowed = f"at most {available} and a divisor of hp.batch_size and of the number of opponents"
        raise ConfigError(f"jax.num_devices is {option}, but must be auto, or {allowed}: {parts}")
    return option


def choose_devices(option: int | str, hp: Hyperparameters, state: Any, seeds: int = 0) -> tuple[int, str]:
    """How many devices share a run, and what its state (of which shapes are enough) takes on them, in words.

    `seeds`: of how many side by side it is one, each on one device. Raises ConfigError where they cannot fit.
    """
    size = lambda tree: sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
    each = size(state)
    number = 1 if seeds else count_devices(option, hp, each)
    copies, limit = seeds or number, memory()
    if statistics := jax.local_devices()[0].memory_stats():  # None of a CPU, whose devices share the machine's memory
        copies, limit = math.ceil(copies / len(jax.devices())), statistics["bytes_limit"]
    takes = f"buffers and parameters take {gigabytes(each * copies)}"
    if copies > 1:
        takes += f", {gigabytes(each)} for each of {copies} {'seeds' if seeds else 'devices'}"
    if each * copies > limit:
        past, replay = (size([getattr(me, part) for me in state.learners]) for part in ("past", "replay"))
        _, key = max((past, "agent_replay_buffer"), (replay, "qvalue.replay_buffer"))
        capacity = reduce(getattr, key.split("."), hp).capacity
        why = f"smaller: {takes}, and this process may use {gigabytes(limit)}"
        raise ConfigError(f"hp.{key}.capacity is {capacity}, but must be {why}")
    return number, f"{takes}, of {gigabytes(limit)}"


def gigabytes(number: float) -> str:
    """Bytes in words."""
    return f"{number / 1e9:.2g} GB" if number >= 5e7 else f"{number / 1e6:.2g} MB"
