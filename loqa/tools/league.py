"""Everybody plays everybody: `python -m loqa.tools.league PLAYERS...`.

PLAYERS are saved agents (.npz), runs (a run's directory: its newest agents), directories of agents or of runs,
and scripted players by name; KIND=PATH puts agents under a kind of your own. The other scripted players of the
game play too. Each pair, a player with itself included, plays once, or in both seats of a game where they differ.

Written to --out: league.csv (a row for each pair), league.md (means by kind), league.png and league.pdf (the heat map).
A league that was killed continues: the pairs in its league.csv are not played again. Those of players who do not play
now are kept in league_others.csv. --against compares it with published means (see docs/tools.md), in against.csv; the
exit code is 1 if they disagree.
"""

import csv
import json
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import groupby, product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.patheffects import withStroke

from loqa.figures.curves import in_style, panels, save
from loqa.game import Game
from loqa.rollout import Noise, Player, draw_noise, rollout
from loqa.run.directory import write_whole
from loqa.tools.common import ArgumentParser, markdown_table, read_csv, tool, whole, write_csv
from loqa.tools.players import GAME_OPTION, LeaguePlayer, choose_players

PAIRS_AT_ONCE = 8  # enough to fill the processor, few enough for its memory
PUBLISHED_EPISODES = 32  # of which each published mean is


@partial(jax.jit, static_argnames=("steps", "episodes"))
def draw_noises(key: jax.Array, pairs: jax.Array, steps: int, episodes: int) -> Noise:
    """The noise of P pairs, [P, ...], by their numbers [P]; a program of its own, since it is slow to compile."""
    return jax.vmap(lambda pair: draw_noise(jax.random.fold_in(key, pair), steps, episodes))(pairs)


@partial(jax.jit, static_argnames=("game", "seats"))
def play_pairs(game: Game, seats: tuple[Player, Player], params: tuple[Any, Any], noise: Noise) -> jax.Array:
    """Plays P pairs of two architectures, with parameters of both and noise [P, ...].

    Returns the mean reward per step in each seat, and its standard deviation over episodes: [2, P, 2].
    """
    play = lambda params, noise: rollout(game, seats, params, noise).rewards.mean(0)
    rewards = jax.vmap(play)(params, noise)  # [P, 2, B]
    return jnp.stack([rewards.mean(-1), rewards.std(-1, ddof=1)])


def checksum(*parts: Any) -> int:
    """A number of 32 bits for these parts: words, and pytrees of arrays."""
    return zlib.crc32(b"\n".join(np.asarray(x).tobytes() for x in jax.tree.leaves(parts)))


def play_league(
    game: Game, players: Sequence[LeaguePlayer], steps: int, episodes: int, seed: int, path: Path
) -> list[dict[str, Any]]:
    """Plays the pairs that `path`, a league.csv, does not have yet, and keeps it up to date; returns all rows.

    Pairs of others that it has are kept in a file beside it, from which a later league of theirs takes them.
    What is random in a pair depends on the seed and the two names, not on who else plays. Prints its progress.
    """
    others = path.with_name(f"{path.stem}_others.csv")
    saved = [row for file in (others, path) if file.exists() for row in read_csv(file)]
    saved = {row["id"]: row for row in saved if row.get("sd_1")}  # of a cut row it is None
    own = [checksum(*one[:2], one.params) for one in players]
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    blocks: dict[tuple[Player, Player], list[tuple[int, int]]] = {}  # a pair of architectures is one program
    for i, j in np.ndindex(len(players), len(players)):
        if i <= j or game != game.from_seat(1):
            one, other = players[i], players[j]
            row = {"player_0": one.name, "player_1": other.name, "kind_0": one.kind, "kind_1": other.kind}
            row["id"] = f"{checksum(str(game), steps, episodes, seed, own[i], own[j]):08x}"
            rows[i, j] = saved.get(row["id"], row)
            if row["id"] not in saved:
                blocks.setdefault((one.player, other.player), []).append((i, j))
    ids = {row["id"] for row in rows.values()}
    absent = [row for each, row in saved.items() if each not in ids]
    if path.exists() and saved and len(absent) == len(saved):
        raise ValueError(f"{path} is of another league (players, episodes, steps or seed): choose another --out")
    write = lambda: write_whole(path, partial(write_csv, rows=[row for row in rows.values() if "sd_1" in row]))
    if absent:
        write_whole(others, partial(write_csv, rows=absent))
    if len(absent) < len(saved):
        write()
    start, played, to_play = time.monotonic(), 0, sum(map(len, blocks.values()))
    for seats, block in blocks.items():
        for k in range(0, len(block), PAIRS_AT_ONCE):
            pairs = block[k : k + PAIRS_AT_ONCE]
            filled = (pairs * PAIRS_AT_ONCE)[:PAIRS_AT_ONCE]  # always as many
            numbers = [zlib.crc32(f"{players[i].name}\n{players[j].name}".encode()) for i, j in filled]
            noise = draw_noises(jax.random.key(seed), np.array(numbers, np.uint32), steps, episodes)
            sides = [[players[pair[seat]].params for pair in filled] for seat in (0, 1)]
            params = tuple(jax.tree.map(lambda *x: np.stack(x), *side) for side in sides)
            means, deviations = np.asarray(play_pairs(game, seats, params, noise))
            for n, pair in enumerate(pairs):
                for i in (0, 1):
                    rows[pair] |= {f"mean_reward_{i}": means[n, i], f"sd_{i}": deviations[n, i]}
            write()
            played += len(pairs)
            if sys.stdout.isatty() or played == to_play:
                end = "\r" if played < to_play else "\n"
                print(f"{played:5}/{to_play} pairs, {time.monotonic() - start:.0f} s", end=end, flush=True)
    return list(rows.values())


# ------------------------------------------------------------------------------------- what a league.csv says


def read_league(path: Path) -> tuple[np.ndarray, list[str]]:
    """Of a league.csv: rewards [N, N], the mean over both seats; kinds. Raises ValueError if it is none."""
    try:
        rows = read_csv(path)
        kinds = {row["player_0"]: row["kind_0"] for row in rows}
        seen = defaultdict(list)  # by who earns it, and against whom
        for row, seat in product(rows, (0, 1)):
            seen[row[f"player_{seat}"], row[f"player_{1 - seat}"]].append(float(row[f"mean_reward_{seat}"]))
        rewards = np.array([[np.mean(dict(seen)[a, b]) for b in kinds] for a in kinds])
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not a whole league.csv, it lacks {error}") from error
    return rewards, list(kinds.values())


def kind_means(rewards: np.ndarray, kinds: Sequence[str]) -> dict[str, dict[str, str]]:
    """What players of each kind earn against `itself`, `others of its kind` and other kinds, of means [N, N]."""
    kind, itself = np.array(kinds), np.eye(len(kinds), dtype=bool)
    same, order = kind[:, None] == kind, dict.fromkeys(kinds)
    against = {"itself": itself, "others of its kind": same & ~itself} | {x: (kind == x) & ~same for x in order}
    mean = lambda x: f"{rewards[x].mean():z.3f}" if x.any() else ""
    return {x: {name: mean((kind == x)[:, None] & other) for name, other in against.items()} for x in order}


def kind_table(rewards: np.ndarray, kinds: Sequence[str]) -> str:
    """`kind_means` as a Markdown table, a line for each kind."""
    means = kind_means(rewards, kinds)
    lines = [[f"{kind} ({kinds.count(kind)})", *row.values()] for kind, row in means.items()]
    return markdown_table(["against", "itself", "others of its kind", *means], lines)


@in_style
def heat_map(rewards: np.ndarray, kinds: Sequence[str], path: Path) -> list[str]:
    """Draws what each row's player earns per step against each column's, [N, N], and the means by kind.

    Players stand by kind; one of a kind of few takes more room, so that the kind's name has its place.
    """
    sizes = {kind: len(list(group)) for kind, group in groupby(kinds)}
    edges = np.concatenate([[0], np.cumsum([max(1, 4 / sizes[kind]) for kind in kinds])])
    ends = np.cumsum([0, *sizes.values()])
    side = 1.6 + max(0.075 * edges[-1], 1.2)
    figure, (axes,) = panels(1, (side + 0.7, side))
    low, high = np.quantile(rewards, (0.05, 0.95))  # a few extreme pairs would leave one color to all others
    image = axes.pcolormesh(edges, edges, rewards, cmap="cividis", vmin=low, vmax=high)
    middles = (edges[ends[1:]] + edges[ends[:-1]]) / 2
    for i, j in np.ndindex(len(sizes), len(sizes)):
        mean = rewards[ends[i] : ends[i + 1], ends[j] : ends[j + 1]].mean()
        outline = [withStroke(linewidth=1.6, foreground="white")]  # to be read on any color
        axes.text(middles[j], middles[i], f"{mean:z.2f}", ha="center", va="center", fontsize=6, path_effects=outline)
    for end in edges[ends[1:-1]]:
        axes.axhline(end, color="black", linewidth=0.6)
        axes.axvline(end, color="black", linewidth=0.6)
    axes.set_xticks(middles, sizes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(middles, sizes)
    axes.set(xlabel="against", ylabel="player", ylim=(edges[-1], 0))
    axes.tick_params(length=0)
    axes.grid(False)
    figure.colorbar(image, shrink=0.8, pad=0.02, extend="both", label="mean reward per step of the row's player")
    return save(figure, path)


def compare(path: Path, rows: Sequence[dict[str, Any]], steps: int, episodes: int) -> list[dict[str, Any]]:
    """How far a league's rows are from published means in episodes of `steps`, a line for each section of `path`.

    A difference is in standard errors, s sqrt(1/32 + 1/N) for our mean of N episodes with standard deviation s: of the
    same game and agents their root mean square is about 1; a section `agrees` where it is at most 1.2, and no
    difference is above four. Raises OSError where `path` cannot be read, ValueError where it is not as docs/tools.md
    says, or has none of these pairs.
    """
    played, lines = {}, []  # by the names of two players: [mean or standard deviation, player]
    for row in rows:
        both = np.array([[float(row[f"{name}_{i}"]) for i in (0, 1)] for name in ("mean_reward", "sd")])
        played[row["player_0"], row["player_1"]] = both
        played.setdefault((row["player_1"], row["player_0"]), both[:, ::-1])
    try:
        sections = {name: part for name, part in json.loads(path.read_text("utf-8")).items() if "rows" in part}
        for section, published in sections.items():
            known = [(a, b, float(x), float(y)) for a, b, x, y in published["rows"] if (a, b) in played]
            if published["steps"] != steps or not known:
                continue
            theirs, ours = np.array([row[2:] for row in known]), np.array([played[row[:2]] for row in known])
            error = np.maximum(ours[:, 1], 1e-6) * np.sqrt(1 / PUBLISHED_EPISODES + 1 / episodes)
            away = np.abs(ours[:, 0] - theirs) / error
            size, apart = np.sqrt(np.square(away).mean()), (away > 4).any(1).sum()
            line = {"section": section, "steps": steps, "rows": len(known), "of": len(published["rows"])}
            line |= {"root mean square": f"{size:.2f}", "largest": f"{away.max():.1f}", "above 4": apart}
            farthest = " with ".join(known[away.max(1).argmax()][:2])
            lines.append(line | {"farthest": farthest, "agrees": size <= 1.2 and apart == 0})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a published league (see docs/tools.md): {error!r}") from error
    if not lines:
        raise ValueError(f"{path} has no pair of these players, by the names of their files, in {steps} steps")
    return lines


@tool
def main(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("players", nargs="*", metavar="PLAYERS", help="agents, runs, directories, scripted players")
    add("--game", **GAME_OPTION)
    add("--no-scripted", action="store_true", help="only the scripted players that are named")
    add("--episodes", type=whole(2), default=256, help="episodes of a pair (%(default)s)")
    add("--steps", type=whole(1), default=50, help="steps of an episode (%(default)s)")
    add("--seed", type=whole(0), default=0, help="of everything random (%(default)s)")
    add("--against", type=Path, metavar="FILE.json", help="published means to compare the league with")
    add("--out", type=Path, default="experiments/league", help="where to write (%(default)s)")
    options = parser.parse_intermixed_args()
    steps, episodes, out = options.steps, options.episodes, options.out
    game, players = choose_players(options.players, options.game, all_scripted=not options.no_scripted)
    if not players:
        raise ValueError("nobody plays: name at least one player")
    out.mkdir(parents=True, exist_ok=True)
    order = list(dict.fromkeys(one.kind for one in players))
    players = sorted(players, key=lambda one: order.index(one.kind))
    print(f"{len(players)} players of the {game.title}", flush=True)
    rows = play_league(game, players, steps, episodes, options.seed, out / "league.csv")
    rewards, kinds = read_league(out / "league.csv")
    text = f"{episodes} episodes of {steps} steps of the {game.title} for each pair. Mean reward per step of the row's "
    text += f"players.\n\n{kind_table(rewards, kinds)}\n"
    (out / "league.md").write_text(text)
    heat_map(rewards, kinds, out / "league")
    print(f"\n{text}\n{out}/league.csv .md .png .pdf")
    if options.against:
        lines = compare(options.against, rows, steps, episodes)
        write_csv(out / "against.csv", lines)
        cells = [[f"{x}" for x in line.values()] for line in lines]
        print(f"\n{markdown_table([*lines[0]], cells, (0, 7))}\n{out}/against.csv")
        if not all(line["agrees"] for line in lines):
            sys.exit(1)


if __name__ == "__main__":
    main()
