"""Each config key does something: the program of what it must change is another one.

An iteration of the scripts' own training step, tiny, is lowered with a key at two values, and nothing is compiled:
what the key's number does is tested where it is used. What both scripts share is tested on the IPD, which is smaller.
The keys that steer the loop or the files are in test_scripts.py, those of W&B in test_run.py.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import pytest
import setups

from ipd import make_iteration
from loqa import learner
from loqa.run.launch import compose

KEY = jax.random.key(0)
SMALL = {
    "ipd": ["hp.batch_size=4", "hp.game_length=4", "hp.qvalue.hidden_size=3", "hp.num_iterations=2"],
    "coin": ["hp.batch_size=4", "hp.game.game_length=3", "hp.actor.hidden_size=4", "hp.qvalue.hidden_size=3"],
}
PARTS = {
    "actor": lambda state: state.learners[0].params.actor,
    "qvalue": lambda state: state.learners[0].params.qvalue,
    "target": lambda state: state.learners[0].target_params,
    "the second actor": lambda state: state.learners[1].params.actor,
}


@cache
def program(script, part, *overrides):
    """What an iteration computes for a part of the state, as text."""
    hp = setups.make_hp(script, *SMALL[script], *overrides)
    agent = setups.make_agent(script, hp)
    iteration, state = make_iteration(hp, agent), jax.eval_shape(partial(learner.init, agent, hp), KEY)
    return jax.jit(lambda state: PARTS[part](iteration(state))).lower(state).as_text()


N_STEP = "hp.differentiable_opponent.method=n_step"
SEPARATE = "hp.actor.train.separate=enabled"
CLIP = "hp.actor.train.clip_grad.mode=norm"
PAST = ["hp.agent_replay_buffer.mode=enabled", "hp.agent_replay_buffer.update_freq=1"]
REPLAY = "hp.qvalue.replay_buffer.mode=enabled"
TWO = "hp.just_self_play=false"

# (what must change, the key at its other value, what else holds at both)
CASES = [
    ("actor", "hp.batch_size=5"),
    ("actor", "hp.reward_discount=0.5"),
    ("actor", "hp.agent_0=naive", TWO),
    ("actor", "hp.just_self_play=false"),
    ("actor", N_STEP),
    ("actor", "hp.differentiable_opponent.n_step=3", N_STEP),
    ("actor", "hp.differentiable_opponent.discount=0.2"),
    ("actor", "hp.differentiable_opponent.exclude_after_step=1"),
    ("actor", "hp.differentiable_opponent.differentiable_current_reward=true"),
    ("actor", "hp.differentiable_opponent.stop_grad_normalizing_constant=enabled"),
    ("actor", "hp.differentiable_opponent.center_q_values=false"),
    ("actor", "hp.differentiable_opponent.gae_lambda=0.5"),
    ("actor", "hp.actor.train.center_q_values=false"),
    ("actor", "hp.actor.train.optimizer=sgd"),
    ("actor", "hp.actor.train.advantage=MC"),
    ("actor", "hp.actor.train.gae_lambda=0.5", "hp.actor.train.advantage=GAE"),
    ("qvalue", "hp.qvalue.mode=argmax"),
    ("qvalue", "hp.qvalue.output_scale=3"),
    ("qvalue", "hp.qvalue.train.optimizer=sgd"),
    ("qvalue", REPLAY),
    ("qvalue", "hp.qvalue.replay_buffer.capacity=4", REPLAY),
    ("actor", "hp.agent_replay_buffer.update_freq=2", *PAST),
    ("actor", "hp.agent_replay_buffer.capacity=1", *PAST),
    ("actor", "hp.agent_replay_buffer.cur_agent_frac=1", *PAST),
    ("actor", "hp.op_softmax_temp=3"),
    ("actor", "hp.opponent_differentiation_weight=3"),
    ("actor", "hp.actor.train.kindness=0.5"),
    ("actor", "hp.actor.train.lr_loss_actor=0.2"),
    ("actor", "hp.actor.train.entropy_beta=2"),
    ("actor", CLIP),
    ("actor", "hp.actor.train.clip_grad.max_norm=1e-4", CLIP),
    ("qvalue", "hp.qvalue.train.lr_loss_qvalue=0.5"),
    ("target", "hp.qvalue.train.target_ema_gamma=0.5"),
    ("actor", "hp.epsilon_greedy=1"),
    ("actor", "hp.game_name=chicken"),
    ("actor", "hp.payoffs=[[1,0,2,-1],[1,0,2,-1]]", "hp.game_name=custom", "hp.payoffs=[[1,2,3,4],[1,2,3,4]]"),
    ("actor", "hp.game_length=5"),
    ("qvalue", "hp.qvalue.td_lambda=0.1"),
    ("qvalue", "hp.qvalue.terminal=zero"),
    ("qvalue", "hp.qvalue.time=normalized"),
    ("qvalue", "hp.actor.train.stop_grad_advantage=false"),
    ("actor", PAST[0]),
    ("actor", SEPARATE),
    ("actor", "hp.actor.train.lr_loss_actor_agent=0.01", SEPARATE),
    ("actor", "hp.actor.train.lr_loss_actor_opponent=0.01", SEPARATE),
    ("actor", "hp.agent_replay_buffer.opponents_per_batch=1", *PAST),
    ("the second actor", "hp.agent_1=naive", TWO),
]

ONE_EACH = "hp.agent_replay_buffer.opponents_per_batch=null"  # as many opponents as episodes, which are few here

# Keys that change the networks themselves: the shapes of their parameters.
SHAPES = [
    ("ipd", "actor", "hp=mlp"),
    ("ipd", "actor", "hp.actor.hidden_size=4", "hp=mlp"),
    ("ipd", "actor", "hp=gru", ONE_EACH),
    ("ipd", "actor", "hp.actor.layers_before_gru=1", "hp=gru", ONE_EACH),
    ("ipd", "qvalue", "hp.qvalue.layers_before_gru=1", "hp=gru", ONE_EACH),
    ("coin", "actor", "hp.game.height=4"),
    ("coin", "actor", "hp.game.width=4"),
    ("coin", "actor", "hp.actor.hidden_size=5"),
    ("coin", "actor", "hp.actor.layers_before_gru=1"),
    ("coin", "qvalue", "hp.qvalue.layers_before_gru=1"),
    ("ipd", "qvalue", "hp.qvalue.hidden_size=5"),
    ("coin", "qvalue", "hp.qvalue.hidden_size=5"),
]


@pytest.mark.parametrize(("script", "part", "changed", "common"), [(*c[:3], c[3:]) for c in SHAPES], ids=str)
def test_the_key_changes_the_network(script, part, changed, common):
    def shapes(*overrides):
        agent = setups.make_agent(script, setups.make_hp(script, *SMALL[script], *overrides))
        return jax.tree.map(jnp.shape, getattr(jax.eval_shape(agent.init, KEY), part))

    assert shapes(*common) != shapes(*common, changed)


@pytest.mark.parametrize(("part", "changed", "common"), [(*c[:2], c[2:]) for c in CASES], ids=str)
def test_the_key_changes_what_it_says(part, changed, common):
    assert program("ipd", part, *common) != program("ipd", part, *common, changed)


def test_a_key_changes_nothing_else():
    """So the comparison above can fail: what the critic alone uses leaves the policy's program as it is."""
    for key in ("hp.qvalue.td_lambda=0.1", "hp.qvalue.train.lr_loss_qvalue=0.5"):
        assert program("ipd", "actor") == program("ipd", "actor", key)


def test_the_coin_games_length():
    assert program("coin", "actor") != program("coin", "actor", "hp.game.game_length=4")


# Tested elsewhere: what steers the loop and the files, and names of what is not a number.
ELSEWHERE = {
    "hp.num_iterations", "hp.max_env_steps", "hp.eval_every", "hp.eval_episodes", "hp.save_every", "hp.save_dir",
    "hp.checkpoint_every", "hp.init_from", "hp.seed", "hp.actor.network", "hp.qvalue.network",
    "hp.game.game_length", "hp.stop_at", "hp.lookahead",
}  # fmt: skip


def test_every_key_is_tested():
    def leaves(tree, path):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}") if hasattr(value, "items") else [f"{path}.{key}"]

    tested = {changed.split("=")[0] for _, changed, *_ in [*CASES, *(case[1:] for case in SHAPES)]}
    everything = {key for script in SMALL for key in leaves(compose(script, []).hp, "hp")}
    missing = everything - tested - ELSEWHERE
    assert missing == set()
