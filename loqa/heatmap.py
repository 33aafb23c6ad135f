"""The heat map of a league: arrays in, a file out (PNG or PDF, by its suffix)."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

MOST_NUMBERS = 24  # players; in a larger map a cell has no room for its number


def heat_map(
    rewards: np.ndarray, names: Sequence[str], kinds: Sequence[str], path: str | Path, title: str = ""
) -> None:
    """Draws what each row's player earns against each column's, with lines between the kinds.

    Args:
      rewards: [N, N], mean reward a step.
      names, kinds: N each; players of a kind stand together.
      path: the file to write.
      title: above the picture.
    """
    number = len(names)
    # Both colour maps are told apart with any colour vision: around zero, or of one sign.
    if rewards.min() < 0 < rewards.max():
        limit = np.abs(rewards).max()
        colors = {"cmap": "RdBu", "vmin": -limit, "vmax": limit}
    else:
        colors = {"cmap": "cividis"}
    side = 1.2 + max(0.42 * number, 2.4) + 0.055 * max(map(len, names))
    figure = Figure(figsize=(side + 0.9, side), dpi=200, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(rewards, **colors)
    if number <= MOST_NUMBERS:
        for (i, j), reward in np.ndenumerate(rewards):
            red, green, blue, _ = image.to_rgba(reward)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(
                j,
                i,
                f"{round(reward, 2) + 0.0:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )
    ends = np.cumsum([len(list(group)) for _, group in groupby(kinds)])[:-1] - 0.5
    for end in ends:
        axes.axhline(end, color="black", linewidth=0.8)
        axes.axvline(end, color="black", linewidth=0.8)
    axes.set_xticks(range(number), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(number), names, fontsize=8)
    axes.set(xlabel="against", ylabel="player", title=title)
    bar = figure.colorbar(image, shrink=0.8, pad=0.02)
    bar.set_label("mean reward a step of the row's player", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure.savefig(path)
