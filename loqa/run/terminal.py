"""What a run prints: lines, the table of its evaluations, and on a terminal how far it is."""

import contextlib
import math
import os
import statistics
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from loqa.hyperparameters import Hyperparameters

HEADER_EVERY = 20  # rows of the table between two headers
CLEAR_LINE = "\r\x1b[K"
POSITION = {"iteration": 9, "steps/s": 7, "elapsed": 7, "ETA": 7}  # columns and their widths
WIDTH = sum(POSITION.values()) + 2 * (len(POSITION) - 1)  # of all of them


class Terminal:
    """Prints; output that cannot be written does not end the run.

    `is_stopping()`: whether it was asked to stop, and a broken pipe may not end it before its checkpoint.
    """

    file: Path | None = None  # to which the lines are added, too

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
        self.keep(text)

    def keep(self, text: str) -> None:
        """Adds lines to the file alone."""
        if self.file:
            with contextlib.suppress(OSError), self.file.open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    note = log_line  # what is of interest where one run has the terminal

    def progress(self, iteration: int, walltime: float) -> None:
        """Shows how far the run is, on a terminal only, until something else is printed."""
        if sys.stdout.isatty():
            self._print(CLEAR_LINE + "  ".join(self._position(iteration, walltime)))
            self._on_progress_line = True

    def row(self, iteration: int, walltime: float, headline: dict[str, float]) -> None:
        """Prints a row of the table of evaluations: how far the run is, and the numbers of `headline`."""
        cells = dict(zip(POSITION, self._position(iteration, walltime), strict=True))
        self._newest = iteration, walltime
        cells |= _cells(headline)
        if self._num_rows % HEADER_EVERY == 0:
            self.note("  ".join(title.rjust(len(cell)) for title, cell in cells.items()))
        self.note("  ".join(cells.values()))
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


class SharedTerminal(Terminal):
    """Of seeds side by side: a table of their means and ranges. What they say waits for `flush`."""

    def __init__(self, is_stopping: Callable[[], object]):
        super().__init__(0, 0, is_stopping)
        self._start = time.monotonic()
        self._parts: list[OfSeed] = []

    def of(self, hp: Hyperparameters) -> "OfSeed":
        """The part of a seed, which is used as a terminal of its own."""
        self._total_iterations = hp.total_iterations
        self._parts.append(OfSeed(hp))
        return self._parts[-1]

    def flush(self) -> None:
        """Prints the table's next row, of the seeds that have one, and what they have said, each line once."""
        walltime, parts = time.monotonic() - self._start, self._parts
        if rows := [part.new_row for part in parts if part.new_row]:
            self._steps_per_iteration = parts[0]._steps_per_iteration * len(rows)
            iterations, headlines = zip(*rows, strict=True)
            columns = {title: [x[title] for x in headlines if x[title] == x[title]] for title in headlines[0]}
            over_seeds = lambda of: {title: of(values) if values else math.nan for title, values in columns.items()}
            self.row(min(iterations), walltime, over_seeds(statistics.fmean))
            for name, of in (("lowest", min), ("highest", max)):
                self.log_line("  ".join([name.rjust(WIDTH), *_cells(over_seeds(of)).values()]))
        elif at := [part.at for part in parts if part.at is not None]:
            self.progress(min(at), walltime)
        said: dict[str, list[int]] = {}  # lines, and the seeds that say them
        for part in parts:
            for text in part.said:
                said.setdefault(text, []).append(part.seed)
            part.said, part.at, part.new_row = [], None, None
        for text, seeds in sorted(said.items(), key=lambda line: -len(line[1])):  # first what all say
            who = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: " if len(seeds) < len(parts) else ""
            self.log_line(who + text)

    def last_rows(self) -> None:
        """Prints a line for each seed: its last row of the table."""
        for part in self._parts:
            if part.last_row:
                iteration, headline = part.last_row
                position = f"seed {part.seed}".rjust(WIDTH - 10) + str(iteration).rjust(10)
                self.log_line("  ".join([position, *_cells(headline).values()]))


class OfSeed(Terminal):
    """The part of a seed in a shared terminal, which takes from here what is to be shown; its file has all of it."""

    def __init__(self, hp: Hyperparameters):
        super().__init__(hp.total_iterations, hp.env_steps_per_iteration, lambda: None)
        self.seed = hp.seed
        self.said: list[str] = []
        self.at: int | None = None  # iteration
        self.new_row: tuple[int, dict[str, float]] | None = None  # iteration, headline
        self.last_row: tuple[int, dict[str, float]] | None = None

    note = Terminal.keep

    def log_line(self, text: str) -> None:
        self.said.append(text)
        self.keep(text)

    def progress(self, iteration: int, walltime: float) -> None:
        self.at = iteration

    def row(self, iteration: int, walltime: float, headline: dict[str, float]) -> None:
        super().row(iteration, walltime, headline)
        self.new_row = self.last_row = iteration, headline


def _cells(headline: dict[str, float]) -> dict[str, str]:
    return {title: short(value).rjust(max(len(title), 6)) for title, value in headline.items()}


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


def attempt(action: Callable[[], object]) -> str:
    """Does `action()`. Returns "", or what was wrong."""
    try:
        action()
    except Exception as error:  # noqa: BLE001
        return reason(error)
    return ""


def reason(error: BaseException) -> str:
    """An exception in one short line."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return textwrap.shorten(text.splitlines()[0], 160, placeholder="...").rstrip(".")
