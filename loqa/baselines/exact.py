"""Naive, LOLA and POLA learners with exact gradients in matrix games: `python -m loqa.baselines.exact`.

A policy remembers the last step: sigmoid(theta) [5] is its P(C) in START, CC, CD, DC and DD, its own action first.
The values of two such policies have a closed form, so nothing is sampled. LOLA: Foerster et al. 2018, arXiv
1709.04326. Outer POLA and all default settings: Zhao et al. 2022, arXiv 2210.10125, for the game `pola`.

A repeat counts as tit-for-tat when both agents do two things. They cooperate: with each other they earn at least
DD + 0.9 (CC - DD), where CC and DD are the rewards of these outcomes. They retaliate: against them always-defect
earns at most DD + 0.5 (CC - DD). Rewards are discounted means per step, (1 - discount) V.

Written to --out: exact.csv (a row for each agent), exact.png and exact.pdf (agent 0's P(C)).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loqa.figures.curves import group_bars
from loqa.figures.runs import SavedRun
from loqa.games.ipd import GAME, PAYOFFS, STATES, Payoffs, title_of
from loqa.tools.common import ArgumentParser, markdown_table, number, tool, whole, write_csv

# The rewards of POLA's prisoner's dilemma, whose factor of contribution is 1.33.
GAMES = PAYOFFS | {"pola": ((0.33, -0.335, 0.665, 0.0),) * 2}
ALWAYS_DEFECT = jnp.full(5, -jnp.inf)


class Settings(NamedTuple):
    """Settings of a learner; rates are of gradient ascent on the values V."""

    steps: int  # updates of both agents; of POLA: proximal updates
    lr_inner: float  # of the opponent's step that is looked ahead
    lr_outer: float
    beta: float  # weight of POLA's KL divergence
    discount: float = 0.96  # gamma


PUBLISHED = {
    "naive": Settings(steps=30, lr_inner=0.0, lr_outer=25.0, beta=0.0),  # LOLA's, without looking ahead
    "lola": Settings(steps=30, lr_inner=3.0, lr_outer=25.0, beta=0.0),
    "pola": Settings(steps=2, lr_inner=5.0, lr_outer=0.3, beta=0.1),
}
KL_TOLERANCE, MAX_PROXIMAL_STEPS = 1e-8, 5000  # a proximal update of POLA ends at either


def exact_values(theta: jax.Array, other: jax.Array, payoffs: Any, discount: float) -> jax.Array:
    """V_i = p0^T (I - discount P)^-1 r_i, both players' discounted rewards in an endless game: [5], [5], [2, 4] -> [2].

    `theta` and `other` are log-odds of C in STATES, `payoffs` rewards in CC, CD, DC, DD, of each its own action first.
    """
    mine, theirs = jax.nn.sigmoid(theta), jax.nn.sigmoid(other)[np.array([0, 1, 3, 2, 4])]  # in the same states
    joint = jnp.stack([mine * theirs, mine * (1 - theirs), (1 - mine) * theirs, (1 - mine) * (1 - theirs)], axis=1)
    rewards = jnp.stack([jnp.asarray(payoffs[0]), jnp.asarray(payoffs[1])[np.array([0, 2, 1, 3])]], axis=1)
    return joint[0] @ jnp.linalg.solve(jnp.eye(4) - discount * joint[1:], rewards)


def kl_divergence(old: jax.Array, new: jax.Array) -> jax.Array:
    """KL(old || new) of policies with log-odds [5], the mean over the states: []."""
    log = lambda x: jnp.stack([jax.nn.log_sigmoid(x), jax.nn.log_sigmoid(-x)])
    return (jnp.exp(log(old)) * (log(old) - log(new))).sum(0).mean()


Value = Callable[[jax.Array, jax.Array], jax.Array]  # V of a player, by its policy and the other's: [5], [5] -> []
Objective = Callable[[jax.Array], jax.Array]  # V after the other's step, by the own policy: [5] -> []


def look_ahead(theta: jax.Array, other: jax.Array, value: Value, other_value: Value, lr_inner: float) -> jax.Array:
    """V_i(theta, other + lr_inner grad V_j(other, theta)), after the other's step, which theta can change: []."""
    return value(theta, other + lr_inner * jax.grad(other_value)(other, theta))


def lola(theta: jax.Array, objective: Objective, s: Settings) -> jax.Array:
    """One update of LOLA, theta + lr_outer grad objective; naive where the objective's lr_inner is 0. [5] -> [5]."""
    return theta + s.lr_outer * jax.grad(objective)(theta)


def pola(theta: jax.Array, objective: Objective, s: Settings) -> jax.Array:
    """One update of outer POLA: descends beta KL(theta || new) - objective(new) until it stands. [5] -> [5]."""
    gradient = jax.grad(lambda new: s.beta * kl_divergence(theta, new) - objective(new))

    def moves(carry):
        number, before, new = carry
        return (number == 0) | ((number < MAX_PROXIMAL_STEPS) & (kl_divergence(before, new) > KL_TOLERANCE))

    def step(carry):
        number, _, new = carry
        return number + 1, new, new - s.lr_outer * gradient(new)

    return jax.lax.while_loop(moves, step, (0, theta, theta))[-1]


LEARNERS = {"naive": lola, "lola": lola, "pola": pola}


@partial(jax.jit, static_argnames=("learner", "payoffs", "settings", "repeats"))
def train(key: jax.Array, learner: str, payoffs: Payoffs, settings: Settings, repeats: int) -> dict[str, Any]:
    """Trains `repeats` pairs of agents from theta ~ N(0, 0.1^2); both learn from one snapshot of the pair.

    Returns arrays [repeats, 2, ...], the second axis the agent: `p_cooperate` [..., 5], `mean_reward`,
    `always_defect_reward`, what always-defect earns against it, and `tit_for_tat`, bool.
    """
    table = jnp.asarray(payoffs)

    def value(seat, theta, other):
        return exact_values(theta, other, table if seat == 0 else table[::-1], settings.discount)[0]

    values = partial(value, 0), partial(value, 1)

    def update(_, pair):
        after = [dict(other=pair[1 - i], value=values[i], other_value=values[1 - i]) for i in (0, 1)]
        objectives = [partial(look_ahead, **each, lr_inner=settings.lr_inner) for each in after]
        return jnp.stack([LEARNERS[learner](pair[i], objectives[i], settings) for i in (0, 1)])

    def measure(pair):
        earned = jnp.stack([values[i](pair[i], pair[1 - i]) for i in (0, 1)]) * (1 - settings.discount)
        defector = [values[1 - i](ALWAYS_DEFECT, pair[i]) * (1 - settings.discount) for i in (0, 1)]
        defector, cc, dd = jnp.stack(defector), table[:, 0], table[:, 3]
        reciprocal = (earned >= dd + 0.9 * (cc - dd)) & (defector <= (dd + 0.5 * (cc - dd))[::-1]) & (cc > dd)
        rewards = {"mean_reward": earned, "always_defect_reward": defector}
        return {"p_cooperate": jax.nn.sigmoid(pair), "tit_for_tat": reciprocal} | rewards

    pairs = 0.1 * jax.random.normal(key, (repeats, 2, 5))
    return jax.vmap(lambda pair: measure(jax.lax.fori_loop(0, settings.steps, update, pair)))(pairs)


def write(out: Path, game: str, results: dict[str, dict[str, Any]], settings: dict[str, Settings]) -> str:
    """Writes exact.csv and the figure to `out`, of what `train` gave by learner; returns the table."""
    rows, lines, groups = [], [], {}
    for learner, result in results.items():
        p, reward, tit_for_tat = result["p_cooperate"], result["mean_reward"], result["tit_for_tat"]
        for repeat, agent in np.ndindex(reward.shape):
            of_states = {f"p_{state}_C": x for state, x in zip(STATES, p[repeat, agent], strict=True)}
            others = {name: x[repeat, agent] for name, x in result.items() if name != "p_cooperate"}
            rows.append({"learner": learner, "game": game, "repeat": repeat, "agent": agent} | of_states | others)
        means = [f"{x:.2f}" for x in p.mean((0, 1))] + [f"{x:z.3f}" for x in reward.mean(0)]
        lines.append([learner, game, f"{tit_for_tat.all(1).sum()} of {len(p)}", *means])
        last = {"iteration": np.array([settings[learner].steps])}
        ends = [{f"p_0_{state}_C": x[[i]] for i, state in enumerate(STATES)} | last for x in p[:, 0]]
        label = f"{learner}, {'IPD of POLA' if game == 'pola' else title_of(game)}"
        groups[label] = [SavedRun(out, learner, {}, end, GAME) for end in ends]
    write_csv(out / "exact.csv", rows)
    group_bars(groups, out / "exact")
    head = ["learner", "game", "tit-for-tat", *(f"P(C) {state}" for state in STATES), "reward 0", "reward 1"]
    return markdown_table(head, lines, text_columns=(0, 1))


@tool
def main(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS), help="which (all)")
    add("--game", choices=GAMES, default="pola", help="the payoffs (%(default)s)")
    add("--repeats", type=whole(1), default=20, help="pairs of agents (%(default)s)")
    add("--seed", type=whole(0), default=0, help="of their first parameters (%(default)s)")
    add("--lr-inner", type=number(0), help="rate of the opponent's step (LOLA: 3, POLA: 5)")
    add("--lr-outer", type=number(0), help="rate of the agent's step (LOLA and naive: 25, POLA: 0.3)")
    add("--beta", type=number(0), help="weight of POLA's KL divergence (0.1)")
    add("--out", type=Path, default="experiments/exact", help="where to write (%(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    given = {key: x for key in ("lr_inner", "lr_outer", "beta") if (x := getattr(options, key)) is not None}
    settings = {name: PUBLISHED[name]._replace(**given) for name in options.learners}
    if "naive" in settings:  # it never looks ahead
        settings["naive"] = settings["naive"]._replace(lr_inner=0.0)
    train_all = partial(train, jax.random.key(options.seed), payoffs=GAMES[options.game], repeats=options.repeats)
    results = {name: jax.device_get(train_all(name, settings=each)) for name, each in settings.items()}
    print(write(options.out, options.game, results, settings), f"\n\n{options.out}/exact.csv .png .pdf")


if __name__ == "__main__":
    main()
