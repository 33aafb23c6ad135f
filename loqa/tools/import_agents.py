"""Published agents as agents of this project: `python -m loqa.tools.import_agents FILES... --out DIR`.

Reads what the authors published for the Coin Game: their pickled files, or .npz files with the same arrays under
the same names. LOQA's agents keep their Q-networks, so that training can start from them; POLA's have a policy
only. Nothing in a pickled file is executed: what it names becomes plain data, or is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from omegaconf import OmegaConf

from loqa.agent import AgentParams
from loqa.networks import GRUNetwork
from loqa.run.agents import save_agent
from loqa.run.launch import compose
from loqa.tools.common import one_line_errors, run_tool, tool_parser, whole
from loqa.tools.inert_pickle import read_arrays

# POLA's actions are right, left, down, up; ours are left, right, up, down.
POLA_ACTIONS = (1, 0, 3, 2)


def gru_network_params(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """The parameters of a `loqa.networks.GRUNetwork` from the published names: the GRU's gates concatenated.

    Args:
      arrays: by name, such as `linear1/kernel` and `GRUCell/hr/kernel` below `prefix`.
      prefix: of this network, with its last slash.

    Raises:
      KeyError: an array is missing.
    """
    array = lambda name: np.asarray(arrays[prefix + name], np.float32)
    gates = lambda kind, *names: np.concatenate([array(f"GRUCell/{name}/{kind}") for name in names], -1)
    dense = lambda name: {kind: array(f"{name}/{kind}") for kind in ("kernel", "bias")}
    layers = ["linear1", "linear2"] if f"{prefix}linear2/kernel" in arrays else ["linear1"]
    return {
        "params": {
            **{f"dense_{i}": dense(name) for i, name in enumerate(layers)},
            "kernel_in": gates("kernel", "ir", "iz", "in"),
            "bias_in": gates("bias", "ir", "iz", "in"),
            "kernel_hidden": gates("kernel", "hr", "hz", "hn"),
            "bias_hidden": gates("bias", "hn"),
            "output": dense("linear_end"),
        }
    }


def published_agents(arrays: Mapping[str, np.ndarray]) -> list[AgentParams]:
    """The agents among arrays by their published names, each once; POLA's have no Q-network.

    Raises:
      KeyError: an array is missing.
      ValueError: the arrays do not fit together.
    """
    agents = []
    for name, array in arrays.items():
        prefix = name.removesuffix("linear_end/kernel")
        # Neither Q-networks, nor target networks, nor stacks of past agents.
        if prefix == name or "qvalue_head" in name or "target" in name or array.ndim != 2:
            continue
        actor, qvalue = gru_network_params(arrays, prefix), {}
        if "actor_head" in prefix:
            qvalue = gru_network_params(arrays, prefix.replace("actor_head", "qvalue_head"))
        else:
            network_sizes(actor)  # raises unless it has four actions
            output = actor["params"]["output"]
            output |= {kind: x[..., list(POLA_ACTIONS)] for kind, x in output.items()}
        agent = AgentParams(actor, qvalue)
        # A self-play run saves the same agent twice.
        if not any(_are_equal(agent, other) for other in agents):
            agents.append(agent)
    return agents


def _are_equal(first: AgentParams, second: AgentParams) -> bool:
    same_structure = jax.tree.structure(first) == jax.tree.structure(second)
    return same_structure and all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


def network_sizes(network: dict[str, Any]) -> tuple[int, dict[str, int]]:
    """The number of inputs, and the keys of the config that make a network of these shapes.

    Raises:
      ValueError: the arrays do not fit together.
    """
    params = network["params"]
    layers = sum(name.startswith("dense_") for name in params)
    inputs, hidden_size = params["dense_0"]["kernel"].shape
    made = GRUNetwork(4, hidden_size, layers)
    init = lambda: made.init(jax.random.key(0), jnp.zeros(inputs), made.initial_hidden(), method="step")
    found = flatten_dict(params, sep="/")
    for name, array in flatten_dict(jax.eval_shape(init)["params"], sep="/").items():
        if found[name].shape != array.shape:
            raise ValueError(f"{name} is of the shape {found[name].shape}, not {array.shape}")
    return inputs, {"hidden_size": hidden_size, "layers_before_gru": layers}


def describe(params: AgentParams, height: int | None = None, width: int | None = None) -> dict[str, Any]:
    """The description to save with an agent: the published settings, with the sizes of these networks.

    Raises:
      ValueError: the arrays do not fit together, or do not observe a board of `height` x `width` (None: square).
    """
    inputs, actor = network_sizes(params.actor)
    if height is None and width is None:
        height = round((inputs // 4) ** 0.5)
    height = height or inputs // 4 // width
    width = width or inputs // 4 // height
    if 4 * height * width != inputs:
        raise ValueError(f"its {inputs} inputs are not 4 x {height} x {width}: add --height and --width")
    sizes = {"game": {"height": height, "width": width}, "actor": actor}
    kind = {"kind": "published POLA", "policy_only": True}
    if params.qvalue:
        kind = {"kind": "published LOQA"}
        q_inputs, sizes["qvalue"] = network_sizes(params.qvalue)
        if q_inputs != inputs + 1:
            raise ValueError(f"its Q-network has {q_inputs} inputs, not {inputs + 1}")
    overrides = [f"hp.{part}.{key}={value}" for part, keys in sizes.items() for key, value in keys.items()]
    hp = OmegaConf.to_container(compose("coin", ["hp=loqa_iclr_published", *overrides]).hp, resolve=True)
    return {"game": "coin", "hp": hp} | kind


def import_file(path: Path, height: int | None = None, width: int | None = None) -> list[tuple]:
    """The agents of a published file: (name, parameters, description) of each.

    Raises:
      OSError: it cannot be read.
      ValueError: it has no published agents, or not of this board.
    """
    try:
        agents = published_agents(read_arrays(path))
        if not agents:
            raise ValueError("no array is named as in one (linear_end/kernel and others)")
        names = [f"{path.stem}_{i}" for i in range(len(agents))] if len(agents) > 1 else [path.stem]
        descriptions = [describe(params, height, width) | {"source": path.name} for params in agents]
        return list(zip(names, agents, descriptions, strict=True))
    except KeyError as error:
        raise ValueError(f"{path} is not a published agent: it has no {error.args[0]}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a published agent: {error}") from error


def main() -> None:
    parser = tool_parser("import_agents", __doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a published agent, .npz or pickled")
    parser.add_argument("--out", type=Path, default="experiments/imported", help="where to write (%(default)s)")
    parser.add_argument("--height", type=whole(1), help="rows of the board, where it is not square")
    parser.add_argument("--width", type=whole(1), help="columns of the board")
    options = parser.parse_intermixed_args()
    with one_line_errors(parser):
        imported = [one for path in options.files for one in import_file(path, options.height, options.width)]
        targets = [options.out / f"{name}.npz" for name, _, _ in imported]
        for target in targets:
            if targets.count(target) > 1 or target.resolve() in [path.resolve() for path in options.files]:
                raise ValueError(f"{target} would be overwritten: import into a directory of its own")
        options.out.mkdir(parents=True, exist_ok=True)
        for target, (_, params, description) in zip(targets, imported, strict=True):
            save_agent(target, params, description)
            game, actor = description["hp"]["game"], description["hp"]["actor"]
            sizes = f"hidden size {actor['hidden_size']}, {actor['layers_before_gru']} dense before the GRU"
            print(f"{target}: {description['kind']}, {game['height']}x{game['width']}, {sizes}")


if __name__ == "__main__":
    run_tool(main)
