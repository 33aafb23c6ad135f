"""Saved agents: parameters and what is needed to rebuild their networks, as arrays and text, never as code."""

import json
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from loqa.agent import AgentParams
from loqa.run.run_logging import Run

FORMAT = "loqa-agent-1"


def save_agent(path: str | Path, params: AgentParams, description: dict[str, Any]) -> None:
    """Writes an agent as an .npz file.

    Each parameter is an array named by its place, such as `actor/params/dense_0/kernel`; `description`, JSON
    with the game and the `hp` part of the config that made the networks, is the text array of that name.

    Raises:
      OSError: it cannot be written.
    """
    arrays = flatten_dict(jax.device_get(params)._asdict(), sep="/")
    np.savez(path, description=json.dumps({"format": FORMAT} | description), **arrays)


def save_agents(run: Run, iteration: int, agents: Sequence[AgentParams]) -> None:
    """Writes `agents/agent_<i>_<iteration>.npz` for each of a run's agents; a full disk does not end the run."""
    for i, params in enumerate(agents):
        description = {"game": run.script, "iteration": iteration, "hp": run.settings["hp"]}
        save = partial(save_agent, params=params, description=description)
        run.write(f"agents/agent_{i}_{iteration:06d}.npz", save)


def load_agent(path: str | Path) -> tuple[AgentParams, dict[str, Any]]:
    """Reads an agent: its parameters and its description. Nothing in the file is executed.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not an agent of this format.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        description = json.loads(str(arrays.pop("description")))
        if description["format"] != FORMAT:
            raise ValueError(f"its format is {description['format']!r}, but must be {FORMAT!r}")
        networks = unflatten_dict(arrays, sep="/")
        if description.get("policy_only"):  # it plays, but has no Q-network to learn with
            networks = {"qvalue": {}} | networks
        return AgentParams(**networks), description
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a saved agent: {error}") from error
