"""LOQA (Aghajohari et al., ICLR 2024, arXiv 2405.01035) on the iterated prisoner's dilemma, from top to bottom.

    python ipd.py                        # the paper's figure, one seed
    python ipd.py hp=gru hp.seed=7       # another preset, another seed; all keys: conf/ipd
    python ipd.py hp.game_name=chicken   # another game of two players and two actions

LOQA is an actor-critic whose policy has a second loss. It assumes that the opponent plays a softmax of its
Q-values, and that these follow the returns that the opponent gets from us: by what we do after its action we
make that action more or less worth while to it. `make_iteration` is Algorithm 1; it calls Algorithm 2,
`agent_policy_loss` in loqa/losses.py. coin_train.py trains with the same functions; loqa/run has what surrounds
a run: its configuration, directory, checkpoints and W&B.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from loqa import devices, learner
from loqa.agent import Agent, AgentParams, Experience
from loqa.baselines import pola
from loqa.games import Game
from loqa.games.ipd import STATES, MatrixGame
from loqa.hyperparameters import Hyperparameters, IPDHyperparameters
from loqa.learner import LearnerState, TrainState
from loqa.losses import PolicyLoss, agent_policy_loss, center_q_values, q_value_loss
from loqa.metrics import Metrics, cooperation, learning_metrics, play_metrics
from loqa.opponents import Opponents, draw_opponents
from loqa.rollout import Episodes, draw_noise, play
from loqa.run import launch
from loqa.run.trainer import Experiment

# What the terminal shows of the metrics.
COLUMNS = {state: f"p_0_{state}_C" for state in STATES}
COLUMNS |= {"reward": "mean_rewards_0", "vs AD": "always_defect_0_mean_rewards_a"}


def policy_losses(hp: Hyperparameters, agent: Agent, params: AgentParams, episodes: Episodes) -> PolicyLoss:
    """The terms of the policy's loss (Algorithm 2), means over the batch; differentiable in `params`."""
    mine, opponent = agent.side(params, episodes.mine), episodes.opponent
    # Our deviation from the paper: the critic's mean error is optionally subtracted at each step.
    batch_mean = lambda x: devices.mean(x.mean(1))
    if hp.actor.train.center_q_values:
        mine = center_q_values(mine, hp.reward_discount, batch_mean)
    if hp.differentiable_opponent.center_q_values:
        opponent = center_q_values(opponent, hp.reward_discount, batch_mean)
    baseline = devices.mean(opponent.rewards.mean())
    terms = agent_policy_loss(mine, opponent, learner.policy_options(hp), baseline)
    return jax.tree.map(jnp.mean, terms)


def critic_loss(
    hp: Hyperparameters, agent: Agent, params: AgentParams, target_params: AgentParams, experience: Experience
) -> jax.Array:
    """The Q-network's loss, the mean over the batch: its Q-values against the target network's targets."""
    mine, target = agent.side(params, experience), agent.side(target_params, experience)
    options = {"discount": hp.reward_discount, "mode": hp.qvalue.mode, "td_lambda": hp.qvalue.td_lambda}
    options |= {"terminal_value": hp.qvalue.terminal == "bootstrap", "scale": hp.qvalue.output_scale}
    return q_value_loss(mine.q_values, target, **options).mean()


def make_iteration(hp: Hyperparameters, agent: Agent) -> Callable[[TrainState], TrainState]:
    """One iteration of LOQA (Algorithm 1), a pure function of the state."""

    def iteration(state: TrainState) -> TrainState:
        key = jax.random.fold_in(state.key, state.iteration)
        learners = tuple(learner.remember_agent(me, hp, state.iteration) for me in state.learners)
        state = state._replace(learners=learners)
        # In self-play there is one learner, and the other is itself. Of two learners each plays episodes of
        # its own against the other, and both learn from the same snapshot of each other.
        keys = jax.random.split(key, len(learners))
        learned = tuple(learn(state, seat, keys[seat]) for seat in range(len(learners)))
        return state._replace(iteration=state.iteration + 1, learners=learned)

    def learn(state: TrainState, seat: int, key: jax.Array) -> LearnerState:
        key_opponents, key_rollout, key_replay = jax.random.split(key, 3)
        me, other = state.learners[seat], state.learners[-1 - seat]

        # 1. Sample opponents: the other as it is, or with the agent replay buffer as it was.
        opponents = draw_opponents(key_opponents, other.params, other.past, hp)

        # 2. Roll out a batch of episodes; the learner is player 0 of the game as it is from its seat.
        noise = draw_noise(key_rollout, hp.game_length, hp.batch_size)
        episodes = play(agent.game.from_seat(seat), agent, me.params, opponents, noise, hp.epsilon_greedy)

        # 3. The policy: one step on the actor loss with its entropy bonus, plus LOQA's shaping of the opponent.
        def policy_loss(params: AgentParams) -> tuple[jax.Array, jax.Array]:
            terms = policy_losses(hp, agent, params, episodes)
            actor = terms.actor + hp.actor.train.entropy_beta * terms.negative_entropy
            if hp.is_naive(seat):
                return actor, jnp.zeros(())
            weight = jnp.where(learner.shaping_is_active(hp, state.iteration), hp.opponent_differentiation_weight, 0.0)
            return actor, weight * terms.shaping

        me = learner.step_policy(me, policy_loss, hp, state.iteration)

        # 4. The critic: one step on the same episodes, or on replayed ones.
        me, experience = learner.replay_episodes(me, episodes.mine, key_replay)
        target_params = me.target_params
        me = learner.step_critic(me, lambda params: critic_loss(hp, agent, params, target_params, experience), hp)

        # 5. The target network follows slowly.
        return learner.step_target(me, hp)

    return iteration


def make_evaluation(hp: Hyperparameters, agent: Agent) -> Callable[[jax.Array, TrainState], Metrics]:
    """What is logged: how the agents play, and how they learn. It has keys of its own: training ignores it."""

    def evaluation(key: jax.Array, state: TrainState) -> Metrics:
        key_play, key_learn = jax.random.split(jax.random.fold_in(key, state.iteration))
        metrics = play_metrics(key_play, hp, agent, state.learners)
        for seat, me in enumerate(state.learners):
            opponents = Opponents.now(state.learners[-1 - seat].params)
            noise = draw_noise(jax.random.fold_in(key_learn, seat), hp.game_length, hp.eval_episodes)
            episodes = play(agent.game.from_seat(seat), agent, me.params, opponents, noise, hp.epsilon_greedy)
            metrics |= learning_metrics(hp, agent, me, episodes, seat, policy_losses, critic_loss)
            if isinstance(agent.game, MatrixGame):
                metrics |= cooperation(agent, me, episodes.mine.observations, seat)
        return metrics

    return evaluation


def make_experiment(game: Game, hp: Hyperparameters, **shown: Any) -> Experiment:
    """What is trained and evaluated on a game; `shown`: the other fields of an `Experiment`."""
    agent = Agent.from_hp(game, hp)
    learning_rule = pola.make_iteration if hp.lookahead else make_iteration  # hp=lola and hp=pola, to compare with
    return Experiment(agent, learning_rule(hp, agent), make_evaluation(hp, agent), **shown)


def experiment(hp: IPDHyperparameters) -> Experiment:
    """The iterated prisoner's dilemma, or another matrix game, for the loop in loqa/run/trainer.py."""
    return make_experiment(MatrixGame.from_hp(hp), hp, columns=COLUMNS, progress_every=100)


if __name__ == "__main__":
    launch.script("ipd", experiment)
