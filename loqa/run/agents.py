"""Saved agents: parameters and what is needed to rebuild their networks, as .npz files of arrays and text."""

import json
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from loqa.agent import Agent, AgentParams
from loqa.game import Game
from loqa.games import GAMES
from loqa.learner import TrainState
from loqa.run.config import ConfigError, parse_hp, without_gone
from loqa.run.run import Run

FORMAT = "loqa-agent-1"


def save_agent(path: str | Path, params: AgentParams, description: dict[str, Any]) -> None:
    """Writes an agent as an .npz file, or raises OSError.

    Each parameter is an array named by its place, such as `actor/params/dense_0/kernel`; `description`, JSON
    with the game and the `hp` part of the config that made the networks, is the text array of that name.
    """
    arrays = flatten_dict(jax.device_get(params)._asdict(), sep="/")
    np.savez(path, description=json.dumps({"format": FORMAT} | description), **arrays)


def save_agents(run: Run, state: TrainState) -> None:
    """Writes `agents/agent_<i>_<iteration>.npz` for each of a run's learners; a full disk does not end the run."""
    iteration = int(state.iteration)
    description = {"game": run.script, "iteration": iteration, "hp": run.settings["hp"]}
    for i, me in enumerate(state.learners):
        save = partial(save_agent, params=me.params, description=description)
        run.write(f"agents/agent_{i}_{iteration:06d}.npz", save)


def load_agent(path: str | Path) -> tuple[AgentParams, dict[str, Any]]:
    """Reads an agent: its parameters and its description. Nothing in the file is executed.

    Raises OSError where it cannot be read, ValueError where it is not an agent of this format.
    """
    try:
        arrays = read_npz(path)
        description = json.loads(str(arrays.pop("description")))
        if description["format"] != FORMAT:
            raise ValueError(f"its format is {description['format']!r}, but must be {FORMAT!r}")
        # Agents in results/ are kept at half precision.
        arrays = {name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in arrays.items()}
        networks = unflatten_dict(arrays, sep="/")
        if description.get("policy_only"):  # it plays, but has no Q-network to learn with
            networks = {"qvalue": {}} | networks
        return AgentParams(**networks), description
    except (KeyError, TypeError, ValueError) as error:
        importer = "published ones, as pickles, become such files by python -m loqa.tools.import_agents"
        raise ValueError(f"{path} is not a saved agent: {error} ({importer})") from error


def newest_agents(path: Path) -> list[Path]:
    """The files of the last agent of each learner, of the run at a path or of all runs in it, at any depth."""
    saved = sorted(path.rglob("agents/agent_?_*.npz"), key=lambda file: (file.parent, len(file.name), file.name))
    return list({(file.parent, file.name[:7]): file for file in saved}.values())


def check_shapes(found: Any, expected: Any) -> None:
    """Raises ValueError unless two pytrees have arrays of the same names and shapes."""
    there, here = ({name: x.shape for name, x in named_leaves(tree).items()} for tree in (found, expected))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise ValueError(f"the shape of {name} is {there.get(name)} there and {here.get(name)} here")


def load_params(path: str, agent: Agent) -> AgentParams:
    """The parameters of the agent `hp.init_from`; ConfigError if it is none or has other networks than `agent`."""
    try:
        params, description = load_agent(Path(path).expanduser())
        game, saved = rebuild(description) if "hp" in description else (agent.game, agent)
        if game != agent.game:
            there, here = (f"the {x.title}" if game.title != agent.game.title else x for x in (game, agent.game))
            raise ValueError(f"it was trained on {there}, and this is {here}")
        for name in ("normalize_time", "output_scale"):
            if (there := getattr(saved, name)) != (here := getattr(agent, name)):
                raise ValueError(f"{name} of its Q-network is {there}, and here it is {here}")
        check_shapes(params, jax.eval_shape(agent.init, jax.random.key(0)))
    except (OSError, ValueError) as error:
        wanted = "a saved agent with the networks of this run"
        raise ConfigError(f"hp.init_from is {path!r}, but must be {wanted}: {error}") from error
    return params


def rebuild(description: dict[str, Any]) -> tuple[Game, Agent]:
    """The rules and the agent of a saved agent, from its description; ConfigError if that is not understood."""
    script = description["game"]
    hp = parse_hp(script, without_gone(description["hp"]))  # which may be an earlier version's
    game = GAMES[script].rules.from_hp(hp)
    return game, Agent.from_hp(game, hp)


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their names, such as `learners/0/params/actor/params/dense_0/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a file whose checksums are right; nothing in it is executed. Raises OSError or ValueError."""
    try:
        with zipfile.ZipFile(path) as file:
            if damaged := file.testzip():
                raise ValueError(f"in {damaged}")
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except OSError:
        raise
    except Exception as error:  # a damaged zip file can raise anything
        # Not NumPy's words for objects: they advise to load the file with the code in it.
        what = "has Python objects in it" if "pickle" in str(error) else f"is damaged ({error})"
        raise ValueError(f"{Path(path).name} {what}") from error
