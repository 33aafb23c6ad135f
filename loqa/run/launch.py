"""From a command line to a run: Hydra composes the configuration, and what is wrong with it becomes one line."""

import contextlib
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
import jax
import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loqa import learner
from loqa.game import GameSpec
from loqa.games import GAMES
from loqa.hyperparameters import show
from loqa.run import checkpoints, provenance, resources, together, trainer
from loqa.run.config import CONFIGS, ConfigError, JaxConfig, RunError, base_preset, parse
from loqa.run.run import Run
from loqa.run.terminal import reason
from loqa.run.together import Group
from loqa.run.trainer import Experiment
from loqa.run.words import for_hydra
from loqa.scripts import CONF_DIR

HYDRAS_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)
GROUPS = ("hp", "experiment", "smoke", "launcher")  # overrides of these choose a file in conf/

# JAX's own options, as its environment variables have them: they hold where the configuration asks for less.
FLAGS = ("jax_num_cpu_devices", "jax_debug_nans", "jax_disable_jit")
FROM_ENVIRONMENT = {name: getattr(jax.config, name) for name in FLAGS}


class SharedConf(SearchPathPlugin):
    """Hydra's plugin, by which it finds what all scripts share: by its file, whatever else is named conf."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("loqa", f"file://{CONF_DIR / 'shared'}")


Plugins.instance().register(SharedConf)


def compose(script: str, overrides: list[str]) -> DictConfig:
    """The configuration that Hydra composes for the script of a game with these overrides, or ConfigError."""
    if script not in CONFIGS:
        raise ConfigError(f"script is {show(script)}, but must be {' or '.join(CONFIGS)}")
    words = for_hydra(script, overrides)
    try:
        return _compose(script, words)
    except (*HYDRAS_ERRORS, ValueError) as error:
        raise ConfigError(_explain(error, script, words)) from None


def script(name: str, experiment: Callable[[GameSpec, Any], Experiment]) -> None:
    """Trains on the game of this name as the command line asks for; `experiment` is a function of game and `hp`.

    An error that a user can understand ends the process with one sentence on stderr. The exit code is 2 for a
    configuration that cannot be used, and 1 for a run that cannot continue. Other exceptions keep their traceback.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints what it catches in its own way
    began = False

    def fail(error: object) -> NoReturn:
        print(f"error: {ConfigError(str(error))}", file=sys.stderr)
        sys.exit(1 if isinstance(error, RunError) else 2)

    def job(cfg: DictConfig, group: Group | None = None) -> Path:
        nonlocal began
        began = True
        try:
            launcher = provenance.choice("hydra/launcher", "basic")
            if launcher != "basic" and not provenance.multirun_name():
                raise ConfigError(f"launcher is {show(launcher)}, but must be null without -m, which makes jobs")
            return train(name, cfg, experiment, group)
        except (RunError, ConfigError) as error:
            if provenance.multirun_name():
                raise  # to Hydra, for which this job failed: the others follow
            fail(error)

    job.__module__ = Path(sys.argv[0]).stem  # by which Hydra names the job
    if {"--help", "-h"} & {*sys.argv}:
        print(help_text(name))
        return
    try:
        sys.argv[1:] = for_hydra(name, sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(CONF_DIR / name), config_name="config")(job)()
    except (RunError, ConfigError) as error:
        fail(error)
    except (*HYDRAS_ERRORS, OSError, ValueError, RuntimeError) as error:
        if began and not isinstance(error, HYDRAS_ERRORS):
            raise
        fail(_explain(error, name, sys.argv[1:]))


def help_text(name: str) -> str:
    """The presets of a script, and its keys, each with its line of conf/."""
    lines = [f"{' '.join(provenance.program(sys.argv[0]))} KEY=VALUE ...    (options of Hydra: --hydra-help)", ""]
    for group in GROUPS:
        folder = CONF_DIR / ("shared" if group == "launcher" else name) / group
        for path in sorted(folder.glob("*.yaml")):
            head = re.match(r"(# @package.*\n)?((?:#.*\n)+)", path.read_text())[2].replace("\n# ", " ")
            choice, (first, *_) = f"{group}={path.stem}", re.split(r"\.(?: (?=[A-Z])|\s*$)", head[2:])
            lines.append(f"{choice:27}{first.removeprefix(f'{choice}: ')}")
    keys = ("shared/base_config.yaml", f"{name}/hp/{base_preset(name)}.yaml", "shared/base_hp.yaml")
    files = [(CONF_DIR / path).read_text().split("\nhydra:")[0].removeprefix("# @package _global_\n") for path in keys]
    head = f"# Below, in front of each key: hp. The values are those of hp={base_preset(name)}."
    return "\n".join([*lines, "", files[0], head, *files[1:]])


def train(
    name: str, cfg: DictConfig, experiment: Callable[[GameSpec, Any], Experiment], group: Group | None = None
) -> Path:
    """Trains as a composed configuration says, or resumes, with the runs of a group; returns the run's directory.

    Raises ConfigError if the configuration cannot be used, and RunError if the run cannot continue.
    """
    config = parse(cfg, CONFIGS[name])
    apply_jax_options(config.jax)
    if group:
        together.check(config.jax)
    parts = experiment(GAMES[name], config.hp)
    if config.hp.lookahead:
        parts = parts._replace(iteration=trainer.LEARNING_RULES[config.hp.agent_0](config.hp, parts.agent))
    new_state = partial(learner.init, parts.agent, config.hp, jax.random.key(0))
    resumed = checkpoints.find(config.resume, name, config.hp, new_state)
    if resumed and resumed.is_finished(config.hp):
        if changed := provenance.other_code(resumed.commit):
            changed = f" ({changed}; resume=new trains anew)"
        print(f"finished already: {resumed.directory}{changed}", flush=True)
        return resumed.directory
    option, side_by_side = config.jax.num_devices, group.size if group else 0
    num_devices, memory = resources.choose_devices(option, config.hp, jax.eval_shape(new_state), side_by_side)
    config_yaml = f"game: {name}\n{OmegaConf.to_yaml(cfg, resolve=True)}"
    with Run(name, config, config_yaml, resumed, num_devices, group) as run:
        run.log_line(memory)
        (group or trainer).train(config, parts, run)
    return run.directory


def _compose(script: str, overrides: list[str]) -> DictConfig:
    with hydra.initialize_config_dir(config_dir=str(CONF_DIR / script), version_base="1.3"):
        return hydra.compose("config", overrides=overrides)


def _explain(error: Exception, script: str, words: list[str]) -> str:
    """What went wrong before the job began, in one sentence; `words` are the command line."""
    if isinstance(error, yaml.YAMLError):
        return f"not valid YAML: {error}"
    if isinstance(error, OverrideParseException):
        quotes = "with quotes around what is no plain word"
        must = f"key=value, {quotes} (\"key='a=b'\")"
        return f"the override {show(error.override)} cannot be read, but must be {must}: {error}"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, preset = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher":
            package = f"hydra-{preset.split('_')[0]}-launcher"
            return f"{group} is {show(preset)}, which is not installed: pip install {package}"
        return f"{group} is {show(preset)}, but must be {' or '.join(error.options)}"
    if isinstance(error, OSError):
        return f"hp.save_dir: {error}"  # of a multirun
    if isinstance(error.__cause__, OmegaConfBaseException):
        # Hydra does not know a key. With the key added, it is `parse` that refuses it, and knows what was meant.
        with contextlib.suppress(*HYDRAS_ERRORS):
            try:
                parse(_compose(script, _with_keys_added(words)), CONFIGS[script])
            except ConfigError as refusal:
                return str(refusal)
    return f"{error} (in {shlex.join(words)})" if isinstance(error, ValueError) else str(error)


def _with_keys_added(words: list[str]) -> list[str]:
    """The overrides among the words of a command line, such that Hydra adds the keys that it does not know."""
    overrides = [word for word in words if not word.startswith("-") and ("=" in word or word.startswith("~"))]
    chooses = lambda key: key.startswith(("+", "~")) or key in GROUPS or "/" in key
    return [word if chooses(word.split("=")[0]) else f"++{word}" for word in overrides]


def apply_jax_options(options: JaxConfig) -> None:
    """Sets JAX's flags, its cache of programs, and the numbers of its threads and of the CPU's devices."""
    cores = resources.cores()
    if HydraConfig.initialized() and "joblib" in HydraConfig.get().launcher.get("_target_", ""):
        # Jobs side by side share the cores: two with all of them each would only be in each other's way.
        jobs = HydraConfig.get().launcher.n_jobs
        cores = max(1, cores // jobs) if jobs > 0 else 1
        os.environ.setdefault("PJRT_NPROC", str(cores))
    with contextlib.suppress(RuntimeError):  # a multirun's second job in this process has the first one's devices
        here = min(cores, resources.MOST_OF_CPU) if options.num_devices == "auto" else options.num_devices
        if options.num_devices != "auto" or FROM_ENVIRONMENT["jax_num_cpu_devices"] < 1:
            jax.config.update("jax_num_cpu_devices", here)
    if options.compilation_cache and not jax.config.jax_compilation_cache_dir:
        # By processor, because a home directory may be shared by machines whose programs differ.
        processor = re.sub(r"\W+", "-", provenance.processor())
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        if not home.startswith("~"):  # nobody's: without a cache then
            jax.config.update("jax_compilation_cache_dir", str(Path(home, "loqa", processor)))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        warnings.filterwarnings("ignore", ".*persistent compilation cache")  # a disk that is full or read-only
    for name in ("jax_debug_nans", "jax_disable_jit"):
        jax.config.update(name, getattr(options, name) or FROM_ENVIRONMENT[name])
    try:
        jax.devices()
    except Exception as error:  # noqa: BLE001 (a plugin's)
        platforms, why = os.environ.get("JAX_PLATFORMS", ""), str(error) and f" ({reason(error)})"
        raise ConfigError(f"JAX_PLATFORMS is {platforms!r}, but JAX finds no such device here{why}") from None
