"""Has an agent learned to cooperate and not to be exploited? The paper's thresholds; tit-for-tat in the IPD."""

from collections.abc import Mapping

import numpy as np

# Both rewards a step, times n = 2 (size // 2), must exceed these in one evaluation: in self-play, the mean of
# both players, and of the agent against always-defect.
THRESHOLDS = {"weak": (0.05, -1.2), "medium": (0.1, -0.5), "strong": (0.2, -0.2)}

CONSECUTIVE_PASSES = 5  # evaluations in a row that must pass a threshold until it is held


def is_tit_for_tat(metrics: Mapping[str, np.ndarray], agent: int = 0) -> np.ndarray:
    """In which evaluations [...] of the IPD an agent cooperates with itself, and always-defect gains little.

    That is P(C|CC) above 0.9, a mean reward above -1.05 (of -1 for mutual cooperation), and against always-defect
    at least -2.1 (of -2.02 for tit-for-tat, and -2 for mutual defection). `metrics`: columns of metrics.csv.
    """
    cooperates = (metrics[f"p_{agent}_CC_C"] > 0.9) & (metrics[f"mean_rewards_{agent}"] > -1.05)
    return cooperates & (metrics[f"always_defect_{agent}_mean_rewards_a"] >= -2.1)


def self_play(metrics: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean reward a step of both players [...]; `metrics`: as above."""
    return (metrics["mean_rewards_0"] + metrics["mean_rewards_1"]) / 2


def reciprocates(metrics: Mapping[str, np.ndarray]) -> np.ndarray:
    """In which evaluations [...] of the IPD both cooperate (mean reward above -1.1), and agent 0 seldom after DD."""
    return (self_play(metrics) > -1.1) & (metrics["p_0_DD_C"] < 0.2)


def threshold_passed(metrics: Mapping[str, np.ndarray], size: int, threshold: str) -> np.ndarray:
    """In which evaluations [...] one of THRESHOLDS is passed on the `size` x `size` board; `metrics`: as above."""
    need_self_play, need_against_defect = THRESHOLDS[threshold]
    scale, against_defect = 2 * (size // 2), metrics["always_defect_0_mean_rewards_a"]
    return (scale * self_play(metrics) > need_self_play) & (scale * against_defect > need_against_defect)


def threshold_held(metrics: Mapping[str, np.ndarray], size: int, threshold: str) -> bool:
    """Whether the last CONSECUTIVE_PASSES evaluations all pass a threshold; `metrics`: as above."""
    passed = threshold_passed(metrics, size, threshold)
    return len(passed) >= CONSECUTIVE_PASSES and bool(passed[-CONSECUTIVE_PASSES:].all())
