"""Which run is resumed: `resume=<run directory>` or `resume=auto`."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import yaml

from loqa.hyperparameters import Hyperparameters
from loqa.learner import TrainState
from loqa.run import provenance
from loqa.run.checkpoints import checkpoint_paths, iteration_of, read_checkpoint, restore
from loqa.run.config import ConfigError, flat, parse_hp
from loqa.run.run import Resumed

# A run may be resumed with other values of these: they change no bit of an iteration or an evaluation.
MAY_DIFFER_ON_RESUME = {"hp.num_iterations", "hp.max_env_steps", "hp.stop_at"}
MAY_DIFFER_ON_RESUME |= {"hp.save_every", "hp.checkpoint_every", "hp.save_dir"}


def find(
    resume: str | None,
    script: str,
    hp: Hyperparameters,
    new_state: Callable[[], TrainState],
    log_line: Callable[[str], object] = print,
) -> Resumed | None:
    """The run that is resumed, or None for a new run.

    Args:
      resume: a run's directory; "auto" for the newest whole checkpoint of the same settings in `hp.save_dir`,
        or a new run if there is none; None for a new run, which in a multirun is as "auto".
      script: "ipd" or "coin".
      hp: the hyperparameters.
      new_state: the state of a new run with them, whose shapes a checkpoint must have. It is only traced, and may
        not need `hp.init_from`, which may be gone.
      log_line: prints a line about a checkpoint that "auto" cannot use.

    Raises:
      ConfigError: the directory, its configuration or its newest checkpoint cannot be used. "auto" passes over
        what it cannot use.
    """
    if resume is None and provenance.multirun_name() is None:
        return None
    if resume in (None, "auto"):
        return _find_newest(script, hp, new_state, log_line)
    directory = _absolute(resume)
    if different := _difference(_saved_hp(directory), script, hp):
        raise ConfigError(f"resume is {resume!r}, a run with other settings: {different}")
    if paths := checkpoint_paths(directory):
        return read(paths[0], script, hp, new_state)
    started = Resumed(directory, {}, None)
    if (directory / "summary.json").exists() and not started.is_finished(hp):
        raise ConfigError(f"resume is {resume!r}, a run that ended and has no checkpoint to resume from")
    return started


def read(path: Path, script: str, hp: Hyperparameters, new_state: Callable[[], TrainState]) -> Resumed:
    """Reads a checkpoint, with the past agents that it refers to; the arguments are those of `find`.

    Raises:
      ConfigError: it is damaged, of another format, or of a run with other settings; it names the file.
    """
    try:
        metadata, arrays = read_checkpoint(path)
        if metadata["script"] != script:
            raise ValueError(f"it is of a run with other settings: it is one of {metadata['script']}.py")
        if different := _difference(metadata["hp"], script, hp):
            raise ValueError(f"it is of a run with other settings: {different}")
        if metadata["iteration"] > hp.total_iterations:
            raise ValueError(f"it is at iteration {metadata['iteration']}, but this run has {hp.total_iterations}")
        state = restore(arrays, jax.eval_shape(new_state))
    except Exception as error:  # what is whole may still have anything in it
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"the checkpoint {path} cannot be used: {reason}") from error
    return Resumed(path.parent.parent, metadata, state)


def _find_newest(
    script: str, hp: Hyperparameters, new_state: Callable[[], TrainState], log_line: Callable[[str], object]
) -> Resumed | None:
    directories = []
    for directory in sorted(_absolute(hp.save_dir).glob(f"{hp.run_name}_*")):
        try:
            different = _difference(_saved_hp(directory), script, hp)
        except ConfigError:
            continue  # not a run, or not a whole one
        if not different and all(
            iteration_of(path) <= hp.total_iterations for path in checkpoint_paths(directory)
        ):
            directories.append(directory)  # a longer run is left alone
    paths = [path for directory in directories for path in checkpoint_paths(directory)]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            return read(path, script, hp, new_state)
        except ConfigError as error:
            log_line(f"resume=auto: {error}; trying an earlier one")
    for directory in reversed(directories):
        if not checkpoint_paths(directory):
            # It was ended before its first checkpoint, or it is finished and its checkpoints were deleted.
            started = Resumed(directory, {}, None)
            if started.is_finished(hp) or not (directory / "summary.json").exists():
                return started
    log_line("resume=auto: there is nothing to resume, so this is a new run")
    return None


def _absolute(path: str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:  # the home of nobody
        raise ConfigError(f"the path {path!r} cannot be used: {error}") from error


def _saved_hp(directory: Path) -> Mapping:
    """`hp` in the run's config.yaml; raises ConfigError."""
    try:
        return yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))["hp"]
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
        reason = "it is not a configuration"
    raise ConfigError(f"resume is {str(directory)!r}, which is not a run: config.yaml: {reason}")


def _difference(saved: Mapping, script: str, hp: Hyperparameters) -> str:
    """What differs between the `hp` of a run and this one, five keys at most; "" if nothing that matters does."""
    try:
        there, here = (flat(one.model_dump(), "hp.") for one in (parse_hp(script, saved), hp))
    except ConfigError as error:
        return f"its {error}"
    different = [key for key in here if here[key] != there[key] and key not in MAY_DIFFER_ON_RESUME]
    return "; ".join(f"{key} is {there[key]} there and {here[key]} here" for key in different[:5])
