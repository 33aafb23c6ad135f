"""A league held against published means: what --against of `python -m loqa.tools.league` does.

Its JSON has sections, {"NAME": {"steps": 50, "rows": [[PLAYER, PLAYER, its mean reward a step, the other's]]}},
of means over 32 episodes. The standard error of the difference to our mean of N episodes with standard deviation s
is s sqrt(1/32 + 1/N). Leagues agree where no difference is above four of them and their root mean square, which is
about 1 for the same game and the same agents, is at most 1.2.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loqa.tools.common import decimal, markdown_table
from loqa.tools.plot import in_style, legend_below, panels, save

PUBLISHED_EPISODES = 32
HEAD = ["section", "rows", "played", "within 4 standard errors", "root mean square", "worst: theirs, ours, errors"]


def read_published(path: Path, steps: int) -> dict[str, list[tuple[str, str, float, float]]]:
    """The rows by section, of those with episodes of `steps`; raises OSError, or ValueError if there are none."""
    try:
        parts = {name: part for name, part in json.loads(path.read_text("utf-8")).items() if "rows" in part}
        lengths = sorted({part["steps"] for part in parts.values()})
        parts = {name: part["rows"] for name, part in parts.items() if part["steps"] == steps}
        rows = {name: [(a, b, float(x), float(y)) for a, b, x, y in part] for name, part in parts.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a published league (see loqa/tools/against.py): {error!r}") from error
    if not rows:
        raise ValueError(f"--steps is {steps}, but must be one of {lengths}, the steps in {path}")
    return rows


def compare(path: Path, ours: Sequence[dict[str, Any]], steps: int, episodes: int, out: Path) -> bool:
    """Whether the rows of a league.csv agree with published ones. Prints how, by section.

    Writes the same as against.md, and the scatter plot as against.png and .pdf, to `out`. Raises as
    `read_published`, and ValueError where no published pair was played.
    """
    played = {}  # by the names of two players: [mean or standard deviation, player]
    for row in ours:
        both = np.array([[float(row[f"{name}_{i}"]) for i in (0, 1)] for name in ("mean_reward", "sd")])
        played[row["player_0"], row["player_1"]] = both
        played.setdefault((row["player_1"], row["player_0"]), both[:, ::-1])
    lines, points, agree = [], {}, True
    for section, rows in read_published(path, steps).items():
        known = [row for row in rows if row[:2] in played]
        if not known:
            continue
        theirs, both = np.array([row[2:] for row in known]), np.array([played[row[:2]] for row in known])
        error = np.maximum(both[:, 1], 1e-6) * np.sqrt(1 / PUBLISHED_EPISODES + 1 / episodes)
        z = (both[:, 0] - theirs) / error
        share, size = (np.abs(z) <= 4).mean(), np.sqrt((z**2).mean())
        k, i = np.unravel_index(np.abs(z).argmax(), z.shape)
        worst = f"{known[k][i]} with {known[k][1 - i]}: "
        worst += f"{decimal(theirs[k, i])}, {decimal(both[k, 0, i])}, {z[k, i]:.1f}"
        lines.append([section, str(len(rows)), str(len(known)), f"{share:.2%}", f"{size:.2f}", worst])
        points[section] = theirs.ravel(), both[:, 0].ravel()
        agree &= bool(share == 1 and size <= 1.2)
    if not points:
        raise ValueError(f"{path} has no pair of these players, whose names are those of the agents' files")
    text = f"{markdown_table(HEAD, lines, (0, 5))}\n\nThe leagues {'agree' if agree else 'disagree'}.\n"
    (out / "against.md").write_text(text)
    print(f"\n{text}", *draw(points, out / "against"), sep="\n")
    return agree


@in_style
def draw(points: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> list[str]:
    """Draws our means against theirs, by section; returns the files."""
    figure, (axes,) = panels(1, (3.2, 3.0))
    for section, (theirs, ours) in points.items():
        axes.plot(theirs, ours, ".", markersize=2, label=section)
    axes.axline((0, 0), slope=1, color="black", linewidth=0.5)
    axes.set(xlabel="published mean reward a step", ylabel="ours", aspect="equal")
    legend_below(figure, axes)
    return save(figure, path)
