"""The host's loop: it runs an experiment's iterations, evaluates, logs, saves, checkpoints and handles signals."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from loqa import devices, learner
from loqa.agent import Agent
from loqa.game import GameSpec
from loqa.games import GAMES
from loqa.hyperparameters import Hyperparameters
from loqa.learner import TrainState
from loqa.metrics import self_play
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


def train(config: Config, experiment: Experiment, run: Run) -> None:
    """Trains, evaluates and saves until the last iteration, or until the goal `hp.stop_at` is held."""
    hp = config.hp
    state, key = first_state(experiment.agent, hp, run, hp.seed)
    state = devices.replicate(state, run.num_devices)
    iterate, evaluation = learner.repeat(experiment.iteration, run.num_devices), jax.jit(experiment.evaluation)

    def now(with_buffers: bool = False) -> TrainState:
        return state if with_buffers else jax.tree.map(lambda x: x.addressable_data(0), state.without_buffers())

    def evaluate() -> dict[str, float]:
        with jax.debug_nans(False):  # P(C) is NaN where a policy with memory never was
            return {name: float(x) for name, x in evaluation(key, now()).items()}

    for number in loop(experiment.agent, run, now, evaluate):
        state = jax.block_until_ready(iterate(state, number))


def loop(
    agent: Agent, run: Run, state: Callable[..., TrainState], evaluate: Callable[[], dict[str, float]]
) -> Iterator[int]:
    """All of a run but its iterations: yields how many are next, and goes on when they are done.

    So seeds side by side can wait for each other. `evaluate()` gives the metrics, `state(with_buffers=True)` the state
    for a checkpoint, and `state()` on one device what evaluations and saved agents need. No iterations follow one whose
    parameters are not finite.
    """
    hp, game, checkpoints = run.hp, GAMES[run.script], Checkpoints(run)
    first = iteration = int(state().iteration)
    last = hp.total_iterations
    if iteration < last:
        run.log_line("compiling the evaluation and the training step ...")
        yield 0  # here, it does not count in the first ETA
    while True:
        if iteration % hp.eval_every == 0 or iteration == last:
            if run.last_iteration != iteration:
                metrics = evaluate()
                row = {"iteration": iteration, "env_steps": iteration * hp.env_steps_per_iteration} | metrics
                shown = metrics | {"self_play": self_play(metrics)}
                run.log(row, {title: shown[key] for title, key in game.columns.items()})
                require_finite(state(), {name: x for name, x in metrics.items() if name.startswith("loss_")})
            if goal := goal_held(game, hp, run.metrics()):
                run.log_line(f"the {goal} threshold is held: done")
                last = iteration
        is_new, is_last = iteration > first, iteration == last
        if is_last or (is_new and iteration % hp.save_every == 0):
            save_agents(run, state())
        if is_new and (is_last or iteration % hp.checkpoint_every == 0):
            checkpoints.save(state(with_buffers=True))
        if is_last or run.stop_signal:
            break
        stop = next_stop(iteration, last, hp.eval_every, hp.save_every, hp.checkpoint_every, game.progress_every)
        yield stop - iteration
        require_finite(state())
        iteration = stop
        run.progress(iteration)
    if iteration < last:  # a signal ended it
        if checkpoints.iteration != iteration:
            checkpoints.save(state(with_buffers=True))
        run.stop(checkpoints.iteration)
    yield 0  # so that no figure is drawn in the wall time of seeds beside this one
    conclude(agent, run, goal)


def first_state(agent: Agent, hp: Hyperparameters, run: Run, seed: int) -> tuple[TrainState, jax.Array]:
    """The state that a run is resumed from, or a new one; and the key of its evaluations."""
    key, key_evaluation = jax.random.split(jax.random.key(seed))
    if run.resumed and run.resumed.state is not None:
        state, run.resumed = run.resumed.state, run.resumed._replace(state=None)  # or it would be kept
        return state, key_evaluation
    params = None if hp.init_from is None else load_params(hp.init_from, agent)
    return learner.init(agent, hp, key, params), key_evaluation


def conclude(agent: Agent, run: Run, reached: str | None) -> None:
    """Prints and writes what is left to do at the end of a run, which a goal that it `reached` may have ended."""

    def say() -> None:
        for line in GAMES[run.script].summary(agent.game, run.metrics()):
            run.note(line)

    def draw() -> None:
        from loqa.figures.curves import draw_run  # here, because matplotlib is slow to import

        draw_run(run, agent.game)

    run.finish(say, draw, reached=reached)


def goal_held(game: GameSpec, hp: Hyperparameters, metrics: dict[str, np.ndarray]) -> str | None:
    """The goal `hp.stop_at`, where a game has that key, if the last evaluations all reach it."""
    goal = getattr(hp, "stop_at", None)
    if goal is None:
        return None
    passed = game.goals[goal](metrics, flat(hp.model_dump()))
    return goal if len(passed) >= IN_A_ROW and passed[-IN_A_ROW:].all() else None


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
