"""Aggregates over seeds (Agarwal et al. 2021, arXiv 2108.13264): robust where seeds are few."""

import numpy as np

RESAMPLES = 1000  # of the bootstrap


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean without the highest and the lowest quarter, each rounded down: [seeds, ...] -> [...].

    Of three seeds or fewer it is the mean. Infinite values count as any other, so that one in four seeds may
    never get somewhere and the time to it stays finite.
    """
    cut = len(values) // 4
    return np.sort(values, 0)[cut : len(values) - cut].mean(0)


def bootstrap_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of the interquartile mean over seeds: [seeds, ...] -> low [...], high [...]."""
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    means = [interquartile_mean(values[draw]) for draw in draws]
    # A quantile that is one of the means: between a finite and an infinite one there is nothing.
    low, high = np.quantile(means, (0.025, 0.975), axis=0, method="inverted_cdf")
    return low, high
