"""What an error of the critic does to LOQA's gradient: `python -m loqa.tools.critic_error [RUNS]`.

Where both players of the iterated prisoner's dilemma cooperate with probability 1/2 in every state, the Q-values
are known exactly. With a constant added they replace the critic's here, and the expected gradient of the losses
shows where the policy goes. The losses are those of hp=logits, with a finite horizon and constant advantages. The
figure also has the error of the critics of training runs.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from loqa.games.ipd import PAYOFF, STATES, MatrixGame, read_table
from loqa.games.ipd_players import TablePlayer
from loqa.learner import policy_options
from loqa.losses import Side, agent_policy_loss
from loqa.rollout import draw_noise, rollout
from loqa.run.config import IPDConfig, parse
from loqa.run.launch import compose
from loqa.tools.common import markdown_table, one_line_errors, run_tool, tool_parser
from loqa.tools.figures import draw_seed_curves
from loqa.tools.saved_runs import Groups, group_runs, read_runs
from loqa.tools.style import COLORS, in_style, legend_below, panels, save

GAME_LENGTH, DISCOUNT = 50, 0.96  # the paper's
BATCH, BATCHES = 4096, 32
ERRORS = tuple(range(-10, 26))

# The states as the other player sees them.
SWAPPED = np.array([0, 1, 3, 2, 4])


def exact_q_values(
    p_cooperate: np.ndarray, game_length: int = GAME_LENGTH, discount: float = DISCOUNT
) -> np.ndarray:
    """Q-values of the iterated prisoner's dilemma, when both players have the same policy, on the finite horizon.

    Args:
      p_cooperate: [5], P(cooperate) in each of `loqa.games.ipd.STATES`.
      game_length: T.
      discount: gamma.

    Returns:
      [T+1, 5, 2], by step, state and own action; 0 after the last step.
    """
    theirs = np.stack([p_cooperate[SWAPPED], 1 - p_cooperate[SWAPPED]], 1)  # [5, 2], P(their action | my state)
    mine = np.stack([p_cooperate, 1 - p_cooperate], 1)
    q_values = np.zeros((game_length + 1, 5, 2))
    for t in reversed(range(game_length)):
        values = (mine * q_values[t + 1]).sum(1)
        after = PAYOFF + discount * values[1:].reshape(2, 2)  # [my action, theirs]; CC, CD, DC, DD come next
        q_values[t] = theirs @ after.T
    return q_values


def expected_gradients(
    key: jax.Array, errors: jax.Array, batch: int = BATCH, batches: int = BATCHES
) -> tuple[jax.Array, jax.Array]:
    """The direction in which the losses push each state's log-odds of cooperation, where P(cooperate) is 1/2.

    Args:
      key: of the episodes.
      errors: [E], constants that are added to the exact Q-values of both players.
      batch, batches: episodes of a batch, and batches.

    Returns:
      Means over all episodes of minus the gradients of the actor loss and of the shaping loss [E, 2, 5], and their
      standard errors [E, 2, 5].
    """
    q_table = jnp.asarray(exact_q_values(np.full(5, 0.5)), jnp.float32)
    hp = parse(compose("ipd", []), IPDConfig).hp
    options = policy_options(hp, 0) | {"stop_grad_advantage": True, "terminal_value": False}

    def losses(log_odds: jax.Array, error: jax.Array, played) -> jax.Array:
        """Actor and shaping loss [2], the means of a batch."""
        logits = jnp.stack([log_odds, jnp.zeros(5)], 1)
        both = lambda table, i: jnp.moveaxis(read_table(table, played.observations[:, i]), -1, 1)  # [T+1, 2, B]
        at_each_step = q_table[:, None] + error  # [T+1, 1, 5, 2]
        sides = [
            Side(both(logits, i), both(at_each_step, i), played.actions[:, i], played.rewards[:, i])
            for i in (0, 1)
        ]
        terms = agent_policy_loss(*sides, opponent_reward_baseline=0.0, **options)
        return jnp.stack([terms.actor.mean(), terms.shaping.mean()])

    def of_a_batch(key: jax.Array) -> jax.Array:
        half = (jnp.float32(0.5),) * 5
        noise = draw_noise(key, GAME_LENGTH, batch)
        played = rollout(MatrixGame(), (TablePlayer(), TablePlayer()), (half, half), noise)
        return jax.lax.map(lambda error: -jax.jacobian(losses)(jnp.zeros(5), error, played), errors)

    gradients = jax.jit(partial(jax.lax.map, of_a_batch))(jax.random.split(key, batches))
    return gradients.mean(0), gradients.std(0, ddof=1) / batches**0.5


def measure() -> tuple[np.ndarray, np.ndarray]:
    """`expected_gradients` at ERRORS."""
    return tuple(map(np.asarray, expected_gradients(jax.random.key(0), jnp.array(ERRORS, jnp.float32))))


@in_style
def draw(measured: tuple[np.ndarray, np.ndarray], groups: Groups, path: str | Path) -> list[str]:
    """Draws the gradients against the error, and beside them the error of the critics of groups of runs."""
    figure, grid = panels(3 if groups else 2)
    gradients = 1e3 * measured[0]
    for axes, values, title in zip(
        grid[:2], (gradients[:, 1], gradients.sum(1)), ("shaping", "actor + shaping"), strict=True
    ):
        for state, color, push in zip(STATES, COLORS, values.T, strict=False):
            axes.plot(ERRORS, push, color=color, label=state)
        axes.axhline(0, color="0.3", linewidth=0.6)
        axes.axvline(0, color="0.3", linewidth=0.6)
        axes.set(title=title, xlabel="error of all Q-values", ylabel="push to cooperation")
    if groups:
        draw_seed_curves(grid[2], groups, "qvalue_0_bias", "iteration")
        grid[2].set(title="in training", ylabel="mean error of Q")
        if "" not in groups:
            grid[2].legend(fontsize=5, handlelength=1)
    note = "Minus the gradient by the log-odds of cooperation, in thousandths, where P(cooperate) = 1/2."
    legend_below(figure, grid[0], note)
    return save(figure, path)


def table(measured: tuple[np.ndarray, np.ndarray]) -> str:
    """The gradients in thousandths as a Markdown table, a line for an error of -5, 0 and 5."""
    lines = []
    for error in (-5, 0, 5):
        gradients, standard_errors = (1e3 * each[ERRORS.index(error)] for each in measured)
        for loss, means, sems in zip(("actor", "shaping"), gradients, standard_errors, strict=True):
            cells = [f"{mean:+.1f} ± {sem:.1f}" for mean, sem in zip(means, sems, strict=True)]
            lines.append([loss, f"{error:+d}", *cells])
    note = "In thousandths, where P(cooperate) = 1/2, with the standard error of the mean over episodes."
    return f"{markdown_table(['loss', 'error of Q', *STATES], lines)}\n\n{note}"


def check(groups: Groups) -> None:
    """Raises ValueError if a run is not one of the iterated prisoner's dilemma."""
    for run in (run for runs in groups.values() for run in runs):
        if run.game != "ipd" or run.settings.get("game_name", "ipd") != "ipd":
            raise ValueError(f"{run.path} is not a run of the iterated prisoner's dilemma")


def main() -> None:
    parser = tool_parser("critic_error", __doc__)
    parser.add_argument("runs", nargs="*", metavar="RUNS", help="training runs; LABEL=RUNS names a group")
    out = "experiments/plots/critic_error"
    parser.add_argument("--out", default=out, help="the files to write, without suffix (%(default)s)")
    options = parser.parse_args()
    with one_line_errors(parser):
        groups = group_runs(read_runs(options.runs)) if options.runs else {}
        check(groups)
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    measured = measure()
    print(table(measured), *draw(measured, groups, options.out), sep="\n")


if __name__ == "__main__":
    run_tool(main)
