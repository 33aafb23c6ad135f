"""The text of a metrics.csv: a row for each evaluation."""

import numpy as np


def add_row(text: str, row: dict[str, float]) -> str:
    """The text with one more row; raises ValueError if its keys are not those of the rows before it."""
    header = text.partition("\n")[0] or ",".join(row)
    names = header.split(",")
    if row.keys() != set(names):
        raise ValueError(f"the keys of the rows differ: {sorted(row.keys() ^ set(names))}")
    return (text or f"{header}\n") + ",".join(_csv_text(row[name]) for name in names) + "\n"


def read_metrics(text: str) -> dict[str, np.ndarray]:
    """The columns of the text by name, float64 arrays of equal length; NaN where a cell is empty.

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
