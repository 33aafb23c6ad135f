"""Everybody plays everybody: `python -m loqa.tools.league PLAYERS...`.

PLAYERS are saved agents (.npz), runs (a run's directory: its newest agents), directories of agents or of runs,
and scripted players by name; KIND=PATH puts agents under a kind of your own. The other scripted players of the
game play too.

Each pair, a player with itself included, plays in both seats. Written to --out: league.csv (a row for each pair
and seat), league.md and league.tex (means by kind), league.png and league.pdf (the heat map).
"""

import itertools
import re
import time
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from loqa.games.coin import CoinGame, coins_taken
from loqa.rollout import Player, draw_noise, rollout
from loqa.tools.aggregate import bootstrap_interval
from loqa.tools.common import decimal, markdown_table, one_line_errors, run_tool, tool_parser, whole, write_csv
from loqa.tools.figures import heat_map, read_league
from loqa.tools.players import Game, LeaguePlayer, add_game_options, choose_players, title

PAIRS_AT_ONCE = 16  # enough to fill the processor, few enough for its memory
GROUPS = "self", "within a kind", "between kinds"  # of pairs

# What is measured of each episode, for the players in seats 0 and 1, by name: arrays [..., 2, B]. All are means a
# step: mean_reward, and in the Coin Game own_coins and other_coins, the coins that a player takes.
Measures = dict[str, Any]


@partial(jax.jit, static_argnames=("game", "seats", "steps", "episodes"))
def play_row(
    game: Game, seats: tuple[Player, Player], steps: int, episodes: int, first: Any, others: Any, keys: jax.Array
) -> Measures:
    """Plays one player in seat 0 against P players of one architecture in seat 1.

    `first` [...] and `others` [P, ...] are their parameters, `keys` [P] the pairs' own. Returns [P, 2, B] each.
    """

    def play(pair):
        other, key = pair
        played = rollout(game, seats, (first, other), draw_noise(key, steps, episodes))
        measures = {"mean_reward": played.rewards}
        if isinstance(game, CoinGame):
            measures["own_coins"], measures["other_coins"] = coins_taken(played.observations)
        return {name: values.mean(0) for name, values in measures.items()}

    return jax.lax.map(play, (others, keys), batch_size=min(len(keys), PAIRS_AT_ONCE))


def play_league(game: Game, players: Sequence[LeaguePlayer], steps: int, episodes: int, seed: int) -> Measures:
    """Every ordered pair of the N players, the first in seat 0: [N, N, 2, B] each. Prints its progress.

    What is random in a pair depends on the seed and the two names, not on who else plays.
    """
    groups: dict[Player, list[int]] = {}  # of one architecture each
    for i, one in enumerate(players):
        groups.setdefault(one.player, []).append(i)
    stack = lambda group: jax.tree.map(lambda *x: jnp.array(x), *(players[i].params for i in group))
    stacks = {architecture: stack(group) for architecture, group in groups.items()}
    order = np.argsort(list(itertools.chain(*groups.values())))
    pair_keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))
    rows, start = [], time.monotonic()
    for first in players:
        row = []
        for architecture, group in groups.items():
            ids = [zlib.crc32(f"{first.name}\n{players[j].name}".encode()) for j in group]
            keys, seats = pair_keys(np.array(ids, np.uint32)), (first.player, architecture)
            row.append(play_row(game, seats, steps, episodes, first.params, stacks[architecture], keys))
        rows.append(jax.tree.map(lambda *x: np.concatenate(x)[order], *row))
        pairs = f"{len(rows) * len(players):5}/{len(players) ** 2} pairs"
        print(f"{pairs}  {time.monotonic() - start:6.1f} s  {first.name}", flush=True)
    return jax.tree.map(lambda *x: np.stack(x), *rows)


def mean_interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of the mean over episodes: [..., B] -> low [...], high [...]."""
    return bootstrap_interval(np.moveaxis(samples, -1, 0), lambda resample: resample.mean(0))


def ordered_pairs(players: Sequence[LeaguePlayer]) -> list[tuple[int, int, int]]:
    """All pairs: which of GROUPS one is in, and the players in seats 0 and 1; indices of all three."""
    group = lambda i, j: 0 if i == j else 1 if players[i].kind == players[j].kind else 2
    return [(group(i, j), i, j) for i, j in np.ndindex(len(players), len(players))]


def pair_rows(players: Sequence[LeaguePlayer], played: Measures) -> list[dict[str, Any]]:
    """The rows of league.csv: each ordered pair, the first player in seat 0."""
    means = {name: values.mean(-1) for name, values in played.items()}
    low, high = mean_interval(played["mean_reward"])
    rows = []
    for group, i, j in ordered_pairs(players):
        row = {"group": GROUPS[group], "player_0": players[i].name, "player_1": players[j].name}
        row |= {"kind_0": players[i].kind, "kind_1": players[j].kind}
        for seat in (0, 1):
            row |= {f"{name}_{seat}": values[i, j, seat] for name, values in means.items()}
            row |= {f"mean_reward_{seat}_low": low[i, j, seat], f"mean_reward_{seat}_high": high[i, j, seat]}
        rows.append(row)
    return rows


def table_lines(players: Sequence[LeaguePlayer], played: Measures) -> list[dict[str, str]]:
    """The lines of the table, cells by head: means over the pairs of two kinds in a group, in both seats."""
    kinds = list(dict.fromkeys(one.kind for one in players))
    pairs: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}
    for group, i, j in ordered_pairs(players):
        a, b = kinds.index(players[i].kind), kinds.index(players[j].kind)
        # Each game is seen from the seat of the kind that comes first; between two of a kind from seat 0.
        pairs.setdefault((group, min(a, b), max(a, b)), []).append((i, j, int(a > b)))
    lines = []
    for (group, a, b), seen in sorted(pairs.items()):
        i, j, seat = np.array(seen).T
        line = {"player": kinds[a], "opponent": kinds[b], "group": GROUPS[group], "pairs": str(len(seen))}
        for side, its_seat in (("", seat), ("opponent's ", 1 - seat)):
            rewards = played["mean_reward"][i, j, its_seat]  # [pairs, B]
            low, high = map(decimal, mean_interval(rewards.mean(0)))
            line[f"{side}reward"] = f"{decimal(rewards.mean())} [{low}, {high}]"
            line[f"{side}sd"] = decimal(rewards.mean(1).std(ddof=1)) if len(seen) > 1 else ""
        for name, head in (("own_coins", "own coins"), ("other_coins", "other's coins")):
            if name in played:
                line[head] = decimal(played[name][i, j, seat].mean())
        lines.append(line)
    return lines


def latex(lines: Sequence[dict[str, str]]) -> str:
    """The table for LaTeX, with the package booktabs."""
    row = lambda cells: " & ".join(re.sub(r"([_%&#$])", r"\\\1", cell) for cell in cells) + r" \\"
    head = rf"\begin{{tabular}}{{lll{'r' * (len(lines[0]) - 3)}}}"
    body = [r"\toprule", row(lines[0]), r"\midrule", *(row(line.values()) for line in lines), r"\bottomrule"]
    return "\n".join([head, *body, r"\end{tabular}"]) + "\n"


def write(out: Path, players: Sequence[LeaguePlayer], played: Measures, caption: str) -> str:
    """Writes everything to the directory `out`; returns the Markdown text."""
    write_csv(out / "league.csv", pair_rows(players, played))
    lines = table_lines(players, played)
    table = markdown_table(list(lines[0]), [list(line.values()) for line in lines], text_columns=(0, 1, 2))
    text = f"{caption}\n\n{table}\n"
    (out / "league.md").write_text(text)
    (out / "league.tex").write_text(latex(lines))
    heat_map(*read_league(out / "league.csv"), out / "league")
    return text


def main() -> None:
    parser = tool_parser("league", __doc__)
    add = parser.add_argument
    add("players", nargs="*", metavar="PLAYERS", help="agents, runs, directories, scripted players")
    add_game_options(parser)
    add("--no-scripted", action="store_true", help="only the scripted players that are named")
    add("--episodes", type=whole(2), default=512, help="episodes of a pair in a seat (%(default)s)")
    add("--steps", type=whole(1), default=50, help="steps of an episode (%(default)s)")
    add("--seed", type=whole(0), default=0, help="of everything random (%(default)s)")
    add("--out", type=Path, default="experiments/league", help="where to write (%(default)s)")
    options = parser.parse_intermixed_args()
    with one_line_errors(parser):
        game, players = choose_players(options.players, options.game, options.grid, not options.no_scripted)
        if not players:
            raise ValueError("nobody plays: name at least one player")
        options.out.mkdir(parents=True, exist_ok=True)
    players = sorted(players, key=lambda one: [other.kind for other in players].index(one.kind))

    print(f"{len(players)} players, {len(players) ** 2} pairs of {title(game)}", flush=True)
    played = play_league(game, players, options.steps, options.episodes, options.seed)
    caption = f"{options.episodes} episodes of {options.steps} steps of {title(game)} for each pair and seat. "
    caption += "Rewards are means a step with 95 % bootstrap intervals over episodes; sd: over pairs."
    if isinstance(game, CoinGame):
        caption += " Coins: of its own and of the opponent's, that the player takes a step."
    with one_line_errors(parser):
        text = write(options.out, players, played, caption)
    print(f"\n{text}\n{options.out}/league.csv .md .tex .png .pdf")


if __name__ == "__main__":
    run_tool(main)
