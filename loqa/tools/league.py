"""Everybody plays everybody: `python -m loqa.tools.league PLAYERS...`.

PLAYERS are saved agents (.npz), runs (a run's directory: its newest agents), directories of agents or of runs,
and scripted players by name; KIND=PATH puts agents under a kind of your own. The other scripted players of the
game play too.

Each pair, a player with itself included, plays in both seats. Written to --out: league.csv (a row for each pair
and seat), league.md and league.tex (means by kind), league.png and league.pdf (the heat map).
"""

import argparse
import itertools
import re
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loqa.games.coin import CoinGame, coins_taken
from loqa.rollout import Player, Trajectories, draw_noise, rollout
from loqa.tools.aggregate import bootstrap_interval
from loqa.tools.common import decimal, markdown_table, one_line_errors, run_tool, tool_parser, whole, write_csv
from loqa.tools.players import Game, LeaguePlayer, add_game_options, choose_players, title

PAIRS_AT_ONCE = 16  # enough to fill the processor, few enough for its memory
GROUPS = SELF, WITHIN, BETWEEN = "self", "within a kind", "between kinds"


class Settings(NamedTuple):
    """How a league is played."""

    steps: int = 50  # of an episode
    episodes: int = 512  # of a pair in a seat
    seed: int = 0  # of everything random
    discount: float = 0.96  # of the discounted return


class Measures(NamedTuple):
    """What is measured of each episode, for the players in seats 0 and 1: arrays [..., 2, B]."""

    reward: Any  # mean reward a step
    discounted_return: Any
    own_coins: Any  # coins of its own that it takes a step; None where there are no coins
    other_coins: Any  # coins of the other that it takes a step; None where there are no coins


def measure(game: Game, played: Trajectories, discount: float) -> Measures:
    """The measures of B episodes, [2, B] each."""
    discounts = discount ** jnp.arange(played.rewards.shape[0])
    coins = None, None
    if isinstance(game, CoinGame):
        coins = (taken.mean(0) for taken in coins_taken(played.observations))
    return Measures(played.rewards.mean(0), jnp.tensordot(discounts, played.rewards, 1), *coins)


@partial(jax.jit, static_argnames=("game", "seats", "settings"))
def play_row(
    game: Game, seats: tuple[Player, Player], settings: Settings, first: Any, others: Any, ids: jax.Array
) -> Measures:
    """Plays one player in seat 0 against P players of one architecture in seat 1.

    `first` [...] and `others` [P, ...] are their parameters, and `ids` [P] numbers that make each pair's own key.
    Returns Measures, [P, 2, B] each.
    """

    def play(pair):
        other, pair_id = pair
        key = jax.random.fold_in(jax.random.key(settings.seed), pair_id)
        noise = draw_noise(key, settings.steps, settings.episodes)
        return measure(game, rollout(game, seats, (first, other), noise), settings.discount)

    return jax.lax.map(play, (others, ids), batch_size=min(len(ids), PAIRS_AT_ONCE))


def play_league(
    game: Game,
    players: Sequence[LeaguePlayer],
    settings: Settings,
    progress: Callable[[str], object] = lambda text: None,
) -> Measures:
    """Every ordered pair of the N players, the first in seat 0: [N, N, 2, B] each.

    What is random in a pair depends on the seed and the two names, not on who else plays.
    """
    groups: dict[Player, list[int]] = {}  # of one architecture each
    for i, one in enumerate(players):
        groups.setdefault(one.player, []).append(i)
    stack = lambda group: jax.tree.map(lambda *x: jnp.array(x), *(players[i].params for i in group))
    stacks = {architecture: stack(group) for architecture, group in groups.items()}
    order = np.argsort(list(itertools.chain(*groups.values())))
    rows, start = [], time.monotonic()
    for first in players:
        row = []
        for architecture, group in groups.items():
            ids = np.array([zlib.crc32(f"{first.name}\n{players[j].name}".encode()) for j in group], np.uint32)
            seats = first.player, architecture
            row.append(play_row(game, seats, settings, first.params, stacks[architecture], ids))
        rows.append(jax.tree.map(lambda *x: np.concatenate(x)[order], *row))
        pairs = f"{len(rows) * len(players):5}/{len(players) ** 2} pairs"
        progress(f"{pairs}  {time.monotonic() - start:6.1f} s  {first.name}")
    return jax.tree.map(lambda *x: np.stack(x), *rows)


def mean_interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of the mean over episodes: [..., B] -> low [...], high [...]."""
    return bootstrap_interval(np.moveaxis(samples, -1, 0), lambda resample: resample.mean(0))


def group_of(first: LeaguePlayer, second: LeaguePlayer) -> str:
    """Which of GROUPS a pair is in."""
    return SELF if first is second else WITHIN if first.kind == second.kind else BETWEEN


def pair_rows(players: Sequence[LeaguePlayer], played: Measures) -> list[dict[str, Any]]:
    """The rows of league.csv: each ordered pair, the first player in seat 0."""
    lows, highs = mean_interval(played.reward)
    others = {name: x for name, x in played._asdict().items() if name != "reward" and x is not None}
    rows = []
    for (i, first), (j, second) in itertools.product(enumerate(players), repeat=2):
        row = {"group": group_of(first, second), "player_0": first.name, "player_1": second.name}
        row |= {"kind_0": first.kind, "kind_1": second.kind}
        for seat in (0, 1):
            here, name = (i, j, seat), f"mean_reward_{seat}"
            row |= {name: played.reward[here].mean(), f"{name}_low": lows[here], f"{name}_high": highs[here]}
            row[f"{name}_sd"] = played.reward[here].std(ddof=1)  # over episodes
            row |= {f"{measure}_{seat}": values[here].mean() for measure, values in others.items()}
        rows.append(row)
    return rows


def group_tables(players: Sequence[LeaguePlayer], played: Measures) -> dict[str, list[dict[str, str]]]:
    """The tables: each group's lines, with cells by head: means over the pairs of two kinds, in both seats."""
    kinds = list(dict.fromkeys(one.kind for one in players))
    pairs: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}
    for (i, first), (j, second) in itertools.product(enumerate(players), repeat=2):
        a, b = kinds.index(first.kind), kinds.index(second.kind)
        key = GROUPS.index(group_of(first, second)), min(a, b), max(a, b)
        # Each game is seen from the seat of the kind that comes first; between two of a kind from seat 0.
        pairs.setdefault(key, []).append((i, j, int(a > b)))

    tables: dict[str, list[dict[str, str]]] = {}
    for (group, a, b), seen in sorted(pairs.items()):
        i, j, seat = np.array(seen).T
        line = {"player": kinds[a], "opponent": kinds[b], "pairs": str(len(seen))}
        for side, its_seat in (("", seat), ("opponent's ", 1 - seat)):
            rewards = played.reward[i, j, its_seat]  # [pairs, B]
            low, high = map(decimal, mean_interval(rewards.mean(0)))
            line[f"{side}reward"] = f"{decimal(rewards.mean())} [{low}, {high}]"
            line[f"{side}sd"] = decimal(rewards.mean(1).std(ddof=1)) if len(seen) > 1 else ""
        line["return"] = f"{played.discounted_return[i, j, seat].mean():.2f}"
        if played.own_coins is not None:
            line["own coins"] = decimal(played.own_coins[i, j, seat].mean())
            line["other's coins"] = decimal(played.other_coins[i, j, seat].mean())
        tables.setdefault(GROUPS[group], []).append(line)
    return tables


def markdown(tables: dict[str, list[dict[str, str]]], caption: str) -> str:
    """The tables as Markdown."""
    text = caption
    for group, lines in tables.items():
        rows = [list(line.values()) for line in lines]
        text += f"\n\n### {group.capitalize()}\n\n{markdown_table(list(lines[0]), rows, text_columns=(0, 1))}"
    return text + "\n"


def latex(tables: dict[str, list[dict[str, str]]], caption: str) -> str:
    """The tables as one LaTeX table."""
    escape = lambda text: re.sub(r"([_%&#$])", r"\\\1", text)
    line = lambda cells: " & ".join(map(escape, cells)) + r" \\"
    heads = list(tables[SELF][0])
    text = ["% needs the packages booktabs and graphicx", r"\begin{table}", r"\centering"]
    text += [rf"\caption{{{escape(caption)}}}", r"\resizebox{\linewidth}{!}{%"]
    text += [rf"\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}", r"\toprule", line(heads)]
    for group, lines in tables.items():
        text += [r"\midrule", rf"\multicolumn{{{len(heads)}}}{{l}}{{\emph{{{group.capitalize()}}}}} \\"]
        text += [line(cells.values()) for cells in lines]
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}}", r"\end{table}"]) + "\n"


def write(out: Path, players: Sequence[LeaguePlayer], played: Measures, caption: str) -> str:
    """Writes everything to the directory `out`; returns the Markdown text."""
    from loqa.tools.figures import heat_map  # here, because matplotlib is slow to import and only needed now

    write_csv(out / "league.csv", pair_rows(players, played))
    tables = group_tables(players, played)
    text = markdown(tables, caption)
    (out / "league.md").write_text(text)
    (out / "league.tex").write_text(latex(tables, caption))
    reward = played.reward.mean(-1)
    both_seats = (reward[..., 0] + reward[..., 1].T) / 2
    heat_map(both_seats, [one.name for one in players], [one.kind for one in players], out / "league")
    return text


def fraction(text: str) -> float:
    """For argparse: a number from 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be from 0 to 1")
    return float(text)


def main() -> None:
    parser = tool_parser("league", __doc__)
    add = parser.add_argument
    add("players", nargs="*", metavar="PLAYERS", help="agents, runs, directories, scripted players")
    add_game_options(parser)
    add("--no-scripted", action="store_true", help="only the scripted players that are named")
    default = Settings()
    add("--episodes", type=whole(2), default=default.episodes, help="episodes of a pair in a seat (%(default)s)")
    add("--steps", type=whole(1), default=default.steps, help="steps of an episode (%(default)s)")
    add("--seed", type=whole(0), default=default.seed, help="of everything random (%(default)s)")
    add("--discount", type=fraction, default=default.discount, help="of the discounted return (%(default)s)")
    add("--out", type=Path, default="experiments/league", help="where to write (%(default)s)")
    options = parser.parse_intermixed_args()
    with one_line_errors(parser):
        game, players = choose_players(options.players, options.game, options.grid, not options.no_scripted)
        options.out.mkdir(parents=True, exist_ok=True)
    if not players:
        parser.error("nobody plays: name at least one player")
    kinds = [one.kind for one in players]
    players.sort(key=lambda one: kinds.index(one.kind))

    print(f"{len(players)} players, {len(players) ** 2} pairs of {title(game)}", flush=True)
    settings = Settings(options.steps, options.episodes, options.seed, options.discount)
    played = play_league(game, players, settings, partial(print, flush=True))
    caption = f"{options.episodes} episodes of {options.steps} steps of {title(game)} for each pair and seat. "
    caption += "Rewards are means a step with 95 % bootstrap intervals over episodes; sd: over pairs; "
    caption += f"return: the player's, discounted by {options.discount}."
    if isinstance(game, CoinGame):
        caption += " Coins: of its own and of the opponent's, that the player takes a step."
    with one_line_errors(parser):
        text = write(options.out, players, played, caption)
    print(f"\n{text}\n{options.out}/league.csv .md .tex .png .pdf")


if __name__ == "__main__":
    run_tool(main)
