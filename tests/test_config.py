"""The configuration: presets, the commands of the paper, what is refused and with which sentence."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from loqa.run.config import (
    CONF_DIR,
    CoinConfig,
    ConfigError,
    IPDConfig,
    JaxConfig,
    apply_jax_options,
    compose,
    parse,
    rule_of,
    yaml_keys,
)

CLASSES = {"ipd": IPDConfig, "coin": CoinConfig}
PRESETS = [(script, path.stem) for script in CLASSES for path in sorted((CONF_DIR / script / "hp").glob("*.yaml"))]


def load(script, *overrides):
    return parse(compose(script, list(overrides)), CLASSES[script])


def flatten(tree, path=""):
    """{"hp.actor.network": "logits", ...}: a list or an empty group is a leaf."""
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {
        leaf: value
        for key, below in tree.items()
        for leaf, value in flatten(below, f"{path}.{key}" if path else key).items()
    }


# -------------------------------------------------------------------------------------------------- presets


def test_there_are_presets_of_both_games():
    assert {("ipd", name) for name in ("logits", "logits_published", "mlp", "gru")} <= set(PRESETS)
    assert ("coin", "loqa_iclr") in PRESETS


@pytest.mark.parametrize(("script", "preset"), PRESETS)
def test_every_preset_is_valid(script, preset):
    config = load(script, f"hp={preset}")
    assert isinstance(config, CLASSES[script])
    assert config.hp.total_iterations == config.hp.num_iterations


@pytest.mark.parametrize(("script", "preset"), PRESETS)
def test_values_have_the_types_of_their_fields(script, preset):
    def check(section):
        for field in dataclasses.fields(section):
            value = getattr(section, field.name)
            if dataclasses.is_dataclass(value):
                assert type(value) is field.type
                check(value)
            elif isinstance(value, tuple):
                assert all(isinstance(item, str) for item in value)
            else:
                kinds = getattr(field.type, "__args__", (field.type,))
                assert type(value) in kinds, f"{field.name}: {value!r} is no {field.type}"

    check(load(script, f"hp={preset}"))


@pytest.mark.parametrize(("script", "preset"), PRESETS)
def test_yaml_and_dataclasses_have_the_same_keys(script, preset):
    def check(tree, section, path):
        absent = {key for key, field in yaml_keys(section).items() if rule_of(field) and rule_of(field).networks}
        aliases = {rule_of(field).alias for field in dataclasses.fields(section) if rule_of(field)}
        assert set(yaml_keys(section)) - absent <= set(tree) <= set(yaml_keys(section)) | aliases, path
        for key, field in yaml_keys(section).items():
            if dataclasses.is_dataclass(field.type):
                check(tree[key], field.type, f"{path}.{key}")

    check(OmegaConf.to_container(compose(script, [f"hp={preset}"])), CLASSES[script], script)


@pytest.mark.parametrize(
    "name", ["ipd/config.yaml", "ipd/hp/logits.yaml", "coin/config.yaml", "coin/hp/loqa_iclr.yaml"]
)
def test_every_key_is_explained_on_its_line(name):
    block = None
    explained = 0
    for line in (CONF_DIR / name).read_text().splitlines():
        if re.match(r"\w", line):
            block = line.split(":")[0]
        if block in ("hydra", "defaults") or not re.match(r"\s*\w+:\s*[^\s#]", line):
            continue
        assert re.search(r"\s#\s*\S", line), f"no comment: {line}"
        explained += 1
    assert explained > 8


def test_published_critic_differs_from_the_calibrated_one_in_these_keys_only():
    ours, published = (
        flatten(OmegaConf.to_container(compose("ipd", [f"hp={preset}"]).hp))
        for preset in ("logits", "logits_published")
    )
    assert ours.keys() == published.keys()
    assert {key for key in ours if ours[key] != published[key]} == {
        "actor.train.stop_grad_advantage",
        "qvalue.td_lambda",
        "qvalue.terminal",
        "qvalue.time",
        "qvalue.output_scale",
        "qvalue.train.target_ema_gamma",
    }


@pytest.mark.parametrize(
    ("preset", "differs"), [("mlp", {"actor"}), ("gru", {"actor", "qvalue", "agent_replay_buffer", "batch_size"})]
)
def test_other_presets_change_networks_buffers_and_the_batch_only(preset, differs):
    ours, other = (OmegaConf.to_container(compose("ipd", [f"hp={name}"]).hp) for name in ("logits", preset))
    assert {key for key in ours if ours[key] != other[key]} == differs


def test_loqa_calibrated_is_another_name():
    assert load("coin", "hp=loqa_calibrated").hp == load("coin", "hp=loqa_iclr").hp


# ------------------------------------------------------------------------------------- the paper's commands

IPD_COMMAND = (
    'wandb.state=enabled wandb.tags="[ipd_10_seeds]" hp=logits hp.eval_every=100 hp.batch_size=2048 '
    "hp.game_length=50 hp.qvalue.mode=mean hp.qvalue.train.lr_loss_qvalue=1e-2 "
    "hp.actor.train.lr_loss_actor=1e-3 hp.actor.train.entropy_beta=0.0 hp.seed=42 "
    "hp.agent_replay_buffer.mode=disabled hp.epsilon_greedy=0.2 hp.qvalue.replay_buffer.mode=disabled"
)
COIN_COMMAND = (
    'hp=loqa_iclr wandb.state=enabled wandb.tags="[coin,{tag}]" hp.seed={seed} hp.game.width={size} '
    "hp.game.height={size} hp.batch_size={batch_size} hp.save_every=1000 hp.actor.train.lr_loss_actor=0.001 "
    "hp.qvalue.train.lr_loss_qvalue=0.01 hp.actor.train.entropy_beta=0.1 hp.actor.layers_before_gru=2 "
    "hp.actor.hidden_size=128 hp.agent_replay_buffer.mode=enabled hp.agent_replay_buffer.capacity=10000 "
    "hp.agent_replay_buffer.update_freq=10 hp.just_self_play=True"
)


def as_overrides(command):
    return command.replace('"', "").split()  # as the shell hands them over


def test_ipd_command():
    config = load("ipd", *as_overrides(IPD_COMMAND))
    hp = config.hp
    assert config.wandb.state is True
    assert config.wandb.tags == ("ipd_10_seeds",)
    assert (hp.seed, hp.eval_every, hp.batch_size, hp.game_length) == (42, 100, 2048, 50)
    assert (hp.actor.network, hp.actor.hidden_size, hp.actor.layers_before_gru) == ("logits", None, None)
    assert (hp.actor.train.lr_loss_actor, hp.actor.train.entropy_beta) == (0.001, 0.0)
    assert (hp.qvalue.mode, hp.qvalue.train.lr_loss_qvalue) == ("mean", 0.01)
    assert hp.epsilon_greedy == 0.2
    assert hp.agent_replay_buffer.enabled is False
    assert hp.qvalue.replay_buffer.enabled is False
    assert hp.actor.train.clip_grad.enabled is False
    assert hp.num_learners == 1
    assert hp.env_steps_per_iteration == 2048 * 50
    # The preset is this command: what it changes besides is where the run is logged.
    assert hp == load("ipd").hp


@pytest.mark.parametrize(
    ("tag", "seed", "size", "batch_size"), [("loqa_10_seeds", 45, 3, 512), ("scalability", 46, 7, 8192)]
)
def test_coin_commands(tag, seed, size, batch_size):
    command = COIN_COMMAND.format(tag=tag, seed=seed, size=size, batch_size=batch_size)
    config = load("coin", *as_overrides(command))
    hp = config.hp
    assert config.wandb.state is True
    assert config.wandb.tags == ("coin", tag)
    assert (hp.seed, hp.batch_size, hp.save_every) == (seed, batch_size, 1000)
    assert (hp.game.height, hp.game.width, hp.game_length) == (size, size, 50)
    assert (hp.actor.hidden_size, hp.actor.layers_before_gru) == (128, 2)
    assert (hp.actor.train.lr_loss_actor, hp.actor.train.entropy_beta) == (0.001, 0.1)
    assert hp.qvalue.train.lr_loss_qvalue == 0.01
    assert hp.actor.train.clip_grad.enabled is True
    buffer = hp.agent_replay_buffer
    assert (buffer.enabled, buffer.capacity, buffer.update_freq) == (True, 10000, 10)
    assert hp.just_self_play is True
    if tag == "loqa_10_seeds":
        assert dataclasses.replace(hp, seed=42) == load("coin").hp


# ----------------------------------------------------------------------------------------- what is accepted


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("hp.seed=4294967295", lambda c: c.hp.seed, 2**32 - 1),
        ("hp.batch_size=1e3", lambda c: c.hp.batch_size, 1000),
        ("hp.qvalue.replay_buffer.capacity=1e9", lambda c: c.hp.qvalue.replay_buffer.capacity, 10**9),
        ("hp.op_softmax_temp=2", lambda c: c.hp.op_softmax_temp, 2.0),
        ("hp.actor.train.lr_loss_actor=1e-2", lambda c: c.hp.actor.train.lr_loss_actor, 0.01),
        ("hp.actor.train.separate=enabled", lambda c: c.hp.actor.train.separate, True),
        ("hp.actor.train.separate=true", lambda c: c.hp.actor.train.separate, True),
        ("hp.actor.train.separate=False", lambda c: c.hp.actor.train.separate, False),
        ("hp.qvalue.replay_buffer.mode=enabled", lambda c: c.hp.qvalue.replay_buffer.enabled, True),
        ("wandb.state=true", lambda c: c.wandb.state, True),
        ("wandb.entity=me", lambda c: c.wandb.entity, "me"),
        ("wandb.tags=[]", lambda c: c.wandb.tags, ()),
        ("wandb.dir=/tmp/a", lambda c: c.wandb.dir, "/tmp/a"),
        ("wandb.wandb_dir=/tmp/b", lambda c: c.wandb.dir, "/tmp/b"),
        ("hp.save_dir=${wandb.project}", lambda c: c.hp.save_dir, "loqa"),
        ("hp.just_self_play=false", lambda c: c.hp.num_learners, 2),
        ("hp.just_self_play=false", lambda c: c.hp.env_steps_per_iteration, 2 * 2048 * 50),
        ("hp.max_env_steps=1024000", lambda c: c.hp.total_iterations, 10),
        ("hp.max_env_steps=1126399", lambda c: c.hp.total_iterations, 10),
        ("hp.max_env_steps=1e12", lambda c: c.hp.total_iterations, 7000),
        ("hp.num_iterations=3", lambda c: c.hp.total_iterations, 3),
    ],
)  # fmt: skip
def test_accepted(override, read, value):
    result = read(load("ipd", override))
    assert result == value
    assert type(result) is type(value)


def test_coin_counts_its_steps_as_the_ipd_does():
    hp = load("coin", "hp.game.game_length=16", "hp.batch_size=10", "hp.just_self_play=false").hp
    assert hp.game_length == 16
    assert hp.env_steps_per_iteration == 2 * 10 * 16


def test_wandb_dir_may_be_given_twice_if_it_is_the_same():
    wandb = load("ipd", "wandb.dir=a", "wandb.wandb_dir=a").wandb
    assert wandb.dir == "a"
    assert not hasattr(wandb, "wandb_dir")


def test_networks_of_the_ipd():
    mlp = load("ipd", "hp=mlp").hp
    assert (mlp.actor.network, mlp.actor.hidden_size, mlp.actor.layers_before_gru) == ("mlp", 8, None)
    gru = load("ipd", "hp=gru").hp
    assert (gru.actor.network, gru.actor.hidden_size, gru.actor.layers_before_gru) == ("gru", 32, 2)
    assert (gru.qvalue.network, gru.qvalue.layers_before_gru) == ("gru", 2)
    added = load("ipd", "hp.actor.network=gru", "+hp.actor.hidden_size=4", "+hp.actor.layers_before_gru=1").hp
    assert (added.actor.network, added.actor.hidden_size, added.actor.layers_before_gru) == ("gru", 4, 1)
    removed = load("ipd", "hp=gru", "hp.actor.network=mlp", "~hp.actor.layers_before_gru").hp
    assert (removed.actor.network, removed.actor.layers_before_gru) == ("mlp", None)


def test_a_plain_dictionary_is_enough():
    cfg = compose("ipd", ["hp.seed=7"])
    assert parse(OmegaConf.to_container(cfg), IPDConfig) == parse(cfg, IPDConfig)


def test_configs_are_frozen():
    config = load("ipd")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hp.seed = 1


def test_opponents_per_batch():
    shared = ["hp.batch_size=64", "hp.agent_replay_buffer.opponents_per_batch=16"]
    assert (
        load(
            "coin", *shared, "hp.agent_replay_buffer.cur_agent_frac=0.25"
        ).hp.agent_replay_buffer.opponents_per_batch
        == 16
    )
    with pytest.raises(ConfigError, match="opponents_per_batch is 16"):
        load("coin", *shared, "hp.agent_replay_buffer.cur_agent_frac=0.1")  # 6 episodes, in groups of 4


# ------------------------------------------------------------------------------------------ what is refused

# A line has the script, the overrides, and what the sentence must contain; the key and the value of the first
# override are looked for as well. @n_step stands for hp.differentiable_opponent.method=n_step.
REFUSED = """
ipd   hp.seed=-1                        | an integer from 0 to 4294967295
ipd   hp.seed=4294967296                | an integer from 0 to 4294967295
ipd   hp.seed=1.5                       | an integer
ipd   hp.seed=null                      | an integer
ipd   hp.seed='42'                      | an integer
ipd   hp.seed=true                      | an integer
ipd   hp.seed=[1]                       | an integer
ipd   hp.num_iterations=0               | an integer of at least 1
ipd   hp.num_iterations=inf             | an integer of at least 1
ipd   hp.max_env_steps=0                | an integer of at least 1 or null
ipd   hp.max_env_steps=102399           | at least 102400
ipd   hp.max_env_steps=102400 hp.just_self_play=false | at least 204800
ipd   hp.batch_size=0                   | hp.batch_size is 0, but must be an integer of at least 1
ipd   hp.batch_size=big                 | an integer of at least 1
ipd   hp.game_name=chess                | ipd, chicken, stag_hunt, battle_of_the_sexes, matching_pennies or custom
ipd   hp.game_name=null                 | ipd, chicken, stag_hunt
ipd   hp.game_name=custom               | hp.payoffs is null, but must be two lists of four finite numbers
ipd   hp.game_name=matching_pennies     | hp.just_self_play is true, but must be false where hp.game_name is
ipd   hp.game_name=battle_of_the_sexes  | hp.just_self_play is true, but must be false where hp.game_name is
coin  hp.stop_at=best                   | weak, medium or strong or null
coin  hp.stop_at=weak hp.game.width=4   | hp.stop_at is 'weak', but must be null on a 3x4 board
coin  hp.game_name=chicken              | there is no such key
ipd   hp.payoffs=3                      | two lists of four finite numbers
ipd   hp.payoffs=chicken                | two lists of four finite numbers
ipd   hp.game_length=0                  | an integer of at least 1
ipd   hp.reward_discount=1.01           | a number from 0 to 1
ipd   hp.reward_discount=-0.1           | a number from 0 to 1
ipd   hp.reward_discount=nan            | a number from 0 to 1
ipd   hp.agent_0=dqn                    | loqa or naive
ipd   hp.agent_0=naive                  | hp.just_self_play
ipd   hp.agent_1=naive                  | hp.just_self_play
coin  hp.agent_1=naive                  | hp.just_self_play
ipd   hp.just_self_play=1               | true or false
ipd   hp.just_self_play=enabled         | true or false
ipd   hp.op_softmax_temp=0              | a finite number above 0
ipd   hp.op_softmax_temp=inf            | a finite number above 0
ipd   hp.epsilon_greedy=2               | a number from 0 to 1
ipd   hp.epsilon_greedy='0.2'           | a number from 0 to 1
coin  hp.epsilon_greedy=0.2             | there is no such key
ipd   hp.opponent_differentiation_weight=-1 | a finite number of at least 0
ipd   hp.eval_every=0                   | an integer of at least 1
ipd   hp.save_every=0                   | an integer of at least 1
ipd   hp.save_dir=''                    | a non-empty string
ipd   hp.save_dir=3                     | a non-empty string
ipd   hp.differentiable_opponent.method=dice        | loaded-dice or n_step
ipd   hp.differentiable_opponent.method=loaded-ios  | published code
ipd   hp.differentiable_opponent.n_step=1           | an integer of at least 2
ipd   hp.differentiable_opponent.n_step=51 @n_step | at most 50
coin  hp.differentiable_opponent.n_step=9 @n_step hp.game.game_length=8 | at most 8
ipd   hp.differentiable_opponent.discount=1.5       | a number from 0 to 1
ipd   hp.differentiable_opponent.exclude_after_step=-1 | an integer of at least 0
ipd   hp.differentiable_opponent.differentiable_current_reward=0 | true or false
ipd   hp.differentiable_opponent.differentiable_current_reward=true @n_step | must be false with method n_step
ipd   hp.differentiable_opponent.stop_grad_normalizing_constant=1 | enabled or disabled
ipd   hp.differentiable_opponent=loaded-dice        | must have the keys method
ipd   hp.actor.network=cnn              | logits, mlp or gru
ipd   hp.actor.hidden_size=8            | mlp or gru
ipd   +hp.actor.hidden_size=8           | would do nothing
ipd   +hp.actor.hidden_size=0 hp=mlp    | exists already
ipd   hp.actor.hidden_size=0 hp=mlp     | an integer of at least 1
ipd   +hp.actor.layers_before_gru=2 hp=mlp | only gru
ipd   hp.actor.layers_before_gru=3 hp=gru  | an integer from 1 to 2
ipd   hp.actor.train.optimizer=rmsprop  | adam or sgd
ipd   hp.actor.train.lr_loss_actor=-1   | a finite number of at least 0
ipd   hp.actor.train.lr_loss_actor=fast | a finite number of at least 0
ipd   hp.actor.train.advantage=GAE      | TD0 or MC
ipd   hp.actor.train.stop_grad_advantage=disabled | true or false
ipd   hp.actor.train.entropy_beta=-0.1  | a finite number of at least 0
ipd   hp.actor.train.clip_grad.mode=value  | norm or disabled
ipd   hp.actor.train.clip_grad.max_norm=0  | a finite number above 0
ipd   hp.actor.train.separate=on        | enabled or disabled
ipd   hp.actor.train.lr_loss_actor_agent=-1    | a finite number of at least 0
ipd   hp.actor.train.lr_loss_actor_opponent=-1 | a finite number of at least 0
ipd   hp.qvalue.network=logits          | mlp or gru
ipd   hp.qvalue.hidden_size=0           | an integer of at least 1
ipd   +hp.qvalue.layers_before_gru=2    | would do nothing
ipd   hp.qvalue.mode=max                | mean or argmax
ipd   hp.qvalue.td_lambda=1.1           | a number from 0 to 1
ipd   hp.qvalue.terminal=none           | zero or bootstrap
ipd   hp.qvalue.time=both               | normalized or raw
ipd   hp.qvalue.output_scale=0          | a finite number above 0
ipd   hp.qvalue.train.optimizer=adamw   | adam or sgd
ipd   hp.qvalue.train.lr_loss_qvalue=-1 | a finite number of at least 0
ipd   hp.qvalue.train.target_ema_gamma=1.1     | a number from 0 to 1
ipd   hp.qvalue.replay_buffer.mode=full        | enabled or disabled
ipd   hp.qvalue.replay_buffer.capacity=0       | an integer of at least 1
ipd   hp.qvalue.replay_buffer.capacity=2047 hp.qvalue.replay_buffer.mode=enabled | at least 2048
coin  hp.agent_replay_buffer.mode=2            | enabled or disabled
coin  hp.agent_replay_buffer.capacity=0        | an integer of at least 1
coin  hp.agent_replay_buffer.update_freq=0     | an integer of at least 1
coin  hp.agent_replay_buffer.cur_agent_frac=2  | a number from 0 to 1
ipd   hp.agent_replay_buffer.cur_agent_frac=0.5      | hp.agent_replay_buffer.mode is disabled
coin  hp.agent_replay_buffer.opponents_per_batch=0   | an integer of at least 1 or null
coin  hp.agent_replay_buffer.opponents_per_batch=5   | must divide hp.batch_size
ipd   hp.agent_replay_buffer.opponents_per_batch=64  | hp.agent_replay_buffer.mode is disabled
coin  hp.game.height=0                  | an integer of at least 1
coin  hp.game.width=2 hp.game.height=1  | at least 3 cells
coin  hp.game.game_length=1.5           | an integer of at least 1
coin  hp.game=3                         | must have the keys height, width, game_length
coin  hp.actor.hidden_size=1.5          | an integer of at least 1
coin  hp.actor.layers_before_gru=0      | an integer from 1 to 2
coin  hp.qvalue.layers_before_gru=3     | an integer from 1 to 2
coin  hp.actor.network=gru              | hp.actor has hidden_size, layers_before_gru, train
ipd   wandb.state=maybe                 | enabled or disabled
ipd   wandb.mode=disabled               | online or offline
ipd   wandb.project=null                | a non-empty string
ipd   wandb.entity=5                    | a non-empty string or null
ipd   wandb.name=''                     | a non-empty string or null
ipd   wandb.tags=ipd                    | a list of strings
ipd   wandb.tags=[1]                    | a list of strings
ipd   wandb.wandb_dir=b wandb.dir=a     | wandb.dir, which is 'a'
ipd   wandb.wandb_dir=5                 | a non-empty string or null
ipd   jax.jax_debug_nans=disabled       | true or false
ipd   jax.jax_disable_jit=1             | true or false
ipd   hp.bach_size=3                    | did you mean hp.batch_size?
ipd   +hp.bach_size=3                   | did you mean hp.batch_size?
ipd   hp.actor.train.lr=1               | hp.actor.train has optimizer, lr_loss_actor
ipd   hp.nosuch.deeper=1                | hp has seed
ipd   hp.seed.x=3                       | hp.seed is a single value
ipd   hpp.seed=3                        | did you mean hp?
ipd   +nosuch=3                         | the configuration has hp, wandb, jax
coin  hp.game.gnumactions=4             | four moves
coin  +hp.game.gnumactions=4            | four moves
ipd   hp.reset.mode=enabled             | the resets of the published code
ipd   +reset.mode=enabled               | the resets of the published code
ipd   hp=nosuch                         | gru, logits, logits_published or mlp
coin  hp=logits                         | loqa_iclr
ipd   +hp.seed=3                        | must be set without the +
ipd   hp.seed=1,2                       | -m
ipd   hp.seed=${nosuch}                 | cannot be resolved
ipd   hp.seed=[1                        | key=value
"""


def refused_case(line):
    command, sentence = line.split("|")
    script, *overrides = command.replace("@", "hp.differentiable_opponent.method=").split()
    return pytest.param(script, overrides, sentence.strip(), id=" ".join([script, *overrides]))


@pytest.mark.parametrize(
    ("script", "overrides", "expected"), [refused_case(line) for line in REFUSED.strip().splitlines()]
)
def test_refused(script, overrides, expected):
    with pytest.raises(ConfigError) as caught:
        load(script, *overrides)
    sentence = str(caught.value)
    key, value = overrides[0].lstrip("+").split("=", maxsplit=1)
    assert len(sentence.splitlines()) == 1
    assert expected in sentence
    assert (key if not key.startswith("reset") else "reset") in sentence
    assert value.strip("'[]") in sentence


CUSTOM = "hp.game_name=custom"


@pytest.mark.parametrize(
    "payoffs",
    ["[]", "[1,2,3,4]", "[[1,2,3,4]]", "[[1,2,3,4],[1,2,3]]", "[[1,2,3,4],[1,2,3,4,5]]", "[[1,2,3,4],null]"]
    + ["[[1,2],[3,4],[1,2],[3,4]]", "[[1,2,3,nan],[1,2,3,nan]]", "[[1,2,3,4],[1,2,3,-inf]]"]
    + ["[[1,2,3,4],[1,2,3,x]]", "[[1,2,3,4],[1,2,3,true]]", "[[1,2,3,4],[1,2,3,null]]", "[[1,2,3,4],[1,2,3,'4']]"]
    + ["{C:[1,2],D:[3,4]}"],
)
def test_refused_payoffs(payoffs):
    with pytest.raises(ConfigError, match="^hp.payoffs is .*, but must be two lists of four finite .*null$"):
        load("ipd", CUSTOM, f"hp.payoffs={payoffs}")


def test_payoffs_are_for_custom_games_only():
    rows = "[[1,2,3,4],[1,2,3,4]]"
    for name in ("ipd", "chicken", "matching_pennies"):
        with pytest.raises(ConfigError, match=f"^hp.payoffs is .*, but must be null where hp.game_name is {name}"):
            load("ipd", f"hp.game_name={name}", f"hp.payoffs={rows}")
    assert load("ipd", CUSTOM, f"hp.payoffs={rows}").hp.matrix_payoffs == ((1.0, 2.0, 3.0, 4.0),) * 2
    assert load("ipd").hp.matrix_payoffs == ((-1.0, -3.0, 0.0, -2.0),) * 2


def test_a_game_that_is_not_symmetric_needs_two_learners():
    rows = "hp.payoffs=[[1,2,3,4],[1,3,2,4]]"
    with pytest.raises(ConfigError, match="^hp.just_self_play is true, but must be false where hp.payoffs is"):
        load("ipd", CUSTOM, rows)
    assert load("ipd", CUSTOM, rows, "hp.just_self_play=false").hp.num_learners == 2
    assert load("ipd", "hp.game_name=matching_pennies", "hp.just_self_play=false").hp.num_learners == 2


def test_a_key_that_is_not_there():
    for key in ("hp.seed", "hp.actor.train.clip_grad.mode", "wandb.tags", "jax.jax_disable_jit"):
        with pytest.raises(ConfigError, match=f"^{re.escape(key)} is missing, but must be "):
            load("ipd", f"~{key}")
    for key in ("hp", "hp.actor", "wandb"):
        with pytest.raises(ConfigError, match=f"^{re.escape(key)} is missing, but must have the keys "):
            load("ipd", f"~{key}")
    with pytest.raises(ConfigError, match="^hp.seed is missing"):
        load("ipd", "hp.seed=???")


def test_a_network_without_its_keys_says_what_to_add():
    with pytest.raises(ConfigError) as caught:
        load("ipd", "hp.actor.network=gru")
    assert "hp.actor.hidden_size is missing" in str(caught.value)
    assert "+hp.actor.hidden_size=" in str(caught.value)
    assert "hp=gru" in str(caught.value)
    with pytest.raises(ConfigError, match=r"\+hp.actor.hidden_size=8"):
        load("ipd", "hp.actor.network=mlp", "hp.actor.hidden_size=8")


def test_every_line_of_a_sentence_is_the_same_line():
    with pytest.raises(ConfigError) as caught:
        load("ipd", "hp.save_dirs='a\nb'")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cfg", [None, 3, [1], {}, {"hp": {}}, {"hp": None, "wandb": None, "jax": None}, {1: 2}])
def test_no_configuration_at_all(cfg):
    with pytest.raises(ConfigError):
        parse(cfg, IPDConfig)


def test_every_leaf_is_checked():
    """Whatever the key, a list that holds a mapping is not a value of it."""
    for script, config_class in CLASSES.items():
        cfg = compose(script, [])
        for key in flatten(OmegaConf.to_container(cfg)):
            bad = OmegaConf.to_container(cfg)
            *path, last = key.split(".")
            section = bad
            for part in path:
                section = section[part]
            section[last] = [{"a": 1}]
            with pytest.raises(ConfigError, match=f"^{re.escape(key)} is .*, but "):
                parse(bad, config_class)


def test_compose_knows_two_scripts():
    with pytest.raises(ConfigError, match="ipd or coin"):
        compose("chess", [])


# ----------------------------------------------------------------------------------------------- run_script

SCRIPT = f"""
import hydra
from loqa.run.config import IPDConfig, parse, run_script

@hydra.main(version_base="1.3", config_path={str(CONF_DIR / "ipd")!r}, config_name="config")
def main(cfg):
    config = parse(cfg, IPDConfig)
    if config.hp.seed == 13:
        raise ValueError("a bug")
    print("seed", config.hp.seed)

if __name__ == "__main__":
    run_script(main)
"""


@pytest.fixture
def run(tmp_path):
    """Runs a script that prints its seed; gives the exit code, stdout and stderr."""
    (tmp_path / "script.py").write_text(SCRIPT)
    env = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    env["PYTHONPATH"] = str(CONF_DIR.parent)

    def call(*arguments):
        command = [sys.executable, "script.py", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return call


def test_a_script_runs_and_leaves_nothing_of_hydra_behind(run, tmp_path):
    assert run("hp.seed=5") == (0, "seed 5\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


def test_a_script_prints_one_sentence(run):
    code, _, stderr = run("hp.batch_size=0")
    assert code == 2
    assert stderr.endswith("error: hp.batch_size is 0, but must be an integer of at least 1\n")
    assert "Traceback" not in stderr
    code, _, stderr = run("hp=nosuch")
    assert (code, stderr.count("\n")) == (2, 1)
    assert stderr.startswith("error: hp is 'nosuch'")


def test_a_bug_keeps_its_traceback(run):
    code, _, stderr = run("hp.seed=13")
    assert code not in (0, 2)
    assert "Traceback" in stderr
    assert "ValueError: a bug" in stderr


def test_multirun(run):
    code, out, _ = run("-m", "hp.seed=1,2")
    assert code == 0 and out.startswith("seed 1\nseed 2\n")
    code, stdout, stderr = run("-m", "hp.seed=1,-2")
    assert code == 2 and stdout.startswith("seed 1\n") and "2 jobs, 1 finished" in stdout
    assert "error: hp.seed is -2, but must be" in stderr
    assert "Traceback" not in stderr


def test_a_broken_file_is_named(run, tmp_path):
    (tmp_path / "mine" / "hp").mkdir(parents=True)
    (tmp_path / "mine" / "hp" / "broken.yaml").write_text("defaults: [logits, _self_]\nseed: [1\n")
    code, _, stderr = run("--config-dir", "mine", "hp=broken")
    assert (code, stderr.count("\n")) == (2, 1)
    assert "broken.yaml is not valid YAML" in stderr


def test_help_and_cfg(run):
    assert run("--help")[0] == 0
    code, stdout, _ = run("--cfg", "job", "hp.seed=5")
    assert code == 0
    assert "seed: 5" in stdout


def test_config_does_not_import_jax():
    code = "import sys, loqa.run.config; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=CONF_DIR.parent, check=True, timeout=120)


def test_jax_options():
    jax = pytest.importorskip("jax")
    before = JaxConfig(jax_debug_nans=jax.config.jax_debug_nans, jax_disable_jit=jax.config.jax_disable_jit)
    try:
        apply_jax_options(JaxConfig(jax_debug_nans=True, jax_disable_jit=True))
        assert jax.config.jax_debug_nans is True
        assert jax.config.jax_disable_jit is True
    finally:
        apply_jax_options(before)
