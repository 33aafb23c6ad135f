"""How a training run ends: its result in words, and its figures."""

from functools import partial

from loqa.games.ipd import STATES, MatrixGame
from loqa.games.payoffs import PAYOFFS
from loqa.hyperparameters import IPDHyperparameters
from loqa.run.run import Run
from loqa.run.terminal import short
from loqa.thresholds import is_tit_for_tat
from loqa.tools.figures import group_bars, seed_curves
from loqa.tools.saved_runs import SavedRun, shown_columns, with_self_play

# The paper's agents on 3x3 at iteration 6000, means of ten seeds: rewards a step.
PUBLISHED_3X3 = {"self": 0.316, "vs AC": 0.352, "AC's": 0.318, "vs AD": -0.054, "AD's": 0.123}
COIN_COLUMNS = {"self": "mean_rewards_0"}
COIN_COLUMNS |= {"vs AC": "always_cooperate_0_mean_rewards_a", "AC's": "always_cooperate_0_mean_rewards_d"}
COIN_COLUMNS |= {"vs AD": "always_defect_0_mean_rewards_a", "AD's": "always_defect_0_mean_rewards_d"}
LEARNING = ["qvalue_0_bias", "qvalue_0_mean"]


def conclude_coin(run: Run) -> None:
    """Prints the rewards beside the paper's, and draws curves.png."""
    saved = SavedRun(run.directory, "", {}, with_self_play(run.metrics()))
    rewards = {title: saved.metrics[column][-1] for title, column in COIN_COLUMNS.items()}
    for name, row in {"": None, "this run": rewards, "paper, 3x3": PUBLISHED_3X3}.items():
        cells = (title if row is None else short(row[title]) for title in COIN_COLUMNS)
        run.log_line(f"{name:12}" + "".join(f"{cell:>8}" for cell in cells))
    run.write("curves.png", partial(seed_curves, {"": [saved]}, columns=[*shown_columns([saved]), *LEARNING]))


def conclude_ipd(run: Run, game: MatrixGame, hp: IPDHyperparameters) -> None:
    """Prints each agent's P(C), and in the IPD whether it is tit-for-tat; draws curves and cooperation_<i>.png."""
    saved = SavedRun(run.directory, "", {}, with_self_play(run.metrics()))
    for i in range(hp.num_learners):
        p_cooperate = ", ".join(f"{state} {short(saved.metrics[f'p_{i}_{state}_C'][-1])}" for state in STATES)
        run.log_line(f"agent {i}: P(C) in {p_cooperate}")
        if game.payoffs == PAYOFFS["ipd"]:
            run.log_line(f"tit-for-tat: {'yes' if is_tit_for_tat(saved.metrics, i)[-1] else 'no'}")
        run.write(f"cooperation_{i}.png", partial(group_bars, {f"{game.title}, agent {i}": [saved]}, agent=i))
    second = [f"p_1_{state}_C" for state in STATES] if hp.num_learners == 2 else []
    columns = [*shown_columns([saved]), *second, *LEARNING]
    run.write("curves.png", partial(seed_curves, {"": [saved]}, columns=columns))
