"""Where a run comes from: its command, the multirun it may be a job of, the versions, the commit, the machine."""

import importlib.metadata
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
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
    return HydraConfig.get().runtime.choices[group] if HydraConfig.initialized() else otherwise


def command() -> str:
    """The command that runs this job from the start: of a multirun's job, it alone."""
    words = sys.argv
    if HydraConfig.initialized():
        words = [HydraConfig.get().job.name, *HydraConfig.get().overrides.task]
        words[0] += "" if words[0].startswith("loqa-") else ".py"
    return shlex.join([*program(words[0]), *_without_resume(words[1:])])


def program(script: str) -> list[str]:
    """The words that start a script by its path, or one of the installed commands."""
    name = Path(script).name
    return [name] if name.startswith("loqa-") else ["python", script]


def resume_command(directory: str) -> str:
    """The command that resumes the run in `directory`; a multirun's own command resumes all its jobs."""
    words = _without_resume(sys.argv[1:])
    if multirun_name() is None:
        if not re.fullmatch(r"[A-Za-z0-9_./-]+", directory):  # else Hydra would read more than a path in it
            directory = "'" + directory.replace("'", "\\'") + "'"
        words.append(f"resume={directory}")
    return shlex.join([*program(sys.argv[0]), *words])


def _without_resume(words: list[str]) -> list[str]:
    return [word for word in words if not word.startswith(("resume=", "+resume="))]


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


def cores(root: Path = Path("/")) -> int:
    """How many cores of the CPU this process may use: by its affinity, and by the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    groups = root / "sys/fs/cgroup"
    try:  # its own group of those on the machine; within a container this is often the root
        own = [line.split(":", 2)[1:] for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return allowed
    for controllers, name in own:
        version_1 = "cpu" in controllers.split(",")
        if controllers and not version_1:
            continue
        mount = groups / "cpu" if version_1 else groups
        group = mount / name.lstrip("/")
        for folder in (group, *group.parents):  # a limit of any group above holds, too
            quota, period = _quota(folder, version_1)
            if quota > 0:
                allowed = min(allowed, max(1, math.ceil(quota / period)))
            if folder == mount:
                break
    return allowed


def _quota(group: Path, version_1: bool) -> tuple[int, int]:
    """Microseconds of processor time that a control group has in each period, 0 without a limit; and the period."""
    try:
        if version_1:
            words = [(group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
        else:
            words = (group / "cpu.max").read_text().split()
        return (0, 1) if words[0] == "max" else (int(words[0]), int(words[1]))
    except (OSError, ValueError, IndexError):
        return 0, 1


def processor() -> str:
    """The name of the CPU."""
    cpus = Path("/proc/cpuinfo")  # of Linux
    models = re.findall(r"model name\s*:\s*(.*)", cpus.read_text()) if cpus.exists() else []
    return models[0] if models else platform.machine()


def machine() -> dict[str, Any]:
    """The processor, its cores that this process may use, and the device that JAX computes on."""
    return {"processor": processor(), "cores": cores(), "device": jax.devices()[0].device_kind}
