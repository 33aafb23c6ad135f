"""Everybody plays everybody: `python -m loqa.tools.league PLAYERS...`.

PLAYERS are saved agents (.npz), runs (a run's directory: its newest agents), directories of agents or of runs,
and scripted players by name; KIND=PATH puts agents under a kind of your own. The other scripted players of the
game play too.

Each pair, a player with itself included, plays once, or in both seats where the game differs between them.
Written to --out: league.csv (a row for each pair), league.md and league.tex (means by kind), league.png and
league.pdf (the heat map). A league that was killed goes on from its league.csv: pairs in it are not played again.

--against FILE.json holds it against published means (see loqa.tools.against), and exits with 1 if they disagree.
"""

import csv
import re
import sys
import time
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from loqa.rollout import Noise, Player, draw_noise, rollout
from loqa.tools.against import compare
from loqa.tools.common import decimal, markdown_table, one_line_errors, run_tool, tool_parser, whole, write_csv
from loqa.tools.figures import heat_map, read_league
from loqa.tools.players import Game, LeaguePlayer, add_game_options, choose_players, title

PAIRS_AT_ONCE = 8  # enough to fill the processor, few enough for its memory

Row = dict[str, Any]  # of league.csv


@partial(jax.jit, static_argnames=("game", "seats"))
def play_pairs(game: Game, seats: tuple[Player, Player], params: tuple[Any, Any], noise: Noise) -> jax.Array:
    """Plays P pairs of two architectures, each with parameters and noise [P, ...].

    Returns each seat's mean reward a step, and its standard deviation over episodes: [2, P, 2].
    """
    play = lambda params, noise: rollout(game, seats, params, noise).rewards.mean(0)
    rewards = jax.vmap(play)(params, noise)  # [P, 2, B]
    return jnp.stack([rewards.mean(-1), rewards.std(-1, ddof=1)])


@partial(jax.jit, static_argnames=("steps", "episodes"))
def draw_noises(key: jax.Array, pairs: jax.Array, steps: int, episodes: int) -> Noise:
    """The noise of P pairs, [P, ...], by their numbers [P]."""
    return jax.vmap(lambda pair: draw_noise(jax.random.fold_in(key, pair), steps, episodes))(pairs)


def pair_number(*of: Any) -> int:
    """A number of 32 bits for what has these words."""
    return zlib.crc32("\n".join(map(str, of)).encode())


def play_league(
    game: Game, players: Sequence[LeaguePlayer], steps: int, episodes: int, seed: int, path: Path
) -> list[Row]:
    """Plays the pairs that `path`, a league.csv, does not have yet, and keeps it up to date; returns all rows.

    What is random in a pair depends on the seed and the two names, not on who else plays. Prints its progress.
    """
    prints = [
        zlib.crc32(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(one.params))) for one in players
    ]
    saved, blocks = {}, {}
    if path.exists():
        with open(path, encoding="utf-8", newline="") as file:
            saved = {row.get("id"): row for row in csv.DictReader(file)}
    rows: dict[tuple[int, int], Row] = {}
    for i, j in np.ndindex(len(players), len(players)):
        if i > j and game == game.from_seat(1):
            continue  # it was played as j against i
        row = {"player_0": players[i].name, "player_1": players[j].name}
        row |= {"kind_0": players[i].kind, "kind_1": players[j].kind}
        row["id"] = f"{pair_number(game, steps, episodes, seed, *row.values(), prints[i], prints[j]):08x}"
        rows[i, j] = saved.get(row["id"], row)
        if rows[i, j] is row:  # pairs of the same two architectures are a block
            blocks.setdefault((players[i].player, players[j].player), []).append((i, j))
    start, played, to_play = time.monotonic(), 0, sum(map(len, blocks.values()))
    stack = lambda seat, pairs: jax.tree.map(
        lambda *x: np.stack(x), *(players[pair[seat]].params for pair in pairs)
    )
    for seats, block in blocks.items():
        for k in range(0, len(block), PAIRS_AT_ONCE):
            pairs = block[k : k + PAIRS_AT_ONCE]
            filled = (pairs * PAIRS_AT_ONCE)[:PAIRS_AT_ONCE]  # always as many: one program for the block
            numbers = np.array([pair_number(players[i].name, players[j].name) for i, j in filled], np.uint32)
            noise = draw_noises(jax.random.key(seed), numbers, steps, episodes)
            means, deviations = np.asarray(play_pairs(game, seats, (stack(0, filled), stack(1, filled)), noise))
            for n, pair in enumerate(pairs):
                for seat in (0, 1):
                    rows[pair] |= {f"mean_reward_{seat}": means[n, seat], f"sd_{seat}": deviations[n, seat]}
            write_csv(path.with_suffix(".part"), [row for row in rows.values() if "sd_1" in row])
            path.with_suffix(".part").replace(path)  # whole, whenever it is killed
            played, seconds = played + len(pairs), time.monotonic() - start
            left = seconds * (to_play / played - 1)
            line = f"{played:5}/{to_play} pairs to play  {seconds:6.0f} s, about {left:.0f} s to go "
            print(line, end="\r" if played < to_play else "\n", flush=True)
    return list(rows.values())


def kind_table(rewards: np.ndarray, kinds: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """What players of a kind earn with those of another and leave them, of means [N, N]: its head, its lines."""
    kind, itself = np.array(kinds), np.eye(len(kinds), dtype=bool)
    same = kind[:, None] == kind
    others = {"itself": itself, "others of its kind": same & ~itself}
    others |= {other: (kind == other) & ~same for other in dict.fromkeys(kinds)}
    means = lambda x: f"{decimal(rewards[x].mean())} / {decimal(rewards.T[x].mean())}" if x.any() else ""
    lines = [
        [f"{one} ({kinds.count(one)})", *(means((kind == one)[:, None] & against) for against in others.values())]
        for one in dict.fromkeys(kinds)
    ]
    return ["against", *others], lines


def latex(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table for LaTeX, with the package booktabs."""
    row = lambda cells: " & ".join(re.sub(r"([_%&#$])", r"\\\1", cell) for cell in cells) + r" \\"
    body = [r"\toprule", row(head), r"\midrule", *map(row, lines), r"\bottomrule", r"\end{tabular}"]
    return "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", *body]) + "\n"


def main() -> None:
    parser = tool_parser("league", __doc__)
    add = parser.add_argument
    add("players", nargs="*", metavar="PLAYERS", help="agents, runs, directories, scripted players")
    add_game_options(parser)
    add("--no-scripted", action="store_true", help="only the scripted players that are named")
    add("--episodes", type=whole(2), default=256, help="episodes of a pair (%(default)s)")
    add("--steps", type=whole(1), default=50, help="steps of an episode (%(default)s)")
    add("--seed", type=whole(0), default=0, help="of everything random (%(default)s)")
    add("--against", type=Path, metavar="FILE.json", help="published means to hold the league against")
    add("--out", type=Path, default="experiments/league", help="where to write (%(default)s)")
    options = parser.parse_intermixed_args()
    with one_line_errors(parser):
        game, players = choose_players(options.players, options.game, options.grid, not options.no_scripted)
        if not players:
            raise ValueError("nobody plays: name at least one player")
        options.out.mkdir(parents=True, exist_ok=True)
        players = sorted(players, key=lambda one: [other.kind for other in players].index(one.kind))
        print(f"{len(players)} players of {title(game)}", flush=True)
        path = options.out / "league.csv"
        rows = play_league(game, players, options.steps, options.episodes, options.seed, path)
        rewards, names, kinds = read_league(path)
        head, lines = kind_table(rewards, kinds)
        text = (
            f"{options.episodes} episodes of {options.steps} steps of {title(game)} for each pair. Mean reward a "
        )
        text += f"step of the row's players / of their opponents.\n\n{markdown_table(head, lines)}\n"
        (options.out / "league.md").write_text(text)
        (options.out / "league.tex").write_text(latex(head, lines))
        heat_map(rewards, names, kinds, options.out / "league")
        print(f"\n{text}\n{options.out}/league.csv .md .tex .png .pdf")
        if options.against and not compare(options.against, rows, options.steps, options.episodes, options.out):
            sys.exit(1)


if __name__ == "__main__":
    run_tool(main)
