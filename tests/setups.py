"""Hyperparameters, agents and states as the scripts make them, for the tests."""

from functools import cache

import jax
import numpy as np
from omegaconf import OmegaConf
from pydantic import BaseModel

from ipd import make_iteration
from loqa import learner
from loqa.agent import Agent
from loqa.games import GAMES
from loqa.run.agents import save_agent
from loqa.run.config import CONFIGS, parse
from loqa.run.launch import compose


@cache
def make_hp(script, *overrides):
    """The hyperparameters of a script that is called with these overrides."""
    return parse(compose(script, list(overrides)), CONFIGS[script]).hp


def make_agent(script, hp):
    return Agent.from_hp(GAMES[script].rules.from_hp(hp), hp)


def save(path, script, *overrides, seed=0, policy_only=False):
    """Saves an agent with random parameters of these hyperparameters; returns the path."""
    cfg = compose(script, list(overrides))
    agent, random = make_agent(script, parse(cfg, CONFIGS[script]).hp), np.random.default_rng(seed)
    fill = lambda x: random.normal(size=x.shape).astype(np.float32)
    params = jax.tree.map(fill, jax.eval_shape(agent.init, jax.random.key(0)))
    params = params._replace(qvalue={}) if policy_only else params
    path.parent.mkdir(parents=True, exist_ok=True)
    hp = OmegaConf.to_container(cfg.hp, resolve=True)
    save_agent(path, params, {"game": script, "hp": hp, "policy_only": policy_only})
    return path


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
