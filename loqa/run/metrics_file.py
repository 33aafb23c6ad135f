"""metrics.csv: a row for each evaluation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np


class MetricsFile:
    """Keeps all rows in memory and writes the whole file with each: no row is lost to a disk that was full.

    Args:
      write: of `RunDirectory`.
      text: what a resumed run has of the file.
    """

    def __init__(self, write: Callable[[str, Callable[[Path], object]], bool], text: str):
        self.text, self._write, self._is_written = text, write, True
        last = {name: float(column[-1]) for name, column in self.columns().items()}
        self.newest = {name: int(x) if x.is_integer() else x for name, x in last.items()}  # row; {} before the first

    def columns(self) -> dict[str, np.ndarray]:
        """All metrics by name, whether the file can be written or not."""
        return read_metrics(self.text) if self.text else {}

    def append(self, row: dict[str, float]) -> None:
        """Adds a row; raises ValueError if its keys are not those of the rows before it."""
        if not self.newest:
            self.text = ",".join(row) + "\n"
        elif row.keys() != self.newest.keys():
            raise ValueError(f"the keys of the rows differ: {sorted(row.keys() ^ self.newest.keys())}")
        self.newest = {key: row[key] for key in self.newest or row}
        self.text += ",".join(map(_csv_text, self.newest.values())) + "\n"
        self._is_written = False
        self.flush()

    def flush(self) -> bool:
        """Writes the file, if that is still to be done. Returns whether it has all rows."""
        if not self._is_written:
            self._is_written = self._write("metrics.csv", lambda path: path.write_text(self.text, encoding="utf-8"))
        return self._is_written


def read_metrics(text: str) -> dict[str, np.ndarray]:
    """The columns of the text of a metrics.csv, by name, float64 arrays of equal length; NaN where a cell is empty.

    A last row that was cut off is left out; raises ValueError, with its number, for any other that is not whole.
    """
    header, *rows = [line.split(",") for line in text.splitlines()] or [[]]
    if not any(header):
        raise ValueError("it is empty")
    table = []
    for number, row in enumerate(rows, 2):
        if len(row) < len(header) and number == len(rows) + 1:
            break
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} cells, but must have {len(header)}")
        try:
            table.append([float(value or "nan") for value in row])
        except ValueError as error:
            raise ValueError(f"row {number} has a cell that is no number: {error}") from error
    return dict(zip(header, np.array(table, float).reshape(-1, len(header)).T, strict=True))


def _csv_text(value: float) -> str:
    """The shortest text that gives the same float32; whole numbers in full, NaN as nothing."""
    if value != value:
        return ""
    whole = abs(value) < 2**53 and float(value).is_integer()
    return str(int(value)) if whole else f"{value:.9g}"
