"""From a command line to a run: Hydra composes the configuration, and what is wrong with it becomes one line."""

import contextlib
import functools
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
import jax
import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loqa import learner
from loqa.baselines import pola
from loqa.game import GameSpec
from loqa.games import GAMES
from loqa.hyperparameters import show
from loqa.run import checkpoints, provenance, resources, together, trainer
from loqa.run.agents import load_params
from loqa.run.config import CONFIGS, ConfigError, RunError, base_preset, complete_hp, parse, read_settings, without_gone
from loqa.run.run import Run
from loqa.run.terminal import OfSeed, short_path
from loqa.run.together import Group
from loqa.run.trainer import Experiment
from loqa.scripts import CONF_DIR

MakeExperiment = Callable[[GameSpec, Any], Experiment]  # of a game and its hyperparameters

HYDRAS_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)
print_once = functools.cache(partial(print, flush=True))  # what the jobs of a multirun would repeat
GROUPS = ("hp", "experiment", "smoke", "launcher")  # overrides of these choose a file in conf/
PATHS = ("hp.save_dir", "hp.init_from", "wandb.dir", "wandb.wandb_dir")  # keys of which the values are paths
KEYWORDS = ("auto", "new", "null")  # what `resume` may be beside a path
READ_BY_HYDRA = re.compile(r"[\w./,-]*|'.*'|\".*\"|.*\$\{.*", re.ASCII)  # as it stands; a comma is a sweep's


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


def script(name: str, experiment: MakeExperiment) -> None:
    """Trains on the game of this name as the command line asks for; `experiment` is a function of game and `hp`.

    An error that a user can understand ends the process with one sentence on stderr. The exit code is 2 for a
    configuration that cannot be used, and 1 for a run that cannot continue. Other exceptions keep their traceback.
    """
    if {"--help", "-h"} & {*sys.argv}:
        print(help_text(name))
        return
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints what it catches in its own way
    argv, began = sys.argv, False

    def job(cfg: DictConfig, group: Group | None = None) -> Path:
        nonlocal began
        began, sys.argv = True, argv  # a launcher may have started this process with other words
        try:
            launcher = provenance.choice("hydra/launcher", "basic")
            if launcher != "basic" and not provenance.multirun_name():
                raise ConfigError(f"launcher is {show(launcher)}, but must be null without -m, which makes jobs")
            return train(name, cfg, experiment, group)
        except (RunError, ConfigError) as error:
            if provenance.multirun_name():
                raise  # to Hydra, for which this job failed: the others follow
            _fail(error)

    job.__module__ = Path(argv[0]).stem  # by which Hydra names the job
    try:
        argv[1:] = for_hydra(name, argv[1:])
        hydra.main(version_base="1.3", config_path=str(CONF_DIR / name), config_name="config")(job)()
    except (RunError, ConfigError) as error:
        _fail(error)
    except (*HYDRAS_ERRORS, OSError, ValueError, RuntimeError) as error:
        if began and not isinstance(error, HYDRAS_ERRORS):
            raise
        _fail(_explain(error, name, argv[1:]))


def train(name: str, cfg: DictConfig, experiment: MakeExperiment, group: Group | None = None) -> Path:
    """Trains as a composed configuration says, or resumes, with the runs of a group; returns the run's directory.

    Raises ConfigError if the configuration cannot be used, and RunError if the run cannot continue.
    """
    config = parse(cfg, CONFIGS[name])
    hp = config.hp
    resources.apply_jax_options(config.jax)
    if group:
        together.check(config.jax)
    parts = experiment(GAMES[name], hp)
    if hp.lookahead:
        parts = parts._replace(iteration=pola.make_iteration(hp, parts.agent))
    new_state = partial(learner.init, parts.agent, hp, jax.random.key(0))
    resumed = checkpoints.find(config.resume, name, hp, new_state)
    if resumed and resumed.is_finished(hp):
        print(f"finished already: {short_path(resumed.directory)}", flush=True)
        if changed := provenance.other_code(resumed.summary().get("commits", [])):
            print_once(f"{changed}; resume=new trains anew")
        return resumed.directory
    if hp.init_from is not None and not resumed:
        load_params(hp.init_from, parts.agent)  # to refuse it before anything is written
    seeds = group.size if group else 0
    num_devices, memory = resources.choose_devices(config.jax.num_devices, hp, jax.eval_shape(new_state), seeds)
    terminal = OfSeed(hp, group.terminal) if group else None
    config_yaml = f"game: {name}\n{OmegaConf.to_yaml(cfg, resolve=True)}"
    with Run(name, config, config_yaml, resumed, num_devices, terminal) as run:
        run.log_line(memory)
        (group or trainer).train(config, parts, run)
    return run.directory


def help_text(name: str) -> str:
    """The presets of a script, and its keys, each with its line of conf/."""
    lines = [f"{' '.join(provenance.program())} KEY=VALUE ...    (options of Hydra: --hydra-help)", ""]
    for group in GROUPS:
        folder = CONF_DIR / ("shared" if group == "launcher" else name) / group
        for path in sorted(folder.glob("*.yaml")):
            comment = re.match(r"(# @package.*\n)?((?:#.*\n)*)", path.read_text())[2].replace("# ", "")
            short = textwrap.shorten(comment, 92, placeholder=" ...", break_on_hyphens=False)
            lines.append(f"{group}={path.stem}".ljust(27) + short)
    keys = ("shared/base_config.yaml", f"{name}/hp/{base_preset(name)}.yaml", "shared/base_hp.yaml")
    files = [(CONF_DIR / path).read_text().split("\nhydra:")[0].removeprefix("# @package _global_\n") for path in keys]
    head = f"# Below, in front of each key: hp. The values are those of hp={base_preset(name)}; --cfg job shows yours."
    return "\n".join([*lines, "", files[0], head, *files[1:]])


def for_hydra(script: str, words: list[str]) -> list[str]:
    """The words of a script's command line such that Hydra understands them, or ConfigError.

    `--hp.seed=1`, as a W&B sweep passes it, is `hp.seed=1`. A path that Hydra could not read is quoted. `hp=DIRECTORY`
    of a run starts from its settings, and `resume=DIRECTORY` continues with them.
    """
    words = [re.sub(r"^--(?=\w+\.[\w.]+=|(hp|resume|experiment|smoke|launcher)=)", "", word) for word in words]
    has_preset, read = any(word.startswith("hp=") for word in words), []
    for word in words:
        key, equals, value = word.partition("=")
        if re.match(r"--\w+\.\w", key) and not equals:
            raise ConfigError(f"the override {show(word)} has no value, but must be {key[2:]}=VALUE")
        if key == "hp.save_dir" and value.startswith("~"):  # where Hydra writes, too
            word = f"{key}={(value := os.path.expanduser(value))}"
        path = Path(os.path.expanduser(value.strip("'\"")))
        is_run = key in ("hp", "resume") and (path / "config.yaml").is_file()
        if is_run and (key == "hp" or not has_preset):
            read.append(f"hp={_quoted(_as_preset(script, path))}")
        if key == "resume" and value not in KEYWORDS or key in PATHS and not READ_BY_HYDRA.fullmatch(value):
            word = f"{key}={_quoted(value)}"
        read += [] if is_run and key == "hp" else [word]
    return sorted(read, key=lambda word: word not in ("-m", "--multirun"))  # which Hydra wants first


def _quoted(value: str) -> str:
    return value if value[:1] in ("'", '"') else "'" + value.replace("'", "\\'") + "'"


def _as_preset(script: str, directory: Path) -> str:
    """Makes the settings of a run a preset of this script for Hydra; returns its name, which is the path."""
    settings = without_gone(read_settings(directory))
    if (game := settings.get("game", script)) != script:
        command = f"python {GAMES[game].script or f'{game}.py'}" if game in GAMES else f"the script of {game}"
        raise ConfigError(f"{str(directory)!r} is a run of the game {game}: it needs {command}")
    parts = {part: settings.get(part) or {} for part in ("wandb", "jax")}
    if parts["wandb"].get("dir") == parts["wandb"].get("wandb_dir"):
        parts["wandb"].pop("dir", None)  # which takes the value of the other
    name = os.path.relpath(directory)  # Hydra finds no absolute one
    group, _, last = f"hp/{name}".rpartition("/")
    node = parts | {"hp": complete_hp(script, settings["hp"])}
    ConfigStore.instance().store(last, node, group, "_global_")
    return name


def _fail(error: object) -> NoReturn:
    print(f"error: {ConfigError(str(error))}", file=sys.stderr)
    sys.exit(1 if isinstance(error, RunError) else 2)


def _compose(script: str, overrides: list[str]) -> DictConfig:
    with hydra.initialize_config_dir(config_dir=str(CONF_DIR / script), version_base="1.3"):
        return hydra.compose("config", overrides=overrides)


def _explain(error: Exception, script: str, words: list[str]) -> str:
    """What went wrong before the job began, in one sentence; `words` are the command line."""
    if isinstance(error, yaml.YAMLError):
        return f"not valid YAML: {error}"
    if isinstance(error, OverrideParseException):
        must = "key=value, with quotes around what is no plain word (\"key='a=b'\")"
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
        # Hydra does not know a key. With the keys added, it is `parse` that refuses this one, and knows what was meant.
        overrides = [word for word in words if not word.startswith("-") and ("=" in word or word.startswith("~"))]
        chooses = lambda word: word.startswith(("+", "~")) or word.split("=")[0] in GROUPS or "/" in word.split("=")[0]
        with contextlib.suppress(*HYDRAS_ERRORS):
            try:
                parse(_compose(script, [word if chooses(word) else f"++{word}" for word in overrides]), CONFIGS[script])
            except ConfigError as refusal:
                return str(refusal)
    return f"{error} (in {shlex.join(words)})" if isinstance(error, ValueError) else str(error)
