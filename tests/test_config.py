"""The configuration: presets, the commands of the paper, what is refused and with which sentence."""

import atexit
import copy
import functools
import itertools
import os
import re
import sys

import jax
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from pydantic import ValidationError

from loqa.run import launch
from loqa.run.agents import load_agent
from loqa.run.config import (
    CONF_DIR,
    CONFIGS,
    ConfigError,
    JaxConfig,
    differences_from_published,
    flat,
    parse,
    parse_hp,
    without_gone,
)
from loqa.run.launch import compose
from loqa.run.resources import apply_jax_options

PRESETS = [(script, path.stem) for script in CONFIGS for path in sorted((CONF_DIR / script / "hp").glob("*.yaml"))]
AGENTS = sorted((CONF_DIR.parent / "results").glob("**/agents/*.npz"))


def load(script, *overrides):
    return parse(compose(script, list(overrides)), CONFIGS[script])


def values(script, preset):
    return flat(OmegaConf.to_container(compose(script, [f"hp={preset}"]).hp))


def sentence_of(script, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(script, *overrides)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# -------------------------------------------------------------------------------------------------- presets


@pytest.mark.parametrize(("script", "preset"), PRESETS)
def test_every_preset_is_valid_and_has_all_keys_in_yaml(script, preset):
    composed = compose(script, [f"hp={preset}"])
    config = parse(composed, CONFIGS[script])
    assert config.hp.total_iterations == config.hp.num_iterations
    keys, composed_keys = flat(config.model_dump()).keys(), flat(OmegaConf.to_container(composed)).keys()
    constant = {"hp.actor.network", "hp.qvalue.network"} if script == "coin" else set()
    assert keys == composed_keys | constant  # no default is in Python


def test_presets_differ_in_these_keys_only():
    names = {name for script, name in PRESETS if script == "ipd"}
    others = {"lola", "pola", "advantage_alignment"}
    assert names == {"logits", "logits_published", "logits_calibrated", "mlp", "gru"} | others
    ours, published, calibrated, mlp, gru = (
        values("ipd", name) for name in ("logits", "logits_published", "logits_calibrated", "mlp", "gru")
    )
    centered = {"actor.train.center_q_values", "differentiable_opponent.center_q_values"}
    assert {key for key in ours if ours[key] != published[key]} == {*centered, "actor.train.stop_grad_advantage"}
    critic = {"td_lambda", "terminal", "time", "output_scale", "train.target_ema_gamma"}
    assert {key for key in ours if ours[key] != calibrated[key]} == {f"qvalue.{key}" for key in critic}
    for network in (mlp, gru):  # one learning rate for all
        assert all(network[key] == ours[key] for key in ours if "lr_loss" in key or key in centered)
    ours, published = (values("coin", name) for name in ("loqa_iclr", "loqa_iclr_published"))
    actor = {"advantage", "gae_lambda", "stop_grad_advantage", "kindness"}
    changes = {f"actor.train.{key}" for key in actor} | centered | {"differentiable_opponent.gae_lambda"}
    changes |= {"qvalue.td_lambda", "qvalue.terminal"}
    assert {key for key in ours if ours[key] != published[key]} == changes


@pytest.mark.parametrize(
    "name",
    [
        "shared/base_hp.yaml",
        "shared/base_config.yaml",
        "ipd/hp/logits_published.yaml",
        "coin/hp/loqa_iclr_published.yaml",
    ],
)
def test_every_key_is_explained_on_its_line(name):
    """In the file itself, or in the base that it starts from."""
    line_of = re.compile(r"^\s*(\w+):[^\S\n]*([^\s#].*)", re.MULTILINE)
    base = (CONF_DIR / "shared/base_hp.yaml").read_text()
    explained = set(re.findall(r"^\s*(\w+):.*\S\s+#\s*\S", base, re.MULTILINE))
    text = (CONF_DIR / name).read_text().split("\nhydra:")[0]
    keys = line_of.findall(text)
    assert len(keys) > 8
    for key, value in keys:
        assert re.search(r"\s#\s*\S", value) or ("hp/" in name and key in explained), f"no comment: {key}"


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


def assert_taken(script, words):
    """Each value of a command line is the configuration's; returns that."""
    config = load(script, *words)
    values = flat(config.model_dump())
    for key, value in (word.split("=") for word in words if word.startswith("hp.")):
        meaning = {"enabled": True, "disabled": False, "True": True, "False": False}.get(value, value)
        number = float(value) if re.fullmatch(r"[\d.e-]+", value) else value
        assert values[key] in (value, meaning, number), key
    return config


@pytest.mark.parametrize(
    ("script", "command", "tags"),
    [
        ("ipd", IPD_COMMAND, ["ipd_10_seeds"]),
        ("coin", COIN_COMMAND.format(tag="loqa_10_seeds", seed=45, size=3, batch_size=512), ["coin", "loqa_10_seeds"]),
        ("coin", COIN_COMMAND.format(tag="scalability", seed=46, size=7, batch_size=8192), ["coin", "scalability"]),
    ],
)
def test_the_papers_commands(script, command, tags):
    """The first two are our presets: what these change besides is where the run is logged."""
    config = assert_taken(script, command.replace('"', "").split())  # as the shell hands them over
    assert config.wandb.state is True and config.wandb.tags == tags
    assert (config.hp == load(script, f"hp.seed={config.hp.seed}").hp) == (config.hp.batch_size < 8192)


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
        ("hp.actor.train.separate=False", lambda c: c.hp.actor.train.separate, False),
        ("wandb.tags=[]", lambda c: c.wandb.tags, []),
        ("wandb.dir=/tmp/a", lambda c: c.wandb.dir, "/tmp/a"),
        ("wandb.wandb_dir=/tmp/b", lambda c: c.wandb.dir, "/tmp/b"),
        ("hp.save_dir=${wandb.mode}", lambda c: c.hp.save_dir, "online"),
        ("hp.save_dir=~/a=b c", lambda c: c.hp.save_dir, os.path.expanduser("~/a=b c")),
        ("--hp.seed=7", lambda c: c.hp.seed, 7),
        ("resume=5", lambda c: c.resume, "5"),
        ("hp.just_self_play=false", lambda c: c.hp.num_learners, 2),
        ("hp.just_self_play=false", lambda c: c.hp.env_steps_per_iteration, 2 * 2048 * 50),
        ("hp.max_env_steps=1126399", lambda c: c.hp.total_iterations, 10),
        ("hp.max_env_steps=1e12", lambda c: c.hp.total_iterations, 7000),
        ("hp.payoffs=null", lambda c: c.hp.matrix_payoffs, ((-1.0, -3.0, 0.0, -2.0),) * 2),
        ("hp=mlp", lambda c: (c.hp.actor.network, c.hp.actor.hidden_size), ("mlp", 8)),
        ("hp=gru", lambda c: (c.hp.actor.hidden_size, c.hp.actor.layers_before_gru), (32, 2)),
        ("hp=gru", lambda c: (c.hp.qvalue.network, c.hp.qvalue.layers_before_gru), ("gru", 2)),
    ],
)  # fmt: skip
def test_accepted(override, read, value):
    result = read(load("ipd", override))
    assert result == value
    assert type(result) is type(value)


def test_combinations_that_are_accepted():
    assert load("ipd", "wandb.dir=a", "wandb.wandb_dir=a").wandb.dir == "a"
    two = load("ipd", "hp.just_self_play=false", "hp.agent_1=naive").hp
    assert (two.is_naive(0), two.is_naive(1)) == (False, True)
    coin = load("coin", "hp.game.game_length=16", "hp.batch_size=10", "hp.just_self_play=false").hp
    assert (coin.game_length, coin.env_steps_per_iteration) == (16, 2 * 10 * 16)
    added = load("ipd", "hp.actor.network=gru", "+hp.actor.hidden_size=4", "+hp.actor.layers_before_gru=1").hp
    assert (added.actor.network, added.actor.hidden_size, added.actor.layers_before_gru) == ("gru", 4, 1)
    assert load("ipd", "hp=gru", "hp.actor.network=mlp", "~hp.actor.layers_before_gru").hp.actor.network == "mlp"
    custom = load("ipd", CUSTOM, "hp.payoffs=[[1,2,3,4],[1,3,2,4]]", "hp.just_self_play=false").hp
    assert custom.matrix_payoffs == ((1.0, 2.0, 3.0, 4.0), (1.0, 3.0, 2.0, 4.0))
    assert load("ipd", "hp.game_name=matching_pennies", "hp.just_self_play=false").hp.num_learners == 2
    shares = ("hp.agent_replay_buffer.opponents_per_batch=16", "hp.agent_replay_buffer.cur_agent_frac=0.25")
    assert load("coin", "hp.batch_size=64", *shares).hp.agent_replay_buffer.opponents_per_batch == 16


def test_a_plain_dictionary_is_enough_and_the_result_is_frozen():
    cfg = compose("ipd", ["hp.seed=7"])
    config = parse(OmegaConf.to_container(cfg, resolve=True), CONFIGS["ipd"])
    assert config == parse(cfg, CONFIGS["ipd"])
    with pytest.raises(ValidationError, match="frozen"):
        config.hp.seed = 1


def test_hp_of_an_earlier_version_has_the_defaults_of_what_it_lacks():
    assert parse_hp("ipd", {}) == load("ipd", "hp=logits_published").hp
    old = parse_hp("coin", {"seed": 7, "game": {"width": 5}, "agent_replay_buffer": {"mode": "disabled"}})
    assert (old.seed, old.game.width, old.game.height, old.agent_replay_buffer.mode) == (7, 5, 3, False)
    for hp, words in [({"nosuch": 1}, "hp.nosuch is 1"), ({"actor": 3}, "hp.actor is 3"), (None, "hp is null")]:
        with pytest.raises(ConfigError, match=words):
            parse_hp("ipd", hp)
    for read in (parse_hp, compose):
        with pytest.raises(ConfigError, match="'chess', but must be coin or ipd"):
            read("chess", {})


def test_saved_settings_are_read_where_the_base_preset_has_a_larger_network(monkeypatch):
    monkeypatch.setattr("loqa.run.config.base_preset", lambda script: "gru")
    for preset in ("logits", "mlp", "gru"):
        hp = load("ipd", f"hp={preset}").hp
        assert parse_hp("ipd", hp.model_dump()) == hp


@pytest.mark.parametrize("path", AGENTS[::5], ids=lambda path: path.parent.parent.name)
def test_saved_agents_are_read(path):
    _, description = load_agent(path)
    hp = parse_hp(description["game"], without_gone(description["hp"]))
    assert hp.seed == description["hp"]["seed"] and hp.actor.train.lr_loss_actor > 0


# ------------------------------------------------------------------------------------------ what is refused

CUSTOM = "hp.game_name=custom"

# Values that a key may not have, whatever the others are, and words of what is allowed.
OUT_OF_RANGE = """
ipd  hp.seed: -1 4294967296 | than or equal to
ipd  hp.seed: 1.5 null '42' true [1] | a valid integer
ipd  hp.num_iterations: inf | a valid integer
ipd  hp.batch_size: big | a valid integer
ipd  hp.num_iterations hp.max_env_steps hp.batch_size hp.eval_every hp.eval_episodes: 0 | 1
ipd  hp.save_every hp.checkpoint_every: 0 | 1
ipd  hp.game_length hp.qvalue.hidden_size hp.qvalue.replay_buffer.capacity hp.agent_replay_buffer.capacity: 0 | 1
ipd  hp.agent_replay_buffer.update_freq hp.agent_replay_buffer.opponents_per_batch: 0 | 1
coin hp.game.height hp.game.width hp.game.game_length hp.actor.hidden_size hp.qvalue.hidden_size: 0 | 1
coin hp.game.game_length hp.actor.hidden_size: 1.5 | a valid integer
coin hp.actor.layers_before_gru hp.qvalue.layers_before_gru: 0 3 | than or equal to
ipd  hp.differentiable_opponent.n_step: 1 | 2
ipd  hp.differentiable_opponent.exclude_after_step: -1 | 0
ipd  hp.reward_discount hp.epsilon_greedy hp.differentiable_opponent.discount: 1.01 -0.1 nan |
ipd  hp.qvalue.td_lambda hp.qvalue.train.target_ema_gamma hp.agent_replay_buffer.cur_agent_frac: 1.01 -0.1 |
ipd  hp.actor.train.gae_lambda hp.differentiable_opponent.gae_lambda: 1.01 -0.1 |
ipd  hp.actor.train.kindness: inf nan |
ipd  hp.epsilon_greedy: '0.2' true | a valid number
ipd  hp.op_softmax_temp hp.qvalue.output_scale hp.actor.train.clip_grad.max_norm: 0 inf |
ipd  hp.opponent_differentiation_weight hp.actor.train.lr_loss_actor hp.actor.train.entropy_beta: -1 inf fast |
ipd  hp.actor.train.lr_loss_actor_agent hp.actor.train.lr_loss_actor_opponent hp.qvalue.train.lr_loss_qvalue: -1 |
ipd  hp.save_dir: '' null 3 | string
ipd  hp.init_from resume wandb.project wandb.entity wandb.group wandb.name wandb.dir wandb.wandb_dir: '' 5 | string
ipd  wandb.tags: ipd | a list
ipd  hp.just_self_play jax.compilation_cache jax.jax_debug_nans jax.jax_disable_jit: 1 enabled | true or false
ipd  hp.actor.train.stop_grad_advantage hp.differentiable_opponent.differentiable_current_reward: 0 on | true or
ipd  hp.actor.train.separate hp.qvalue.replay_buffer.mode hp.agent_replay_buffer.mode: on 1 null | enabled or
ipd  wandb.state: maybe | enabled or
ipd  hp.differentiable_opponent.stop_grad_normalizing_constant: 1 | enabled or disabled
ipd  hp.game_name: chess null | 'chicken', 'stag_hunt', 'battle_of_the_sexes', 'matching_pennies' or 'custom'
ipd  hp.agent_0 hp.agent_1: dqn | 'loqa', 'naive', 'lola' or 'pola'
coin hp.stop_at: best | 'weak', 'medium' or 'strong'
ipd  hp.differentiable_opponent.method: dice loaded-ios | 'loaded-dice' or 'n_step'
ipd  hp.differentiable_opponent.method: loaded-ios | published code
ipd  hp.actor.network: cnn null | 'logits', 'mlp', 'gru'
ipd  hp.qvalue.network: logits | 'mlp', 'gru'
ipd  hp.actor.train.optimizer hp.qvalue.train.optimizer: adamw | 'adam' or 'sgd'
ipd  hp.actor.train.advantage: TD1 | 'TD0', 'MC' or 'GAE'
ipd  hp.actor.train.clip_grad.mode: value | 'norm' or 'disabled'
ipd  hp.qvalue.mode: max | 'mean' or 'argmax'
ipd  hp.qvalue.terminal: none | 'zero' or 'bootstrap'
ipd  hp.qvalue.time: both | 'normalized' or 'raw'
ipd  wandb.mode: disabled | 'online' or 'offline'
ipd  hp.payoffs: 3 chicken | a list
ipd  hp.actor hp.qvalue: 3 | must have keys of its own
coin hp.actor hp.game hp.differentiable_opponent hp wandb jax: loaded-dice | must have keys of its own
"""


@functools.cache
def default_tree(script):
    return OmegaConf.to_container(compose(script, []), resolve=True)


def with_value(script, key, value):
    """The configuration as a plain dictionary, with another value of a key."""
    tree = section = copy.deepcopy(default_tree(script))
    *above, last = key.split(".")
    for part in above:
        section = section[part]
    section[last] = value
    return tree


@pytest.mark.parametrize("line", OUT_OF_RANGE.strip().splitlines())
def test_a_value_that_is_not_allowed(line):
    keys, words, allowed = re.fullmatch(r"(.*): (.*?) \|(.*)", line).groups()
    script, *keys = keys.split()
    for key, word in itertools.product(keys, words.split()):
        value = OverridesParser.create().parse_override(f"{key}={word}").value()
        with pytest.raises(ConfigError) as caught:
            parse(with_value(script, key, value), CONFIGS[script])
        shown = "null" if value is None else word if isinstance(value, bool) else repr(value)
        assert str(caught.value).startswith(f"{key} is {shown}, but must ")
        assert allowed.strip() in str(caught.value)


@pytest.mark.parametrize("script", CONFIGS)
def test_every_key_is_checked_and_has_to_be_there(script):
    """Whatever the key, a list that holds a mapping is not a value of it."""
    for key in flat(default_tree(script)):
        with pytest.raises(ConfigError, match=f"^{re.escape(key)}(\\.0)? is .*, but must "):
            parse(with_value(script, key, [{"a": 1}]), CONFIGS[script])
        with pytest.raises(ConfigError, match=f"^{re.escape(key)} is missing"):
            tree = with_value(script, key, None)
            above, _, last = key.rpartition(".")
            section = functools.reduce(dict.__getitem__, above.split(".") if above else [], tree)
            del section[last]
            parse(tree, CONFIGS[script])


# Overrides that are wrong together, or in another way than their value, and words of the sentence, which has the
# first one's key, too. @n_step is hp.differentiable_opponent.method=n_step, @custom hp.game_name=custom, @past
# hp.agent_replay_buffer.
REFUSED = """
ipd --hp.seed 3 | '--hp.seed' has no value, but must be hp.seed=VALUE
ipd  hp.max_env_steps=102399 | is 102399, but must be at least 102400
ipd  hp.max_env_steps=102400 hp.just_self_play=false | is 102400, but must be at least 204800
ipd  hp.payoffs=null @custom | is null, but must be two lists of four numbers
ipd  hp.payoffs=[[1,2,3,4],[1,2,3,4]] | but must be null where hp.game_name is ipd: only custom takes them
ipd  hp.just_self_play=true @custom hp.payoffs=[[1,2,3,4],[1,3,2,4]] | must be false where hp.game_name is custom
ipd  hp.just_self_play=true hp.game_name=matching_pennies | is true, but must be false where
coin hp.stop_at=weak hp.game.width=4 | is 'weak', but must be null on a 3x4 board
coin hp.game.width=2 hp.game.height=1 | is 2, but must be larger where height is 1: a board needs 3 cells
ipd  hp.agent_0=naive | is 'naive', but must be loqa where hp.just_self_play is true
ipd  hp.differentiable_opponent.n_step=51 @n_step | is 51, but must be at most 50
ipd  @n_step hp.game_length=1 | is 'n_step', but must be loaded-dice where an episode has one step
ipd  hp.differentiable_opponent.differentiable_current_reward=true @n_step | is true, but must be false with
ipd  hp.qvalue.replay_buffer.capacity=2047 hp.qvalue.replay_buffer.mode=enabled | is 2047, but must be at
ipd  @past.cur_agent_frac=0.5 | is 0.5, but must be 0 when hp.agent_replay_buffer.mode is disabled
ipd  @past.opponents_per_batch=64 | is 64, but must be null when hp.agent_replay_buffer.mode is disabled
coin @past.opponents_per_batch=5 | is 5, but must be a divisor of hp.batch_size, 512
coin @past.opponents_per_batch=16 hp.batch_size=64 @past.cur_agent_frac=0.1 | 6 episodes, is a multiple of 4
ipd  wandb.wandb_dir=b wandb.dir=a | is 'b', but must be null or the same as wandb.dir, which is 'a'
ipd  hp.actor.network=gru | hp.actor.hidden_size is missing with network gru: add +hp.actor.hidden_size=... or
ipd  hp.actor.network=gru | start from the preset hp=gru
ipd  hp.actor.hidden_size=8 | is 8, but there is no such key: with network logits, the keys are network, train
ipd  hp.actor.network=mlp hp=gru | network, train, hidden_size (~ in front of a key removes it)
ipd  hp.actor.hidden_size=8 hp.actor.network=mlp | use +hp.actor.hidden_size=8
coin hp.actor.network=gru | Could not override
ipd  hp.seed=??? | is '???', but must be a valid integer
ipd  hp.seed=${nosuch} | cannot be resolved: Interpolation key 'nosuch' not found
ipd  ~hp.seed | hp.seed is missing
ipd  ~hp | hp is missing
ipd  hp.bach_size=3 | is 3, but there is no such key: did you mean batch_size?
ipd  hp.bach_size=3 hp=gru ~hp.seed hp.eval_every=5 launcher=joblib | is 3, but there is no such key
ipd  hp.actor.train.lr=1 | is 1, but there is no such key: the keys are optimizer, lr_loss_actor
ipd  hp.nosuch={deeper:1} | is {'deeper': 1}, but there is no such key: the keys are seed
ipd  hp.save_dirs='a\\nb' | did you mean save_dir?
ipd  hp.seed.x=3 | hp.seed is {'x': 3}, but must be a valid integer
ipd  hpp.seed=3 | hpp is {'seed': 3}, but there is no such key: did you mean hp?
ipd  seed=3 | is 3, but there is no such key: did you mean hp.seed?
ipd  hp.gae_lambda=1 | did you mean differentiable_opponent.gae_lambda or actor.train.gae_lambda?
ipd  +nosuch=3 | is 3, but there is no such key: the keys are wandb, jax, resume, hp
coin hp.epsilon_greedy=0.2 | is 0.2, but there is no such key
coin hp.game.gnumactions=4 | is 4, but there is no such key: the Coin Game always has four moves
ipd  hp.reset.mode=enabled | hp.reset is {'mode': 'enabled'}, but there is no such key: the resets of the published
ipd  +reset.mode=enabled | reset is {'mode': 'enabled'}, but there is no such key: the resets of the published code
ipd  hp.game_name=IPD | 'custom' (use ipd)
ipd  hp.differentiable_opponent.method=loaded-aa | (use loaded-dice with stop_grad_normalizing_constant=enabled)
ipd  hp.actor.model=gru | is 'gru', but there is no such key: use network
ipd  hp.optimizer=adam | is 'adam', but there is no such key: use hp.actor.train.optimizer and
coin hp.actor.train.lr_loss_agent=1 | is 1, but there is no such key: use lr_loss_actor_agent
ipd  hp=nosuch | is 'nosuch', but must be advantage_alignment or gru or logits
coin hp=logits | is 'logits', but must be advantage_alignment or lola or loqa_iclr
ipd  experiment=nosuch | is 'nosuch', but must be figure or naive
ipd  +hp.seed=3 | An item is already at
ipd  hp.seed=1,2 | To sweep over it, add --multirun
ipd  hp.seed=range(1,3) | requires --multirun
ipd  hp.seed=[1 | the override 'hp.seed=[1' cannot be read, but must be key=value
ipd  hydra.foo=3 | Could not override
"""
# What the configuration files of the published code give these keys.
PUBLISHED_VALUES = {
    "ipd": """seed=45 game_length=10 reward_discount=0.96 batch_size=32 eval_every=100 op_softmax_temp=1.0
        just_self_play=True epsilon_greedy=0.0 save_every=1000 save_dir=./experiments
        opponent_differentiation_weight=1.0 differentiable_opponent.method=loaded-dice differentiable_opponent.n_step=2
        differentiable_opponent.discount=0.9 differentiable_opponent.exclude_after_step=1e9
        differentiable_opponent.differentiable_current_reward=False actor.train.lr_loss_actor=1e-4
        actor.train.entropy_beta=0.0 actor.train.entropy_beta=0.2 actor.train.advantage=TD0 actor.train.optimizer=adam
        actor.train.clip_grad.mode=disabled actor.train.clip_grad.mode=norm actor.train.clip_grad.max_norm=10
        qvalue.mode=argmax qvalue.mode=mean qvalue.train.lr_loss_qvalue=1e-2 qvalue.train.target_ema_gamma=0.99
        qvalue.train.optimizer=adam qvalue.replay_buffer.mode=enabled qvalue.replay_buffer.capacity=1000
        agent_replay_buffer.mode=enabled agent_replay_buffer.capacity=1000 agent_replay_buffer.capacity=10000
        agent_replay_buffer.update_freq=10 agent_replay_buffer.cur_agent_frac=0""",
    "coin": """seed=45 reward_discount=0.96 batch_size=128 batch_size=8192 agent_0=loqa agent_1=loqa eval_every=100
        op_softmax_temp=1.0 game.height=3 game.width=3 game.game_length=50 save_dir=./experiments save_every=100
        actor.hidden_size=64 actor.layers_before_gru=1 actor.train.lr_loss_actor=3e-3 actor.train.optimizer=adam
        actor.train.advantage=TD0 actor.train.entropy_beta=0.05 actor.train.clip_grad.mode=norm
        actor.train.clip_grad.max_norm=1.0 actor.train.separate=disabled qvalue.hidden_size=64
        qvalue.layers_before_gru=2 qvalue.mode=mean qvalue.train.optimizer=adam qvalue.train.lr_loss_qvalue=1e-2
        qvalue.train.target_ema_gamma=0.99 qvalue.replay_buffer.mode=disabled qvalue.replay_buffer.capacity=1000
        differentiable_opponent.method=loaded-dice differentiable_opponent.discount=0.9
        differentiable_opponent.exclude_after_step=1e9
        differentiable_opponent.differentiable_current_reward=False
        differentiable_opponent.stop_grad_normalizing_constant=disabled agent_replay_buffer.mode=enabled
        agent_replay_buffer.capacity=1 agent_replay_buffer.update_freq=1 agent_replay_buffer.cur_agent_frac=0
        opponent_differentiation_weight=1.0 just_self_play=True""",
}


@pytest.mark.parametrize("script", PUBLISHED_VALUES)
def test_published_values_are_taken(script):
    words = [f"hp.{word}" for word in PUBLISHED_VALUES[script].split()]
    first = {word.split("=")[0]: word for word in reversed(words)}.values()  # of each key, its first value
    for some in (first, [word for word in words if word not in first]):
        assert_taken(script, some)


SHORT = {"@n_step": "hp.differentiable_opponent.method=n_step", "@custom": CUSTOM, "@past": "hp.agent_replay_buffer"}


@pytest.mark.parametrize("line", REFUSED.strip().splitlines())
def test_refused(line):
    command, words = line.split(" | ")
    for short, long in SHORT.items():
        command = command.replace(short, long)
    script, *overrides = command.split()
    sentence = sentence_of(script, *overrides)
    key = overrides[0].lstrip("+~").split("=")[0]
    assert words in sentence and key.rpartition(".")[0] in sentence


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("[]", ".0 is missing"),
        ("[1,2,3,4]", " is [1, 2, 3, 4], but must be shorter"),
        (
            "[[1,2],[3,4],[5,6],[7,8]]",
            " is [[1, 2], [3, 4], [5, 6], [7, 8]], but must be two lists of four numbers (a player's rewards in CC, "
            "CD, DC, DD, its own action first); of these four pairs they are [[1, 3, 5, 7], [2, 6, 4, 8]]",
        ),
        ("[[1,2,3,4],[1,2,3]]", ".1.3 is missing"),
        ("[[1,2,3,4],null]", ".1 is null, but must be a list"),
        ("{C:[1,2],D:[3,4]}", " is {'C': [1, 2], 'D': [3, 4]}, but must be a list"),
        ("[[1,2,3,4],[1,2,3,-inf]]", ".1.3 is -inf, but must be a finite number"),
        ("[[1,2,3,4],[1,2,3,'4']]", ".1.3 is '4', but must be a valid number"),
    ],
)
def test_refused_payoffs(rows, words):
    assert sentence_of("ipd", CUSTOM, f"hp.payoffs={rows}").startswith(f"hp.payoffs{words}")


# ------------------------------------------------------------------------------------------------- a script


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs a script that prints its seed; gives the exit code, stdout and stderr."""

    def train(name, cfg, experiment, group=None):
        if parse(cfg, CONFIGS[name]).hp.seed == 13:
            raise ValueError("a bug")
        print("seed", cfg.hp.seed)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
        code = 0
        try:
            launch.script("ipd", train)
        except SystemExit as end:
            code = end.code or 0
        return code, *capfd.readouterr()

    monkeypatch.setattr(launch, "train", train)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(atexit, "register", lambda *_: None)  # the table of a multirun
    return call


def test_a_script_runs_and_leaves_nothing_of_hydra_behind(run, tmp_path):
    assert run("hp.seed=5") == (0, "seed 5\n", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command, jobs, words",
    [
        ("hp.batch_size=0", "", "hp.batch_size is 0, but must be greater than or equal to 1"),
        ("hp=nosuch", "", "hp is 'nosuch', but must be "),
        ("-m hp.seed=1,-2", "job 1 of 2: hp.seed=1\nseed 1\n\njob 2 of 2: hp.seed=-2\n", "hp.seed is -2, but must be "),
        ("-m hp.save_dir=/dev/null/below", "", "hp.save_dir: "),
    ],
)
def test_a_script_prints_one_sentence(run, command, jobs, words):
    code, stdout, stderr = run(*command.split())
    assert (code, stdout.lstrip()) == (2, jobs) and "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith(f"error: {words}")


def test_a_bug_keeps_its_traceback(run):
    with pytest.raises(ValueError, match="a bug"):
        run("hp.seed=13")


def test_a_broken_file_is_named(run, tmp_path):
    (tmp_path / "mine" / "hp").mkdir(parents=True)
    (tmp_path / "mine" / "hp" / "broken.yaml").write_text("defaults: [logits, _self_]\nseed: [1\n")
    code, _, stderr = run("--config-dir", "mine", "hp=broken")
    assert (code, stderr.count("\n")) == (2, 1)
    assert "not valid YAML" in stderr and "broken.yaml" in stderr


def test_help_shows_presets_and_keys(run):
    code, stdout, _ = run("--help")
    assert code == 0 and "hp=gru " in stdout and "experiment=figure " in stdout
    assert re.search(r"batch_size: 2048\n", stdout) and re.search(r"td_lambda: .*# lambda of", stdout)
    code, stdout, _ = run("--cfg", "job", "hp.seed=5")  # Hydra's own option
    assert code == 0 and "seed: 5" in stdout


def test_a_launcher_has_jobs_to_launch(run):
    code, _, stderr = run("launcher=joblib", "hp.num_iterations=1")
    assert (code, stderr.count("\n")) == (2, 1)
    assert "launcher is 'joblib', but must be null without -m" in stderr


def test_a_launcher_that_is_not_installed_names_its_package(run):
    code, _, stderr = run("-m", "hydra/launcher=submitit_cloud", "hp.seed=1,2")
    assert (code, stderr.count("\n")) == (2, 1)
    assert "hydra/launcher is 'submitit_cloud', which is not installed: pip install hydra-submitit-launcher" in stderr


def test_what_ends_a_launcher_is_one_sentence(run, monkeypatch):
    def launch_jobs():
        raise RuntimeError('Could not detect "srun"')  # as submitit where there is no SLURM

    monkeypatch.setattr(launch.hydra, "main", lambda **_: lambda job: launch_jobs)
    assert run("hp.seed=1,2", "launcher=slurm", "-m") == (2, "", 'error: Could not detect "srun"\n')


def test_a_runs_directory_is_a_preset(run, tmp_path):
    """Of this script's game alone; with keys that other presets do not have, and without those that are gone."""
    saved = OmegaConf.to_container(compose("ipd", ["hp=gru", "hp.seed=3", "wandb.tags=[a]"]))
    saved["hp"]["actor"]["train"]["lr_decay_steps"] = saved["jax"]["processes"] = None
    place = tmp_path / "a=b, c" / "renamed"
    place.mkdir(parents=True)
    OmegaConf.save({"game": "ipd"} | saved, place / "config.yaml")
    for words in ([f"hp={place}"], [f"resume={place}"]):
        cfg = compose("ipd", [*words, "hp.actor.hidden_size=5", "wandb.wandb_dir=x"])
        config = parse(cfg, CONFIGS["ipd"])
        assert (config.hp.seed, config.hp.actor.hidden_size, config.hp.actor.network) == (3, 5, "gru")
        assert (config.wandb.tags, config.wandb.dir) == (["a"], "x")
        assert config.resume == (str(place) if "resume" in words[0] else None)
    with pytest.raises(ConfigError, match="is a run of the game ipd: it needs python ipd.py"):
        compose("coin", [f"hp={place}"])
    assert run(f"hp={place}", "hp.seed=8") == (0, "seed 8\n", "")


def test_what_a_preset_changes_in_the_published_settings():
    changes = lambda *overrides: differences_from_published("ipd", load("ipd", *overrides).hp)
    assert changes("hp=logits_published", "hp.seed=7") == []
    assert changes("hp=logits_published", "hp.qvalue.mode=argmax") == ["qvalue.mode='argmax'"]
    assert len(changes("hp=logits")) == 3


def test_jax_options(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    flags = ("jax_debug_nans", "jax_disable_jit", "jax_compilation_cache_dir")
    before = {name: getattr(jax.config, name) for name in flags}
    jax.config.update("jax_compilation_cache_dir", None)
    options = {"num_devices": 1, "jax_debug_nans": True, "jax_disable_jit": True}
    try:
        jax.config.update("jax_debug_nans", True)  # as by JAX_DEBUG_NANS
        apply_jax_options(JaxConfig(compilation_cache=False, **options | {"jax_debug_nans": False}))
        assert [getattr(jax.config, name) for name in flags] == [True, True, None]
        apply_jax_options(JaxConfig(compilation_cache=True, **options))
        assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "loqa"))
        jax.config.update("jax_compilation_cache_dir", "mine")  # as JAX_COMPILATION_CACHE_DIR does
        apply_jax_options(JaxConfig(compilation_cache=True, **options))
        assert jax.config.jax_compilation_cache_dir == "mine"
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as without a home
        apply_jax_options(JaxConfig(compilation_cache=True, **options))
        assert jax.config.jax_compilation_cache_dir is None
        monkeypatch.setattr(jax, "devices", lambda: 1 / 0)  # as with JAX_PLATFORMS=cuda without a GPU
        with pytest.raises(ConfigError, match="^JAX_PLATFORMS is '.*', but JAX finds no such device here"):
            apply_jax_options(JaxConfig(compilation_cache=False, **options))
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
