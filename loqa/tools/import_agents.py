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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import OmegaConf

from loqa.agent import AgentParams
from loqa.games import GAMES
from loqa.run.agents import check_shapes, read_npz, rebuild, save_agent
from loqa.run.launch import compose
from loqa.tools.common import ArgumentParser, split_label, tool
from loqa.tools.mfos import MFOSPlayer

ACTIONS = [1, 0, 3, 2]  # M-FOS's and POLA's are right, left, down, up; ours are left, right, up, down


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
            if not zipfile.is_zipfile(path):
                return dict(_flatten(InertUnpickler(file).load()))
            archive = zipfile.ZipFile(file)
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if not pickles:
                return read_npz(path)
            unpickler = InertUnpickler(archive.open(pickles[0]))
            unpickler.storages = {Path(x).name: archive.read(x) for x in archive.namelist() if "/data/" in x}
            return dict(_flatten(unpickler.load()))
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(f"it cannot be read: {error}") from error


def _flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, Inert | np.ndarray):
        yield prefix.removesuffix("/"), tree.array() if isinstance(tree, Inert) else tree
    elif isinstance(tree, dict | list | tuple):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _flatten(value, f"{prefix}{key}/")


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
    params = {"linear": dense("linear_a_0"), "output": dense("linear_a")}
    params["output"] = {kind: x[..., ACTIONS] for kind, x in params["output"].items()}
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
    player = MFOSPlayer(size, side**2)
    jax.eval_shape(player.act, params, player.initial_hidden(), jnp.zeros(4 * side**2))
    return params


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
        actor, qvalue = gru_network_params(arrays, prefix), {}
        if "actor_head" in prefix:
            qvalue = gru_network_params(arrays, prefix.replace("actor_head", "qvalue_head"))
        else:
            output = actor["params"]["output"]
            output |= {kind: x[..., ACTIONS] for kind, x in output.items()}
            if agents:
                break
        agent = AgentParams(actor, qvalue)
        agents[b"".join(x.tobytes() for x in jax.tree.leaves(agent))] = agent  # a self-play run saves it twice
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
    game = next(game for game in GAMES.values() if game.board)
    settings = [f"hp.{key}={side}" for key in game.board]
    for part, network in networks.items():
        settings.append(f"hp.{part}.layers_before_gru={sum(name.startswith('dense_') for name in network)}")
        settings.append(f"hp.{part}.hidden_size={network['dense_0']['kernel'].shape[1]}")
    hp = OmegaConf.to_container(compose(game.name, [f"hp={game.published}", *settings]).hp, resolve=True)
    description = {"game": game.name, "hp": hp, "policy_only": not params.qvalue}
    if is_mfos:
        return description | {"kind": "M-FOS", "network": "mfos"}
    expected = jax.eval_shape(rebuild(description)[1].init, jax.random.key(0))
    check_shapes(params, expected if params.qvalue else expected._replace(qvalue={}))
    return description | {"kind": "LOQA's networks" if params.qvalue else "POLA"}


def import_file(path: Path, kind: str = "") -> dict[str, tuple[AgentParams, dict[str, Any]]]:
    """The agents of a published file: the parameters and the description of each by its name.

    Raises OSError where it cannot be read, ValueError where it has no published agents.
    """
    try:
        agents = published_agents(read_arrays(path))
        if not agents:
            raise ValueError("no array is named as in one (linear_end/kernel, conv_a_0.weight and others)")
        names = [f"{path.stem}_{i}" for i in range(len(agents))] if len(agents) > 1 else [path.stem]
        origin = {"source": path.name} | ({"kind": kind} if kind else {})
        return {name: (agent, describe(agent) | origin) for name, agent in zip(names, agents, strict=True)}
    except (KeyError, TypeError, ValueError) as error:
        what = f"it has no {error.args[0]}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a published agent: {what}") from error


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="KIND=PATH", help="files, or directories of files")
    parser.add_argument("--out", type=Path, default="experiments/imported", help="where to write (%(default)s)")
    options = parser.parse_intermixed_args()
    files, agents = {}, {}
    for kind, path in map(split_label, options.paths):
        found = sorted(x for x in path.iterdir() if x.is_file()) if path.is_dir() else [path]
        files |= dict.fromkeys(found, kind or (path.resolve().name if path.is_dir() else ""))
    for path, kind in files.items():
        for name, agent in import_file(path, kind).items():
            target = options.out / f"{name}.npz"
            if target in agents or target.resolve() in [file.resolve() for file in files]:
                raise ValueError(f"{target} would be overwritten: import into a directory of its own")
            agents[target] = agent
    options.out.mkdir(parents=True, exist_ok=True)
    for target, (params, description) in agents.items():
        save_agent(target, params, description)
        print(f"{target}: {description['kind']}, {rebuild(description)[0].title}")


if __name__ == "__main__":
    main()
