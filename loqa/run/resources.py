"""What a run may use of its machine: cores, memory, and the devices that share each batch."""

import contextlib
import math
import os
import re
import warnings
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import jax
from hydra.core.hydra_config import HydraConfig

from loqa.hyperparameters import Hyperparameters
from loqa.run import provenance
from loqa.run.config import ConfigError, JaxConfig
from loqa.run.terminal import reason

# Devices of a CPU that `auto` takes at most. Each has the buffers in full, and repeats what is not split: by the
# processor time of an iteration, 16 with a core each make the IPD 8 times as fast as one does, 32 10 times.
MOST_OF_CPU = 16


def cores(root: Path = Path("/")) -> int:
    """How many cores of the CPU this process may use: by its affinity, and by the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for quota, period in _limits(root, "cpu", ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        if quota > 0:
            allowed = min(allowed, max(1, math.ceil(quota / period)))
    return allowed


def memory(root: Path = Path("/")) -> int:
    """How many bytes this process may use: what the machine has, or its container may have."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**63
    return min([there, *(most for (most,) in _limits(root, "memory", ["memory.max"], ["memory.limit_in_bytes"]))])


def _limits(root: Path, controller: str, files: list[str], files_1: list[str]) -> Iterator[list[int]]:
    """The numbers in these files of each control group that limits this process; `files_1`: of version 1."""
    groups, own = root / "sys/fs/cgroup", root / "proc/self/cgroup"
    # Its own group of those on the machine; within a container this is often the root.
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = groups / controller if controllers else groups
        group = mount / name.lstrip("/")
        for folder in (group, *group.parents):  # a limit of any group above holds, too
            with contextlib.suppress(OSError, ValueError):  # there is none, or it is "max"
                texts = [(folder / file).read_text() for file in (files_1 if controllers else files)]
                yield [int(word) for word in " ".join(texts).split()]
            if folder == mount:
                break


def apply_jax_options(options: JaxConfig) -> None:
    """Sets JAX's flags, its cache of programs, and the numbers of its threads and of the CPU's devices.

    Raises ConfigError where JAX finds no device.
    """
    most = cores()
    if HydraConfig.initialized() and "joblib" in HydraConfig.get().launcher.get("_target_", ""):
        # Jobs side by side share the cores: two with all of them each would only be in each other's way.
        jobs = HydraConfig.get().launcher.n_jobs
        most = max(1, most // jobs) if jobs > 0 else 1
        os.environ.setdefault("PJRT_NPROC", str(most))
    with contextlib.suppress(RuntimeError):  # a multirun's second job in this process has the first one's devices
        if options.num_devices != "auto":
            jax.config.update("jax_num_cpu_devices", options.num_devices)
        elif jax.config.jax_num_cpu_devices < 1:  # else JAX's own variable says it
            jax.config.update("jax_num_cpu_devices", min(most, MOST_OF_CPU))
    if options.compilation_cache and not jax.config.jax_compilation_cache_dir:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        if not home.startswith("~"):  # nobody's: without a cache then
            # By processor, because a home directory may be shared by machines whose programs differ.
            folder = Path(home, "loqa", re.sub(r"\W+", "-", provenance.processor()))
            jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        warnings.filterwarnings("ignore", ".*persistent compilation cache")  # a disk that is full or read-only
    for name in ("jax_debug_nans", "jax_disable_jit"):
        if getattr(options, name):  # else JAX's own variable holds
            jax.config.update(name, True)
    try:
        jax.devices()
    except Exception as error:  # noqa: BLE001 (a plugin's)
        platforms, why = os.environ.get("JAX_PLATFORMS", ""), str(error) and f" ({reason(error)})"
        raise ConfigError(f"JAX_PLATFORMS is {platforms!r}, but JAX finds no such device here{why}") from None


def choose_devices(option: int | str, hp: Hyperparameters, state: Any, seeds: int = 0) -> tuple[int, str]:
    """How many devices share a run, and what its state (of which shapes are enough) takes on them, in words.

    Each has the state in full. `seeds`: of how many side by side it is one, each on one device. `auto` leaves half of
    the memory that CPU devices share. Raises ConfigError where they cannot fit, or cannot share a batch of episodes and
    its opponents.
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
        key = "agent_replay_buffer" if past > replay else "qvalue.replay_buffer"
        capacity = reduce(getattr, key.split("."), hp).capacity
        why = f"smaller: {takes}, and this process may use {gigabytes(limit)}"
        if past + replay < each / 2:
            raise ConfigError(f"the networks of hp.actor and hp.qvalue must be {why}")
        raise ConfigError(f"hp.{key}.capacity is {capacity}, but must be {why}")
    return number, f"{takes}, of {gigabytes(limit)}"


def count_devices(option: int | str, hp: Hyperparameters, bytes_each: int = 0) -> int:
    """The number of devices of `choose_devices`, with `bytes_each` of state."""
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


def gigabytes(number: float) -> str:
    """Bytes in words."""
    return f"{number / 1e9:.2g} GB" if number >= 5e7 else f"{number / 1e6:.2g} MB"
