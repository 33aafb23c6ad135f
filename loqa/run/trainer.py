"""The host's loop: it runs an experiment's iterations, evaluates, logs, saves, checkpoints and handles signals."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from loqa import devices, learner
from loqa.agent import Agent
from loqa.game import GameSpec
from loqa.games import GAMES
from loqa.hyperparameters import Hyperparameters
from loqa.learner import TrainState
from loqa.run.agents import load_params, named_leaves, save_agents
from loqa.run.checkpoints import Checkpoints
from loqa.run.config import Config, RunError, flat
from loqa.run.run import Run

IN_A_ROW = 5  # evaluations that reach a goal, before training ends early


class Experiment(NamedTuple):
    """An algorithm on a game: pure functions of the state of `learner.init`."""

    agent: Agent
    iteration: Callable[[TrainState], TrainState]
    evaluation: Callable[[jax.Array, TrainState], dict[str, jax.Array]]  # key, state -> metrics


# Algorithms beside the script's, by `hp.agent_0`; loqa/baselines adds its own.
LEARNING_RULES: dict[str, Callable[[Hyperparameters, Agent], Callable[[TrainState], TrainState]]] = {}


def goal_held(game: GameSpec, hp: Hyperparameters, metrics: dict[str, np.ndarray]) -> str | None:
    """The goal `hp.stop_at`, where a game has that key, if the last evaluations all reach it."""
    goal = getattr(hp, "stop_at", None)
    if goal is None:
        return None
    passed = game.goals[goal](metrics, flat(hp.model_dump()))
    return goal if len(passed) >= IN_A_ROW and passed[-IN_A_ROW:].all() else None


def train(config: Config, experiment: Experiment, run: Run) -> None:
    """Trains, evaluates and saves until the last iteration, or until the goal `hp.stop_at` is held."""
    hp, agent, game = config.hp, experiment.agent, GAMES[run.script]
    key_init, key_evaluation = jax.random.split(jax.random.key(hp.seed))
    checkpoints = Checkpoints(run)
    state = checkpoints.resumed_state
    if state is None:
        params = None if hp.init_from is None else load_params(hp.init_from, agent)
        state = learner.init(agent, hp, key_init, params)
    state = devices.replicate(state, run.num_devices)
    iterate, evaluate = learner.repeat(experiment.iteration, run.num_devices), jax.jit(experiment.evaluation)

    def measure(state: TrainState) -> None:
        # On one device, and without the buffers, which an evaluation does not need.
        learners = tuple(me._replace(past=None, replay=None) for me in state.learners)
        on_one = jax.tree.map(lambda x: x.addressable_data(0), state._replace(learners=learners))
        with jax.debug_nans(False):  # P(C) is NaN where a policy with memory never was
            metrics = {k: float(v) for k, v in evaluate(key_evaluation, on_one).items()}
        iteration = int(state.iteration)
        position = {"iteration": iteration, "env_steps": iteration * hp.env_steps_per_iteration}
        run.log(position | metrics, {title: metrics[key] for title, key in game.columns.items()})
        require_finite(state, {name: x for name, x in metrics.items() if name.startswith("loss_")})

    iteration = int(state.iteration)
    periods = hp.eval_every, hp.save_every, hp.checkpoint_every, game.progress_every
    reached = goal_held(game, hp, run.metrics()) if run.last_iteration == iteration > 0 else None
    last = iteration if reached else hp.total_iterations
    if iteration < last:
        run.log_line("compiling the evaluation and the training step ...")
        if not (jax.config.jax_debug_nans or jax.config.jax_disable_jit):
            iterate.lower(state, 0).compile()  # here, it does not count in the first ETA
    if iteration in (0, last) and run.last_iteration != iteration:  # the last one: of a run that was made shorter
        measure(state)
    if iteration == last:
        save_agents(run, state)
    while iteration < last and not devices.in_any_process(run.stop_signal):
        stop = next_stop(iteration, last, *periods)
        state = jax.block_until_ready(iterate(state, stop - iteration))
        require_finite(state)
        iteration = stop
        run.progress(iteration)
        if iteration % hp.eval_every == 0 or iteration == last:
            measure(state)
            if reached := goal_held(game, hp, run.metrics()):
                run.log_line(f"the {reached} threshold is held: done")
                last = iteration
        if iteration % hp.save_every == 0 or iteration == last:
            save_agents(run, state)
        if iteration % hp.checkpoint_every == 0 or iteration == last:
            checkpoints.save(state)
    if iteration < last:  # a signal ended it
        if checkpoints.iteration != iteration:
            checkpoints.save(state)
        run.stop(checkpoints.iteration)
    for line in game.summary(agent.game, run.metrics()):
        run.log_line(line)
    from loqa.figures.curves import draw_run  # here, because matplotlib is slow to import

    run.finish(partial(draw_run, game=agent.game), reached)


def next_stop(iteration: int, last: int, *periods: int) -> int:
    """The first iteration after `iteration` that is a multiple of one of `periods`, or the last one."""
    return min([last, *((iteration // period + 1) * period for period in periods)])


def require_finite(state: TrainState, losses: dict[str, float] | None = None) -> None:
    """Raises RunError, with the name of what is not finite: a parameter or a loss."""
    if jax.config.jax_debug_nans:
        return  # JAX looks, and names the operation
    agents = named_leaves({"agent": [me.params for me in state.learners]})
    for name, x in (agents | (losses or {})).items():
        if not np.isfinite(x).all():
            raise RunError(
                f"in iteration {state.iteration} {name} became infinite or NaN; the checkpoints before it are "
                "kept, and jax.jax_debug_nans=true names the operation"
            )
