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
    """Of seeds side by side: a table of their means and ranges. What they say waits for `flush`.

    `of(hp)` is the part of a seed, which is used as a terminal of its own.
    """

    def __init__(self, is_stopping: Callable[[], object]):
        super().__init__(0, 0, is_stopping)
        self._start, self._seeds, self._steps_of_one = time.monotonic(), [], 0
        self._said: dict[str, list[int]] = {}  # lines, and the seeds that say them
        self._at: list[int] = []  # iterations, of the seeds that go on
        self._rows: dict[int, tuple[int, dict[str, float]]] = {}  # seed -> iteration, headline
        self._last_rows: dict[int, tuple[int, dict[str, float]]] = {}

    def of(self, hp: Hyperparameters) -> "OfSeed":
        self._seeds.append(hp.seed)
        self._total_iterations, self._steps_of_one = hp.total_iterations, hp.env_steps_per_iteration
        self._steps_per_iteration = self._steps_of_one * len(self._seeds)
        return OfSeed(self, hp)

    def say(self, seed: int, text: str) -> None:
        self._said.setdefault(text, []).append(seed)

    def flush(self) -> None:
        """Prints the table's next row, of the seeds that have one, and what they have said, each line once."""
        walltime = time.monotonic() - self._start
        if self._rows:
            self._steps_per_iteration = self._steps_of_one * len(self._rows)
            iterations, headlines = zip(*self._rows.values(), strict=True)
            columns = {title: [x[title] for x in headlines if x[title] == x[title]] for title in headlines[0]}
            over_seeds = lambda of: {title: of(values) if values else math.nan for title, values in columns.items()}
            self.row(min(iterations), walltime, over_seeds(statistics.fmean))
            for name, of in (("lowest", min), ("highest", max)):
                self.log_line("  ".join([name.rjust(WIDTH), *_cells(over_seeds(of)).values()]))
        elif self._at:
            self.progress(min(self._at), walltime)
        for text, seeds in self._said.items():
            who = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: " if seeds != self._seeds else ""
            self.log_line(who + text)
        self._last_rows |= self._rows
        self._said, self._at, self._rows = {}, [], {}

    def last_rows(self) -> None:
        """Prints a line for each seed: its last row of the table."""
        for seed, (iteration, headline) in self._last_rows.items():
            position = f"seed {seed}".rjust(WIDTH - 10) + str(iteration).rjust(10)
            self.log_line("  ".join([position, *_cells(headline).values()]))


class OfSeed(Terminal):
    """The part of a seed in a shared terminal; what it prints itself goes to its file alone."""

    def __init__(self, shared: SharedTerminal, hp: Hyperparameters):
        super().__init__(hp.total_iterations, hp.env_steps_per_iteration, lambda: None)
        self._shared, self._seed = shared, hp.seed

    def log_line(self, text: str) -> None:
        self._shared.say(self._seed, text)
        self.keep(text)

    def note(self, text: str) -> None:
        self.keep(text)

    def progress(self, iteration: int, walltime: float) -> None:
        self._shared._at.append(iteration)

    def row(self, iteration: int, walltime: float, headline: dict[str, float]) -> None:
        super().row(iteration, walltime, headline)
        self._shared._rows[self._seed] = iteration, headline

    def end_progress(self) -> None:
        self._shared.flush()
        self._shared.end_progress()


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
