"""LOQA (Aghajohari et al., ICLR 2024, arXiv 2405.01035) on the iterated prisoner's dilemma, from top to bottom.

    python ipd.py                        # the paper's figure, one seed
    python ipd.py hp=gru hp.seed=7       # another preset, another seed; all keys: conf/ipd
    python ipd.py hp.game_name=chicken   # another game of two players and two actions

LOQA is an actor-critic whose policy has a second loss. It assumes that the opponent plays a softmax of its Q-values,
and that these follow its returns. Our response raises or lowers the return of the opponent's action, and so the
probability that it acts like this again. `make_iteration` is the paper's Algorithm 1. It calls Algorithm 2,
`agent_policy_loss` in loqa/losses.py. coin_train.py trains with the same functions. loqa/run has what surrounds a run:
its configuration, directory, checkpoints and W&B.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from loqa import devices, learner
from loqa.agent import Agent, AgentParams
from loqa.game import GameSpec
from loqa.hyperparameters import Hyperparameters
from loqa.learner import Iteration, LearnerState, TrainState
from loqa.losses import PolicyTerms, Side, agent_policy_loss, center_q_values, q_value_loss, q_value_targets
from loqa.metrics import Evaluation, Metrics, learning_metrics, play_metrics
from loqa.rollout import Episodes, Opponents, draw_noise, draw_opponents, play
from loqa.run import launch
from loqa.run.trainer import Experiment


def policy_terms(
    hp: Hyperparameters, agent: Agent, params: AgentParams, episodes: Episodes, seat: int = 0
) -> PolicyTerms:
    """The loss terms (Algorithm 2) of the learner in `seat`: means over the batch, differentiable in `params`."""
    mine, opponent = agent.side(params, episodes.mine), episodes.opponent
    # Not in the paper: the batch's mean error at each step is optionally subtracted from a player's Q-values.
    batch_mean = lambda x: devices.mean(x.mean(1))
    if hp.actor.train.center_q_values:
        mine = center_q_values(mine, hp.reward_discount, batch_mean)
    if hp.differentiable_opponent.center_q_values:
        opponent = center_q_values(opponent, hp.reward_discount, batch_mean)
    mean_reward = devices.mean(opponent.rewards.mean())
    terms = agent_policy_loss(mine, opponent, hp.policy_options(seat), reward_baseline=mean_reward)
    return jax.tree.map(jnp.mean, terms)


def policy_weights(hp: Hyperparameters, seat: int, iteration: jax.Array) -> PolicyTerms:
    """The weights of these terms in an iteration. None leaves a term out: a naive learner does not shape."""
    active = iteration < hp.differentiable_opponent.exclude_after_step
    shaping = None if hp.is_naive(seat) else jnp.where(active, hp.opponent_differentiation_weight, 0.0)
    return PolicyTerms(actor=1.0, shaping=shaping, negative_entropy=hp.actor.train.entropy_beta)


def policy_loss(
    hp: Hyperparameters, agent: Agent, episodes: Episodes, seat: int, params: AgentParams, weights: PolicyTerms
) -> tuple[jax.Array, PolicyTerms]:
    """The policy's loss as one number, the weighted sum of its terms; and the terms."""
    terms = policy_terms(hp, agent, params, episodes, seat)
    return sum(weight * term for weight, term in zip(weights, terms, strict=True) if weight is not None), terms


def critic_loss(hp: Hyperparameters, agent: Agent, params: AgentParams, target: AgentParams, mine: Side) -> jax.Array:
    """The Q-network's loss, the mean over the batch, with targets from the `target` parameters."""
    q_values, options = agent.side(params, mine).q_values, hp.qvalue
    targets = q_value_targets(
        agent.side(target, mine),
        discount=hp.reward_discount,
        mode=options.mode,
        td_lambda=options.td_lambda,
        terminal_value=options.terminal == "bootstrap",
    )
    return q_value_loss(q_values, mine.actions, targets, options.output_scale).mean()


def make_iteration(hp: Hyperparameters, agent: Agent) -> Iteration:
    """One iteration of LOQA, a pure function of the state: what Algorithm 1 repeats."""
    policy_optimizers = learner.policy_optimizers(hp.actor.train)
    critic_optimizer = learner.critic_optimizer(hp.qvalue.train)

    def iteration(state: TrainState) -> TrainState:
        # The agent replay buffer takes each learner as it is now.
        update_freq = hp.agent_replay_buffer.update_freq
        learners = tuple(learner.remember_agent(me, state.iteration, update_freq) for me in state.learners)
        state = state._replace(learners=learners)
        # In self-play one learner plays itself. Two learners each play episodes of their own against the other, and
        # both learn from the same snapshot of each other.
        keys = jax.random.split(jax.random.fold_in(state.key, state.iteration), len(learners))
        learned = tuple(learn(state, seat, keys[seat]) for seat in range(len(learners)))
        return state._replace(iteration=state.iteration + 1, learners=learned)

    def learn(state: TrainState, seat: int, key: jax.Array) -> LearnerState:
        key_opponents, key_rollout, key_replay = jax.random.split(key, 3)
        me, other = state.learners[seat], state.opponent_of(seat)

        # 1. Sample opponents: the other learner as it is, or past versions of it from the agent replay buffer.
        opponents = draw_opponents(key_opponents, other.params, other.past, hp.num_opponents, hp.num_current_opponents)

        # 2. Algorithm 1: run both policies for T steps. A batch of episodes, in which the learner is player 0.
        noise = draw_noise(key_rollout, hp.game_length, hp.batch_size)
        episodes = play(agent.game.from_seat(seat), agent, me.params, opponents, noise, hp.epsilon_greedy)

        # 3. Algorithm 1: a step on the agent's loss (Algorithm 2), the actor and entropy terms and the shaping term.
        # Where the advantage has a gradient, it moves the Q-network, too.
        loss = partial(policy_loss, hp, agent, episodes, seat)
        me = learner.step_policy(me, loss, policy_weights(hp, seat, state.iteration), policy_optimizers)

        # 4. Algorithm 1: a step on the Q-network's Huber loss, on the same episodes or on replayed ones.
        me, replayed = learner.replay_episodes(me, episodes.mine, key_replay)
        target = me.target_params
        me = learner.step_critic(me, lambda params: critic_loss(hp, agent, params, target, replayed), critic_optimizer)

        # 5. Algorithm 1: the target network is a moving average of the parameters.
        return learner.step_target(me, hp.qvalue.train.target_ema_gamma)

    return iteration


def make_evaluation(
    hp: Hyperparameters, agent: Agent, game_metrics: Callable[[Evaluation], Metrics]
) -> Callable[[jax.Array, TrainState], Metrics]:
    """The logged metrics: how the agents play, and how they learn. Uses separate keys, so it cannot affect training."""

    def evaluation(key: jax.Array, state: TrainState) -> Metrics:
        key_play, key_learn = jax.random.split(jax.random.fold_in(key, state.iteration))
        metrics, self_play = play_metrics(key_play, agent, state.learners, hp.eval_episodes)
        sides = []
        for seat, me in enumerate(state.learners):
            opponents = Opponents.now(state.opponent_of(seat).params)
            noise = draw_noise(jax.random.fold_in(key_learn, seat), hp.game_length, hp.eval_episodes)
            episodes = play(agent.game.from_seat(seat), agent, me.params, opponents, noise, hp.epsilon_greedy)
            loss = partial(policy_loss, hp, agent, episodes, seat)
            q_loss = critic_loss(hp, agent, me.params, me.target_params, episodes.mine)
            metrics |= learning_metrics(hp, agent, me.params, episodes.mine, seat, loss, q_loss)
            sides.append(episodes.mine)
        return metrics | game_metrics(Evaluation(agent, state.learners, self_play, sides))

    return evaluation


def make_experiment(game: GameSpec, hp: Hyperparameters) -> Experiment:
    """LOQA on a game: the parts that the loop in loqa/run/trainer.py repeats, from the state of `learner.init` on."""
    agent = Agent.from_hp(game.rules.from_hp(hp), hp)
    return Experiment(agent, make_iteration(hp, agent), make_evaluation(hp, agent, game.metrics))


main = partial(launch.script, "ipd", make_experiment)

if __name__ == "__main__":
    main()
