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
from loqa.run.signals import StopSignals

CLEAR_LINE = "\x1b[K"  # behind the cursor
HEADER_EVERY = 20  # rows of the table between two headers
POSITION = {"iteration": 9, "steps/s": 7, "elapsed": 7, "ETA": 7}  # columns and their widths
WIDTH = sum(POSITION.values()) + 2 * (len(POSITION) - 1)  # of all of them

Headline = dict[str, float]  # numbers of an evaluation, by the titles of their columns


class Terminal:
    """Prints; output that cannot be written does not end the run."""

    file: Path | None = None  # to which the lines are added, too

    def __init__(self, total_iterations: int, steps_per_iteration: int, signals: StopSignals):
        self._total_iterations, self._steps_per_iteration = total_iterations, steps_per_iteration
        self.signals = signals
        self._newest: tuple[int, float] | None = None  # iteration and wall time of the last row
        self._num_rows = 0

    def log_line(self, text: str) -> None:
        """Prints `text` at once, on lines of its own."""
        try:
            print(CLEAR_LINE * sys.stdout.isatty() + text, flush=True)
        except BrokenPipeError:
            if not self.signals.received:
                raise  # the reader has gone: `python ipd.py | head` ends as any program does
            # `python ipd.py | tee log`: the Ctrl-C was also tee's. The checkpoint is still to be written.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError:
            pass  # output that goes to a file on a full disk, or a terminal that was closed
        self.keep(text)

    def keep(self, text: str) -> None:
        """Adds lines to the file alone."""
        if self.file:
            with contextlib.suppress(OSError), self.file.open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    note = log_line  # what is of interest where one run has the terminal

    def progress(self, iteration: int, walltime: float) -> None:
        """Shows how far the run is, on a terminal only, until the next line takes its place."""
        if sys.stdout.isatty():
            with contextlib.suppress(OSError):
                print(CLEAR_LINE + "  ".join(self._position(iteration, walltime).values()), end="\r", flush=True)

    def row(self, iteration: int, walltime: float, headline: Headline) -> None:
        """Prints a row of the table of evaluations: how far the run is, and the numbers of `headline`."""
        cells = self._position(iteration, walltime) | _cells(headline)
        self._newest = iteration, walltime
        if self._num_rows % HEADER_EVERY == 0:
            self.note("  ".join(title.rjust(len(cell)) for title, cell in cells.items()))
        self.note("  ".join(cells.values()))
        self._num_rows += 1

    def _position(self, iteration: int, walltime: float) -> dict[str, str]:
        total, speed, eta = self._total_iterations, "-", "-"
        if self._newest:
            seconds = (walltime - self._newest[1]) / max(iteration - self._newest[0], 1)  # an iteration
            speed, eta = human(self._steps_per_iteration / max(seconds, 1e-9)), clock((total - iteration) * seconds)
        texts = (f"{iteration:>{len(str(total))}}/{total}", speed, clock(walltime), eta)
        return {title: text.rjust(width) for (title, width), text in zip(POSITION.items(), texts, strict=True)}


class SharedTerminal(Terminal):
    """Of seeds side by side: a table of their means and ranges. What they say waits for `flush`."""

    def __init__(self, signals: StopSignals):
        super().__init__(0, 0, signals)
        self._start = time.monotonic()
        self.seeds: dict[int, Hyperparameters] = {}
        self.last_rows: dict[int, tuple[int, Headline]] = {}  # by seed: iteration, headline
        # Since the last flush: new rows, and what was said, by which seeds.
        self.new_rows: dict[int, tuple[int, Headline]] = {}
        self.said: dict[str, list[int]] = {}

    def elapsed(self) -> float:
        """Seconds since the first seed began."""
        return time.monotonic() - self._start

    def flush(self) -> None:
        """Prints the table's next row, of the seeds that have one, and what they have said, each line once."""
        if self.new_rows:
            seeds = [self.seeds[seed] for seed in self.new_rows]
            self._steps_per_iteration = sum(hp.env_steps_per_iteration for hp in seeds)
            iterations, headlines = zip(*self.new_rows.values(), strict=True)
            columns = {title: [x[title] for x in headlines if x[title] == x[title]] for title in headlines[0]}
            over_seeds = lambda of: {title: of(values) if values else math.nan for title, values in columns.items()}
            self.row(min(iterations), self.elapsed(), over_seeds(statistics.fmean))
            for name, of in (("lowest", min), ("highest", max)):
                self.log_line("  ".join([name.rjust(WIDTH), *_cells(over_seeds(of)).values()]))
        for text, seeds in sorted(self.said.items(), key=lambda line: -len(line[1])):  # first what all say
            who = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: "
            self.log_line(text if len(seeds) == len(self.seeds) else who + text)
        self.new_rows, self.said = {}, {}

    def print_last_rows(self) -> None:
        """Prints a line for each seed: its last row of the table."""
        for seed, (iteration, headline) in self.last_rows.items():
            position = f"seed {seed}".rjust(WIDTH - 10) + str(iteration).rjust(10)
            self.log_line("  ".join([position, *_cells(headline).values()]))


class OfSeed(Terminal):
    """The part of a seed in a shared terminal, which is told here what it shows; the seed's file has all of it."""

    def __init__(self, hp: Hyperparameters, shared: SharedTerminal):
        super().__init__(hp.total_iterations, hp.env_steps_per_iteration, shared.signals)
        self._seed, self._shared = hp.seed, shared
        shared.seeds[hp.seed], shared._total_iterations = hp, hp.total_iterations

    note = Terminal.keep

    def log_line(self, text: str) -> None:
        self._shared.said.setdefault(text, []).append(self._seed)
        self.keep(text)

    def progress(self, iteration: int, walltime: float) -> None:
        self._shared.progress(iteration, self._shared.elapsed())

    def row(self, iteration: int, walltime: float, headline: Headline) -> None:
        super().row(iteration, walltime, headline)
        self._shared.new_rows[self._seed] = self._shared.last_rows[self._seed] = iteration, headline


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
