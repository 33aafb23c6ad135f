"""The host's loop: it runs an experiment's iterations, evaluates, logs, saves, checkpoints and hears signals."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from loqa import learner
from loqa.agent import Agent
from loqa.learner import TrainState
from loqa.run.agents import load_params, save_agents
from loqa.run.checkpoints import Checkpoints
from loqa.run.config import CoinConfig, IPDConfig, RunError
from loqa.run.npz import leaf_name
from loqa.run.run import Run


class Experiment(NamedTuple):
    """What differs between the games: what an iteration does, and what is shown of it."""

    agent: Agent
    iteration: Callable[[TrainState], TrainState]
    evaluation: Callable[[jax.Array, TrainState], dict[str, jax.Array]]  # key, state -> metrics
    columns: dict[str, str]  # of the terminal's table: title -> metric
    progress_every: int  # iterations that run in one go: after each the terminal is updated, and Ctrl-C is heard
    draw: Callable[[Run], None]  # the figures of a finished run
    reached: Callable[[dict[str, np.ndarray]], str | None] = lambda metrics: None  # why training ends early


class NonFiniteError(RunError):
    """A parameter or a loss became infinite or NaN; the message is one sentence, for the user."""

    def __init__(self, iteration: int, what: str):
        super().__init__(
            f"in iteration {iteration} {what}; the checkpoints before it are kept, and jax.jax_debug_nans=true "
            "names the operation"
        )


def init_keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """The keys of the first state and of the evaluations."""
    key_init, key_evaluation = jax.random.split(jax.random.key(seed))
    return key_init, key_evaluation


def train(config: IPDConfig | CoinConfig, experiment: Experiment, run: Run) -> None:
    """Trains, evaluates and saves until the last iteration, or until a threshold is held; then draws figures."""
    hp, agent = config.hp, experiment.agent
    key_init, key_evaluation = init_keys(hp.seed)
    checkpoints = Checkpoints(run)
    state = checkpoints.resumed_state
    if state is None:
        params = None if hp.init_from is None else load_params(hp.init_from, agent)
        state = learner.init(agent, hp, key_init, params)
    iterate, evaluate = learner.repeat(experiment.iteration), jax.jit(experiment.evaluation)

    def measure(state: TrainState) -> None:
        with jax.debug_nans(False):  # P(C) is NaN where a policy with memory never was
            metrics = {k: float(v) for k, v in evaluate(key_evaluation, state).items()}
        iteration = int(state.iteration)
        position = {"iteration": iteration, "env_steps": iteration * hp.env_steps_per_iteration}
        run.log(position | metrics, {title: metrics[key] for title, key in experiment.columns.items()})
        require_finite(state, metrics)

    def save(state: TrainState) -> None:
        save_agents(run, int(state.iteration), [me.params for me in state.learners])

    iteration, last = int(state.iteration), hp.total_iterations
    periods = hp.eval_every, hp.save_every, hp.checkpoint_every, experiment.progress_every
    reached = experiment.reached(run.metrics()) if run.last_iteration == iteration > 0 else None
    if reached:
        last = iteration
    if iteration < last:
        run.log_line("compiling the evaluation and the training step ...")
    if iteration in (0, last) and run.last_iteration != iteration:  # the last one: of a run that was made shorter
        measure(state)
    if iteration == last:
        save(state)
    while iteration < last:
        stop = next_stop(iteration, last, *periods)
        state = jax.block_until_ready(iterate(state, stop - iteration))
        require_finite(state)
        iteration = stop
        run.progress(iteration)
        if iteration % hp.eval_every == 0 or iteration == last:
            measure(state)
            reached = experiment.reached(run.metrics())
            if reached:
                run.log_line(f"the {reached} threshold is held: done")
                last = iteration
        if iteration % hp.save_every == 0 or iteration == last:
            save(state)
        if iteration % hp.checkpoint_every == 0 or iteration == last or run.stop_signal:
            checkpoints.save(state)
        if run.stop_signal and iteration < last:
            run.stop(checkpoints.iteration)
    experiment.draw(run)
    run.finish(reached=reached)


def next_stop(iteration: int, last: int, *periods: int) -> int:
    """The first iteration after `iteration` that is a multiple of one of `periods`, or the last one."""
    return min([last, *((iteration // period + 1) * period for period in periods)])


def require_finite(state: TrainState, metrics: dict[str, Any] | None = None) -> None:
    """Raises NonFiniteError, with the name of what is not finite: a parameter, or a loss among the metrics."""
    if jax.config.jax_debug_nans:
        return  # JAX looks, and names the operation
    params = [me.params for me in state.learners]
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        if not np.isfinite(x).all():
            agent, name = leaf_name(path).split("/", 1)
            raise NonFiniteError(state.iteration, f"{name} of agent {agent} became infinite or NaN")
    for name, value in (metrics or {}).items():
        if name.startswith("loss_") and not np.isfinite(value):
            raise NonFiniteError(state.iteration, f"{name} became {value}")
