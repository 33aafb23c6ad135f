"""Everybody plays everybody: `python -m loqa.tools.league PLAYERS...`.

PLAYERS are saved agents (.npz), runs (a run's directory: its newest agents), directories of agents or of runs,
and scripted players by name; KIND=PATH puts agents under a kind of your own. The other scripted players of the
game play too.

Each pair, a player with itself included, plays in both seats. Written to --out: league.csv (a row for each pair
and seat), league.md and league.tex (means by kind), league.png and league.pdf (the heat map).
"""

import csv
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
from loqa.tools.aggregate import RESAMPLES
from loqa.tools.command_line import refuse, run_tool, tool_parser, whole
from loqa.tools.players import Entrant, Game, choose_players, title
from loqa.tools.tables import decimal, markdown_table

PAIRS_AT_ONCE = 16  # enough to fill the processor, few enough for its memory
GROUPS = SELF, WITHIN, BETWEEN = "self", "within a kind", "between kinds"


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


@partial(jax.jit, static_argnames=("game", "players", "steps", "episodes"))
def play_pairs(
    key: jax.Array,
    game: Game,
    players: tuple[Player, Player],
    params: tuple[Any, Any],
    pairs: jax.Array,
    steps: int,
    episodes: int,
    discount: float,
) -> Measures:
    """Plays P pairs of the same two architectures at once.

    Args:
      key: of all of them.
      game, players: the game and the architectures in seats 0 and 1.
      params: of all players of each architecture: [members, ...].
      pairs: [P, 3]: the members in seats 0 and 1, and a number that makes the pair's own key.
      steps, episodes: of a pair.
      discount: of the discounted return.

    Returns:
      Measures, [P, 2, B] each.
    """

    def play(pair):
        both = tuple(jax.tree.map(lambda x, i=i: x[i], stack) for stack, i in zip(params, pair[:2], strict=True))
        noise = draw_noise(jax.random.fold_in(key, pair[2]), steps, episodes)
        return measure(game, rollout(game, players, both, noise), discount)

    return jax.vmap(play)(pairs)


def play_league(
    game: Game,
    entrants: Sequence[Entrant],
    *,
    steps: int = 50,
    episodes: int = 512,
    seed: int = 0,
    discount: float = 0.96,
    say: Callable[[str], None] = lambda text: None,
) -> Measures:
    """Every ordered pair of the N entrants, the first in seat 0: [N, N, 2, B] each.

    What is random in a pair depends on the seed and the two names, not on who else plays.
    """
    number = len(entrants)
    groups: dict[Player, list[int]] = {}  # of one architecture each
    for i, one in enumerate(entrants):
        groups.setdefault(one.player, []).append(i)
    stack = lambda group: jax.tree.map(lambda *x: jnp.array(x), *(entrants[i].params for i in group))
    stacks = {player: stack(group) for player, group in groups.items()}
    place = {i: k for group in groups.values() for k, i in enumerate(group)}
    name = lambda i, j: zlib.crc32(f"{entrants[i].name}\n{entrants[j].name}".encode())

    done, results, start = [], [], time.monotonic()
    for players in itertools.product(groups, repeat=2):
        pairs = list(itertools.product(*(groups[player] for player in players)))
        size = -(-len(pairs) // -(-len(pairs) // PAIRS_AT_ONCE))
        for at in range(0, len(pairs), size):
            chunk = pairs[at : at + size]
            # The last chunk is filled up, so that one program serves all of them.
            rows = [(place[i], place[j], name(i, j)) for i, j in chunk + chunk[:1] * (size - len(chunk))]
            params = tuple(stacks[player] for player in players)
            played = play_pairs(
                jax.random.key(seed), game, players, params, np.array(rows, np.uint32), steps, episodes, discount
            )
            results.append([np.asarray(x)[: len(chunk)] for x in jax.tree.leaves(played)])
            done += chunk
            kinds = " against ".join(entrants[i].kind for i in chunk[-1])
            say(f"{len(done):5}/{number**2} pairs  {time.monotonic() - start:6.1f} s  {kinds}")
    order = np.argsort([i * number + j for i, j in done])
    join = lambda x: np.concatenate(x)[order].reshape(number, number, *x[0].shape[1:])
    return jax.tree.unflatten(jax.tree.structure(played), map(join, zip(*results, strict=True)))


def bootstrap_interval(samples: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of the mean over the last axis: [..., B] -> low [...], high [...]."""
    episodes = samples.shape[-1]
    # How often each episode is drawn in each resample; all samples share them.
    counts = np.random.default_rng(seed).multinomial(episodes, np.full(episodes, 1 / episodes), RESAMPLES)
    return tuple(np.quantile(samples @ (counts.T / episodes), (0.025, 0.975), axis=-1))


def pair_rows(entrants: Sequence[Entrant], played: Measures) -> list[dict[str, Any]]:
    """The rows of league.csv: each ordered pair, the first player in seat 0."""
    lows, highs = bootstrap_interval(played.reward)
    rows = []
    for (i, first), (j, second) in itertools.product(enumerate(entrants), repeat=2):
        row = {"group": SELF if i == j else WITHIN if first.kind == second.kind else BETWEEN}
        row |= {"player_0": first.name, "player_1": second.name, "kind_0": first.kind, "kind_1": second.kind}
        for seat in (0, 1):
            here = i, j, seat
            name = f"mean_reward_{seat}"
            row |= {name: played.reward[here].mean(), f"{name}_low": lows[here], f"{name}_high": highs[here]}
            row[f"{name}_sd"] = played.reward[here].std(ddof=1)  # over episodes
            others = {k: v for k, v in played._asdict().items() if k != "reward" and v is not None}
            row |= {f"{name}_{seat}": values[here].mean() for name, values in others.items()}
        rows.append(row)
    return rows


def group_rows(entrants: Sequence[Entrant], played: Measures) -> list[dict[str, Any]]:
    """The rows of the tables: means over the pairs of each two kinds, in both seats."""
    kinds = dict.fromkeys(one.kind for one in entrants)
    groups: dict[tuple[str, str, str], list[tuple[int, int, int]]] = {}
    # Each game is seen from the seat of the kind that comes first; between two of a kind from seat 0.
    order = list(kinds)
    for (i, first), (j, second) in itertools.product(enumerate(entrants), repeat=2):
        seat = int(order.index(first.kind) > order.index(second.kind))
        group = SELF if i == j else WITHIN if first.kind == second.kind else BETWEEN
        groups.setdefault((group, *sorted((first.kind, second.kind), key=order.index)), []).append((i, j, seat))

    rows = []
    for key in sorted(groups, key=lambda key: (GROUPS.index(key[0]), order.index(key[1]), order.index(key[2]))):
        i, j, seat = np.array(groups[key]).T
        row = dict(zip(("group", "player", "opponent"), key, strict=True)) | {"pairs": len(i)}
        for side, its_seat in (("player", seat), ("opponent", 1 - seat)):
            rewards = played.reward[i, j, its_seat]  # [pairs, B]
            low, high = bootstrap_interval(rewards.mean(0))
            sd = rewards.mean(1).std(ddof=1) if len(i) > 1 else None
            row |= {f"{side}_reward": rewards.mean(), f"{side}_low": low, f"{side}_high": high, f"{side}_sd": sd}
        row["discounted_return"] = played.discounted_return[i, j, seat].mean()
        if played.own_coins is not None:
            row["own_coins"] = played.own_coins[i, j, seat].mean()
            row["other_coins"] = played.other_coins[i, j, seat].mean()
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> tuple[list[str], dict[str, list[list[str]]]]:
    """`group_rows` as text: the heads of the columns, and the cells of each group's lines."""
    heads = ["player", "opponent", "pairs", "reward", "sd", "opponent's reward", "sd", "return"]
    coins = "own_coins" in rows[0]
    groups: dict[str, list[list[str]]] = {}
    for row in rows:
        cells = [row["player"], row["opponent"], str(row["pairs"])]
        for side in ("player", "opponent"):
            mean, low, high = (decimal(row[f"{side}_{x}"]) for x in ("reward", "low", "high"))
            sd = row[f"{side}_sd"]
            cells += [f"{mean} [{low}, {high}]", "" if sd is None else decimal(sd)]
        cells.append(f"{row['discounted_return']:.2f}")
        cells += [decimal(row["own_coins"]), decimal(row["other_coins"])] if coins else []
        groups.setdefault(row["group"], []).append(cells)
    return heads + (["own coins", "other's coins"] if coins else []), groups


def markdown(rows: list[dict[str, Any]], caption: str) -> str:
    """The tables as Markdown."""
    heads, groups = table(rows)
    text = [caption]
    for group, lines in groups.items():
        text += ["", f"### {group.capitalize()}", "", markdown_table(heads, lines, text_columns=(0, 1))]
    return "\n".join(text) + "\n"


def latex(rows: list[dict[str, Any]], caption: str) -> str:
    """The tables as one LaTeX table."""
    heads, groups = table(rows)
    escape = lambda text: re.sub(r"([_%&#$])", r"\\\1", text)
    line = lambda cells: " & ".join(map(escape, cells)) + r" \\"
    text = ["% needs the packages booktabs and graphicx", r"\begin{table}", r"\centering"]
    text += [rf"\caption{{{escape(caption)}}}", r"\resizebox{\linewidth}{!}{%"]
    text += [rf"\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}", r"\toprule", line(heads)]
    for group, lines in groups.items():
        text += [r"\midrule", rf"\multicolumn{{{len(heads)}}}{{l}}{{\emph{{{group.capitalize()}}}}} \\"]
        text += map(line, lines)
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}}", r"\end{table}"]) + "\n"


def write(out: Path, entrants: Sequence[Entrant], played: Measures, caption: str) -> str:
    """Writes everything to the directory `out`; returns the Markdown text."""
    from loqa.tools.heatmap import heat_map  # here, because matplotlib is slow to import and only needed now

    out.mkdir(parents=True, exist_ok=True)
    rows = pair_rows(entrants, played)
    with open(out / "league.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    tables = group_rows(entrants, played)
    text = markdown(tables, caption)
    (out / "league.md").write_text(text)
    (out / "league.tex").write_text(latex(tables, caption))
    reward = played.reward.mean(-1)
    both_seats = (reward[..., 0] + reward[..., 1].T) / 2
    for suffix in ("png", "pdf"):
        heat_map(
            both_seats, [one.name for one in entrants], [one.kind for one in entrants], out / f"league.{suffix}"
        )
    return text


def main() -> None:
    parser = tool_parser("league", __doc__)
    parser.add_argument(
        "players", nargs="*", metavar="PLAYERS", help="agents, runs, directories, scripted players"
    )
    parser.add_argument("--game", choices=("coin", "ipd"), help="the game, where no agent tells it")
    parser.add_argument("--grid", metavar="HxW", help="the Coin Game's board, where no agent tells it (3x3)")
    parser.add_argument("--no-scripted", action="store_true", help="only the scripted players that are named")
    parser.add_argument(
        "--episodes", type=whole(2), default=512, help="episodes of a pair in a seat (%(default)s)"
    )
    parser.add_argument("--steps", type=whole(1), default=50, help="steps of an episode (%(default)s)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of everything random (%(default)s)")
    parser.add_argument("--discount", type=float, default=0.96, help="of the discounted return (%(default)s)")
    parser.add_argument("--out", type=Path, default="experiments/league", help="where to write (%(default)s)")
    options = parser.parse_intermixed_args()
    if not 0 <= options.discount <= 1:
        parser.error(f"--discount is {options.discount}, but must be from 0 to 1")
    try:
        game, entrants = choose_players(options.players, options.game, options.grid, not options.no_scripted)
        options.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        refuse(parser, error)
    if not entrants:
        parser.error("nobody plays: name at least one player")
    kinds = [one.kind for one in entrants]
    entrants.sort(key=lambda one: kinds.index(one.kind))

    settings = {name: getattr(options, name) for name in ("steps", "episodes", "seed", "discount")}
    print(f"{len(entrants)} players, {len(entrants) ** 2} pairs of {title(game)}", flush=True)
    played = play_league(game, entrants, **settings, say=partial(print, flush=True))
    caption = f"{options.episodes} episodes of {options.steps} steps of {title(game)} for each pair and seat. "
    caption += "Rewards are means a step with 95 % bootstrap intervals over episodes; sd: over pairs; "
    caption += f"return: the player's, discounted by {options.discount}."
    if isinstance(game, CoinGame):
        caption += " Coins: of its own and of the opponent's, that the player takes a step."
    try:
        text = write(options.out, entrants, played, caption)
    except OSError as error:
        parser.error(f"cannot write to {options.out}: {error}")
    print(f"\n{text}\n{options.out}/league.csv .md .tex .png .pdf")


if __name__ == "__main__":
    run_tool(main)
