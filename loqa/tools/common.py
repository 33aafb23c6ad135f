"""What the tools (`python -m loqa.tools.NAME`) share: their command line, and tables as text and as CSV."""

import contextlib
import csv
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any


def tool(main: Callable[[ArgumentParser], None]) -> Callable[[], None]:
    """Decorates the `main` of `python -m loqa.tools.NAME`, which is given a parser with the module's docstring.

    An OSError or ValueError, which is about the user's words and files, becomes one line and exit code 2. A reader
    that has gone, as in `... | head`, ends it without a traceback.
    """

    def run() -> None:
        name = ".".join(Path(main.__code__.co_filename).with_suffix("").parts[-3:])
        text = {"description": main.__globals__["__doc__"], "formatter_class": RawDescriptionHelpFormatter}
        try:
            main(ArgumentParser(f"python -m {name}", **text))
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain at its exit
            sys.exit(1)
        except (OSError, ValueError) as error:
            print("error:", *str(error).split(), file=sys.stderr)
            sys.exit(2)

    return run


def number(low: float, kind: type = float) -> Callable[[str], float]:
    """For argparse: reads a number of the type `kind`, at least `low` and below 2^32, as JAX wants seeds."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= (value := kind(text)) < 2**32:
                return value
        what = "a whole number" if kind is int else "a number"
        raise ArgumentTypeError(f"{text!r} must be {what} of at least {low} and below 2^32")

    return read


whole = partial(number, kind=int)


def split_label(word: str) -> tuple[str, Path]:
    """LABEL=PATH or PATH -> label ("" if there is none), path. A path that exists may itself have a "="."""
    if Path(word.rpartition("@")[0] or word).exists() or "=" not in word:
        return "", Path(word)
    label, _, path = word.partition("=")
    return label, Path(path)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; in one that was cut off, cells of the last row are None."""
    with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets add a mark
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows as CSV, with the columns of all of them; empty where a row has none."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)))
        writer.writeheader()
        writer.writerows(rows)


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]], text_columns: Sequence[int] = (0,)) -> str:
    """A Markdown table; all columns but `text_columns` are aligned to the right."""
    rule = ["---" if i in text_columns else "--:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))
