"""Everybody plays everybody: `python -m loqa.tools.league PLAYERS...`.

PLAYERS are saved agents (.npz), runs (a run's directory: its newest agents), directories of agents or of runs,
and scripted players by name; KIND=PATH puts agents under a kind of your own. The other scripted players of the
game play too. Each pair, a player with itself included, plays once, or in both seats of a game where they differ.

Written to --out: league.csv (a row for each pair), league.md (means by kind), league.png and league.pdf (the heat map).
A league that was killed continues: the pairs in its league.csv are not played again.
--against compares it with published means (see docs/tools.md); the exit code is 1 if they disagree.
"""

import csv
import json
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

from loqa.game import Game
from loqa.rollout import Noise, Player, draw_noise, rollout
from loqa.run.directory import write_whole
from loqa.tools.common import ArgumentParser, markdown_table, tool, whole, write_csv
from loqa.tools.players import LeaguePlayer, add_game_options, choose_players
from loqa.tools.plot import heat_map, read_league

PAIRS_AT_ONCE = 8  # enough to fill the processor, few enough for its memory
PUBLISHED_EPISODES = 32  # of which each published mean is

Row = dict[str, Any]  # of league.csv


@partial(jax.jit, static_argnames=("steps", "episodes"))
def draw_noises(key: jax.Array, pairs: jax.Array, steps: int, episodes: int) -> Noise:
    """The noise of P pairs, [P, ...], by their numbers [P]; a program of its own, since it is slow to compile."""
    return jax.vmap(lambda pair: draw_noise(jax.random.fold_in(key, pair), steps, episodes))(pairs)


@partial(jax.jit, static_argnames=("game", "seats"))
def play_pairs(game: Game, seats: tuple[Player, Player], params: tuple[Any, Any], noise: Noise) -> jax.Array:
    """Plays P pairs of two architectures, with parameters of both and noise [P, ...].

    Returns the mean reward a step in each seat, and its standard deviation over episodes: [2, P, 2].
    """
    play = lambda params, noise: rollout(game, seats, params, noise).rewards.mean(0)
    rewards = jax.vmap(play)(params, noise)  # [P, 2, B]
    return jnp.stack([rewards.mean(-1), rewards.std(-1, ddof=1)])


def checksum(*parts: Any) -> int:
    """A number of 32 bits for these parts: words, and pytrees of arrays."""
    return zlib.crc32(b"\n".join(np.asarray(x).tobytes() for x in jax.tree.leaves(parts)))


def play_league(
    game: Game, players: Sequence[LeaguePlayer], steps: int, episodes: int, seed: int, path: Path
) -> list[Row]:
    """Plays the pairs that `path`, a league.csv, does not have yet, and keeps it up to date; returns all rows.

    What is random in a pair depends on the seed and the two names, not on who else plays. Prints its progress.
    """
    saved: dict[str, Row] = {}
    if path.exists():
        with open(path, encoding="utf-8", newline="") as file:
            saved = {row["id"]: row for row in csv.DictReader(file) if row.get("sd_1")}  # of a cut row it is None
    own = [checksum(*one[:2], one.params) for one in players]
    rows: dict[tuple[int, int], Row] = {}
    blocks: dict[tuple[Player, Player], list[tuple[int, int]]] = {}  # a pair of architectures is one program
    for i, j in np.ndindex(len(players), len(players)):
        if i <= j or game != game.from_seat(1):
            one, other = players[i], players[j]
            row = {"player_0": one.name, "player_1": other.name, "kind_0": one.kind, "kind_1": other.kind}
            row["id"] = f"{checksum(str(game), steps, episodes, seed, own[i], own[j]):08x}"
            rows[i, j] = saved.get(row["id"], row)
            if rows[i, j] is row:
                blocks.setdefault((one.player, other.player), []).append((i, j))
    if saved and not saved.keys() & {row["id"] for row in rows.values()}:
        raise ValueError(f"{path} is of another league (players, episodes, steps or seed): choose another --out")
    start, played, to_play = time.monotonic(), 0, sum(map(len, blocks.values()))
    for seats, block in blocks.items():
        for k in range(0, len(block), PAIRS_AT_ONCE):
            pairs = block[k : k + PAIRS_AT_ONCE]
            filled = (pairs * PAIRS_AT_ONCE)[:PAIRS_AT_ONCE]  # always as many
            numbers = np.array([zlib.crc32(f"{players[i].name}\n{players[j].name}".encode()) for i, j in filled])
            noise = draw_noises(jax.random.key(seed), numbers.astype(np.uint32), steps, episodes)
            sides = [[players[pair[seat]].params for pair in filled] for seat in (0, 1)]
            params = tuple(jax.tree.map(lambda *x: np.stack(x), *side) for side in sides)
            means, deviations = np.asarray(play_pairs(game, seats, params, noise))
            for n, pair in enumerate(pairs):
                for i in (0, 1):
                    rows[pair] |= {f"mean_reward_{i}": means[n, i], f"sd_{i}": deviations[n, i]}
            done = [row for row in rows.values() if "sd_1" in row]
            write_whole(path, partial(write_csv, rows=done))  # so that a league that is killed leaves a whole file
            played, seconds = played + len(pairs), time.monotonic() - start
            line = f"{played:5}/{to_play} pairs, {seconds:.0f} s, {seconds * (to_play / played - 1):.0f} s to go   "
            if sys.stdout.isatty() or played == to_play:
                print(line, end="\r" if played < to_play else "\n", flush=True)
    return list(rows.values())


def kind_table(rewards: np.ndarray, kinds: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """What players of a kind earn against those of another, of means [N, N]: its head, its lines."""
    kind, itself = np.array(kinds), np.eye(len(kinds), dtype=bool)
    same, order = kind[:, None] == kind, dict.fromkeys(kinds)
    others = {"itself": itself, "others of its kind": same & ~itself} | {x: (kind == x) & ~same for x in order}
    means = lambda x: f"{rewards[x].mean():z.3f}" if x.any() else ""
    cells = lambda one: [means((kind == one)[:, None] & against) for against in others.values()]
    return ["against", *others], [[f"{one} ({kinds.count(one)})", *cells(one)] for one in order]


def compare(path: Path, ours: Sequence[Row], steps: int, episodes: int, out: Path) -> bool:
    """Whether the rows of a league.csv agree with published ones. Prints how, by section.

    The standard error of the difference to our mean of N episodes with standard deviation s is s sqrt(1/32 + 1/N).
    Leagues agree where no difference is above four of them and their root mean square, which is about 1 for the
    same game and the same agents, is at most 1.2. Writes the table as against.md to `out`. The JSON of published means
    is {"NAME": {"steps": 50, "rows": [[PLAYER, PLAYER, its mean reward a step, the other's]]}}. Raises OSError where
    it cannot be read, ValueError where it is none, has no episodes of `steps`, or no pair of these players.
    """
    try:
        parts = [part for part in json.loads(path.read_text("utf-8")).items() if "rows" in part[1]]
        lengths = sorted({part["steps"] for _, part in parts})
        parts = [(name, part["rows"]) for name, part in parts if part["steps"] == steps]
        published = {name: [(a, b, float(x), float(y)) for a, b, x, y in part] for name, part in parts}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a published league (see docs/tools.md): {error!r}") from error
    if not published:
        raise ValueError(f"--steps is {steps}, but must be one of {lengths}, the steps in {path}")
    played = {}  # by the names of two players: [mean or standard deviation, player]
    for row in ours:
        both = np.array([[float(row[f"{name}_{i}"]) for i in (0, 1)] for name in ("mean_reward", "sd")])
        played[row["player_0"], row["player_1"]] = both
        played.setdefault((row["player_1"], row["player_0"]), both[:, ::-1])
    lines, agree = [], True
    for section, rows in published.items():
        known = [row for row in rows if row[:2] in played]
        if not known:
            continue
        theirs, both = np.array([row[2:] for row in known]), np.array([played[row[:2]] for row in known])
        error = np.maximum(both[:, 1], 1e-6) * np.sqrt(1 / PUBLISHED_EPISODES + 1 / episodes)
        z = (both[:, 0] - theirs) / error
        share, size = (np.abs(z) <= 4).mean(), np.sqrt((z**2).mean())
        k, i = np.unravel_index(np.abs(z).argmax(), z.shape)
        worst = f"{known[k][i]} with {known[k][1 - i]}: "
        worst += f"{theirs[k, i]:z.3f}, {both[k, 0, i]:z.3f}, {z[k, i]:.1f}"
        lines.append([section, str(len(rows)), str(len(known)), f"{share:.2%}", f"{size:.2f}", worst])
        agree &= bool(share == 1 and size <= 1.2)
    if not lines:
        raise ValueError(f"{path} has no pair of these players, whose names are those of the agents' files")
    head = ["section", "rows", "played", "within 4 standard errors", "root mean square", "worst: theirs, ours, errors"]
    text = f"{markdown_table(head, lines, (0, 5))}\n\nThe leagues {'agree' if agree else 'disagree'}.\n"
    (out / "against.md").write_text(text)
    print(f"\n{text}")
    return agree


@tool
def main(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("players", nargs="*", metavar="PLAYERS", help="agents, runs, directories, scripted players")
    add_game_options(parser)
    add("--no-scripted", action="store_true", help="only the scripted players that are named")
    add("--episodes", type=whole(2), default=256, help="episodes of a pair (%(default)s)")
    add("--steps", type=whole(1), default=50, help="steps of an episode (%(default)s)")
    add("--seed", type=whole(0), default=0, help="of everything random (%(default)s)")
    add("--against", type=Path, metavar="FILE.json", help="published means to compare the league with")
    add("--out", type=Path, default="experiments/league", help="where to write (%(default)s)")
    options = parser.parse_intermixed_args()
    game, players = choose_players(options.players, options.game, options.grid, not options.no_scripted)
    if not players:
        raise ValueError("nobody plays: name at least one player")
    options.out.mkdir(parents=True, exist_ok=True)
    players = sorted(players, key=lambda one: [other.kind for other in players].index(one.kind))
    print(f"{len(players)} players of the {game.title}", flush=True)
    rows = play_league(game, players, options.steps, options.episodes, options.seed, options.out / "league.csv")
    rewards, kinds = read_league(options.out / "league.csv")
    head, lines = kind_table(rewards, kinds)
    text = f"{options.episodes} episodes of {options.steps} steps of the {game.title} for each pair. Mean reward a "
    text += f"step of the row's players.\n\n{markdown_table(head, lines)}\n"
    (options.out / "league.md").write_text(text)
    heat_map(rewards, kinds, options.out / "league")
    print(f"\n{text}\n{options.out}/league.csv .md .png .pdf")
    if options.against and not compare(options.against, rows, options.steps, options.episodes, options.out):
        sys.exit(1)


if __name__ == "__main__":
    main()
