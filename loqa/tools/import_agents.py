"""Published agents as agents of this project: `python -m loqa.tools.import_agents FILES... --out DIR`.

Reads what the authors published for the Coin Game: their pickled files, or .npz files with the same arrays under
the same names. LOQA's agents keep their Q-networks, so that training can start from them; POLA's have a policy
only. Nothing in a pickled file is executed: what it names becomes plain data, or is refused.
"""

import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omegaconf import OmegaConf

from loqa.agent import AgentParams
from loqa.run.agents import check_shapes, read_npz, rebuild, save_agent
from loqa.run.launch import compose
from loqa.tools.common import one_line_errors, run_tool, tool_parser

# POLA's actions are right, left, down, up; ours are left, right, up, down.
POLA_ACTIONS = [1, 0, 3, 2]


# ---------------------------------------------------------------------------------------------- pickled files


class Inert:
    """In place of an array or its dtype: keeps what it is given, and does nothing."""

    def __init__(self, *args: Any, state: Any = None):
        self.args, self.state = args, state

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """The array that it is in place of; arrays of objects are refused."""
        _, shape, dtype, fortran, data = self.state
        kind = dtype.state[1].replace("|", "") + dtype.args[0]  # byte order and type, such as <f4
        return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


STAND_INS = {
    **dict.fromkeys(("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"), Inert),
    **dict.fromkeys(("collections.OrderedDict", "flax.core.frozen_dict.FrozenDict"), dict),
    "numpy.core.numeric._frombuffer": lambda data, kind, shape, order: Inert(
        state=(1, shape, kind, order == "F", data)
    ),
    "jax._src.array._reconstruct_array": lambda function, args, state, aval: Inert(state=state),
    "_codecs.encode": lambda text, encoding: text.encode("latin1"),  # how protocol 2 writes bytes
}


class InertUnpickler(pickle.Unpickler):
    """Rebuilds arrays and plain containers; all else that a file names is refused, by name."""

    def find_class(self, module, name):
        full_name = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if full_name not in STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not data")
        return STAND_INS[full_name]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz or a pickled file by their names, `/` between levels. Nothing in it is executed.

    Raises OSError where it cannot be read, ValueError where it is neither or names what is not data.
    """
    with open(path, "rb") as file:
        try:
            return read_npz(path) if zipfile.is_zipfile(path) else dict(_flatten(InertUnpickler(file).load()))
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(f"it cannot be read: {error}") from error


def _flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, Inert):
        yield prefix.removesuffix("/"), tree.array()
    elif isinstance(tree, dict | list | tuple):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _flatten(value, f"{prefix}{key}/")


# ------------------------------------------------------------------------------------------- published agents


def gru_network_params(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """The parameters of a `loqa.networks.GRUNetwork` from the published names, such as `GRUCell/hr/kernel` after
    `prefix`: the GRU's gates concatenated. Raises KeyError where an array is missing.
    """
    array = lambda name: np.asarray(arrays[prefix + name], np.float32)
    gates = lambda kind, *names: np.concatenate([array(f"GRUCell/{name}/{kind}") for name in names], -1)
    dense = lambda name: {kind: array(f"{name}/{kind}") for kind in ("kernel", "bias")}
    layers = [name for name in ("linear1", "linear2") if f"{prefix}{name}/kernel" in arrays]
    params = {f"dense_{i}": dense(name) for i, name in enumerate(layers)}
    params |= {f"{kind}_in": gates(kind, "ir", "iz", "in") for kind in ("kernel", "bias")}
    params |= {"kernel_hidden": gates("kernel", "hr", "hz", "hn"), "bias_hidden": gates("bias", "hn")}
    return {"params": params | {"output": dense("linear_end")}}


def published_agents(arrays: Mapping[str, np.ndarray]) -> list[AgentParams]:
    """The agents among arrays by their published names, each once; POLA's have no Q-network.

    Raises KeyError where an array is missing, ValueError where a policy has not four actions.
    """
    agents = {}
    for name, array in arrays.items():
        prefix = name.removesuffix("linear_end/kernel")
        # Neither Q-networks, nor target networks, nor stacks of past agents.
        if prefix == name or "qvalue_head" in name or "target" in name or array.ndim != 2:
            continue
        if array.shape[1] != 4:
            raise ValueError(f"the output of its policy is of the size {array.shape[1]}, not 4")
        actor, qvalue = gru_network_params(arrays, prefix), {}
        if "actor_head" in prefix:
            qvalue = gru_network_params(arrays, prefix.replace("actor_head", "qvalue_head"))
        else:
            output = actor["params"]["output"]
            output |= {kind: x[..., POLA_ACTIONS] for kind, x in output.items()}
        agent = AgentParams(actor, qvalue)
        agents[b"".join(x.tobytes() for x in jax.tree.leaves(agent))] = agent  # a self-play run saves it twice
    return list(agents.values())


def describe(params: AgentParams) -> dict[str, Any]:
    """The description to save with an agent: the published settings, with the sizes of these networks.

    Raises ValueError where the arrays do not fit together, or do not observe a square board.
    """
    parts = {part: network["params"] for part, network in params._asdict().items() if network}
    inputs = parts["actor"]["dense_0"]["kernel"].shape[0]
    side = math.isqrt(inputs // 4)
    if 4 * side**2 != inputs:
        raise ValueError(f"its policy has {inputs} inputs, which are not 4 planes of a square board")
    settings = [f"hp.game.height={side}", f"hp.game.width={side}"]
    for part, network in parts.items():
        layers = sum(name.startswith("dense_") for name in network)
        hidden_size = network["dense_0"]["kernel"].shape[1]
        settings += [f"hp.{part}.hidden_size={hidden_size}", f"hp.{part}.layers_before_gru={layers}"]
    hp = OmegaConf.to_container(compose("coin", ["hp=loqa_iclr_published", *settings]).hp, resolve=True)
    _, agent = rebuild({"game": "coin", "hp": hp})
    networks = jax.eval_shape(agent.init, jax.random.key(0))
    check_shapes(params, networks if params.qvalue else networks._replace(qvalue={}))
    kind = {"kind": "published LOQA"} if params.qvalue else {"kind": "published POLA", "policy_only": True}
    return {"game": "coin", "hp": hp} | kind


def import_file(path: Path) -> dict[str, tuple[AgentParams, dict[str, Any]]]:
    """The agents of a published file: the parameters and the description of each by its name.

    Raises OSError where it cannot be read, ValueError where it has no published agents.
    """
    try:
        agents = published_agents(read_arrays(path))
        if not agents:
            raise ValueError("no array is named as in one (linear_end/kernel and others)")
        names = [f"{path.stem}_{i}" for i in range(len(agents))] if len(agents) > 1 else [path.stem]
        described = [(agent, describe(agent) | {"source": path.name}) for agent in agents]
        return dict(zip(names, described, strict=True))
    except (KeyError, ValueError) as error:
        what = f"it has no {error.args[0]}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a published agent: {what}") from error


def main() -> None:
    parser = tool_parser("import_agents", __doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a published agent, .npz or pickled")
    parser.add_argument("--out", type=Path, default="experiments/imported", help="where to write (%(default)s)")
    options = parser.parse_intermixed_args()
    taken, agents = {path.resolve() for path in options.files}, {}
    with one_line_errors(parser):
        for path in options.files:
            for name, agent in import_file(path).items():
                target = options.out / f"{name}.npz"
                if target in agents or target.resolve() in taken:
                    raise ValueError(f"{target} would be overwritten: import into a directory of its own")
                agents[target] = agent
        options.out.mkdir(parents=True, exist_ok=True)
        for target, (params, description) in agents.items():
            save_agent(target, params, description)
            board = description["hp"]["game"]
            print(f"{target}: {description['kind']}, {board['height']}x{board['width']}")


if __name__ == "__main__":
    run_tool(main)
