"""Where a run comes from: its command, the multirun it may be a job of, the versions, the commit, the machine."""

import importlib.metadata
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
from loqa.run import resources

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


def _without_resume(words: list[str]) -> list[str]:
    return [word for word in words if not word.startswith(("resume=", "+resume="))]


def resume_command(directory: str) -> str:
    """The command that resumes the run in `directory`; a multirun's own command resumes all its jobs."""
    script, *words = sys.argv
    if multirun_name() is not None:
        return shlex.join([*program(script), *_without_resume(words)])
    return shlex.join([*program(script), f"resume={directory}"])


def other_code(before: str | None) -> str:
    """What differs in the code since a part of a run, by the `commit` that it noted; "" if nothing is known to."""
    now = commit()
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


def machine() -> dict[str, Any]:
    """The processor, its cores that this process may use, and the device that JAX computes on."""
    return {"processor": processor(), "cores": resources.cores(), "device": jax.devices()[0].device_kind}
