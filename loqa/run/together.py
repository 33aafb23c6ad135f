"""Seeds side by side: the jobs of a multirun that differ in nothing but the seed, as one program (launcher=seeds)."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from loqa import devices, learner
from loqa.learner import TrainState
from loqa.run.config import Config, ConfigError, JaxConfig, RunError
from loqa.run.run import Run
from loqa.run.signals import StopSignals
from loqa.run.terminal import SharedTerminal
from loqa.run.trainer import Experiment, first_state, loop


class Seeds(Launcher):
    """Hydra's launcher `seeds`: runs a multirun's jobs in groups that differ in nothing but the seed."""

    def setup(self, **parts: Any) -> None:
        self._parts = parts  # of Hydra: hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        setup_globals()
        context, function, config = (self._parts[name] for name in ("hydra_context", "task_function", "config"))
        Path(config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        returns: dict[int, JobReturn] = {}

        def run(cfg: DictConfig, group: Group | None) -> None:
            job = partial(function, group=group)
            returns[cfg.hydra.job.num] = run_job(job, cfg, "hydra.sweep.dir", "hydra.sweep.subdir", context)

        sys.setrecursionlimit(sys.getrecursionlimit() + 10 * len(job_overrides))  # each job begins within another
        groups: dict[str, list[DictConfig]] = {}
        for number, words in enumerate(job_overrides, initial_job_idx):
            cfg = context.config_loader.load_sweep_config(config, list(words))
            with open_dict(cfg):
                cfg.hydra.job.id = cfg.hydra.job.num = number
            settings = OmegaConf.to_container(cfg.hp, resolve=True) | {"seed": None, "save_dir": None}
            groups.setdefault(f"{settings} {cfg.jax}", []).append(cfg)
        for cfgs in groups.values():
            if len(cfgs) == 1:
                run(cfgs[0], None)
                continue
            group = Group([partial(run, cfg) for cfg in cfgs])
            try:
                group.go_on()
            finally:
                group.terminal.flush()
            if group.stopped:
                raise group.stopped
        return [returns[number] for number in sorted(returns)]


NAME = "hydra_plugins.loqa.Seeds"  # Hydra takes launchers from that package alone
Plugins.instance().class_name_to_class[NAME] = Seeds
ConfigStore.instance().store(group="hydra/launcher", name="seeds", node={"_target_": NAME}, provider="loqa")


class Group:
    """Runs that differ in nothing but the seed. Each job begins its run within the one before; the last trains all.

    So each of them has Hydra around it, and its `with Run(...)`, as if it were alone.
    """

    def __init__(self, jobs: Sequence[Callable[["Group"], None]]):
        self.size = len(jobs)
        self._jobs = list(jobs)  # that have not begun
        self._begun: list[tuple[Config, Experiment, Run]] = []  # that are not yet trained
        self._ends: dict[Run, BaseException] = {}  # of those that did not end well
        self.stopped: SystemExit | None = None  # by a signal
        self.terminal = SharedTerminal(StopSignals())

    def go_on(self) -> None:
        """Runs the jobs that have not begun; within the last one, trains all that have."""
        while self._jobs:
            try:
                self._jobs.pop(0)(self)
            except SystemExit as end:  # the jobs around this one may have finished
                self.stopped = end
        begun, self._begun = self._begun, []
        if begun:
            try:
                self._train(*zip(*begun, strict=True))
            except Exception as error:  # noqa: BLE001 (it ends all that go on, and each says so)
                self._ends = {run: error for _, _, run in begun} | self._ends
            self.terminal.print_last_rows()

    def train(self, config: Config, experiment: Experiment, run: Run) -> None:
        """As `trainer.train`, with the other runs of the group."""
        self._begun.append((config, experiment, run))
        self.go_on()
        if run in self._ends:
            raise self._ends[run]

    def _train(self, configs: Sequence[Config], experiments: Sequence[Experiment], runs: Sequence[Run]) -> None:
        hp, experiment = configs[0].hp, experiments[0]  # the same for all, but for the seed
        first = map(partial(first_state, experiment.agent, hp), runs, [config.hp.seed for config in configs])
        option = configs[0].jax.num_devices
        placed = SideBySide(experiment, first, len(runs), len(jax.devices()) if option == "auto" else option)
        going = {}
        for i, run in enumerate(runs):
            going[i] = loop(experiment.agent, run, partial(placed.state, i), partial(placed.evaluate, i))
        wanted = dict.fromkeys(going, 0)  # iterations
        while wanted:
            # Those with no more to make wait for the others, in whose wall time they would draw figures.
            for i in [i for i in wanted if wanted[i]] or [*wanted]:
                wanted.pop(i)
                try:
                    wanted[i] = next(going[i])
                except StopIteration:
                    pass  # it is done
                except (RunError, SystemExit) as end:  # the others go on, or write their checkpoints
                    self._ends[runs[i]] = end
                    if isinstance(end, RunError):
                        runs[i].log_line(f"ended: {end}")
            self.terminal.flush()
            placed.iterate(wanted)


def check(options: JaxConfig) -> None:
    """Raises ConfigError where seeds side by side cannot do what is asked for."""
    for key in ("jax_debug_nans", "jax_disable_jit"):
        if getattr(options, key):
            raise ConfigError(f"jax.{key} is true, but must be false with launcher=seeds: train it alone")
    if options.num_devices != "auto" and options.num_devices > len(jax.devices()):
        raise ConfigError(f"jax.num_devices is {options.num_devices}, but must be auto or at most {len(jax.devices())}")


class SideBySide:
    """The states of seeds, each on one device. A row has as many of them as are computed at a time.

    On a CPU, where that is quickest, it is one seed a device, and rows follow one another. Else there is one row, and a
    device vmaps its seeds. Where the last row has room left, it has its last seed several times.
    `first` has the first state of each seed, and the key of its evaluations.
    """

    def __init__(
        self, experiment: Experiment, first: Iterator[tuple[TrainState, jax.Array]], num_seeds: int, num_devices: int
    ):
        num_devices = min(num_devices, num_seeds)
        self._each = 1 if jax.default_backend() == "cpu" else math.ceil(num_seeds / num_devices)
        self._width = num_devices * self._each
        self._iterate = learner.repeat_seeds(experiment.iteration, num_devices, self._each)
        evaluation = devices.one_of_one(experiment.evaluation) if self._each == 1 else jax.vmap(experiment.evaluation)
        self._evaluate = jax.jit(devices.spread(evaluation, num_devices))
        self._rows: list[TrainState] = []  # each leaf [width, ...]
        self._keys: list[jax.Array] = []  # [width]
        self._metrics: dict[int, dict[str, np.ndarray]] = {}  # of rows, [width]; since the last iteration
        while row := list(islice(first, self._width)):
            row += row[-1:] * (self._width - len(row))
            state, key = jax.device_put(jax.tree.map(lambda *x: jnp.stack(x), *row), devices.of_each(num_devices))
            self._rows.append(state)
            self._keys.append(key)

    def iterate(self, numbers: dict[int, int]) -> None:
        """Makes so many iterations of each of these seeds."""
        self._metrics = {}
        n = np.zeros((len(self._rows), self._width), np.int32)
        n.flat[list(numbers)] = list(numbers.values())
        for i in sorted({seed // self._width for seed in numbers}):
            self._rows[i] = self._iterate(self._rows[i], n[i])
        jax.block_until_ready(self._rows)

    def evaluate(self, seed: int) -> dict[str, float]:
        """The metrics of a seed; of all in its row they are computed once, since these ask at the same time."""
        row, place = divmod(seed, self._width)
        if row not in self._metrics:
            self._metrics[row] = jax.device_get(self._evaluate(self._keys[row], self._rows[row].without_buffers()))
        return {name: float(x[place]) for name, x in self._metrics[row].items()}

    def state(self, seed: int, with_buffers: bool = False) -> TrainState:
        """The state of a seed, for a checkpoint with its buffers; see `trainer.loop`."""
        row, place = divmod(seed, self._width)
        device, place = divmod(place, self._each)
        states = self._rows[row] if with_buffers else self._rows[row].without_buffers()
        return _pick(jax.tree.map(lambda x: x.addressable_data(device), states), place)


@jax.jit
def _pick(tree: TrainState, place: int) -> TrainState:
    return jax.tree.map(lambda x: x[place], tree)
