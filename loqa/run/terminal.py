"""What a run prints: lines, the table of its evaluations, and on a terminal how far it is."""

import math
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

HEADER_EVERY = 20  # rows of the table between two headers
CLEAR_LINE = "\r\x1b[K"
POSITION = {"iteration": 9, "steps/s": 7, "elapsed": 7, "ETA": 7}  # columns and their widths


class Terminal:
    """Prints; output that cannot be written does not end the run.

    `is_stopping()`: whether it was asked to stop, and a broken pipe may not end it before its checkpoint.
    """

    def __init__(self, total_iterations: int, steps_per_iteration: int, is_stopping: Callable[[], object]):
        self._total_iterations, self._steps_per_iteration = total_iterations, steps_per_iteration
        self._is_stopping = is_stopping
        self._seconds_per_iteration: float | None = None  # since the last row
        self._newest: tuple[int, float] | None = None  # iteration and wall time of the last row
        self._num_rows = 0
        self._on_progress_line = False  # the cursor is behind a progress line

    def log_line(self, text: str) -> None:
        """Prints `text` at once, on lines of its own."""
        self._print((CLEAR_LINE if self._on_progress_line else "") + text + "\n")
        self._on_progress_line = False

    def progress(self, iteration: int, walltime: float) -> None:
        """Shows how far the run is, on a terminal only, until something else is printed."""
        if sys.stdout.isatty():
            self._print(CLEAR_LINE + "  ".join(self._position(iteration, walltime)))
            self._on_progress_line = True

    def row(self, iteration: int, walltime: float, headline: dict[str, float]) -> None:
        """Prints a row of the table of evaluations: how far the run is, and the numbers of `headline`."""
        cells = dict(zip(POSITION, self._position(iteration, walltime), strict=True))
        self._newest = iteration, walltime
        cells |= {title: short(value).rjust(max(len(title), 6)) for title, value in headline.items()}
        if self._num_rows % HEADER_EVERY == 0:
            self.log_line("  ".join(title.rjust(len(cell)) for title, cell in cells.items()))
        self.log_line("  ".join(cells.values()))
        self._num_rows += 1

    def _position(self, iteration: int, walltime: float) -> list[str]:
        total, speed, eta = self._total_iterations, "-", "-"
        if self._newest and iteration > self._newest[0]:
            seconds = max(walltime - self._newest[1], 1e-9)
            self._seconds_per_iteration = seconds / (iteration - self._newest[0])
        if self._seconds_per_iteration is not None:
            speed = human(self._steps_per_iteration / self._seconds_per_iteration)
            eta = clock((total - iteration) * self._seconds_per_iteration)
        texts = (f"{iteration:>{len(str(total))}}/{total}", speed, clock(walltime), eta)
        return [text.rjust(width) for text, width in zip(texts, POSITION.values(), strict=True)]

    def end_progress(self) -> None:
        """Ends a progress line, since a traceback may come next."""
        if self._on_progress_line:
            self._print("\n")

    def _print(self, text: str) -> None:
        try:
            print(text, end="", flush=True)
        except BrokenPipeError:
            if not self._is_stopping():
                raise  # the reader has gone: `python ipd.py | head` ends as any program does
            # `python ipd.py | tee log`: the Ctrl-C was also tee's. The checkpoint is still to be written.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError:
            pass  # output that goes to a file on a full disk, or a terminal that was closed


def human(number: float) -> str:
    """1234567 -> "1.23M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:#.3g}".rstrip(".") + unit
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    """3723.4 -> "1:02:03"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def short(value: float) -> str:
    """Three decimals, in at most 9 characters."""
    return f"{value:z.3f}" if abs(value) < 1e4 or not math.isfinite(value) else f"{value:.2e}"


def short_path(path: Path) -> str:
    """The path as seen from the working directory, where it is below that."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def reason(error: BaseException) -> str:
    """An exception in one short line."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return textwrap.shorten(text.splitlines()[0], 160, placeholder="...").rstrip(".")
