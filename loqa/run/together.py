"""Seeds side by side: the jobs of a multirun that differ in nothing but the seed, as one program (launcher=seeds)."""

import math
from collections.abc import Callable, Iterable, Sequence
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
from loqa.hyperparameters import show
from loqa.learner import TrainState
from loqa.run import trainer
from loqa.run.config import Config, ConfigError, JaxConfig
from loqa.run.run import Run
from loqa.run.signals import StopSignals
from loqa.run.terminal import SharedTerminal
from loqa.run.trainer import Experiment


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
        self._ends: dict[Run, BaseException | None] = {}
        self.signals = StopSignals()
        self.terminal = SharedTerminal(lambda: self.signals.received)

    def go_on(self) -> None:
        """Runs the jobs that have not begun; within the last one, trains all that have."""
        while self._jobs:
            self._jobs.pop(0)(self)
        begun, self._begun = self._begun, []
        if begun:
            configs, (experiment, *_), runs = zip(*begun, strict=True)
            placed = SideBySide(experiment, len(runs), configs[0].jax.num_devices)
            try:
                hps = [config.hp for config in configs]
                ends = trainer.train_all(experiment, hps, runs, placed, self.terminal.flush)
            except Exception as error:  # noqa: BLE001 (it ends all, and each says so)
                ends = [error] * len(runs)
            self._ends = dict(zip(runs, ends, strict=True))
            self.terminal.last_rows()

    def train(self, config: Config, experiment: Experiment, run: Run) -> None:
        """As `trainer.train`, with the other runs of the group."""
        self._begun.append((config, experiment, run))
        self.go_on()
        if end := self._ends[run]:
            raise end


def check(options: JaxConfig) -> None:
    """Raises ConfigError where seeds side by side cannot do what is asked for."""
    for key, allowed in {"processes": "null", "jax_debug_nans": "false", "jax_disable_jit": "false"}.items():
        if value := getattr(options, key):
            raise ConfigError(f"jax.{key} is {show(value)}, but must be {allowed} with launcher=seeds: train it alone")
    if options.num_devices != "auto" and options.num_devices > len(jax.devices()):
        raise ConfigError(f"jax.num_devices is {options.num_devices}, but must be auto or at most {len(jax.devices())}")


class SideBySide:
    """As `trainer.Alone`, of seeds, each on one device. A row has as many of their states as are computed at a time.

    On a CPU, where that is quickest, it is one seed a device, and rows follow one another. Else there is one row, and a
    device vmaps its seeds; `each` is how many. Where the last row has room left, it has its last seed several times.
    """

    def __init__(self, experiment: Experiment, num_seeds: int, num_devices: int | str, each: int | None = None):
        num_devices = min(len(jax.devices()) if num_devices == "auto" else num_devices, num_seeds)
        self._each = each or (1 if jax.default_backend() == "cpu" else math.ceil(num_seeds / num_devices))
        self._width, self._sharding = num_devices * self._each, devices.of_each(num_devices)
        self._iterate = learner.repeat_seeds(experiment.iteration, num_devices, self._each)
        evaluation = devices.one_of_one(experiment.evaluation) if self._each == 1 else jax.vmap(experiment.evaluation)
        self._evaluate = jax.jit(devices.spread(evaluation, num_devices))
        self._rows: list[TrainState] = []  # each leaf [width, ...]
        self._keys: list[jax.Array] = []  # [width]

    def put(self, states: Iterable[TrainState], keys: Sequence[jax.Array]) -> None:
        pairs = zip(states, keys, strict=True)
        while row := list(islice(pairs, self._width)):
            row += row[-1:] * (self._width - len(row))
            state, key = jax.device_put(jax.tree.map(lambda *x: jnp.stack(x), *row), self._sharding)
            self._rows.append(state)
            self._keys.append(key)

    def iterate(self, numbers: dict[int, int]) -> None:
        n = np.zeros((len(self._rows), self._width), np.int32)
        n.flat[list(numbers)] = list(numbers.values())
        for i in self._rows_of(numbers):
            self._rows[i] = self._iterate(self._rows[i], n[i])
        jax.block_until_ready(self._rows)

    def evaluate(self, which: Sequence[int]) -> dict[int, dict[str, float]]:
        rows = {i: self._evaluate(self._keys[i], self._rows[i].without_buffers()) for i in self._rows_of(which)}
        rows = jax.device_get(rows)
        return {i: {name: float(x[i % self._width]) for name, x in rows[i // self._width].items()} for i in which}

    def state(self, which: int) -> TrainState:
        return self._of(which, self._rows[which // self._width])

    def without_buffers(self, which: int) -> TrainState:
        return self._of(which, self._rows[which // self._width].without_buffers())

    def _rows_of(self, which: Iterable[int]) -> list[int]:
        return sorted({i // self._width for i in which})

    def _of(self, which: int, row: TrainState) -> TrainState:
        device, place = divmod(which % self._width, self._each)
        return _pick(jax.tree.map(lambda x: x.addressable_data(device), row), place)


@jax.jit
def _pick(tree: TrainState, place: int) -> TrainState:
    return jax.tree.map(lambda x: x[place], tree)
