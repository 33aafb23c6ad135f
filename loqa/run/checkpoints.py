"""Checkpoints of a run, and how a run goes on from one: `resume=<run directory>` or `resume=auto`.

A checkpoint is `checkpoints/state_<iteration>.npz` in the run's directory: everything that the next iteration
depends on, as arrays, and a JSON text. The past agents of the replay buffer are not in it. Each checkpoint writes
those that are new to `past_<first>_<end>.npz`, which later ones refer to, so that nothing is written twice. Files
are whole or not there (they are renamed into place), zip's checksums tell whether they still are, and nothing in
them is executed.
"""

import contextlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from loqa import buffers, builders, learner, training
from loqa.run.config import ConfigError, flat, parse_hp
from loqa.run.launch import multirun_name
from loqa.run.run_logging import Run, versions
from loqa.training import TrainState

FORMAT = "loqa-checkpoint-1"
KEEP = 3  # checkpoints of a run

# A run may go on with another value of these: they change no bit of an iteration or an evaluation.
FREE = {"hp.num_iterations", "hp.max_env_steps", "hp.stop_at"}
FREE |= {"hp.save_every", "hp.checkpoint_every", "hp.save_dir"}


class Checkpoint(NamedTuple):
    """A run's directory, and what stands in a checkpoint of it; nothing if the run made none yet."""

    directory: Path
    about: dict[str, Any]  # format, script, iteration, hp, versions, run, segments, added
    state: TrainState | None

    def is_finished(self, hp: Any) -> bool:
        """Whether there is nothing left to do: all iterations are done, or `hp.stop_at` was reached."""
        try:
            summary = json.loads((self.directory / "summary.json").read_text(encoding="utf-8"))
            ended, reached = summary["iteration"], summary.get("reached")
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return False
        if ended != self.about.get("iteration", ended):
            return False
        return ended == hp.total_iterations or (reached is not None and reached == getattr(hp, "stop_at", None))


# ----------------------------------------------------------------------------------------------------------
# Finding
# ----------------------------------------------------------------------------------------------------------


def find(resume: str | None, script: str, hp: Any, say: Callable[[str], object] = print) -> Checkpoint | None:
    """What a run that was started with `resume` goes on from; None for a new run.

    Args:
      resume: a run's directory; "auto" for the newest whole checkpoint of the same settings in `hp.save_dir`,
        or a new run if there is none; None for a new run, which in a multirun is as "auto".
      script: "ipd" or "coin".
      hp: the hyperparameters.
      say: what is told about checkpoints that "auto" cannot use.

    Raises:
      ConfigError: the directory, its configuration or its newest checkpoint cannot be used. "auto" passes over
        what it cannot use.
    """
    if resume is None and multirun_name() is None:
        return None
    if resume in (None, "auto"):
        return _find_newest(script, hp, say)
    directory = _absolute(resume)
    if different := _difference(_config_hp(directory), script, hp):
        raise ConfigError(f"resume is {resume!r}, a run with other settings: {different}")
    paths = _checkpoints(directory)
    if paths:
        return read(paths[0], script, hp)
    begun = Checkpoint(directory, {}, None)
    if (directory / "summary.json").exists() and not begun.is_finished(hp):
        raise ConfigError(f"resume is {resume!r}, a run that ended and has no checkpoint to go on from")
    return begun


def _find_newest(script: str, hp: Any, say: Callable[[str], object]) -> Checkpoint | None:
    directories = []
    for directory in sorted(_absolute(hp.save_dir).glob(f"{hp.run_name}_*")):
        try:
            different = _difference(_config_hp(directory), script, hp)
        except ConfigError:
            continue  # not a run, or not a whole one
        if not different and all(_iteration(path) <= hp.total_iterations for path in _checkpoints(directory)):
            directories.append(directory)  # a longer run is left alone
    paths = [path for directory in directories for path in _checkpoints(directory)]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            return read(path, script, hp)
        except ConfigError as error:
            say(f"resume=auto: {error}; going back to an earlier one")
    begun = [Checkpoint(directory, {}, None) for directory in directories if not _checkpoints(directory)]
    for one in reversed(begun):  # ended before its first checkpoint, or its checkpoints were deleted
        if one.is_finished(hp) or not (one.directory / "summary.json").exists():
            return one
    say("resume=auto: nothing to go on from, so this is a new run")
    return None


def _absolute(path: str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:  # the home of nobody
        raise ConfigError(f"the path {path!r} cannot be used: {error}") from error


def _checkpoints(directory: Path) -> list[Path]:
    """The run's checkpoints, newest first."""
    return sorted((directory / "checkpoints").glob("state_*.npz"), reverse=True)


def _iteration(path: Path) -> int:
    """The iteration of a checkpoint, by its name."""
    return int(path.stem.removeprefix("state_"))


def _segment(first: int, end: int) -> str:
    """The file of the past agents from the `first` one that was added up to `end`, which is not in it."""
    return f"past_{first:09d}_{end:09d}.npz"


def _first(segment: str) -> int:
    return int(segment.split("_")[1])


def _config_hp(directory: Path) -> Mapping:
    """`hp` in the run's config.yaml."""
    try:
        return yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))["hp"]
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
        reason = "it is not a configuration"
    raise ConfigError(f"resume is {str(directory)!r}, which is not a run: config.yaml: {reason}")


def _difference(saved: Mapping, script: str, hp: Any) -> str:
    """What differs between the `hp` of a run and this one, five keys at most; "" if nothing that matters does."""
    try:
        there = flat(parse_hp(script, saved).model_dump(), "hp.")
    except ConfigError as error:
        return f"its {error}"
    here = flat(hp.model_dump(), "hp.")
    different = [key for key in here if here[key] != there.get(key) and key not in FREE]
    return "; ".join(f"{key} is {there.get(key)} there and {here[key]} here" for key in different[:5])


# ----------------------------------------------------------------------------------------------------------
# Reading
# ----------------------------------------------------------------------------------------------------------


def read(path: Path, script: str, hp: Any) -> Checkpoint:
    """Reads a checkpoint, with the past agents that it refers to.

    Raises:
      ConfigError: it is broken, of another format, or of a run with other settings; it names the file.
    """
    try:
        arrays = _read_npz(path)
        about = json.loads(str(arrays.pop("about")))
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}, but must be {FORMAT!r}")
        if about["script"] != script:
            raise ValueError(f"it is of a run with other settings: it is one of {about['script']}.py")
        if different := _difference(about["hp"], script, hp):
            raise ValueError(f"it is of a run with other settings: {different}")
        if about["iteration"] > hp.total_iterations:
            raise ValueError(f"it is at iteration {about['iteration']}, but this run has {hp.total_iterations}")
        segments = [_read_npz(path.parent / name) for name in about["segments"]]
        for name in segments[0] if segments else ():
            arrays[name] = np.concatenate([segment[name] for segment in segments])
        state = _state_of(arrays, jax.eval_shape(lambda: _new_state(script, hp)))
    except Exception as error:  # a damaged zip file can raise anything
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"the checkpoint {path} cannot be used: {reason}") from error
    return Checkpoint(path.parent.parent, about, state)


def _new_state(script: str, hp: Any) -> TrainState:
    hp = hp.model_copy(update={"init_from": None})  # which gave the first parameters only, and may be gone
    _, agent = builders.game_and_agent(script, hp)
    return training.init(agent, learner.settings_of_all(hp), hp, jax.random.key(hp.seed))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file whose checksums are right."""
    with zipfile.ZipFile(path) as file:
        broken = file.testzip()
    if broken:
        raise ValueError(f"{path.name} is damaged (in {broken})")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _state_of(arrays: dict[str, np.ndarray], expected: TrainState) -> TrainState:
    """The state in `arrays`, whose past agents stand in the order in which they were added.

    Raises ValueError if an array is missing or has another shape or type than `expected`.
    """

    def take(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if name not in arrays:
            raise ValueError(f"it has no {name}")
        array = arrays[name]
        if array.shape != shape or array.dtype != dtype:
            is_, must = f"{array.dtype}{list(array.shape)}", f"{np.dtype(dtype)}{list(shape)}"
            raise ValueError(f"{name} is {is_}, but must be {must}")
        return array

    def restore_leaf(name: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = jax.eval_shape(jax.random.key_data, leaf)
            return jax.random.wrap_key_data(jnp.array(take(name, data.shape, data.dtype)))
        return jnp.array(take(name, leaf.shape, leaf.dtype))  # a copy: the state is donated

    def restore_ring(i: int, ring: buffers.Ring, added: jax.Array) -> buffers.Ring:
        def restore_items(name: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
            capacity, *shape = leaf.shape
            held = np.arange(max(0, int(added) - capacity), int(added))  # their numbers since the start
            arrays[name] = arrays.get(name, np.zeros((0, *shape), leaf.dtype))[-len(held) or None :]
            items = np.zeros(leaf.shape, leaf.dtype)
            items[held % capacity] = take(name, (len(held), *shape), leaf.dtype)
            return jnp.array(items)

        return buffers.Ring(_map_named(restore_items, ring.items, prefix=f"past/{i}/"), added)

    rest = _map_named(restore_leaf, _without_items(expected))
    return rest._replace(
        past=tuple(restore_ring(i, ring, rest.past[i].added) for i, ring in enumerate(expected.past))
    )


def _without_items(state: TrainState) -> TrainState:
    """The state without the past agents."""
    return state._replace(past=tuple(ring._replace(items=()) for ring in state.past))


def _map_named(function: Callable[[str, Any], Any], tree: Any, prefix: str = "") -> Any:
    """Maps each leaf with its name."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(prefix + training.leaf_name(path), leaf), tree
    )


# ----------------------------------------------------------------------------------------------------------
# Writing
# ----------------------------------------------------------------------------------------------------------


class Checkpoints:
    """Writes the checkpoints of a run. A disk that is full does not end the run: the next one is tried."""

    def __init__(self, run: Run):
        self._run = run
        resumed = run.resumed.about if run.resumed else {}
        self.resumed_state = run.resumed.state if run.resumed else None
        self._segments: list[str] = resumed.get("segments", [])
        self._added: int = resumed.get("added", 0)  # past agents that stand in the segments
        self.iteration: int | None = resumed.get("iteration")  # of the last checkpoint

    def save(self, state: TrainState) -> bool:
        """Writes a checkpoint of the state, and deletes old ones. Returns whether it was written."""
        segments, added = list(self._segments), int(state.past[0].added) if state.past else 0
        if added > self._added:
            oldest = added - buffers.capacity(state.past[0])  # that the ring still holds
            first = max(self._added, oldest)
            segments.append(_segment(first, added))
            while len(segments) > 1 and _first(segments[1]) <= oldest:
                del segments[0]
            agents = {
                f"past/{i}/{training.leaf_name(path)}": np.asarray(x[np.arange(first, added) % x.shape[0]])
                for i, ring in enumerate(state.past)
                for path, x in jax.tree_util.tree_leaves_with_path(ring.items)
            }
            if not self._run.write(f"checkpoints/{segments[-1]}", lambda path: np.savez(path, **agents)):
                return False
        rest = _without_items(state._replace(key=jax.random.key_data(state.key)))
        leaves = jax.tree_util.tree_leaves_with_path(rest)
        arrays = {training.leaf_name(path): np.asarray(x) for path, x in leaves}
        iteration = int(state.iteration)
        about = {
            "format": FORMAT,
            "script": self._run.script,
            "iteration": iteration,
            "hp": self._run.settings["hp"],
            "versions": versions(),
            "run": self._run.snapshot(),
            "segments": segments,
            "added": added,
        }
        name = f"checkpoints/state_{iteration:09d}.npz"
        if not self._run.write(name, lambda path: np.savez(path, about=json.dumps(about), **arrays)):
            return False
        self._segments, self._added, self.iteration = segments, added, iteration
        self._delete_old()
        return True

    def _delete_old(self) -> None:
        """Keeps the last KEEP checkpoints, and the past agents that they refer to."""
        paths = [path for path in _checkpoints(self._run.directory) if _iteration(path) <= self.iteration]
        # Later ones could not be used, or the run would have gone on from them.
        broken = [path for path in _checkpoints(self._run.directory) if _iteration(path) > self.iteration]
        needed = set(self._segments)
        for path in paths[:KEEP]:
            with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as file:
                needed |= set(json.loads(str(file["about"]))["segments"])
        segments = (self._run.directory / "checkpoints").glob("past_*.npz")
        for path in broken + paths[KEEP:] + [path for path in segments if path.name not in needed]:
            with contextlib.suppress(OSError):
                path.unlink()
