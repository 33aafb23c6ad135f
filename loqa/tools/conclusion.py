"""How a training run ends: its result in words, and its figures."""

from functools import partial

from loqa.games.ipd import STATES, MatrixGame
from loqa.games.payoffs import PAYOFFS
from loqa.hyperparameters import IPDHyperparameters
from loqa.run.config import flat
from loqa.run.run import Run
from loqa.run.terminal import short
from loqa.thresholds import is_tit_for_tat
from loqa.tools.figures import group_bars, seed_curves
from loqa.tools.saved_runs import PUBLISHED_3X3, SavedRun, shown_columns, with_self_play

COLUMNS = dict(zip(("self", "vs AC", "AC's", "vs AD", "AD's"), PUBLISHED_3X3, strict=True))
LEARNING = ["qvalue_0_bias", "qvalue_0_mean"]


def conclude_coin(run: Run) -> None:
    """Prints the rewards beside the paper's, and draws curves.png."""
    saved = SavedRun(run.directory, "", flat(run.settings["hp"]), with_self_play(run.metrics()))
    last = {column: values[-1] for column, values in saved.metrics.items()}
    run.log_line(" " * 12 + "".join(f"{title:>8}" for title in COLUMNS))
    for name, rewards in {"this run": last, "paper, 3x3": PUBLISHED_3X3}.items():
        run.log_line(f"{name:12}" + "".join(f"{short(rewards[column]):>8}" for column in COLUMNS.values()))
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
