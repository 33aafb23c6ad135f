"""The heat map of a league: arrays in, a file out (PNG or PDF, by its suffix)."""

import csv
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

MOST_NUMBERS = 24  # players; in a larger map a cell has no room for its number


def read_league(path: Path) -> tuple[np.ndarray, list[str], list[str]]:
    """What a league.csv says for `heat_map`: rewards [N, N], the mean over both seats; names; kinds.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not a league's, or pairs are missing.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        kinds = {row["player_0"]: row["kind_0"] for row in rows}
        names = list(kinds)
        rewards = np.full((2, len(names), len(names)), np.nan)
        for row in rows:
            i, j = names.index(row["player_0"]), names.index(row["player_1"])
            rewards[:, i, j] = float(row["mean_reward_0"]), float(row["mean_reward_1"])
    except KeyError as error:
        raise ValueError(f"{path} is not a league.csv: it has no column {error.args[0]}") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is not a league.csv: {error}") from error
    if not names or np.isnan(rewards).any():
        raise ValueError(f"{path} is not a whole league: pairs are missing")
    return (rewards[0] + rewards[1].T) / 2, names, list(kinds.values())


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
    figure = Figure(figsize=(side + 0.9, side), dpi=150, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(rewards, **colors)
    if number <= MOST_NUMBERS:
        for (i, j), reward in np.ndenumerate(rewards):
            red, green, blue, _ = image.to_rgba(reward)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            color = "white" if dark else "black"
            axes.text(j, i, f"{round(reward, 2) + 0.0:.2f}", ha="center", va="center", fontsize=7, color=color)
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
