"""What an error of the critic does to LOQA's gradient: `python -m loqa.tools.critic_error`.

Where both players of the iterated prisoner's dilemma cooperate with probability 1/2 in every state, the Q-values
are known exactly. With a constant added they replace the critic's here, and the expected gradient of the losses
shows where the policy goes: as it is, and with `center_q_values`, which makes the constant immaterial. The losses
are those of hp=logits, with a finite horizon.
"""

from functools import cache
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from loqa.figures.curves import in_style, legend_below, panels, save
from loqa.games.ipd import PAYOFF, STATES, MatrixGame, TablePlayer, read_table
from loqa.learner import policy_options
from loqa.losses import Side, agent_policy_loss, center_q_values
from loqa.rollout import draw_noise, rollout
from loqa.run.config import CONFIGS, parse
from loqa.run.launch import compose
from loqa.tools.common import ArgumentParser, markdown_table, tool

GAME_LENGTH, DISCOUNT = 50, 0.96  # the paper's
BATCH, BATCHES = 4096, 32
ERRORS = tuple(range(-10, 26))
WAYS = ("as they are", "centered")  # Q-values in the losses
NOTE = "Minus the gradient by the log-odds of cooperation, in thousandths, where P(cooperate) = 1/2."


def exact_q_values() -> np.ndarray:
    """Q-values [T+1, 5, 2], by step, state and own action, where P(cooperate) is 1/2."""
    q_values = np.zeros((GAME_LENGTH + 1, 5, 2))
    for t in reversed(range(GAME_LENGTH)):
        q_values[t] = np.mean(PAYOFF, 1) + DISCOUNT * q_values[t + 1].mean()  # PAYOFF: [my action, theirs]
    return q_values


@cache
def expected_gradients(errors: tuple[float, ...] = ERRORS, batches: int = BATCHES) -> np.ndarray:
    """Where the losses push each state's log-odds of cooperation, in thousandths, where P(cooperate) is 1/2.

    `errors` are E constants that are added to the exact Q-values of both players. Returns [2, E, 2, 2, 5]: means
    over `batches` and their standard errors, for each error as it is and centered, of minus the gradients of the
    actor loss and of the shaping loss.
    """
    q_table = jnp.asarray(exact_q_values(), jnp.float32)
    hp = parse(compose("ipd", []), CONFIGS["ipd"]).hp
    options = policy_options(hp)._replace(terminal_value=False)

    def losses(log_odds: jax.Array, error: jax.Array, played) -> jax.Array:
        """Actor and shaping loss, as they are and centered, [2, 2]: the means of a batch."""
        logits = jnp.stack([log_odds, jnp.zeros(5)], 1)
        both = lambda table, i: jnp.moveaxis(read_table(table, played.observations[:, i]), -1, 1)  # [T+1, 2, B]
        q = q_table[:, None] + error  # [T+1, 1, 5, 2]
        sides = [Side(both(logits, i), both(q, i), played.actions[:, i], played.rewards[:, i]) for i in (0, 1)]
        both_ways = [sides, [center_q_values(side, DISCOUNT) for side in sides]]
        terms = [agent_policy_loss(*sides, options) for sides in both_ways]
        return jnp.stack([jnp.stack([each.actor.mean(), each.shaping.mean()]) for each in terms])

    @jax.jit
    def of_a_batch(key: jax.Array) -> jax.Array:
        half = (jnp.float32(0.5),) * 5
        noise = draw_noise(key, GAME_LENGTH, BATCH)
        played = rollout(MatrixGame(), (TablePlayer(), TablePlayer()), (half, half), noise)
        gradient = lambda error: -1e3 * jax.jacobian(losses)(jnp.zeros(5), error, played)
        return jax.lax.map(gradient, jnp.array(errors, jnp.float32))

    gradients = np.stack([of_a_batch(each) for each in jax.random.split(jax.random.key(0), batches)])
    return np.stack([gradients.mean(0), gradients.std(0, ddof=1) / batches**0.5])


@in_style
def draw(path: Path) -> list[str]:
    """Draws the gradients of both losses together against the error."""
    figure, grid = panels(2)
    gradients = expected_gradients()[0].sum(2)  # [E, 2, 5]
    for axes, title, push in zip(grid, WAYS, np.moveaxis(gradients, 1, 0), strict=True):
        axes.plot(ERRORS, push, label=STATES)
        axes.set(title=title, xlabel="error of all Q-values", ylabel="push to cooperation")
    legend_below(figure, grid[0], NOTE)
    return save(figure, path)


def table() -> str:
    """The gradients as a Markdown table, with lines for an error of -5, 0 and 5."""
    lines = []
    for (way, title), (i, loss), error in product(enumerate(WAYS), enumerate(("actor", "shaping")), (-5, 0, 5)):
        pairs = expected_gradients()[:, ERRORS.index(error), way, i].T
        lines.append([title, loss, f"{error:+d}", *(f"{mean:+.1f} ± {deviation:.1f}" for mean, deviation in pairs)])
    table = markdown_table(["Q-values", "loss", "error of Q", *STATES], lines, (0, 1))
    return f"{table}\n\n{NOTE} ±: standard error over episodes."


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default="experiments/plots/critic_error", help="files, without suffix")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    print(*draw(options.out), table(), sep="\n")


if __name__ == "__main__":
    main()
