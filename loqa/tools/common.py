"""What the tools (`python -m loqa.tools.NAME`) share: their command line, and tables as text and as CSV."""

import argparse
import contextlib
import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


def tool_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of `python -m loqa.tools.NAME`; the description keeps its line breaks."""
    options = {"description": description, "formatter_class": argparse.RawDescriptionHelpFormatter}
    return argparse.ArgumentParser(f"python -m loqa.tools.{name}", **options)


@contextlib.contextmanager
def one_line_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Around what reads the user's words and files: an OSError or ValueError becomes one line and exit code 2."""
    try:
        yield
    except BrokenPipeError:
        raise  # see `run_tool`
    except (OSError, ValueError) as error:
        parser.error(" ".join(str(error).split()))


def run_tool(main: Callable[[], None]) -> None:
    """Runs a tool's `main`. A reader that has gone, as in `... | head`, ends it without a traceback."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain at its exit
        sys.exit(1)


def whole(low: int) -> Callable[[str], int]:
    """For argparse: reads a whole number of at least `low` that fits in 32 bits."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {low} (and below 2^32)")
        return int(text)

    return read


def split_label(word: str) -> tuple[str, Path]:
    """LABEL=PATH or PATH -> label ("" if there is none), path. A path that exists may itself have a "="."""
    if Path(word).exists() or "=" not in word:
        return "", Path(word)
    label, _, path = word.partition("=")
    return label, Path(path)


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


def decimal(x: float) -> str:
    """Three decimals, and no -0.000."""
    return f"{x:z.3f}"
