"""A run's directory: locked while a process trains in it, its files whole or not there."""

import contextlib
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

from loqa.run.config import ConfigError
from loqa.run.terminal import reason, short_path

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None


class RunDirectory:
    """Locks a directory and writes config.yaml; ConfigError if it is not writable or another process uses it."""

    def __init__(self, path: Path, config_yaml: str, log_line: Callable[[str], object]):
        self.path, self._log_line = path, log_line
        self._failed: set[str] = set()  # kinds of files that could not be written
        self._lock: int | None = None
        try:
            self._lock = _lock(path)
            write_whole(path / "config.yaml", lambda file: file.write_text(config_yaml, encoding="utf-8"))
        except OSError as error:
            self.unlock()  # the process may have other jobs
            raise _cannot_write(str(path.parent), error) from error

    def write(self, name: str, function: Callable[[Path], object]) -> bool:
        """Writes the file `name` by `function(path)`: all of it or nothing. Returns whether it was written.

        An OSError is logged in one line, once for the files of a subdirectory.
        """
        kind = name.split("/")[0]
        try:
            if kind != name:
                (self.path / kind).mkdir(exist_ok=True)
            write_whole(self.path / name, function)
        except OSError as error:
            if kind not in self._failed:
                self._failed.add(kind)
                self._log_line(f"{name} could not be written ({reason(error)}); the run continues without it")
            return False
        if kind in self._failed:
            self._failed.remove(kind)
            self._log_line(f"{name} could be written again")
        return True

    def unlock(self) -> None:
        """Lets other processes train in it."""
        if self._lock is not None:
            os.close(self._lock)


def make_directory(save_dir: str, run_name: str) -> Path:
    """Makes `<save_dir>/<run_name>_<time>`, new even if two start in the same second, or raises ConfigError."""
    try:
        parent = Path(save_dir).expanduser().absolute()
        parent.mkdir(parents=True, exist_ok=True)
        name = f"{run_name}_{time.strftime('%Y%m%d-%H%M%S')}"
        for number in itertools.count():
            directory = parent / (f"{name}_{number}" if number else name)
            with contextlib.suppress(FileExistsError):
                directory.mkdir()
                return directory
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name; the home of nobody
        raise _cannot_write(save_dir, error) from error


def _cannot_write(save_dir: str, error: Exception) -> ConfigError:
    return ConfigError(f"hp.save_dir is {save_dir!r}, where no run can be written: {reason(error)}")


def write_whole(path: Path, function: Callable[[Path], object]) -> None:
    """Writes a file by `function(path)` under another name first: all of it or nothing, also when the machine dies."""
    temporary = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        function(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # before it has its name: a machine that dies leaves all or nothing, too
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _lock(directory: Path) -> int:
    """Locks the directory until it is unlocked, or the process ends, however it ends."""
    lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ConfigError(f"{short_path(directory)} is in use: another process trains in it") from error
    except OSError:
        pass  # a file system without locks
    return lock
