"""The configuration: typed classes that mirror the YAML in conf/, and the strict parser that fills them.

Hydra ends here. A script composes its YAML files with Hydra, calls `parse` once, and from then on works with
a frozen `IPDConfig` or `CoinConfig`. Every default lives in YAML, where each key is explained; this file
knows types, ranges and contradictions. Whatever is wrong is a `ConfigError`: one sentence that names the key,
its value and what is allowed.
"""

import dataclasses
import difflib
import functools
import math
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loqa.games.payoffs import PAYOFFS, TITLES, Payoffs, is_symmetric

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"
MISSING = "???"  # how OmegaConf writes a value that has to be given

# Keys and choices of the code published with the paper that this one does without.
DROPPED_KEYS = {
    "hp.game.gnumactions": "the Coin Game always has four moves",
    "hp.reset": "the resets of the published code are not part of this one",
    "reset": "the resets of the published code are not part of this one",
}
DROPPED_METHODS = {"loaded-ios": "that method of the published code is not part of this one"}


class RunError(RuntimeError):
    """Why a run cannot go on; the message is one sentence, for the user."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one sentence, in one line, for the user."""

    def __init__(self, sentence: str):
        super().__init__(" ".join(sentence.split()))


def _show(value: Any) -> str:
    """A value as in YAML, in one short line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _either(choices: tuple[str, ...] | list[str]) -> str:
    return ", ".join(choices[:-1]) + " or " + choices[-1] if len(choices) > 1 else choices[0]


# ----------------------------------------------------------------------------------------------------------
# Rules: what one YAML value may be. Each helper makes a dataclass field, so that a key is one line.
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """How the value of one key is read."""

    allowed: str  # completes the sentence "... but must be"
    read: Callable[[Any], Any]  # gives the Python value; ValueError (with or without a reason) refuses
    optional: bool = False  # null is allowed, and read as None
    key: str | None = None  # the name in YAML, where it is not the field's
    alias: str | None = None  # a second name in YAML
    networks: tuple[str, ...] | None = None  # the key exists only beside a `network` that is one of these


def _field(allowed: str, read: Callable[[Any], Any], optional: bool = False, **options: Any) -> Any:
    allowed += " or null" if optional else ""
    return dataclasses.field(metadata={"rule": Rule(allowed, read, optional, **options)})


def integer(low: int, high: float = math.inf, **options: Any) -> Any:
    """An integer from low to high, both included; 1e9 counts as one."""

    def read(value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:  # not isinstance: True is an int, too
            raise ValueError
        return value

    allowed = f"an integer of at least {low}" if high == math.inf else f"an integer from {low} to {high}"
    return _field(allowed, read, **options)


def real(low: float = -math.inf, high: float = math.inf, above: float = -math.inf, **options: Any) -> Any:
    """A finite number from low to high, both included, or greater than `above`."""

    def read(value: Any) -> float:
        if type(value) not in (int, float) or not (low <= value <= high and value > above):  # NaN fails, too
            raise ValueError
        if abs(value) > sys.float_info.max:
            raise ValueError
        return float(value)

    if above > -math.inf:
        allowed = f"a finite number above {above}"
    else:
        allowed = f"a finite number of at least {low}" if high == math.inf else f"a number from {low} to {high}"
    return _field(allowed, read, **options)


def choice(*choices: str, dropped: Mapping[str, str] | None = None, **options: Any) -> Any:
    """One of these strings; `dropped` gives the reason why others no longer are."""

    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError((dropped or {}).get(value, "") if isinstance(value, str) else "")
        return value

    return _field(_either(choices), read, **options)


def boolean(**options: Any) -> Any:
    """true or false."""

    def read(value: Any) -> bool:
        if value is not True and value is not False:
            raise ValueError
        return value

    return _field("true or false", read, **options)


def switch(**options: Any) -> Any:
    """enabled or disabled (or true or false), read as a bool: nothing outside this file sees these words."""

    def read(value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if value not in ("enabled", "disabled"):
            raise ValueError
        return value == "enabled"

    return _field("enabled or disabled", read, **options)


def text(**options: Any) -> Any:
    """A string that is not empty."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError
        return value

    return _field("a non-empty string", read, **options)


def texts(**options: Any) -> Any:
    """A list of strings, read as a tuple."""

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ValueError
        return tuple(value)

    return _field("a list of strings such as [coin,test]", read, **options)


PAYOFFS_ALLOWED = "two lists of four finite numbers (a player's rewards in CC, CD, DC, DD, its own action first)"


def payoffs(**options: Any) -> Any:
    """A list of four finite numbers for each of two players, read as tuples."""

    def read(value: Any) -> Payoffs:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError
        for row in value:
            if not isinstance(row, list | tuple) or len(row) != 4:
                raise ValueError
            if any(type(x) not in (int, float) or not abs(x) <= sys.float_info.max for x in row):  # NaN fails, too
                raise ValueError
        return tuple(tuple(map(float, row)) for row in value)

    return _field(PAYOFFS_ALLOWED, read, **options)


# ----------------------------------------------------------------------------------------------------------
# The classes. Attributes are named as the YAML keys, which have their explanations in conf/.
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ClipGrad:
    """hp.actor.train.clip_grad"""

    mode: str = choice("norm", "disabled")
    max_norm: float = real(above=0)

    @property
    def enabled(self) -> bool:
        """Whether gradients are clipped."""
        return self.mode == "norm"


@dataclass(frozen=True, kw_only=True)
class ActorTrain:
    """hp.actor.train"""

    optimizer: str = choice("adam", "sgd")
    lr_loss_actor: float = real(low=0)
    advantage: str = choice("TD0", "MC")
    stop_grad_advantage: bool = boolean()
    entropy_beta: float = real(low=0)
    clip_grad: ClipGrad
    separate: bool = switch()
    lr_loss_actor_agent: float = real(low=0)
    lr_loss_actor_opponent: float = real(low=0)


@dataclass(frozen=True, kw_only=True)
class IPDActor:
    """hp.actor of the IPD. What the chosen network does not have is None."""

    network: str = choice("logits", "mlp", "gru")
    hidden_size: int | None = integer(low=1, networks=("mlp", "gru"))
    layers_before_gru: int | None = integer(low=1, high=2, networks=("gru",))
    train: ActorTrain


@dataclass(frozen=True, kw_only=True)
class CoinActor:
    """hp.actor of the Coin Game, always recurrent."""

    hidden_size: int = integer(low=1)
    layers_before_gru: int = integer(low=1, high=2)
    train: ActorTrain


@dataclass(frozen=True, kw_only=True)
class QValueTrain:
    """hp.qvalue.train"""

    optimizer: str = choice("adam", "sgd")
    lr_loss_qvalue: float = real(low=0)
    target_ema_gamma: float = real(low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class ReplayBuffer:
    """hp.qvalue.replay_buffer"""

    enabled: bool = switch(key="mode")
    capacity: int = integer(low=1)


@dataclass(frozen=True, kw_only=True)
class QValue:
    """What hp.qvalue has in both games."""

    mode: str = choice("mean", "argmax")
    td_lambda: float = real(low=0, high=1)
    terminal: str = choice("zero", "bootstrap")
    time: str = choice("normalized", "raw")
    output_scale: float = real(above=0)
    train: QValueTrain
    replay_buffer: ReplayBuffer


@dataclass(frozen=True, kw_only=True)
class IPDQValue(QValue):
    """hp.qvalue of the IPD. What the chosen network does not have is None."""

    network: str = choice("mlp", "gru")
    hidden_size: int = integer(low=1)
    layers_before_gru: int | None = integer(low=1, high=2, networks=("gru",))


@dataclass(frozen=True, kw_only=True)
class CoinQValue(QValue):
    """hp.qvalue of the Coin Game, always recurrent."""

    hidden_size: int = integer(low=1)
    layers_before_gru: int = integer(low=1, high=2)


@dataclass(frozen=True, kw_only=True)
class DifferentiableOpponent:
    """hp.differentiable_opponent"""

    method: str = choice("loaded-dice", "n_step", dropped=DROPPED_METHODS)
    n_step: int = integer(low=2)
    discount: float = real(low=0, high=1)
    exclude_after_step: int = integer(low=0)
    differentiable_current_reward: bool = boolean()
    stop_grad_normalizing_constant: bool = switch()


@dataclass(frozen=True, kw_only=True)
class AgentReplayBuffer:
    """hp.agent_replay_buffer"""

    enabled: bool = switch(key="mode")
    capacity: int = integer(low=1)
    update_freq: int = integer(low=1)
    cur_agent_frac: float = real(low=0, high=1)
    opponents_per_batch: int | None = integer(low=1, optional=True)


@dataclass(frozen=True, kw_only=True)
class Game:
    """hp.game, the Coin Game's board and episode."""

    height: int = integer(low=1)
    width: int = integer(low=1)
    game_length: int = integer(low=1)


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What hp has in both games. Each game adds its actor, its qvalue and a `game_length`."""

    seed: int = integer(low=0, high=2**32 - 1)
    num_iterations: int = integer(low=1)
    max_env_steps: int | None = integer(low=1, optional=True)
    batch_size: int = integer(low=1)
    reward_discount: float = real(low=0, high=1)
    agent_0: str = choice("loqa", "naive")
    agent_1: str = choice("loqa", "naive")
    just_self_play: bool = boolean()
    op_softmax_temp: float = real(above=0)
    opponent_differentiation_weight: float = real(low=0)
    eval_every: int = integer(low=1)
    eval_episodes: int = integer(low=1)
    save_every: int = integer(low=1)
    checkpoint_every: int = integer(low=1)
    save_dir: str = text()
    init_from: str | None = text(optional=True)
    differentiable_opponent: DifferentiableOpponent
    agent_replay_buffer: AgentReplayBuffer

    @property
    def num_learners(self) -> int:
        """One agent that plays itself, or two that learn against each other."""
        return 1 if self.just_self_play else 2

    @property
    def env_steps_per_iteration(self) -> int:
        """Steps of the environment in one iteration; each learner plays episodes of its own."""
        return self.num_learners * self.batch_size * self.game_length

    @property
    def total_iterations(self) -> int:
        """num_iterations, or as many as fit in max_env_steps if those are fewer."""
        if self.max_env_steps is None:
            return self.num_iterations
        return min(self.num_iterations, self.max_env_steps // self.env_steps_per_iteration)


@dataclass(frozen=True, kw_only=True)
class IPDHyperparameters(Hyperparameters):
    """hp of ipd.py"""

    game_name: str = choice(*TITLES)
    payoffs: Payoffs | None = payoffs(optional=True)
    game_length: int = integer(low=1)
    epsilon_greedy: float = real(low=0, high=1)
    actor: IPDActor
    qvalue: IPDQValue

    @property
    def run_name(self) -> str:
        """The first words of the name of a run's directory."""
        return f"{self.game_name}_seed{self.seed}"

    @property
    def matrix_payoffs(self) -> Payoffs:
        """The payoffs of the game, named or custom."""
        return self.payoffs or PAYOFFS[self.game_name]


@dataclass(frozen=True, kw_only=True)
class CoinHyperparameters(Hyperparameters):
    """hp of coin_train.py"""

    game: Game
    stop_at: str | None = choice("weak", "medium", "strong", optional=True)
    actor: CoinActor
    qvalue: CoinQValue

    @property
    def game_length(self) -> int:
        """Steps of an episode."""
        return self.game.game_length

    @property
    def run_name(self) -> str:
        """The first words of the name of a run's directory."""
        return f"coin_{self.game.height}x{self.game.width}_seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """wandb"""

    state: bool = switch()
    mode: str = choice("online", "offline")
    project: str = text()
    entity: str | None = text(optional=True)
    group: str | None = text(optional=True)
    name: str | None = text(optional=True)
    tags: tuple[str, ...] = texts()
    dir: str | None = text(optional=True, alias="wandb_dir")


@dataclass(frozen=True, kw_only=True)
class JaxConfig:
    """jax"""

    jax_debug_nans: bool = boolean()
    jax_disable_jit: bool = boolean()


@dataclass(frozen=True, kw_only=True)
class IPDConfig:
    """The configuration of ipd.py: conf/ipd"""

    hp: IPDHyperparameters
    wandb: WandbConfig
    jax: JaxConfig
    resume: str | None = text(optional=True)


@dataclass(frozen=True, kw_only=True)
class CoinConfig:
    """The configuration of coin_train.py: conf/coin"""

    hp: CoinHyperparameters
    wandb: WandbConfig
    jax: JaxConfig
    resume: str | None = text(optional=True)


Config = TypeVar("Config", IPDConfig, CoinConfig)
SCRIPTS = {"ipd": IPDHyperparameters, "coin": CoinHyperparameters}


# ----------------------------------------------------------------------------------------------------------
# The parser
# ----------------------------------------------------------------------------------------------------------


def parse(cfg: DictConfig | Mapping, config_class: type[Config]) -> Config:
    """Reads what Hydra composed (or a plain dictionary) strictly into a config class.

    Raises:
        ConfigError: a key is unknown or missing, a value is not allowed, or two keys contradict each other.
    """
    if OmegaConf.is_config(cfg):
        try:
            cfg = OmegaConf.to_container(cfg, resolve=True)
        except OmegaConfBaseException as error:
            raw = OmegaConf.to_container(cfg, resolve=False)
            for part in str(error.full_key or "").split("."):
                raw = raw.get(part) if isinstance(raw, Mapping) else raw
            raise ConfigError(
                f"{error.full_key} is {_show(raw)}, but cannot be resolved: {_first_line(error)}"
            ) from None
    config = _parse_section(cfg, config_class, path="")
    for sentence in _contradictions(config.hp):
        raise ConfigError(sentence)
    return config


def parse_hp(script: str, hp: Mapping) -> Hyperparameters:
    """The `hp` part alone, such as that of a saved agent's description, for script "ipd" or "coin".

    Keys that it lacks, since an earlier version did not have them, have their defaults.

    Raises:
        ConfigError: as `parse`, but for missing keys.
    """
    if script not in SCRIPTS:
        raise ConfigError(f"the game is {_show(script)}, but must be {_either(list(SCRIPTS))}")
    return _parse_section(_filled(hp, _default_hp(script)), SCRIPTS[script], path="hp")


@functools.cache
def _default_hp(script: str) -> Mapping:
    # A preset with all keys; read without Hydra, which may be running.
    preset = {"ipd": "logits", "coin": "loqa_iclr"}[script]
    return OmegaConf.to_container(OmegaConf.load(CONF_DIR / script / "hp" / f"{preset}.yaml"))


def _filled(values: Any, defaults: Mapping) -> Any:
    """`values` with the keys of `defaults` that they lack, level by level."""
    if not isinstance(values, Mapping):
        return values
    filled = {
        key: _filled(values[key], default) if key in values and isinstance(default, Mapping) else default
        for key, default in defaults.items()
    }
    return filled | {key: value for key, value in values.items() if not isinstance(defaults.get(key), Mapping)}


def flat(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """A configuration in one level, its keys joined by dots."""
    keys = {}
    for key, value in tree.items():
        keys |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return keys


def rule_of(field: dataclasses.Field) -> Rule | None:
    """The rule of a field; None where the field is a section."""
    return field.metadata.get("rule")


def yaml_keys(section_class: type) -> dict[str, dataclasses.Field]:
    """The keys that a section has in YAML, without aliases, and the field each of them fills."""
    fields = dataclasses.fields(section_class)
    return {(rule_of(field) and rule_of(field).key) or field.name: field for field in fields}


def _parse_section(values: Any, section_class: type, path: str) -> Any:
    """One level of the tree; levels below it by recursion."""
    fields = yaml_keys(section_class)
    if not isinstance(values, Mapping):
        state = "is missing" if values == MISSING else f"is {_show(values)}"
        where = path or "the configuration"
        raise ConfigError(f"{where} {state}, but must have the keys {', '.join(fields)}")
    network = values.get("network")
    aliases = [rule_of(field).alias for field in fields.values() if rule_of(field)]
    for key, value in values.items():
        if key not in fields and key not in aliases:
            known = [key for key, field in fields.items() if _has_key(rule_of(field), network)]
            raise ConfigError(_unknown_key(_join(path, key), _show(value), path, known))

    parsed: dict[str, Any] = {}
    # `network` is declared, and so checked, before the keys that depend on it.
    for key, field in fields.items():
        key_path, value, rule = _join(path, key), values.get(key, MISSING), rule_of(field)
        if rule is None:
            parsed[field.name] = _parse_section(value, field.type, key_path)
        elif not _has_key(rule, network):
            if value != MISSING:
                raise ConfigError(_useless_key(key_path, _show(value), rule, network))
            parsed[field.name] = None
        elif rule.networks and value == MISSING:
            raise ConfigError(_network_needs_key(key_path, rule, network))
        elif rule.alias in values:
            parsed[field.name] = _read_aliased(values, key, path, rule)
        else:
            parsed[field.name] = _read(value, key_path, rule)
    return section_class(**parsed)


def _read(value: Any, path: str, rule: Rule) -> Any:
    if value is None and rule.optional:
        return None
    if isinstance(value, str) and value == MISSING:
        raise ConfigError(f"{path} is missing, but must be {rule.allowed}")
    try:
        return rule.read(value)
    except ValueError as error:
        reason = f" ({error})" if str(error) else ""
        raise ConfigError(f"{path} is {_show(value)}, but must be {rule.allowed}{reason}") from None


def _read_aliased(values: Mapping, key: str, path: str, rule: Rule) -> Any:
    """The value of a key with two names, of which one may be left out or null."""
    value = _read(values.get(key), _join(path, key), rule)
    alias_value = _read(values[rule.alias], _join(path, rule.alias), rule)
    if value is not None and alias_value is not None and value != alias_value:
        raise ConfigError(
            f"{_join(path, rule.alias)} is {_show(alias_value)}, but it is another name for "
            f"{_join(path, key)}, which is {_show(value)}: only one of them may be set"
        )
    return alias_value if value is None else value


def _has_key(rule: Rule | None, network: Any) -> bool:
    return rule is None or rule.networks is None or network in rule.networks


def _contradictions(hp: Hyperparameters) -> Iterator[str]:
    """A sentence for each combination of values that are allowed alone and not together."""
    opponent = hp.differentiable_opponent
    q_buffer = hp.qvalue.replay_buffer
    agent_buffer = hp.agent_replay_buffer

    if isinstance(hp, IPDHyperparameters):
        yield from _contradictions_of_the_payoffs(hp)
    if isinstance(hp, CoinHyperparameters) and hp.game.height * hp.game.width < 3:
        yield (
            f"hp.game.height is {hp.game.height} and hp.game.width is {hp.game.width}, but the board must "
            "have at least 3 cells, for two players and a coin"
        )
    if isinstance(hp, CoinHyperparameters) and hp.stop_at and hp.game.height != hp.game.width:
        yield (
            f"hp.stop_at is {hp.stop_at!r}, but must be null on a {hp.game.height}x{hp.game.width} board: the "
            "thresholds are of square ones"
        )
    if hp.max_env_steps is not None and hp.max_env_steps < hp.env_steps_per_iteration:
        yield (
            f"hp.max_env_steps is {hp.max_env_steps}, but must be at least {hp.env_steps_per_iteration}, "
            "the steps of one iteration"
        )
    for name in ("agent_0", "agent_1"):
        if hp.just_self_play and getattr(hp, name) == "naive":
            yield (
                f"hp.{name} is 'naive', but must be loqa where hp.just_self_play is true: a naive learner "
                "needs two learners (hp.just_self_play=false)"
            )
    if opponent.method == "n_step" and opponent.n_step > hp.game_length:
        yield (
            f"hp.differentiable_opponent.n_step is {opponent.n_step}, but must be at most {hp.game_length}, "
            "the game_length: no window fits in an episode"
        )
    if opponent.method == "n_step" and opponent.differentiable_current_reward:
        yield (
            "hp.differentiable_opponent.differentiable_current_reward is true, but must be false with method "
            "n_step, whose window starts after our simultaneous action"
        )
    if q_buffer.enabled and q_buffer.capacity < hp.batch_size:
        yield (
            f"hp.qvalue.replay_buffer.capacity is {q_buffer.capacity}, but must be at least {hp.batch_size}, "
            "the hp.batch_size, when the buffer is enabled"
        )

    if not agent_buffer.enabled and agent_buffer.cur_agent_frac > 0:
        yield (
            f"hp.agent_replay_buffer.cur_agent_frac is {agent_buffer.cur_agent_frac}, but must be 0 when "
            "hp.agent_replay_buffer.mode is disabled: all episodes are against the current agent then"
        )
    opponents = agent_buffer.opponents_per_batch
    if opponents is None:
        return
    subject = f"hp.agent_replay_buffer.opponents_per_batch is {opponents}"
    if not agent_buffer.enabled:
        yield f"{subject}, but must be null when hp.agent_replay_buffer.mode is disabled"
    if hp.batch_size % opponents:
        yield f"{subject}, but must divide hp.batch_size, which is {hp.batch_size}"
    episodes_each = hp.batch_size // opponents
    against_current = int(hp.batch_size * agent_buffer.cur_agent_frac)
    if against_current % episodes_each:
        yield (
            f"{subject}, so that each plays {episodes_each} episodes, but the {against_current} episodes of "
            f"hp.agent_replay_buffer.cur_agent_frac={agent_buffer.cur_agent_frac} must be a multiple of that"
        )


def _contradictions_of_the_payoffs(hp: IPDHyperparameters) -> Iterator[str]:
    name, shown = hp.game_name, _show([list(row) for row in hp.payoffs or ()])
    if name == "custom" and hp.payoffs is None:
        yield f"hp.payoffs is null, but must be {PAYOFFS_ALLOWED} where hp.game_name is custom"
    elif name != "custom" and hp.payoffs is not None:
        yield f"hp.payoffs is {shown}, but must be null where hp.game_name is {name}: only custom takes them"
    elif hp.just_self_play and not is_symmetric(hp.matrix_payoffs):
        game = f"hp.payoffs is {shown}" if name == "custom" else f"hp.game_name is {name}"
        yield (
            f"hp.just_self_play is true, but must be false where {game}: this game is not symmetric between the "
            "players (their rows of payoffs differ), so it needs two learners, one for each seat"
        )


# ----------------------------------------------------------------------------------------------------------
# Sentences
# ----------------------------------------------------------------------------------------------------------


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".").replace(". ", ": ")


def _unknown_key(key_path: str, value: str, section: str, known: list[str]) -> str:
    """`key_path` may lie more than one level below `section`, which is the last level that exists."""
    for dropped, reason in DROPPED_KEYS.items():
        if f"{key_path}.".startswith(f"{dropped}."):
            return f"{key_path} is {value}, but there is no such key: {reason}"
    where = section or "the configuration"
    if not known:
        return f"{key_path} is {value}, but {where} is a single value and has no keys"
    key = key_path[len(section) :].lstrip(".").split(".")[0]
    close = difflib.get_close_matches(key, known, n=1)
    suggestion = f" (did you mean {_join(section, close[0])}?)" if close else ""
    return f"{key_path} is {value}, but there is no such key{suggestion}: {where} has {', '.join(known)}"


def _useless_key(key_path: str, value: str, rule: Rule, network: Any) -> str:
    section = key_path.rpartition(".")[0]
    return (
        f"{key_path} is {value}, but would do nothing: {section}.network is {_show(network)}, and only "
        f"{_either(rule.networks)} has this key (to remove it from a preset: ~{key_path})"
    )


def _network_needs_key(key_path: str, rule: Rule, network: str) -> str:
    section = key_path.rpartition(".")[0]
    return (
        f"{key_path} is missing, but must be {rule.allowed} where {section}.network is {_show(network)}: "
        f"add +{key_path}=... or start from the preset hp={network}"
    )


def _explain(error: Exception) -> str:
    """An error of Hydra, OmegaConf or the YAML reader as one sentence."""
    message = str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name} is not valid YAML: {error.problem} in line {mark.line + 1}"
    if isinstance(error, yaml.YAMLError):
        return message
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        presets = _either(list(error.options))
        return f"{group} is {_show(name)}, but there is no such preset: it must be {presets}"
    if isinstance(error, OverrideParseException):
        problem = message.replace(f"Error parsing override '{error.override}'", "").strip().split("\n")[0]
        return f"the override {_show(error.override)} cannot be read ({problem}): it must be key=value"

    # The others have their key and value in their text only.
    match = re.search(r"To append to your config use \+(.+?)=(.*)", message, re.DOTALL)
    if match and isinstance(error.__cause__, OmegaConfBaseException):
        return _explain_unknown_key(*match.groups(), error.__cause__)
    match = re.search(r"An item is already at '(.+?)'.*remove \+ prefix: '.+?=(.*?)'\n", message, re.DOTALL)
    if match:
        return f"+{match[1]} is {match[2]}, but the key exists already and must be set without the +"
    match = re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)=(.*?)'(?:\n| requires)", message)
    if match:
        return (
            f"{match[1]} is {match[2]}, but must be a single value: quote it if it is one, or add -m to run "
            "the script once for each value"
        )
    match = re.fullmatch(r"Config group override must be a string or a list. Got (\w+)", message)
    if match:
        return f"the preset (hp=...) is of type {match[1]}, but must be the name of one"
    cause = f" ({_first_line(error.__cause__)})" if error.__cause__ else ""
    return _first_line(error) + cause


def _explain_unknown_key(key_path: str, value: str, cause: OmegaConfBaseException) -> str:
    """Hydra refused to override a key that the composed configuration does not have."""
    section = str(cause.full_key).rpartition(".")[0]
    known = [str(key) for key in cause.parent_node if key != "hydra"] if cause.parent_node is not None else []
    rule = _rule_of_network_key(key_path)
    if rule and "network" in known:  # a key that other networks have
        network = cause.parent_node["network"]
        if network in rule.networks:
            return f"{key_path} is {value}, but the preset has no such key yet: add it with +{key_path}={value}"
        return _useless_key(key_path, value, rule, network)
    return _unknown_key(key_path, value, section, known)


def _rule_of_network_key(key_path: str) -> Rule | None:
    field, section = None, IPDConfig  # the Coin Game has no such keys
    for key in key_path.split("."):
        field = yaml_keys(section).get(key) if dataclasses.is_dataclass(section) else None
        if field is None:
            return None
        section = field.type
    return rule_of(field) if rule_of(field) and rule_of(field).networks else None


# ----------------------------------------------------------------------------------------------------------
# Hydra
# ----------------------------------------------------------------------------------------------------------


def compose(script: str, overrides: list[str]) -> DictConfig:
    """What Hydra hands to a script, "ipd" or "coin", when it is called with these overrides.

    Raises:
        ConfigError: Hydra cannot compose it.
    """
    if script not in SCRIPTS:
        raise ConfigError(f"script is {_show(script)}, but must be ipd or coin")
    try:
        with hydra.initialize_config_dir(config_dir=str(CONF_DIR / script), version_base="1.3"):
            return hydra.compose("config", overrides=list(overrides))
    except Exception as error:
        if _is_about_the_config(error):
            raise ConfigError(_explain(error)) from None
        raise


def run_script(main: Callable[[], Any]) -> None:
    """Runs a script's `@hydra.main` function; an error that a user can understand ends it with one sentence.

    The sentence goes to stderr. The exit code is 2 for a configuration that cannot be used, and 1 for numbers that
    are not finite any more (`RunError`). Any other exception keeps its traceback.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints what it catches in its own way
    try:
        main()
    except Exception as error:
        if isinstance(error, OSError) and "/multirun" in str(error.filename):  # Hydra makes it for -m
            save_dir, reason = str(error.filename).rpartition("/multirun")[0], error.strerror
            error = ConfigError(f"hp.save_dir is {save_dir!r}, where no run can be written: {reason}")
        if isinstance(error, RunError):
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        if not _is_about_the_config(error):
            raise
        sentence = error if isinstance(error, ConfigError) else ConfigError(_explain(error))
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)
    finally:
        if sweep := sys.modules.get("loqa.tools.sweep"):  # Hydra imports it, unless the configuration is broken
            sweep.finish()


def multirun_name() -> str | None:
    """The name of the multirun that this job belongs to, or None."""
    if HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN:
        return Path(HydraConfig.get().sweep.dir).name
    return None


def command() -> str:
    """The command that runs this job again: of a multirun's job, it alone."""
    words = sys.argv
    if HydraConfig.initialized():
        job = HydraConfig.get()
        words = [f"{job.job.name}.py", *job.overrides.task]
    return shlex.join(["python", *without_resume(words)])


def without_resume(words: list[str]) -> list[str]:
    """The words of a command that say what to run, and not what to go on from."""
    return [word for word in words if not word.startswith(("resume=", "+resume="))]


def _is_about_the_config(error: Exception) -> bool:
    if isinstance(error, ConfigError | HydraException | OmegaConfBaseException | yaml.YAMLError):
        return True
    # Hydra refuses some values, such as hp=3, with a ValueError of its own.
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, ValueError) and Path(hydra.__file__).parent in Path(raised_in).parents


def apply_jax_options(options: JaxConfig) -> None:
    """Sets JAX's debugging flags, and the number of its threads where jobs run side by side."""
    import jax  # here, so that reading a configuration does not need it

    if HydraConfig.initialized() and "joblib" in HydraConfig.get().launcher.get("_target_", ""):
        # Jobs side by side share the cores: two with all of them each would only be in each other's way.
        cores, jobs = os.cpu_count(), HydraConfig.get().launcher.n_jobs
        os.environ.setdefault("PJRT_NPROC", str(max(1, cores // jobs) if jobs > 0 else 1))
    jax.config.update("jax_debug_nans", options.jax_debug_nans)
    jax.config.update("jax_disable_jit", options.jax_disable_jit)
