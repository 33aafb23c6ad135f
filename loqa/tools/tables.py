"""Tables as text."""

from collections.abc import Sequence


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]], text_columns: Sequence[int] = (0,)) -> str:
    """A Markdown table; all columns but `text_columns` are aligned to the right."""
    rule = ["---" if i in text_columns else "--:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def decimal(x: float) -> str:
    """Three decimals, and no -0.000."""
    return f"{round(x, 3) + 0.0:.3f}"
