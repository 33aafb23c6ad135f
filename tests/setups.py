"""Hyperparameters, agents and states as the scripts make them, for the tests."""

from functools import cache

import jax
from pydantic import BaseModel

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


# NumPy or Python computes with them.
CONSTANTS = {"reward_discount", "discount", "td_lambda", "gae_lambda", "cur_agent_frac"}


def apart(section):
    """The hyperparameters with 0 in place of each float, and these by key: as data they share a program."""
    fields = {key: getattr(section, key) for key in type(section).model_fields.keys() - CONSTANTS}
    sections = {key: apart(value) for key, value in fields.items() if isinstance(value, BaseModel)}
    floats = {key: value for key, value in fields.items() if isinstance(value, float)}
    rest = dict.fromkeys(floats, 0.0) | {key: rest for key, (rest, _) in sections.items()}
    return section.model_copy(update=rest), floats | {key: below for key, (_, below) in sections.items()}


def together(section, floats):
    """The hyperparameters of both parts."""
    below = {key: together(getattr(section, key), value) for key, value in floats.items() if type(value) is dict}
    return section.model_copy(update=floats | below)
