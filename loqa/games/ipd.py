"""Repeated games of two players and two actions: the iterated prisoner's dilemma (LOQA section 5.1) and others."""

import dataclasses
import math
from functools import partial
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BeforeValidator, Field

from loqa.game import COLORS, REWARDS, Bars, Columns, Film, GameSpec, MemorylessPlayer
from loqa.hyperparameters import Actor, Count, Fraction, Hyperparameters, QValue
from loqa.metrics import Evaluation, Metrics, self_play
from loqa.rollout import Trajectories

# Of player 0, then of player 1: its reward in CC, CD, DC and DD, its own action first, so that both rows of a symmetric
# game are the same. (Not strict: pydantic accepts the lists of YAML.)
Row = Annotated[tuple[float, float, float, float], Field(strict=False)]
Payoffs = Annotated[tuple[Row, Row], Field(strict=False)]
ROWS = "two lists of four numbers (a player's rewards in CC, CD, DC, DD, its own action first)"

PAYOFFS: dict[str, Payoffs] = {
    # As in LOLA (Foerster et al. 2018, arXiv 1709.04326) and in LOQA.
    "ipd": ((-1.0, -3.0, 0.0, -2.0),) * 2,
    # Leibo et al. 2017, arXiv 1702.03037, figure 1. C swerves: D does better against C, and C against D.
    "chicken": ((3.0, 1.0, 4.0, 0.0),) * 2,
    # From the same figure. C hunts the stag, for which it takes both; D the hare, which is safe.
    "stag_hunt": ((4.0, 0.0, 3.0, 1.0),) * 2,
    # Osborne and Rubinstein 1994, A Course in Game Theory, example 15.3. Both want to do the same: player 0 rather C,
    # player 1 rather D.
    "battle_of_the_sexes": ((2.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 2.0)),
    # Example 17.1 there, and in LOLA. C is heads, D is tails; player 0 wins if they match.
    "matching_pennies": ((1.0, -1.0, -1.0, 1.0), (-1.0, 1.0, 1.0, -1.0)),
}


def title_of(name: str) -> str:
    """The name of the game `hp.game_name` in figures."""
    return {"ipd": "IPD", "custom": "Custom game"}.get(name) or name.replace("_", " ").capitalize()


COOPERATE, DEFECT = 0, 1

# The five states that a player can see: its own last action first, then the other's.
STATES = ("START", "CC", "CD", "DC", "DD")

# What a player observes in each of STATES: [I cooperated, I defected, they cooperated, they defected].
OBSERVATIONS = np.array([[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]], np.float32)


def visits(observation: jax.Array) -> list[jax.Array]:
    """For each of STATES, 1 where an observation is it and 0 elsewhere: [..., 4] -> five arrays [...]."""
    my_c, my_d, their_c, their_d = (observation[..., i] for i in range(4))
    return [1.0 - my_c - my_d, my_c * their_c, my_c * their_d, my_d * their_c, my_d * their_d]


def read_table(table: jax.Array, observation: jax.Array) -> jax.Array:
    """Reads a table of values by state: [..., 5, A], [..., 4] -> [..., A].

    A sum of products that compiles to one loop: gathers, the scatters of their gradients and tiny matmuls
    are slow on a CPU.
    """
    return sum(here[..., None] * table[..., s, :] for s, here in enumerate(visits(observation)))


def _not_pairs(payoffs: Any) -> Any:
    """Refuses four pairs, the rewards of both players in CC, CD, DC and DD, and says how these are written."""
    try:
        cc, cd, dc, dd = [(mine, theirs) for mine, theirs in payoffs]
    except (TypeError, ValueError):
        return payoffs
    rows = [cc[0], cd[0], dc[0], dd[0]], [cc[1], dc[1], cd[1], dd[1]]
    raise ValueError(f"must be {ROWS}; of these four pairs they are {[*rows]}")


class IPDHyperparameters(Hyperparameters):
    """hp of ipd.py"""

    game_name: Literal[*PAYOFFS, "custom"]
    payoffs: Annotated[Payoffs | None, BeforeValidator(_not_pairs)]
    game_length: Count
    epsilon_greedy: Fraction
    actor: Actor
    qvalue: QValue

    @property
    def run_name(self) -> str:
        return f"{self.game_name}_seed{self.seed}"

    @property
    def matrix_payoffs(self) -> Payoffs:
        """The payoffs of the game, named or custom."""
        return self.payoffs or PAYOFFS[self.game_name]

    def contradictions(self):
        yield from super().contradictions()
        game, custom = f"where hp.game_name is {self.game_name}", self.game_name == "custom"
        if custom and self.payoffs is None:
            yield "payoffs", f"{ROWS} {game}"
        elif not custom and self.payoffs is not None:
            yield "payoffs", f"null {game}: only custom takes them"
        elif self.just_self_play and self.matrix_payoffs[0] != self.matrix_payoffs[1]:
            why = "its payoffs (own action first) differ, so it needs a learner for each seat"
            yield "just_self_play", f"false {game}: {why}"


@dataclasses.dataclass(frozen=True)
class MatrixGame:
    """Two players choose at once, again and again; each sees both last actions.

    The state is the index in STATES of what player 0 sees, int [].
    """

    title: str = title_of("ipd")
    payoffs: Payoffs = PAYOFFS["ipd"]

    num_actions = 2
    observation_size = 4
    all_observations = tuple(map(tuple, OBSERVATIONS.tolist()))
    read_table = staticmethod(read_table)

    @classmethod
    def from_hp(cls, hp: IPDHyperparameters) -> "MatrixGame":
        return cls(title_of(hp.game_name), hp.matrix_payoffs)

    def from_seat(self, seat: int) -> "MatrixGame":
        """The same game with the players exchanged for seat 1."""
        return dataclasses.replace(self, payoffs=self.payoffs[::-1]) if seat else self

    def scripted(self) -> dict[str, tuple[Any, tuple]]:
        tables = {name: (TablePlayer(), table) for name, table in TABLES.items()}
        return tables | {"grim-trigger": (GrimTrigger(), ())}

    def reset(self, key: jax.Array) -> jax.Array:
        return jnp.zeros((), jnp.int32)

    def step(self, uniform: jax.Array, state: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Plays `actions` [2], int; returns the next state and the rewards [2]. Nothing is random."""
        first, second = actions
        rewards = [_reward(self.payoffs[0], first, second), _reward(self.payoffs[1], second, first)]
        return 1 + 2 * first + second, jnp.stack(rewards)

    def observe(self, state: jax.Array) -> jax.Array:
        """Both players' observations, each with itself first: [2, 4]."""
        _, cc, cd, dc, dd = (state == i for i in range(len(STATES)))
        played = jnp.stack([cc | cd, dc | dd, cc | dc, cd | dd])
        return jnp.stack([played, jnp.roll(played, 2)]).astype(jnp.float32)


def _reward(payoff: Row, mine: jax.Array, theirs: jax.Array) -> jax.Array:
    """A player's reward by both actions: exactly one of its four numbers, and no gather."""
    cc, cd, dc, dd = payoff
    i_cooperate = mine == COOPERATE
    return jnp.where(theirs == COOPERATE, jnp.where(i_cooperate, cc, dc), jnp.where(i_cooperate, cd, dd))


class TablePlayer(MemorylessPlayer):
    """Plays by what it sees, the last step; its `params` are P(cooperate) in each of STATES."""

    def act(self, params: tuple, hidden: tuple, observation: jax.Array) -> tuple[jax.Array, tuple]:
        """Observation [..., 4] -> logits [..., 2], -inf for an action that it never takes."""
        return _logits(read_table(jnp.stack(params)[:, None], observation)[..., 0]), hidden


@dataclasses.dataclass(frozen=True)
class GrimTrigger:
    """Cooperates until the other has defected, and then never again."""

    def initial_hidden(self, batch_shape: tuple[int, ...] = ()) -> jax.Array:
        """1 once the other has defected: [...]."""
        return jnp.zeros(batch_shape)

    def act(self, params: Any, hidden: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Observation [..., 4], hidden [...] -> logits [..., 2], hidden."""
        hidden = jnp.maximum(hidden, observation[..., 3])
        return _logits(1.0 - hidden), hidden


def _logits(p_cooperate: jax.Array) -> jax.Array:
    return jnp.log(jnp.stack([p_cooperate, 1.0 - p_cooperate], axis=-1))


# The `params` of each scripted player: its P(cooperate) in START, CC, CD, DC and DD (its own last action first).
TABLES = {
    "always-cooperate": (1.0, 1.0, 1.0, 1.0, 1.0),
    "always-defect": (0.0, 0.0, 0.0, 0.0, 0.0),
    "random": (0.5, 0.5, 0.5, 0.5, 0.5),
    "tit-for-tat": (1.0, 1.0, 0.0, 1.0, 0.0),
    "win-stay-lose-shift": (1.0, 1.0, 0.0, 0.0, 1.0),  # it has won where the other cooperated
}

# ----------------------------------------------------------------------------- what is measured, said and drawn


def cooperation(evaluation: Evaluation) -> Metrics:
    """P(C) of each learner in each of the five states: `p_<seat>_<state>_C`.

    The mean over the visits to the state in its episodes; exact for a policy without memory, regardless of visits. A
    state never visited by a policy with memory has no value: NaN.
    """
    agent, metrics = evaluation.agent, {}
    for seat, (me, mine) in enumerate(zip(evaluation.learners, evaluation.sides, strict=True)):
        seen = jnp.moveaxis(mine.observations, -1, 1) if agent.actor.is_recurrent else jnp.array(OBSERVATIONS)[None]
        p_cooperate = jax.nn.softmax(agent.logits(me.params, seen))[..., 0]
        here = dict(zip(STATES, visits(seen), strict=True))
        metrics |= {f"p_{seat}_{state}_C": (x * p_cooperate).sum() / x.sum() for state, x in here.items()}
    return metrics


def is_tit_for_tat(metrics: Columns, agent: int = 0) -> np.ndarray:
    """The evaluations [...] in which an agent cooperates with itself, and always-defect gains little.

    That is P(C|CC) above 0.9, a mean reward above -1.05 (mutual cooperation: -1), and against always-defect at least
    -2.1 (tit-for-tat: -2.02, mutual defection: -2).
    """
    cooperates = (metrics[f"p_{agent}_CC_C"] > 0.9) & (metrics[f"mean_rewards_{agent}"] > -1.05)
    return cooperates & (metrics[f"always_defect_{agent}_mean_rewards_a"] >= -2.1)


def reciprocates(metrics: Columns, settings: Any = None) -> np.ndarray:
    """The evaluations [...] in which both cooperate (reward above -1.1), and agent 0 rarely cooperates after DD."""
    return (self_play(metrics) > -1.1) & (metrics["p_0_DD_C"] < 0.2)


def summary(game: MatrixGame, metrics: Columns) -> list[str]:
    """Each learner's P(C) at the end, and in the prisoner's dilemma whether it plays tit-for-tat."""
    lines = []
    for i in range(2 if "p_1_START_C" in metrics else 1):
        p_cooperate = ", ".join(f"{state} {metrics[f'p_{i}_{state}_C'][-1]:z.3f}" for state in STATES)
        lines.append(f"agent {i}: P(C) in {p_cooperate}")
        if game.payoffs == PAYOFFS["ipd"]:
            lines.append(f"tit-for-tat: {'yes' if is_tit_for_tat(metrics, i)[-1] else 'no'}")
    return lines


STRIP = 25  # moves in a line of the picture


def ipd_strip(actions: np.ndarray, heads: list[str]) -> Any:
    """A picture of the moves [T, 2] below `heads`, STRIP a line: blue cooperates, orange defects."""
    from PIL import Image, ImageDraw, ImageFont  # here, because training does without

    size, top = 28, 30 + 22 * len(heads)
    image = Image.new("RGB", (60 + size * STRIP, top + 3 * size * math.ceil(len(actions) / STRIP)), "white")
    draw = ImageDraw.Draw(image)
    text = partial(draw.text, fill="black", font=ImageFont.load_default(15))
    text((20, 12), "\n".join(heads), spacing=8)
    for (t, i), move in np.ndenumerate(actions):
        line, column = divmod(t, STRIP)
        x, y = 40 + size * column, top + size * (3 * line + i)
        draw.rectangle([x, y, x + size - 2, y + size - 2], (COLORS[4], COLORS[1])[move])
        text((x + size / 2 - 1, y + size / 2), "CD"[move], anchor="mm")
        if i == 0 and column % 5 == 0:
            text((x + size / 2, y - 4), str(t), anchor="mb")
        if column == 0:
            text((26, y + size / 2), "AB"[i], anchor="mm")
    return image


def film(game: MatrixGame, episode: Trajectories, heads: list[str]) -> Film:
    """One picture of all moves."""
    text = "\n".join(f"{'AB'[i]}  {''.join('CD'[a] for a in episode.actions[:, i])}" for i in (0, 1))
    return Film([ipd_strip(episode.actions, heads)], [], text)


GAME = GameSpec(
    name="ipd",
    rules=MatrixGame,
    hyperparameters=IPDHyperparameters,
    published="logits_published",
    metrics=cooperation,
    titles={f"p_0_{state}_C": f"P(C) in {state}" for state in STATES} | REWARDS,
    more_titles={f"p_1_{state}_C": f"P(C) in {state}, agent 1" for state in STATES},
    columns={state: f"p_0_{state}_C" for state in STATES}
    | {"reward": "self_play", "vs AD": "always_defect_0_mean_rewards_a"},
    goals={"reciprocity": reciprocates},
    published_rewards={"ipd": {f"p_0_{state}_C": float(state not in ("CD", "DD")) for state in STATES}},  # about
    summary=summary,
    bars=Bars({state: f"p_{{agent}}_{state}_C" for state in STATES}, "state: my last action, theirs", "P(C | state)"),
    film=film,
)
