"""Checkpoints of a run: everything that the next iteration depends on, as files; and which run is resumed.

A checkpoint is `checkpoints/state_<iteration>.npz` in the run's directory: arrays, and metadata as JSON. The past
agents of the replay buffer are not in it: each checkpoint writes those that are new to `past_<first>_<end>.npz`, a
segment that later ones refer to. Files are whole or not there (they are renamed into place), zip's checksums show
whether they still are, and nothing in them is executed. The format is our own because Orbax, after one flipped bit
in a data file, restored wrong numbers without an error in 12 of 12 trials.
"""

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from loqa.hyperparameters import LENGTH_AND_FILES, Hyperparameters
from loqa.learner import TrainState
from loqa.run import provenance
from loqa.run.agents import named_leaves, read_npz
from loqa.run.config import ConfigError, flat, parse_hp, read_settings
from loqa.run.run import Resumed, Run
from loqa.run.terminal import reason

FORMAT = "loqa-checkpoint-2"
KEEP = 3  # checkpoints of a run
PAST_AGENTS = re.compile(r"learners/\d+/past/items/")  # how the names of the past agents' arrays begin
PAST_ADDED = "learners/0/past/added"  # how many were ever added; the same for all learners


class Checkpoints:
    """Writes the checkpoints of a run. A full disk does not end the run: the next checkpoint is tried."""

    def __init__(self, run: Run):
        metadata = run.resumed.metadata if run.resumed else {}
        self._run, self._folder = run, run.directory / "checkpoints"
        self._segments: list[str] = metadata.get("segments", [])
        self._num_stored: int = metadata.get("past_agents", 0)  # in the segments, or dropped from them
        self.iteration: int | None = metadata.get("iteration")  # of the last checkpoint

    def save(self, state: TrainState) -> bool:
        """Writes a checkpoint of the state, and deletes old ones. Returns whether it was written."""
        leaves = named_leaves(state._replace(key=jax.random.key_data(state.key)))
        past = {name: leaves.pop(name) for name in list(leaves) if PAST_AGENTS.match(name)}
        segments, num_past = list(self._segments), int(leaves.get(PAST_ADDED, 0))
        if num_past > self._num_stored:
            capacity = next(iter(past.values())).shape[0]
            oldest = num_past - capacity  # that the buffer still holds
            first = max(self._num_stored, oldest)
            new = {name: np.asarray(x[np.arange(first, num_past) % capacity]) for name, x in past.items()}
            segments.append(f"past_{first:09d}_{num_past:09d}.npz")
            while len(segments) > 1 and int(segments[1].split("_")[1]) <= oldest:
                del segments[0]
            if not self._run.write(f"checkpoints/{segments[-1]}", lambda path: np.savez(path, **new)):
                return False

        iteration = int(state.iteration)
        metadata = {"format": FORMAT, "iteration": iteration, "versions": self._run.versions}
        metadata |= {"run": self._run.snapshot(), "segments": segments, "past_agents": num_past}
        leaves["metadata"] = json.dumps(metadata)
        if not self._run.write(f"checkpoints/state_{iteration:09d}.npz", lambda path: np.savez(path, **leaves)):
            return False
        self._segments, self._num_stored, self.iteration = segments, num_past, iteration
        self._delete_old()
        return True

    def _delete_old(self) -> None:
        """Keeps the last KEEP checkpoints, and the segments that they refer to."""
        paths = checkpoint_paths(self._run.directory)
        # Later ones than the present one are unusable, or the run would have been resumed from them.
        kept = [path for path in paths if iteration_of(path) <= self.iteration][:KEEP]
        needed = {*self._segments, *(path.name for path in kept)}
        for path in kept:
            with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as file:
                needed.update(json.loads(str(file["metadata"]))["segments"])
        for path in [*paths, *self._folder.glob("past_*.npz")]:
            if path.name not in needed:
                with contextlib.suppress(OSError):
                    path.unlink()


def checkpoint_paths(directory: Path) -> list[Path]:
    """The checkpoints of the run in `directory`, newest first."""
    return sorted((directory / "checkpoints").glob("state_*.npz"), reverse=True)


def iteration_of(path: Path) -> int:
    """The iteration of a checkpoint, by its name."""
    return int(path.stem.removeprefix("state_"))


def read(path: Path, hp: Hyperparameters, new_state: Callable[[], TrainState]) -> Resumed:
    """Reads a checkpoint, with the past agents that it refers to; raises a ConfigError that names the file.

    Its arrays must have the names, shapes and types of the state that `new_state` makes, which is only traced.
    """
    try:
        if iteration_of(path) > hp.total_iterations:
            raise ValueError(f"it is at iteration {iteration_of(path)}, but this run has {hp.total_iterations}")
        arrays = read_npz(path)
        metadata = json.loads(str(arrays.pop("metadata")))
        if metadata["format"] != FORMAT:
            raise ValueError(f"its format is {metadata['format']!r}, but must be {FORMAT!r}")
        segments = [read_npz(path.parent / name) for name in metadata["segments"]]
        new, leaves = jax.eval_shape(new_state), []
        template = new._replace(key=jax.eval_shape(jax.random.key_data, new.key))
        for name, leaf in named_leaves(template).items():
            if PAST_AGENTS.match(name) and segments:
                past = np.concatenate([one[name] for one in segments])
                arrays[name] = _in_slots(past, int(arrays[PAST_ADDED]), capacity=leaf.shape[0])
            if name not in arrays:
                raise ValueError(f"it has no {name}")
            found, must = (f"{np.dtype(x.dtype)}{list(x.shape)}" for x in (arrays[name], leaf))
            if found != must:
                raise ValueError(f"{name} is {found}, but must be {must}")
            leaves.append(jnp.array(arrays[name]))  # a copy: the state is donated
        state = jax.tree.unflatten(jax.tree.structure(template), leaves)
        state = state._replace(key=jax.random.wrap_key_data(state.key))
        return Resumed(path.parent.parent, metadata, state)
    except Exception as error:  # what is whole may still have anything in it
        raise ConfigError(f"the checkpoint {path} cannot be used: {reason(error)}") from error


def _in_slots(past: np.ndarray, num_added: int, capacity: int) -> np.ndarray:
    """Past agents [n, ...], the newest last, where the buffer has them, as an array [capacity, ...]."""
    held = np.arange(max(0, num_added - capacity), num_added)  # numbered since the start of the run
    if len(past) < len(held):
        raise ValueError(f"it has {len(past)} past agents, but must have {len(held)}")
    slots = np.zeros((capacity, *past.shape[1:]), past.dtype)
    slots[held % capacity] = past[len(past) - len(held) :]
    return slots


def find(resume: str | None, script: str, hp: Hyperparameters, new_state: Callable[[], TrainState]) -> Resumed | None:
    """The run that is resumed, or None for a new run; `resume` is as in conf/shared/base_config.yaml.

    `new_state` is as in `read`. Raises ConfigError where the directory that `resume` names, its configuration or its
    newest checkpoint cannot be used; "auto" passes over these.
    """
    if resume == "new" or (resume is None and provenance.multirun_name() is None):
        return None
    if resume not in (None, "auto"):
        directory = Path(os.path.expanduser(resume)).absolute()
        if why := _why_not(directory, script, hp):
            raise ConfigError(f"resume is {why}")
        if paths := checkpoint_paths(directory):
            return read(paths[0], hp, new_state)
        started = Resumed(directory, {}, None)
        if started.summary() and not started.is_finished(hp):
            raise ConfigError(f"resume is {resume!r}, a run that ended and has no checkpoint to resume from")
        return started
    without, paths, other = [], [], ""  # runs without a checkpoint, checkpoints, and why not another run of this seed
    finished = ""  # the name of the last run, by the time in it, with nothing left to do
    for directory in sorted(Path(os.path.expanduser(hp.save_dir)).absolute().glob("*")):
        if not _has_seed(directory, hp.seed):
            continue
        if why := _why_not(directory, script, hp):
            other = f"; the newest of this seed is {why}"
        elif not (found := checkpoint_paths(directory)):
            without.append(Resumed(directory, {}, None))
        elif iteration_of(found[0]) <= hp.total_iterations:  # a longer run is left alone
            paths += found
            finished = directory.name if Resumed(directory, {}, None).is_finished(hp) else finished
    # The same settings are the same run, so the furthest checkpoint is the best, and of equal ones that of the last
    # begun; but runs begun after one that is finished are first. The times of files say nothing: copies have others.
    begun = lambda path: path.parent.parent.name
    for path in sorted(paths, key=lambda path: (begun(path) > finished, iteration_of(path), begun(path)), reverse=True):
        try:
            return read(path, hp, new_state)
        except ConfigError as error:
            print(f"resume=auto: {error}; trying an earlier one")
    for started in reversed(without):
        # It was ended before its first checkpoint, or it is finished and its checkpoints were deleted.
        if started.is_finished(hp) or not started.summary():
            return started
    if resume:
        print(f"resume=auto: there is nothing to resume, so this is a new run{other}")
    return None


def _has_seed(directory: Path, seed: int) -> bool:
    """Whether a directory may be a run of this seed, whatever its name is; reading all of its YAML would be slow."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return re.search(rf"seed: {seed}(\.0)?\n", (directory / "config.yaml").read_text(encoding="utf-8")) is not None
    return False


def _why_not(directory: Path, script: str, hp: Hyperparameters) -> str:
    """Why a directory is no run of these settings, with five keys at most; "" where it is."""
    if (directory / "curves.csv").exists():
        return f"{str(directory)!r}, an experiment of several runs: hp={directory} starts from its settings"
    try:
        settings = read_settings(directory)
    except ConfigError as error:
        return str(error)
    if (game := settings.get("game", script)) != script:  # runs of earlier versions do not name it
        return f"{str(directory)!r}, a run of another game: {game}"
    try:
        there, here = (flat(one.model_dump()) for one in (parse_hp(script, settings["hp"]), hp))
        different = [x for x in here | there if here.get(x) != there.get(x) and x not in LENGTH_AND_FILES]
        what = "; ".join(f"hp.{key} is {there.get(key)} there and {here.get(key)} here" for key in different[:5])
    except ConfigError as error:
        what = f"its {error}"
    return f"{str(directory)!r}, a run with other settings: {what}" if what else ""
