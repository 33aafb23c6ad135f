"""Where a run comes from: its command, the multirun it may be a job of, the versions, the commit, the processor."""

import importlib.metadata
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

import loqa

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")  # on which the numbers depend


def multirun_name() -> str | None:
    """The name of the multirun that this job belongs to, or None."""
    if HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN:
        return Path(HydraConfig.get().sweep.dir).name
    return None


def choice(group: str, otherwise: str) -> str:
    """What was chosen of a group of conf/, such as hp: the preset; `otherwise` where Hydra is not running."""
    return HydraConfig.get().runtime.choices.get(group, otherwise) if HydraConfig.initialized() else otherwise


def program() -> list[str]:
    """The words that start this script, or the installed command that it is."""
    name = Path(sys.argv[0]).name
    return [name] if name.startswith("loqa-") else ["python", sys.argv[0]]


def commands(directory: str, num_devices: int) -> tuple[str, str]:
    """The command that runs this job from the start, and the one that resumes it in its directory.

    A multirun's job has the first alone; the second is the multirun's own, which resumes all of its jobs.
    """
    without = lambda words, *keys: [word for word in words if not word.lstrip("+").startswith(keys)]
    job, options = HydraConfig.get().overrides.task if HydraConfig.initialized() else sys.argv[1:], []
    if choice("launcher", "") == "seeds":
        job = [*without(job, "jax.num_devices="), f"jax.num_devices={num_devices}"]
    for i, word in enumerate(sys.argv[1:] if HydraConfig.initialized() else ()):
        if word.split("=")[0] in ("--config-dir", "-cd"):
            options = sys.argv[i + 1 : i + 3 - ("=" in word)]
    again = [*options, f"resume={directory}"] if multirun_name() is None else without(sys.argv[1:], "resume=")
    return shlex.join([*program(), *options, *without(job, "resume=", "launcher=")]), shlex.join([*program(), *again])


def other_code(commits: list[str | None]) -> str:
    """What differs in the code since the earlier parts of a run, by their `commit`; "" if nothing is known to."""
    before, now = commits[-1] if commits else None, commit()
    if before is None or (before == now and not before.endswith("-dirty")):
        return ""
    name = lambda it: it.removesuffix("-dirty")[:10] + ", with changes" * it.endswith("-dirty") if it else "unknown"
    return f"commit was {name(before)} and is {name(now)}" + ", maybe others" * (before == now)


def versions() -> dict[str, str]:
    """The versions of this package, of Python and of the packages that the numbers depend on."""
    found = {"loqa": loqa.__version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def commit() -> str | None:
    """The commit of this code, with -dirty where a file differs from it; None where it is no checkout."""
    root = Path(loqa.__file__).parent.parent
    if not (root / ".git").exists():  # else git would find a repository that this package is installed in
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def processor() -> str:
    """The name of the CPU."""
    cpus = Path("/proc/cpuinfo")  # of Linux
    models = re.findall(r"model name\s*:\s*(.*)", cpus.read_text()) if cpus.exists() else []
    return models[0] if models else platform.machine()
