"""What the tools (`python -m loqa.tools.NAME`) share: their parser, the words that they take, and a quiet end."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path


def tool_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of `python -m loqa.tools.NAME`; the description keeps its lines."""
    formatter = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(
        prog=f"python -m loqa.tools.{name}", description=description, formatter_class=formatter
    )


def refuse(parser: argparse.ArgumentParser, error: Exception) -> None:
    """Ends the program with exit code 2 and the error in one line."""
    parser.error(" ".join(str(error).split()))


def whole(low: int) -> Callable[[str], int]:
    """For argparse: reads a whole number of at least `low` that fits in 32 bits."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {low} (and below 2^32)")
        return int(text)

    return read


def split_label(word: str) -> tuple[str, Path]:
    """LABEL=PATH or PATH -> label ("" if there is none), path. A path that exists may itself have a "="."""
    if Path(word).exists():
        return "", Path(word)
    label, _, path = word.partition("=") if "=" in word else ("", "", word)
    return label, Path(path)


def run_tool(main: Callable[[], None]) -> None:
    """Runs a tool's `main`. A reader that has gone, as in `... | head`, ends it without a traceback."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain at its exit
        sys.exit(1)
