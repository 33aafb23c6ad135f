"""Published agents as agents of this project: `python -m loqa.tools.import_agents KIND=PATH... --out DIR`.

Reads what was published for the Coin Game: pickles of LOQA, its ablations, Advantage Alignment and POLA, PyTorch's
files (.pth) of M-FOS, or .npz files with the same arrays under the same names; a PATH may be a directory of them.
KIND says whose they are, since most have LOQA's networks; without it the name of a directory does. LOQA's networks
come with the Q-network, so that training can start from them. Nothing in a file is executed: what a pickle names
becomes plain data, or is refused.
"""

import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from loqa.agent import AgentParams
from loqa.run.agents import check_shapes, named_leaves, read_npz, rebuild, save_agent
from loqa.run.config import complete_hp
from loqa.tools.common import ArgumentParser, split_label, tool
from loqa.tools.players import MFOSPlayer


class Inert:
    """In place of an array of NumPy or its dtype: keeps what it is given, and does nothing."""

    def __init__(self, *args: Any, state: Any = None):
        self.args, self.state = args, state

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """The array that it is in place of; arrays of objects are refused."""
        _, shape, dtype, fortran, data = self.state
        kind = dtype.state[1].replace("|", "") + dtype.args[0]  # byte order and type, such as <f4
        return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


def torch_tensor(storage: bytes, offset: int, shape: tuple, strides: tuple, *_: Any) -> np.ndarray:
    """A tensor of PyTorch on the bytes of its storage; NumPy refuses a shape that does not lie within them."""
    return np.ndarray(shape, "<f4", storage, 4 * offset, [4 * stride for stride in strides])


STAND_INS = {
    **dict.fromkeys(("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"), Inert),
    **dict.fromkeys(("collections.OrderedDict", "flax.core.frozen_dict.FrozenDict"), dict),
    "numpy.core.numeric._frombuffer": lambda data, dtype, shape, order: Inert(  # how protocol 5 writes an array
        state=(1, shape, dtype, order == "F", data)
    ),
    "jax._src.array._reconstruct_array": lambda function, args, state, aval: Inert(state=state),
    "_codecs.encode": lambda text, encoding: text.encode("latin1"),  # how protocol 2 writes bytes
    "torch._utils._rebuild_tensor_v2": torch_tensor,
    "torch.FloatStorage": "<f4",
}


class InertUnpickler(pickle.Unpickler):
    """Rebuilds arrays and plain containers; all else that a file names is refused, by name."""

    storages: Mapping[str, bytes] = {}  # the bytes of PyTorch's tensors, which are files beside the pickle

    def find_class(self, module, name):
        full_name = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if full_name not in STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not data")
        return STAND_INS[full_name]

    def persistent_load(self, pid):
        return self.storages[pid[2]]  # "storage", its type, its name, ...


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz, .pth or pickled file by their names, `/` between levels. Nothing is executed.

    Raises OSError where it cannot be read, ValueError where it is none of them or names what is not data.
    """
    with open(path, "rb") as file:
        try:
            unpickler = InertUnpickler(file)
            if zipfile.is_zipfile(path):
                archive = zipfile.ZipFile(file)
                pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                if not pickles:
                    return read_npz(path)
                unpickler = InertUnpickler(archive.open(pickles[0]))
                unpickler.storages = {Path(x).name: archive.read(x) for x in archive.namelist() if "/data/" in x}
            leaves = named_leaves(unpickler.load())
            arrays = {name: x.array() if isinstance(x, Inert) else x for name, x in leaves.items()}
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(f"it cannot be read: {error}") from error
    return {name: x for name, x in arrays.items() if isinstance(x, np.ndarray)}


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


def mfos_params(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The parameters of an `MFOSPlayer` from the arrays by PyTorch's names (`conv_a_0.weight` [16, 7, 3, 3] etc.).

    A convolution with circular padding becomes a dense layer on the board's cells; the plane of zeros goes.
    Raises KeyError where an array is missing, TypeError or ValueError where they do not fit together.
    """
    dense = lambda name: {"kernel": arrays[f"{name}.weight"].T, "bias": arrays[f"{name}.bias"]}
    params = {"linear": dense("linear_a_0"), "output": in_our_order(dense("linear_a"))}
    side = math.isqrt(len(params["linear"]["kernel"]) // len(arrays["conv_a_1.bias"]))
    for i, planes in ((0, slice(6)), (1, slice(None))):
        weight, bias = arrays[f"conv_a_{i}.weight"][:, planes], arrays[f"conv_a_{i}.bias"]
        kernel = np.zeros((weight.shape[1], side, side, len(bias), side, side), np.float32)
        for row, column, y, x in np.ndindex(side, side, 3, 3):  # from (row + y - 1, column + x - 1) on the torus
            kernel[:, (row + y - 1) % side, (column + x - 1) % side, :, row, column] += weight[:, :, y, x].T
        kernel = kernel.reshape(-1, bias.size * side**2)
        params[f"conv_{i}"] = {"kernel": kernel, "bias": np.repeat(bias, side**2)}
    # PyTorch's reset and update gates have two biases, which are added; their order, r, z, n, is ours.
    bias = arrays["GRU_a.bias_hh_l0"]
    size = len(bias) // 3
    both = arrays["GRU_a.bias_ih_l0"] + np.where(np.arange(3 * size) < 2 * size, bias, 0)
    params["gates"] = {"kernel": arrays["GRU_a.weight_ih_l0"].T, "bias": both}
    params |= {"kernel_hidden": arrays["GRU_a.weight_hh_l0"].T, "bias_hidden": bias[2 * size :]}
    MFOSPlayer.of(params, side**2)
    return params


def in_our_order(output: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A last layer, kernel and bias, of M-FOS or POLA: their actions are right, left, down, up."""
    return {kind: x[..., [1, 0, 3, 2]] for kind, x in output.items()}  # left, right, up, down


def published_agents(arrays: Mapping[str, np.ndarray]) -> list[AgentParams]:
    """The agents among arrays by their published names, each once; only LOQA's networks have a Q-network.

    Of two POLA agents the first alone, as in the published evaluation: the second one saw its planes exchanged.
    Raises KeyError where an array is missing, TypeError or ValueError where they do not fit together.
    """
    if "conv_a_0.weight" in arrays:
        return [AgentParams(mfos_params(arrays), {})]
    agents: dict[bytes, AgentParams] = {}
    for name, array in arrays.items():
        prefix = name.removesuffix("linear_end/kernel")
        # Neither Q-networks, nor target networks, nor stacks of past agents.
        if prefix == name or "qvalue_head" in name or "target" in name or array.ndim != 2:
            continue
        if array.shape[1] != 4:
            raise ValueError(f"the output of its policy is of the size {array.shape[1]}, not 4")
        agent = AgentParams(gru_network_params(arrays, prefix), {})
        if "actor_head" not in prefix:
            agent.actor["params"]["output"] = in_our_order(agent.actor["params"]["output"])
            return [agent]
        agent = agent._replace(qvalue=gru_network_params(arrays, prefix.replace("actor_head", "qvalue_head")))
        agents[b"".join(x.tobytes() for x in jax.tree.leaves(agent))] = agent  # a self-play run saves it twice
    if not agents:
        raise ValueError("no array is named as in one (linear_end/kernel, conv_a_0.weight and others)")
    return list(agents.values())


def describe(params: AgentParams) -> dict[str, Any]:
    """The description to save with an agent: the published settings, with the sizes of these networks.

    Its kind is what they tell. Raises ValueError where they do not fit together, or observe no square board.
    """
    is_mfos = "conv_0" in params.actor
    networks = {} if is_mfos else {part: network["params"] for part, network in params._asdict().items() if network}
    inputs = len(params.actor["conv_0"]["kernel"]) // 6 * 4 if is_mfos else len(networks["actor"]["dense_0"]["kernel"])
    side = math.isqrt(inputs // 4)
    if 4 * side**2 != inputs:
        raise ValueError(f"its policy has {inputs} inputs, which are not 4 planes of a square board")
    hp = {"game": {"height": side, "width": side}}
    for part, network in networks.items():
        layers = sum(name.startswith("dense_") for name in network)
        hp[part] = {"layers_before_gru": layers, "hidden_size": network["dense_0"]["kernel"].shape[1]}
    description = {"game": "coin", "hp": complete_hp("coin", hp), "policy_only": not params.qvalue}
    if is_mfos:
        return description | {"kind": "M-FOS", "network": "mfos"}
    expected = jax.eval_shape(rebuild(description)[1].init, jax.random.key(0))
    check_shapes(params, expected if params.qvalue else expected._replace(qvalue={}))
    return description | {"kind": "LOQA's networks" if params.qvalue else "POLA"}


def import_file(path: Path, kind: str = "") -> list[tuple[AgentParams, dict[str, Any]]]:
    """The agents of a published file, each with the description to save with it; `kind`: if not what it tells.

    Raises OSError where it cannot be read, ValueError where it has no published agents.
    """
    try:
        named = {"source": path.name} | ({"kind": kind} if kind else {})
        return [(agent, describe(agent) | named) for agent in published_agents(read_arrays(path))]
    except (KeyError, TypeError, ValueError) as error:
        what = f"it has no {error.args[0]}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a published agent: {what}") from error


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="KIND=PATH", help="files, or directories of files")
    parser.add_argument("--out", type=Path, default="experiments/imported", help="where to write (%(default)s)")
    options = parser.parse_intermixed_args()
    agents = {}  # by the file to write
    for kind, path in map(split_label, options.paths):
        kind = kind or (path.resolve().name if path.is_dir() else "")
        for file in sorted(x for x in path.iterdir() if x.is_file()) if path.is_dir() else [path]:
            found = import_file(file, kind)
            for i, agent in enumerate(found):
                target = options.out / f"{file.stem}{f'_{i}' if len(found) > 1 else ''}.npz"
                if target in agents or target.resolve() == file.resolve():
                    raise ValueError(f"{target} would be overwritten: import into a directory of its own")
                agents[target] = agent
    options.out.mkdir(parents=True, exist_ok=True)
    for target, (params, description) in agents.items():
        save_agent(target, params, description)
        print(f"{target}: {description['kind']}, {rebuild(description)[0].title}")


if __name__ == "__main__":
    main()
