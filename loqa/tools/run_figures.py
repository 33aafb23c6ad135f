"""The figures that a training run draws at its end."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from loqa.games.ipd import STATES, MatrixGame
from loqa.hyperparameters import IPDHyperparameters
from loqa.run.run import Run
from loqa.tools.figures import draw_bars
from loqa.tools.style import COLORS, in_style, panels, save

SIZE = (3.2, 2.5)  # inches of a panel


class Panel(NamedTuple):
    """One of the panels of `training_curves`."""

    title: str
    ylabel: str
    curves: dict[str, str]  # label -> column of the metrics
    reference: dict[str, float] | None = None  # label -> height of a dashed line
    ylim: tuple[float, float] | None = None


Q_VALUES = Panel("Q-values", "Q", {"mean error of Q": "qvalue_0_bias", "mean Q": "qvalue_0_mean"})
COIN_REWARDS = {
    "against each other, 0": "mean_rewards_0",
    "against each other, 1": "mean_rewards_1",
    "against always-defect": "always_defect_0_mean_rewards_a",
    "against always-cooperate": "always_cooperate_0_mean_rewards_a",
    "always-cooperate against it": "always_cooperate_0_mean_rewards_d",
}
COINS = {"its own": "own_coins_0", "the other's": "other_coins_0"}


def coin_figures(run: Run) -> None:
    """Draws curves.png of a run of the Coin Game."""
    rewards = Panel("Mean reward of agent 0", "reward a step", COIN_REWARDS)
    coins = Panel("Coins taken against each other", "coins a step", COINS)
    run.write("curves.png", partial(training_curves, run.metrics(), [rewards, coins, Q_VALUES]))


def ipd_figures(run: Run, game: MatrixGame, hp: IPDHyperparameters) -> None:
    """Draws curves.png, and P(cooperate) of each agent at the end as tit_for_tat_<agent>.png."""
    metrics = run.metrics()
    curves = []
    for i in range(hp.num_learners):
        columns = {state: f"p_{i}_{state}_C" for state in STATES}
        last = np.array([metrics[column][-1] for column in columns.values()])
        title = f"{game.title}, agent {i}, iteration {int(metrics['iteration'][-1])}"
        run.write(f"tit_for_tat_{i}.png", partial(state_probability_bars, last, title))
        curves.append(Panel(f"P(cooperate | state), agent {i}", "probability", columns, ylim=(-0.02, 1.02)))
    rewards = {f"player {i}": f"mean_rewards_{i}" for i in range(2)}
    curves += [Panel(f"Mean reward, {game.title}", "reward a step", rewards, mutual_outcomes(game)), Q_VALUES]
    run.write("curves.png", partial(training_curves, metrics, curves))


def mutual_outcomes(game: MatrixGame) -> dict[str, float]:
    """What the players get when both choose the same, by name: the reference lines of the rewards."""
    names: dict[float, list[str]] = {}  # those of the same height are one line
    for outcome, place in (("both cooperate", 0), ("both defect", 3)):
        first, second = (payoff[place] for payoff in game.payoffs)
        if first == second:
            names.setdefault(first, []).append(outcome)
        else:
            names.setdefault(first, []).append(f"{outcome}: player 0")
            names.setdefault(second, []).append(f"{outcome}: player 1")
    return {", ".join(outcomes): height for height, outcomes in names.items()}


@in_style
def state_probability_bars(probabilities: np.ndarray, title: str, path: Path) -> None:
    """Draws P(cooperate) in each state, [5]."""
    figure, (axes,) = panels(1, SIZE)
    draw_bars(axes, probabilities[None], title)
    save(figure, path)


@in_style
def training_curves(metrics: dict[str, np.ndarray], curves: list[Panel], path: Path) -> None:
    """Draws the panels, three a row, against `iteration` (below) and `env_steps` (above)."""
    figure, grid = panels(len(curves), SIZE)
    for axes, panel in zip(grid, curves, strict=True):
        _draw_panel(axes, metrics, panel)
    save(figure, path)


def _draw_panel(axes: Axes, metrics: dict[str, np.ndarray], panel: Panel) -> None:
    iteration, env_steps = metrics["iteration"], metrics["env_steps"]
    marker = "o" if len(iteration) < 2 else None  # a single evaluation is a point
    for (label, column), color in zip(panel.curves.items(), COLORS, strict=False):
        axes.plot(iteration, metrics[column], color=color, marker=marker, label=label)
    for (label, height), color in zip(
        (panel.reference or {}).items(), ("0.25", "0.5", "0.65", "0.8"), strict=False
    ):
        axes.axhline(height, color=color, linestyle=(0, (5, 3)), linewidth=0.8, label=label, zorder=1)
    axes.set(title=panel.title, xlabel="iteration", ylabel=panel.ylabel, ylim=panel.ylim)
    axes.grid()
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=(1, 2, 5, 10), integer=True))
    axes.legend(fontsize=6, frameon=True, framealpha=0.85)
    if iteration[-1] > 0:
        steps_each = env_steps[-1] / iteration[-1]
        top = axes.secondary_xaxis("top", functions=(lambda x: x * steps_each, lambda x: x / steps_each))
        top.xaxis.set_major_formatter(EngFormatter(sep=""))
        top.set_xlabel("environment steps", fontsize=6)
        top.tick_params(labelsize=6)
