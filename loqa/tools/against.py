"""A league held against published means: what `python -m loqa.tools.league ... --against FILE.json` prints.

FILE.json has sections, {"NAME": {"steps": 50, "rows": [[PLAYER, PLAYER, its mean reward a step, the other's]]}},
of means over 32 episodes. A mean agrees with ours of N episodes, with standard deviation s, if they differ by no
more than 4 s sqrt(1/32 + 1/N). In standard errors, s sqrt(1/32 + 1/N), the root mean square of all differences is
about 1 where both leagues play the same game with the same agents.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loqa.tools.style import in_style, legend_below, panels, save

PUBLISHED_EPISODES = 32
MOST_ERRORS, MOST_ROOT_MEAN_SQUARE = 4.0, 1.2  # in standard errors


def read_published(path: Path, steps: int) -> dict[str, list[list[Any]]]:
    """The rows of sections with episodes of `steps`, by section; OSError or ValueError where there are none."""
    try:
        content = json.loads(path.read_text("utf-8"))
        sections = {name: part for name, part in content.items() if isinstance(part, dict)}
        rows = {name: part["rows"] for name, part in sections.items() if part["steps"] == steps}
        rows = {name: [[a, b, float(x), float(y)] for a, b, x, y in part] for name, part in rows.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a published league (see loqa.tools.against): {error!r}") from error
    if not rows:
        lengths = sorted({part["steps"] for part in sections.values()})
        raise ValueError(f"--steps is {steps}, but the episodes in {path} have {' or '.join(map(str, lengths))}")
    return rows


def compare(path: Path, ours: Sequence[dict[str, Any]], steps: int, episodes: int, out: Path) -> bool:
    """Prints by section how the rows of league.csv agree, writes against.md, .png and .pdf to `out`; do they?"""
    seats = {}  # by our two players: means and standard deviations of both
    for row in ours:
        cells = [[float(row[f"{column}_{seat}"]) for seat in (0, 1)] for column in ("mean_reward", "sd")]
        players = row["player_0"], row["player_1"]
        seats[players] = np.array(cells)
        seats.setdefault(players[::-1], np.array(cells)[:, ::-1])
    lines, points, agree = [], {}, True
    for section, rows in read_published(path, steps).items():
        played = [row for row in rows if (row[0], row[1]) in seats]
        if not played:
            continue
        theirs = np.array([row[2:] for row in played])
        means, deviations = np.moveaxis([seats[a, b] for a, b, *_ in played], 1, 0)
        error = np.maximum(deviations, 1e-6) * np.sqrt(1 / PUBLISHED_EPISODES + 1 / episodes)
        z = (means - theirs) / error
        share, size = (np.abs(z) <= MOST_ERRORS).mean(), np.sqrt((z**2).mean())
        k, seat = np.unravel_index(np.abs(z).argmax(), z.shape)
        worst = f"{played[k][0]} against {played[k][1]}, {played[k][seat]}: {z[k, seat]:.1f} standard errors"
        lines.append(
            f"{section}: {len(played)} of {len(rows)} rows were played; {share:.2%} of their means agree, "
        )
        lines[-1] += (
            f"root mean square {size:.2f}; worst: {worst} ({theirs[k, seat]:.3f}, ours {means[k, seat]:.3f})"
        )
        points[section] = theirs.ravel(), means.ravel()
        agree &= bool(share == 1 and size <= MOST_ROOT_MEAN_SQUARE)
    if not points:
        raise ValueError(f"no two of these players are in {path}: agents are known by the names of their files")
    verdict = "" if agree else "dis"
    lines.append(
        f"The leagues {verdict}agree: all within {MOST_ERRORS:.0f} standard errors, and a root mean square "
    )
    lines[-1] += f"of at most {MOST_ROOT_MEAN_SQUARE}, is what is asked."
    text = "\n".join(lines)
    (out / "against.md").write_text("".join(f"- {line}\n" for line in lines))
    print(text)
    draw(points, out / "against")
    return agree


@in_style
def draw(points: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> list[str]:
    """Draws ours against theirs, by section."""
    figure, (axes,) = panels(1, (3.2, 3.0))
    for section, (theirs, ours) in points.items():
        axes.plot(theirs, ours, ".", markersize=2, label=section)
    axes.axline((0, 0), slope=1, color="black", linewidth=0.5)
    axes.set(xlabel="published mean reward a step", ylabel="ours", aspect="equal")
    axes.grid()
    legend_below(figure, axes)
    return save(figure, path)
