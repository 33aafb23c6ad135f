"""LOQA on the Coin Game: the algorithm of ipd.py, against past versions of the agent.

    python coin_train.py                                                # the paper's 3x3 run, one seed
    python coin_train.py hp.game.height=5 hp.game.width=5 hp.seed=7     # another grid; all keys: conf/coin

Read ipd.py first: an iteration is the same. What is different is data: the game, recurrent networks, opponents
drawn from past versions of the agent, the evaluation against scripted players, and when training ends.
"""

import numpy as np

from ipd import make_experiment
from loqa.games.coin import CoinGame
from loqa.hyperparameters import CoinHyperparameters
from loqa.run import launch
from loqa.run.trainer import Experiment
from loqa.thresholds import threshold_held

# What the terminal shows of the metrics: rewards a step, and coins a step, all of agent 0 but `AC's`, which is
# what always-cooperate earns against it.
COLUMNS = {
    "self": "mean_rewards_0",
    "vs AC": "always_cooperate_0_mean_rewards_a",
    "AC's": "always_cooperate_0_mean_rewards_d",
    "vs AD": "always_defect_0_mean_rewards_a",
    "own": "own_coins_0",
    "other's": "other_coins_0",
}


def experiment(hp: CoinHyperparameters) -> Experiment:
    """The Coin Game, for the loop in loqa/run/trainer.py."""

    def reached(metrics: dict[str, np.ndarray]) -> str | None:
        held = hp.stop_at is not None and threshold_held(metrics, hp.game.height, hp.stop_at)
        return hp.stop_at if held else None

    return make_experiment(CoinGame.from_hp(hp), hp, columns=COLUMNS, progress_every=5, reached=reached)


if __name__ == "__main__":
    launch.script("coin", experiment)
