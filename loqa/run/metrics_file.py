"""metrics.csv: a row for each evaluation."""

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np

from loqa.run.terminal import reason


class MetricsFile:
    """Keeps all rows in memory, and brings the file up to date with each: no row is lost to a disk that was full.

    Args:
      path: the file.
      text: what a resumed run has of it. What else the file has is dropped with the next row.
      log_line: prints a line.
    """

    def __init__(self, path: Path, text: str, log_line: Callable[[str], object]):
        self._path, self._log_line = path, log_line
        self._text = text.encode()
        self._is_written = True
        self._unwritten_since: int | None = None  # iteration of the first row that could not be written
        self.newest = {
            key: float(column[-1]) for key, column in self.columns().items()
        }  # row; {} before the first
        self.newest |= {key: int(self.newest[key]) for key in ("iteration", "env_steps") if key in self.newest}

    @property
    def text(self) -> str:
        """All of the file."""
        return self._text.decode()

    def columns(self) -> dict[str, np.ndarray]:
        """All metrics by name, whether the file can be written or not."""
        return read_metrics(io.StringIO(self.text)) if self._text else {}

    def append(self, row: dict[str, float]) -> None:
        """Adds a row; raises ValueError if its keys are not those of the rows before it."""
        if not self.newest:
            self._text += (",".join(row) + "\n").encode()
        elif row.keys() != self.newest.keys():
            raise ValueError(f"the keys of the rows differ: {sorted(row.keys() ^ self.newest.keys())}")
        self.newest = {key: row[key] for key in self.newest or row}
        self._text += (",".join(map(_csv_text, self.newest.values())) + "\n").encode()
        self._write()

    def close(self) -> None:
        """Tries once more to write what could not be written."""
        if not self._is_written:
            self._write()
        if not self._is_written:
            self._log_line(f"metrics.csv: the rows from iteration {self._unwritten_since} on are LOST")

    def _write(self) -> None:
        self._is_written = False
        try:
            # Opened anew for each row: an open file of a deleted directory would take rows without an error.
            with open(self._path, "ab+") as file:
                size = file.tell()
                file.seek(0)
                found = file.read(size)
                kept = size if self._text.startswith(found) else len(os.path.commonprefix([found, self._text]))
                if kept < size:  # rows after the checkpoint of a resumed run
                    file.truncate(kept)
                file.write(self._text[kept:])
        except OSError as error:
            if self._unwritten_since is None:
                self._unwritten_since = self.newest["iteration"]
                self._log_line(
                    f"metrics.csv cannot be written ({reason(error)}): rows from iteration"
                    f" {self._unwritten_since} on are kept in memory and tried again with each row"
                )
            return
        self._is_written = True
        if self._unwritten_since is not None:
            self._unwritten_since = None
            self._log_line("metrics.csv is written again; no row is missing")


def read_metrics(file: TextIO) -> dict[str, np.ndarray]:
    """The columns of an open metrics.csv, by name, float64 arrays of equal length; NaN where a cell is empty."""
    header, *rows = csv.reader(file)
    # A run that was killed may have left half a row.
    table = [[float(value or "nan") for value in row] for row in rows if len(row) == len(header)]
    return dict(zip(header, np.array(table, float).reshape(-1, len(header)).T, strict=True))


def _csv_text(value: float) -> str:
    """The shortest text that gives the same float32; whole numbers in full, NaN as nothing."""
    if value != value:
        return ""
    whole = abs(value) < 2**53 and float(value).is_integer()
    return str(int(value)) if whole else f"{value:.9g}"
