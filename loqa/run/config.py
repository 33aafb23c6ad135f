"""The configuration of a script: what Hydra composed from conf/, as typed classes.

Every default is in YAML, where each key is explained. Types, ranges and contradictions are in
`loqa.hyperparameters`, for `hp`, and here, for what surrounds a run. Whatever is wrong is a `ConfigError`: one
sentence that names the key, its value and what is allowed.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BeforeValidator, ValidationError

from loqa.games import GAMES
from loqa.hyperparameters import NETWORKS, NOT_COMPARED, RENAMED, Hyperparameters, Section, Switch, Text, flat, show
from loqa.run.terminal import reason
from loqa.scripts import CONF_DIR

# Where pydantic's own words would be about Python.
MUST_BE = {
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_long": "must be shorter",
    "string_pattern_mismatch": "must be a non-empty string",
    "model_type": "must have keys of its own",
    "model_attributes_type": "must have keys of its own",
}


class RunError(RuntimeError):
    """Why a run cannot continue, in one sentence, for the user."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one sentence, in one line, for the user."""

    def __init__(self, sentence: str):
        super().__init__(" ".join(sentence.split()))


class WandbConfig(Section):
    state: Switch
    mode: Literal["online", "offline"]
    project: Text | None
    entity: Text | None
    group: Text | None
    name: Text | None
    tags: list[str]
    wandb_dir: Text | None  # the published code's name for dir, which takes its value
    dir: Text | None

    def contradictions(self):
        if self.wandb_dir not in (None, self.dir):
            yield "wandb_dir", f"null or the same as wandb.dir, which is {show(self.dir)}"


def _number_of_devices(value: Any) -> int | str:
    if value != "auto" and (type(value) is not int or value < 1):
        raise ValueError("must be auto or an integer of at least 1")
    return value


class JaxConfig(Section):
    num_devices: Annotated[int | str, BeforeValidator(_number_of_devices)]
    compilation_cache: bool
    jax_debug_nans: bool
    jax_disable_jit: bool


HP = TypeVar("HP")


class Config(Section, Generic[HP]):
    wandb: WandbConfig
    jax: JaxConfig
    resume: Text | None
    hp: HP


CONFIGS = {name: Config[game.hyperparameters] for name, game in GAMES.items()}


def parse(cfg: DictConfig | Mapping, config_class: type[Config[HP]]) -> Config[HP]:
    """Reads what Hydra composed (or a plain dictionary) strictly into a config class, or raises ConfigError."""
    try:
        tree = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key} cannot be resolved: {str(error).splitlines()[0]}") from None
    return _validate(tree, config_class)


SIZES = ("hidden_size", "layers_before_gru")  # keys that not every network has
# Keys of earlier versions, which saved agents and runs still name; none of them changes what an agent is.
GONE = {"advantage_offset", "advantage_offset_end", "lr_initial_scale", "lr_decay_steps", "recency", "processes"}


def without_gone(tree: Any) -> Any:
    """Settings of an earlier version without the keys that are gone."""
    return {key: without_gone(x) for key, x in tree.items() if key not in GONE} if type(tree) is dict else tree


def parse_hp(script: str, hp: Mapping) -> Hyperparameters:
    """The `hp` part of a run's configuration, of a game by its name, or ConfigError; see `complete_hp`."""
    if script not in CONFIGS:
        raise ConfigError(f"the game is {show(script)}, but must be {' or '.join(CONFIGS)}")
    return _validate(complete_hp(script, hp), CONFIGS[script].model_fields["hp"].annotation, "hp")


def complete_hp(script: str, hp: Any) -> Any:
    """The `hp` part of a configuration; keys that an earlier version did not have get the published settings."""
    if not isinstance(hp, Mapping):
        return hp
    try:
        whole = OmegaConf.to_container(OmegaConf.merge(preset(script, base_preset(script)), hp))
    except OmegaConfBaseException as error:
        raise ConfigError(f"hp cannot be read: {str(error).splitlines()[0]}") from None
    for part in ("actor", "qvalue"):
        if isinstance(given := hp.get(part), Mapping) and "network" in given:  # with all sizes that it needs
            whole[part] = {key: x for key, x in whole[part].items() if key in given or key not in SIZES}
    return whole


def read_settings(directory: str | Path) -> dict[str, Any]:
    """What config.yaml of a run says, with its `hp`; ConfigError where it says nothing."""
    try:
        settings = yaml.safe_load((Path(directory) / "config.yaml").read_text(encoding="utf-8"))
        settings["hp"]  # or it is another configuration
        return settings
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        why = reason(error) if isinstance(error, OSError) else "it is not a configuration"
        raise ConfigError(f"{str(directory)!r}, which is not a run: config.yaml: {why}") from error


def base_preset(script: str) -> str:
    """The preset with all keys of a game: that of the published settings, or the one that is chosen where none is."""
    defaults = OmegaConf.load(CONF_DIR / script / "config.yaml").defaults
    chosen = next(entry.hp for entry in defaults if OmegaConf.is_dict(entry) and "hp" in entry)
    return GAMES[script].published or chosen


@functools.cache
def preset(script: str, name: str) -> DictConfig:
    """A preset of conf/ with all of its keys; read without Hydra, which may be running."""
    if name.startswith("/"):  # the first presets of all scripts start from it
        return OmegaConf.load(CONF_DIR / "shared" / "base_hp.yaml")
    keys = OmegaConf.load(CONF_DIR / script / "hp" / f"{name}.yaml")
    first, _ = keys.pop("defaults")  # Hydra's list of files, of which the last is this one
    return OmegaConf.merge(preset(script, first), keys)


def differences_from_published(script: str, hp: Hyperparameters) -> list[str]:
    """The keys that differ from the published settings, with their values in `hp`; not those of `NOT_COMPARED`."""
    published = flat(parse_hp(script, preset(script, GAMES[script].published)).model_dump())
    here = {key: x for key, x in flat(hp.model_dump()).items() if key not in NOT_COMPARED.union(GAMES[script].board)}
    return [f"{key}={show(value)}" for key, value in here.items() if value != published.get(key, value)]


def _validate(tree: Any, section: type[Section], *path: str) -> Any:
    """An object of the section's class; ConfigError with the first error of pydantic, in one line."""
    try:
        return section.model_validate(tree)
    except ValidationError as invalid:
        error = invalid.errors()[0]
    value, kind, loc = error["input"], error["type"], [str(part) for part in error["loc"]]
    network = next((part for part in loc if part in NETWORKS), None)  # pydantic puts it between the keys
    key = ".".join([*path, *(part for part in loc if part not in NETWORKS)])
    allowed = MUST_BE.get(kind) or error["msg"].removeprefix("Value error, ").replace("Input should", "must")
    if kind == "union_tag_not_found":
        raise ConfigError(f"{key}.network is missing")
    if kind == "missing":
        add = f" with network {network}: add +{key}=... or start from the preset hp={network}" if network else ""
        raise ConfigError(f"{key} is missing{add}")
    if kind == "union_tag_invalid":
        key, value, allowed = f"{key}.network", value["network"], f"must be one of {error['ctx']['expected_tags']}"
    if kind == "value_error" and not allowed.startswith("must"):  # a sentence of the section about a key of it
        raise ConfigError(f"{key}.{allowed}" if key else allowed)
    reason = f" ({RENAMED[value]})" if isinstance(value, str) and value in RENAMED else ""
    raise ConfigError(f"{key or 'the configuration'} is {show(value)}, but {allowed}{reason}")
