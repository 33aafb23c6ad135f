"""LOQA on the Coin Game: the paper's algorithm from top to bottom, against past versions of the agent.

    python coin_train.py                                                # the paper's 3x3 run, one seed
    python coin_train.py hp.game.height=5 hp.game.width=5 hp.seed=7     # another grid; all keys: conf/coin

The loop is that of ipd.py, which is the one to read first. What is different: recurrent networks, opponents
drawn from the past versions of the agent, and the evaluation against scripted players.
"""

from collections.abc import Callable
from pathlib import Path

import jax
from omegaconf import DictConfig, OmegaConf

from loqa import learner, training
from loqa.agent import Agent
from loqa.builders import coin_game_and_agent
from loqa.games.coin import CoinGame
from loqa.hyperparameters import CoinHyperparameters
from loqa.learner import Settings
from loqa.metrics import Metrics, coin_metrics, learning_metrics
from loqa.rollout import Opponents, draw_noise, play
from loqa.run import checkpoints as resume
from loqa.run import launch
from loqa.run.agents import save_agents
from loqa.run.checkpoints import Checkpoints
from loqa.run.config import CoinConfig, parse
from loqa.run.launch import apply_jax_options
from loqa.run.run_logging import Run
from loqa.tools import thresholds
from loqa.training import TrainState

# What the terminal shows of the metrics: rewards a step, and coins a step, all of agent 0 but `AC's`, which is
# what always-cooperate earns against it.
HEADLINE = {
    "self": "mean_rewards_0",
    "vs AC": "always_cooperate_0_mean_rewards_a",
    "AC's": "always_cooperate_0_mean_rewards_d",
    "vs AD": "always_defect_0_mean_rewards_a",
    "own": "own_coins_0",
    "other's": "other_coins_0",
}

# Iterations that run in one go: after each, a terminal shows how far the run is, and Ctrl-C is heard.
PROGRESS_EVERY = 5


def make_iteration(
    hp: CoinHyperparameters, game: CoinGame, agent: Agent, settings: tuple[Settings, ...]
) -> Callable[[TrainState], TrainState]:
    """One iteration of LOQA (Algorithm 1), a pure function of the state."""

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

            # 2. Roll out a batch of episodes; the learner is player 0.
            noise = draw_noise(key_rollout, hp.game_length, hp.batch_size)
            episodes = play(game, agent, me.params, opponents, noise)

            # 3. One step on the policy's loss (actor + entropy + shaping), one on the Q-network's loss with the
            # same episodes or replayed ones, and the target network follows.
            q_episodes = learner.q_episodes(episodes)
            if state.replay:
                replay[i], q_episodes = training.replay_episodes(key_replay, replay[i], q_episodes)
            learners.append(learner.update(agent, me, episodes, q_episodes, settings[i], state.iteration))
        return state._replace(iteration=state.iteration + 1, learners=tuple(learners), replay=tuple(replay))

    return iteration


def make_evaluation(
    hp: CoinHyperparameters, game: CoinGame, agent: Agent, settings: tuple[Settings, ...]
) -> Callable[[jax.Array, TrainState], Metrics]:
    """What is logged: how the agents play, and how they learn. It has keys of its own: training ignores it."""

    def evaluation(key: jax.Array, state: TrainState) -> Metrics:
        key_play, key_learn = jax.random.split(jax.random.fold_in(key, state.iteration))
        metrics = coin_metrics(key_play, game, agent, state.learners, hp.game_length, hp.eval_episodes)
        for i, me in enumerate(state.learners):
            opponents = Opponents.now(state.learners[-1 - i].params)
            noise = draw_noise(jax.random.fold_in(key_learn, i), hp.game_length, hp.eval_episodes)
            episodes = play(game, agent, me.params, opponents, noise)
            metrics |= learning_metrics(agent, me, episodes, settings[i], i)
        return metrics

    return evaluation


def train(config: CoinConfig, run: Run) -> None:
    """Trains, evaluates and saves until the last iteration, or until `stop_at`; then draws the figures."""
    hp = config.hp
    game, agent = coin_game_and_agent(hp)
    settings = learner.settings_of_all(hp)
    key_init, key_evaluation = jax.random.split(jax.random.key(hp.seed))
    checkpoints = Checkpoints(run)
    state = checkpoints.resumed_state or training.init(agent, settings, hp, key_init)
    iterate = training.repeat(make_iteration(hp, game, agent, settings))
    evaluate = jax.jit(make_evaluation(hp, game, agent, settings))

    def measure(state: TrainState) -> None:
        metrics = {k: float(v) for k, v in evaluate(key_evaluation, state).items()}
        iteration = int(state.iteration)
        run.log(
            {"iteration": iteration, "env_steps": iteration * hp.env_steps_per_iteration} | metrics,
            {title: metrics[key] for title, key in HEADLINE.items()},
        )
        training.require_finite(state, metrics)

    def is_there() -> bool:
        return hp.stop_at is not None and thresholds.is_held(run.metrics(), hp.game.height, hp.stop_at)

    iteration, last = int(state.iteration), hp.total_iterations
    if run.last_iteration == iteration > 0 and is_there():
        last = iteration
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
            if is_there():
                run.say(f"{thresholds.HELD} evaluations in a row passed the {hp.stop_at} threshold: done")
                last = iteration
        if iteration % hp.save_every == 0 or iteration == last:
            save_agents(run, iteration, [me.params for me in state.learners])
        if iteration % hp.checkpoint_every == 0 or iteration == last or run.stop_signal:
            checkpoints.save(state)
        if run.stop_signal and iteration < last:
            run.stop(checkpoints.iteration)
    draw(run)
    run.finish(reached=hp.stop_at if is_there() else None)


def draw(run: Run) -> None:
    """The training curves."""
    from loqa.tools import plot  # here, because matplotlib is slow to import and only needed now

    metrics = run.metrics()
    rewards = {
        "against each other, 0": "mean_rewards_0",
        "against each other, 1": "mean_rewards_1",
        "against always-defect": "always_defect_0_mean_rewards_a",
        "against always-cooperate": "always_cooperate_0_mean_rewards_a",
        "always-cooperate against it": "always_cooperate_0_mean_rewards_d",
    }
    coins = {"its own": "own_coins_0", "the other's": "other_coins_0"}
    panels = [
        plot.Panel("Mean reward of agent 0", "reward a step", rewards),
        plot.Panel("Coins taken against each other", "coins a step", coins),
        plot.Panel("Q-values", "Q", {"mean error of Q": "qvalue_0_bias", "mean Q": "qvalue_0_mean"}),
    ]
    run.write("curves.png", lambda path: plot.training_curves(metrics, panels, path))


def main(cfg: DictConfig) -> Path:
    config = parse(cfg, CoinConfig)
    apply_jax_options(config.jax)
    resumed = resume.find(config.resume, "coin", config.hp)
    if resumed and resumed.is_finished(config.hp):
        print(f"finished already: {resumed.directory}", flush=True)
        return resumed.directory
    with Run("coin", config, OmegaConf.to_yaml(cfg, resolve=True), resumed) as run:
        train(config, run)
    return run.directory


if __name__ == "__main__":
    launch.script("coin", main)
