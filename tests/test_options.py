"""Each config key does something: what it must change does change.

Two iterations of the scripts' own training step, tiny, with a key at two values. What both scripts share is
tested on the IPD, which compiles faster. The keys that
steer the loop or the files are in test_scripts.py, those of W&B in test_run.py.
"""

from functools import cache

import jax
import jax.numpy as jnp
import pytest
import setups

from ipd import make_iteration
from loqa import learner
from loqa.opponents import Opponents
from loqa.rollout import draw_noise, play
from loqa.run.launch import compose

SMALL = {
    "ipd": ["hp.actor.train.lr_loss_actor=0.1", "hp.batch_size=4", "hp.game_length=4", "hp.qvalue.hidden_size=3"],
    "coin": [
        "hp.actor.train.lr_loss_actor=0.1",
        "hp.batch_size=4",
        "hp.game.game_length=3",
        "hp.actor.hidden_size=4",
        "hp.qvalue.hidden_size=3",
    ],
}


def asymmetric(state):
    """A table of zeros has no gradient to tell some options apart."""
    bump = lambda x: x + jnp.linspace(-0.5, 0.5, x.size).reshape(x.shape)
    bumped = lambda me: me._replace(params=me.params._replace(actor=jax.tree.map(bump, me.params.actor)))
    return state._replace(learners=tuple(map(bumped, state.learners)))


@cache
def program(hp, agent):
    """Two iterations, of floats among the hyperparameters and the state."""

    def run(floats, state):
        iteration = make_iteration(setups.together(hp, floats), agent)
        return jax.lax.fori_loop(0, 2, lambda i, state: iteration(state), state)

    return jax.jit(run)


@cache
def after_two_iterations(script, *overrides):
    """The state after two iterations, from parameters that are not symmetric in the actions."""
    hp = setups.make_hp(script, *SMALL[script], "hp.num_iterations=2", *overrides)
    agent = setups.make_agent(script, hp)
    state = learner.init(agent, hp, jax.random.key(hp.seed))
    rest, floats = setups.apart(hp.model_copy(update={"seed": 0}))
    return program(rest, agent)(floats, asymmetric(state))


def parameters(state, part):
    params = state.learners[0].params
    return jax.tree.leaves(
        {"actor": params.actor, "qvalue": params.qvalue, "target": state.learners[0].target_params}[part]
    )


def differs(a, b, part):
    a, b = parameters(a, part), parameters(b, part)
    if [x.shape for x in a] != [x.shape for x in b]:
        return True
    return any(float(jnp.abs(x - y).max()) > 1e-7 for x, y in zip(a, b, strict=True))


N_STEP = "hp.differentiable_opponent.method=n_step"
SEPARATE = "hp.actor.train.separate=enabled"
CLIP = "hp.actor.train.clip_grad.mode=norm"
PAST = "hp.agent_replay_buffer.mode=enabled"
REPLAY = "hp.qvalue.replay_buffer.mode=enabled"
TWO = "hp.just_self_play=false"
# With Adam a first step hardly depends on the gradient's size: SGD shows what scales it.
SGD = "hp.actor.train.optimizer=sgd"

# (what must change, the key at its other value, what holds in both runs)
BOTH = [
    ("actor", "hp.seed=43"),
    ("actor", "hp.batch_size=5"),
    ("actor", "hp.reward_discount=0.5"),
    ("actor", "hp.agent_0=naive", TWO),
    ("actor", "hp.just_self_play=false"),
    ("actor", N_STEP, SGD),
    ("actor", "hp.differentiable_opponent.n_step=3", N_STEP, SGD),
    ("actor", "hp.differentiable_opponent.discount=0.2", SGD),
    ("actor", "hp.differentiable_opponent.exclude_after_step=1", SGD),
    ("actor", "hp.differentiable_opponent.differentiable_current_reward=true", SGD),
    ("actor", "hp.differentiable_opponent.stop_grad_normalizing_constant=enabled", SGD),
    ("actor", "hp.differentiable_opponent.center_q_values=false", SGD),
    ("actor", "hp.differentiable_opponent.gae_lambda=0.5", SGD),
    ("actor", "hp.actor.train.center_q_values=false", SGD),
    ("actor", "hp.actor.train.optimizer=sgd"),
    ("actor", "hp.actor.train.advantage=MC", SGD),
    ("actor", "hp.actor.train.gae_lambda=0.5", "hp.actor.train.advantage=GAE", SGD),
    ("qvalue", "hp.qvalue.mode=argmax"),
    ("qvalue", "hp.qvalue.output_scale=3"),
    ("qvalue", "hp.qvalue.train.optimizer=sgd"),
    ("qvalue", REPLAY),
    ("qvalue", "hp.qvalue.replay_buffer.capacity=4", REPLAY),
    ("actor", "hp.agent_replay_buffer.update_freq=1", PAST, "hp.agent_replay_buffer.update_freq=2"),
    ("actor", "hp.agent_replay_buffer.capacity=1", PAST, "hp.agent_replay_buffer.update_freq=1"),
    ("actor", "hp.agent_replay_buffer.cur_agent_frac=1", PAST, "hp.agent_replay_buffer.update_freq=2"),
]
CASES = [("ipd", *case) for case in BOTH]
# Floats: what must change, and the number in one run and in the other, all else as in the first.
FLOATS = {
    "hp.op_softmax_temp": ("actor", 1.0, 3.0),
    "hp.opponent_differentiation_weight": ("actor", 1.0, 3.0),
    "hp.actor.train.kindness": ("actor", 0.0, 0.5),
    "hp.actor.train.lr_loss_actor": ("actor", 0.1, 0.2),
    "hp.actor.train.entropy_beta": ("actor", 0.0, 2.0),
    "hp.actor.train.clip_grad.max_norm": ("actor", 1e3, 1e-4),
    "hp.qvalue.train.lr_loss_qvalue": ("qvalue", 0.01, 0.5),
    "hp.qvalue.train.target_ema_gamma": ("target", 0.0, 0.5),
    "hp.epsilon_greedy": ("actor", 0.2, 1.0),
}
FIRST = [f"{key}={first}" for key, (_, first, _) in FLOATS.items()]
CASES += [("ipd", part, f"{key}={other}", CLIP, SGD, *FIRST) for key, (part, _, other) in FLOATS.items()]
CASES += [
    ("ipd", "actor", "hp.game_name=chicken"),
    ("ipd", "actor", "hp.payoffs=[[1,0,2,-1],[1,0,2,-1]]", "hp.game_name=custom", "hp.payoffs=[[1,2,3,4],[1,2,3,4]]"),
    ("ipd", "actor", "hp.game_length=5"),
    ("ipd", "qvalue", "hp.qvalue.td_lambda=0.1"),
    ("ipd", "qvalue", "hp.qvalue.terminal=zero"),
    ("ipd", "qvalue", "hp.qvalue.time=normalized"),
    ("ipd", "qvalue", "hp.actor.train.stop_grad_advantage=false"),
    ("ipd", "actor", "hp.actor.train.clip_grad.mode=norm", "hp.actor.train.clip_grad.max_norm=1e-4", SGD),
    ("ipd", "actor", PAST),
    ("ipd", "actor", SEPARATE),
    ("ipd", "actor", "hp.actor.train.lr_loss_actor_agent=0.01", SEPARATE, SGD),
    ("ipd", "actor", "hp.actor.train.lr_loss_actor_opponent=0.01", SEPARATE, SGD),
    ("ipd", "actor", "hp.agent_replay_buffer.opponents_per_batch=1", PAST, "hp.agent_replay_buffer.update_freq=1"),
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
        return jax.tree.map(jnp.shape, getattr(jax.eval_shape(agent.init, jax.random.key(0)), part))

    assert shapes(*common) != shapes(*common, changed)


@pytest.mark.parametrize(("script", "part", "changed", "common"), [(*c[:3], c[3:]) for c in CASES], ids=str)
def test_the_key_changes_what_it_says(script, part, changed, common):
    before = after_two_iterations(script, *common)
    after = after_two_iterations(script, *common, changed)
    assert differs(before, after, part)


@pytest.mark.parametrize("length", [3, 5])
def test_the_coin_games_length(length):
    hp = setups.make_hp("coin", *SMALL["coin"], f"hp.game.game_length={length}")
    agent = setups.make_agent("coin", hp)
    assert agent.game_length == length and hp.env_steps_per_iteration == 4 * length

    def one_batch(key):
        params = agent.init(key)
        noise = draw_noise(key, hp.game_length, hp.batch_size)
        return play(agent.game, agent, params, Opponents.now(params), noise, hp.epsilon_greedy)

    assert jax.eval_shape(one_batch, jax.random.key(0)).mine.actions.shape == (length, 4)


def test_agent_1_can_be_naive():
    """The second learner's policy, not the first one's."""
    before, after = (after_two_iterations("ipd", TWO, f"hp.agent_1={kind}", SGD) for kind in ("loqa", "naive"))
    second = [jax.tree.leaves(state.learners[1].params.actor) for state in (before, after)]
    assert any(float(jnp.abs(x - y).max()) > 1e-7 for x, y in zip(*second, strict=True))


# Tested elsewhere: what steers the loop and the files, and names of what is not a number.
ELSEWHERE = {
    "hp.num_iterations", "hp.max_env_steps", "hp.eval_every", "hp.eval_episodes", "hp.save_every", "hp.save_dir",
    "hp.checkpoint_every", "hp.init_from", "hp.agent_1", "hp.actor.network", "hp.qvalue.network",
    "hp.game.game_length", "hp.stop_at", "hp.lookahead",
}  # fmt: skip


def test_every_key_is_tested():
    def leaves(tree, path):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}") if hasattr(value, "items") else [f"{path}.{key}"]

    tested = {changed.split("=")[0] for _, _, changed, *_ in CASES + SHAPES}
    everything = {key for script in SMALL for key in leaves(compose(script, []).hp, "hp")}
    missing = everything - tested - ELSEWHERE
    assert missing == set()
