"""LOQA on the iterated prisoner's dilemma: the paper's algorithm from top to bottom.

    python ipd.py                        # the paper's figure, one seed
    python ipd.py hp=gru hp.seed=7       # another preset, another seed; all keys: conf/ipd
    python ipd.py hp.game_name=chicken   # another game of two players and two actions

LOQA (Aghajohari et al., ICLR 2024, arXiv 2405.01035) is an actor-critic whose policy has a second loss. It
assumes that the opponent plays a softmax of its Q-values, and that these follow the returns the opponent gets
from us: by what we do after its action we make that action more or less worth while to it. The two losses are
`agent_policy_loss` in loqa/losses.py; this file is the loop around them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
from omegaconf import DictConfig, OmegaConf

from loqa import learner, training
from loqa.agent import Agent
from loqa.builders import ipd_game_and_agent
from loqa.games.ipd import STATES, MatrixGame
from loqa.hyperparameters import IPDHyperparameters
from loqa.learner import Settings
from loqa.metrics import Metrics, cooperation, learning_metrics, mean_rewards
from loqa.rollout import Opponents, draw_noise, play
from loqa.run import checkpoints as resume
from loqa.run import launch
from loqa.run.agents import save_agents
from loqa.run.checkpoints import Checkpoints
from loqa.run.config import IPDConfig, parse
from loqa.run.launch import apply_jax_options
from loqa.run.run_logging import Run
from loqa.training import TrainState

# Iterations that run in one go: after each, a terminal shows how far the run is, and Ctrl-C is heard.
PROGRESS_EVERY = 100


def make_iteration(
    hp: IPDHyperparameters, game: MatrixGame, agent: Agent, settings: tuple[Settings, ...]
) -> Callable[[TrainState], TrainState]:
    """One iteration of LOQA (Algorithm 1), a pure function of the state."""
    seats = game, game.swapped()

    def iteration(state: TrainState) -> TrainState:
        key = jax.random.fold_in(state.key, state.iteration)
        if state.past:
            state = training.remember_agents(state, hp)
        learners, replay = [], list(state.replay)
        # In self-play there is one learner, and the other is itself. Of two learners each plays episodes of
        # its own against the other, and both learn from the same snapshot of each other.
        for i, key_learner in enumerate(jax.random.split(key, len(state.learners))):
            me, other = state.learners[i], state.learners[-1 - i]
            key_opponents, key_rollout, key_replay = jax.random.split(key_learner, 3)

            # 1. Sample opponents: the other as it is, or with the agent replay buffer as it was.
            past = state.past[-1 - i] if state.past else None
            opponents = training.draw_opponents(key_opponents, other.params, past, hp)

            # 2. Roll out a batch of episodes; the learner is player 0, of the game as it is from its seat.
            noise = draw_noise(key_rollout, hp.game_length, hp.batch_size)
            episodes = play(seats[i], agent, me.params, opponents, noise, hp.epsilon_greedy)

            # 3. One step on the policy's loss (actor + entropy + shaping), one on the Q-network's loss with the
            # same episodes or replayed ones, and the target network follows.
            q_episodes = learner.q_episodes(episodes)
            if state.replay:
                replay[i], q_episodes = training.replay_episodes(key_replay, replay[i], q_episodes)
            learners.append(learner.update(agent, me, episodes, q_episodes, settings[i], state.iteration))
        return state._replace(iteration=state.iteration + 1, learners=tuple(learners), replay=tuple(replay))

    return iteration


def make_evaluation(
    hp: IPDHyperparameters, game: MatrixGame, agent: Agent, settings: tuple[Settings, ...]
) -> Callable[[jax.Array, TrainState], Metrics]:
    """What is logged: how the agents play, and how they learn. It has keys of its own: training ignores it."""
    seats = game, game.swapped()

    def evaluation(key: jax.Array, state: TrainState) -> Metrics:
        key_play, key_learn = jax.random.split(jax.random.fold_in(key, state.iteration))
        pair = state.learners[0].params, state.learners[-1].params
        rewards, _ = mean_rewards(key_play, game, (agent, agent), pair, hp.game_length, hp.eval_episodes)
        metrics = {"mean_rewards_0": rewards[0], "mean_rewards_1": rewards[1]}
        for i, me in enumerate(state.learners):
            opponents = Opponents.now(state.learners[-1 - i].params)
            noise = draw_noise(jax.random.fold_in(key_learn, i), hp.game_length, hp.eval_episodes)
            episodes = play(seats[i], agent, me.params, opponents, noise, hp.epsilon_greedy)
            metrics |= cooperation(agent, me, episodes.observations, i)
            metrics |= learning_metrics(agent, me, episodes, settings[i], i)
        return metrics

    return evaluation


def train(config: IPDConfig, run: Run) -> None:
    """Trains, evaluates and saves until the last iteration; then draws the figures."""
    hp = config.hp
    game, agent = ipd_game_and_agent(hp)
    settings = learner.settings_of_all(hp)
    key_init, key_evaluation = jax.random.split(jax.random.key(hp.seed))
    checkpoints = Checkpoints(run)
    state = checkpoints.resumed_state or training.init(agent, settings, hp, key_init)
    iterate = training.repeat(make_iteration(hp, game, agent, settings))
    evaluate = jax.jit(make_evaluation(hp, game, agent, settings))

    def measure(state: TrainState) -> None:
        with jax.debug_nans(False):  # P(C) is NaN where a policy with memory never was
            metrics = {k: float(v) for k, v in evaluate(key_evaluation, state).items()}
        iteration = int(state.iteration)
        run.log(
            {"iteration": iteration, "env_steps": iteration * hp.env_steps_per_iteration} | metrics,
            {state: metrics[f"p_0_{state}_C"] for state in STATES}
            | {f"reward_{i}": metrics[f"mean_rewards_{i}"] for i in range(2)},
        )
        training.require_finite(state, metrics)

    iteration, last = int(state.iteration), hp.total_iterations
    periods = hp.eval_every, hp.save_every, hp.checkpoint_every, PROGRESS_EVERY
    if iteration < last:
        run.say("compiling the evaluation and the training step ...")
    if iteration in (0, last) and run.last_iteration != iteration:  # the last one: of a run that was made shorter
        measure(state)
    if iteration == last:
        save_agents(run, iteration, [me.params for me in state.learners])
    while iteration < last:
        stop = training.next_stop(iteration, last, *periods)
        state = jax.block_until_ready(iterate(state, stop - iteration))
        training.require_finite(state)
        iteration = stop
        run.progress(iteration)
        if iteration % hp.eval_every == 0 or iteration == last:
            measure(state)
        if iteration % hp.save_every == 0 or iteration == last:
            save_agents(run, iteration, [me.params for me in state.learners])
        if iteration % hp.checkpoint_every == 0 or iteration == last or run.stop_signal:
            checkpoints.save(state)
        if run.stop_signal and iteration < last:
            run.stop(checkpoints.iteration)
    draw(hp, game, run)
    run.finish()


def draw(hp: IPDHyperparameters, game: MatrixGame, run: Run) -> None:
    """The bar chart of P(C) and the training curves."""
    from loqa.tools import plot  # here, because matplotlib is slow to import and only needed now

    metrics = run.metrics()
    panels = []
    for i in range(hp.num_learners):
        final = [metrics[f"p_{i}_{state}_C"][-1] for state in STATES]
        title = f"{game.title}, agent {i}, iteration {int(metrics['iteration'][-1])}"
        bars = partial(plot.state_probability_bars, final, title=title)
        run.write(f"tit_for_tat_{i}.png", bars)
        curves = {state: f"p_{i}_{state}_C" for state in STATES}
        panels.append(plot.Panel(f"P(cooperate | state), agent {i}", "probability", curves, ylim=(-0.02, 1.02)))
    rewards = {f"player {i}": f"mean_rewards_{i}" for i in range(2)}
    panels += [
        plot.Panel(f"Mean reward, {game.title}", "reward a step", rewards, mutual_outcomes(game)),
        plot.Panel("Q-values", "Q", {"mean error of Q": "qvalue_0_bias", "mean Q": "qvalue_0_mean"}),
    ]
    run.write("curves.png", lambda path: plot.training_curves(metrics, panels, path))


def mutual_outcomes(game: MatrixGame) -> dict[str, float]:
    """What the players get when both choose the same, by name: the reference lines of the rewards."""
    names: dict[float, list[str]] = {}  # those of the same height are one line
    for outcome, place in (("both cooperate", 0), ("both defect", 3)):
        first, second = (payoff[place] for payoff in game.payoffs)
        if first == second:
            names.setdefault(first, []).append(outcome)
        else:
            names.setdefault(first, []).append(f"{outcome}: player 0")
            names.setdefault(second, []).append(f"{outcome}: player 1")
    return {", ".join(outcomes): height for height, outcomes in names.items()}


def main(cfg: DictConfig) -> Path:
    config = parse(cfg, IPDConfig)
    apply_jax_options(config.jax)
    resumed = resume.find(config.resume, "ipd", config.hp)
    if resumed and resumed.is_finished(config.hp):
        print(f"finished already: {resumed.directory}", flush=True)
        return resumed.directory
    with Run("ipd", config, OmegaConf.to_yaml(cfg, resolve=True), resumed) as run:
        train(config, run)
    return run.directory


if __name__ == "__main__":
    launch.script("ipd", main)
