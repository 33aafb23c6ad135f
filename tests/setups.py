"""Hyperparameters, agents and states as the scripts make them, for the tests."""

from functools import cache

import jax

from ipd import make_iteration
from loqa import learner
from loqa.run.agents import game_and_agent
from loqa.run.config import CONFIGS, parse
from loqa.run.launch import compose


@cache
def make_hp(script, *overrides):
    """The hyperparameters of a script that is called with these overrides."""
    return parse(compose(script, list(overrides)), CONFIGS[script]).hp


def make_agent(script, hp):
    return game_and_agent(script, hp)[1]


def training(script, *overrides):
    """A script's hyperparameters, its agent, its jitted loop and its first state."""
    hp = make_hp(script, *overrides)
    agent = make_agent(script, hp)
    state = learner.init(agent, hp, jax.random.key(hp.seed))
    return hp, agent, learner.repeat(make_iteration(hp, agent)), state
