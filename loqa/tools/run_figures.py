"""The figures that a training run draws at its end."""

from functools import partial

from loqa.games.ipd import STATES, MatrixGame
from loqa.hyperparameters import IPDHyperparameters
from loqa.run.run import Run
from loqa.tools.figures import group_bars, seed_curves
from loqa.tools.saved_runs import SavedRun, shown_columns

ALWAYS = ["mean_rewards_0", "mean_rewards_1", "qvalue_0_bias", "qvalue_0_mean"]


def coin_figures(run: Run) -> None:
    """Draws curves.png of a run of the Coin Game."""
    saved = SavedRun(run.directory, "", {}, run.metrics())
    run.write("curves.png", partial(seed_curves, {"": [saved]}, columns=[*shown_columns([saved]), *ALWAYS]))


def ipd_figures(run: Run, game: MatrixGame, hp: IPDHyperparameters) -> None:
    """Draws curves.png, and P(cooperate) of each agent at the end as tit_for_tat_<agent>.png."""
    saved = SavedRun(run.directory, "", {}, run.metrics())
    columns = [f"p_{i}_{state}_C" for i in range(hp.num_learners) for state in STATES]
    run.write("curves.png", partial(seed_curves, {"": [saved]}, columns=columns + ALWAYS))
    for i in range(hp.num_learners):
        run.write(f"tit_for_tat_{i}.png", partial(group_bars, {f"{game.title}, agent {i}": [saved]}, agent=i))
