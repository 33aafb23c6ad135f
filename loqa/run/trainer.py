"""The host's loop: it runs an experiment's iterations, evaluates, logs, saves, checkpoints and handles signals."""

from collections.abc import Callable, Iterator
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


def train(config: Config, experiment: Experiment, run: Run) -> None:
    """Trains, evaluates and saves until the last iteration, or until the goal `hp.stop_at` is held."""
    alone = Alone(experiment, run.num_devices, *first_state(experiment.agent, config.hp, run, config.hp.seed))
    for number in loop(config.hp, run, alone.state, alone.evaluate):
        alone.iterate(number)
    conclude(config.hp, experiment.agent, run)


def loop(
    hp: Hyperparameters, run: Run, state: Callable[..., TrainState], evaluate: Callable[[], dict[str, float]]
) -> Iterator[int]:
    """All of a run but its iterations: yields how many are next, and goes on when they are done.

    So seeds side by side can wait for each other. `state` and `evaluate` are as in `Alone`.
    """
    game, checkpoints = GAMES[run.script], Checkpoints(run)
    periods = hp.eval_every, hp.save_every, hp.checkpoint_every, game.progress_every

    def measure() -> None:
        metrics = evaluate()
        position = {"iteration": iteration, "env_steps": iteration * hp.env_steps_per_iteration}
        run.log(position | metrics, {title: metrics[key] for title, key in game.columns.items()})
        losses = {name: x for name, x in metrics.items() if name.startswith("loss_")}
        require_finite(state(), losses)

    iteration = int(state().iteration)
    is_evaluated = run.last_iteration == iteration
    is_done = is_evaluated and iteration > 0 and goal_held(game, hp, run.metrics())
    last = iteration if is_done else hp.total_iterations
    if iteration < last:
        run.log_line("compiling the evaluation and the training step ...")
        yield 0  # here, it does not count in the first ETA
    if iteration in (0, last) and not is_evaluated:  # the last one: of a run that was made shorter
        measure()
    if iteration == last:
        save_agents(run, state())
    while iteration < last and not run.stop_signal:
        stop = next_stop(iteration, last, *periods)
        yield stop - iteration
        require_finite(state())
        iteration = stop
        run.progress(iteration)
        if iteration % hp.eval_every == 0 or iteration == last:
            measure()
            if goal := goal_held(game, hp, run.metrics()):
                run.log_line(f"the {goal} threshold is held: done")
                last = iteration
        if iteration % hp.save_every == 0 or iteration == last:
            save_agents(run, state())
        if iteration % hp.checkpoint_every == 0 or iteration == last:
            checkpoints.save(state(with_buffers=True))
    if iteration < last:  # a signal ended it
        if checkpoints.iteration != iteration:
            checkpoints.save(state(with_buffers=True))
        run.stop(checkpoints.iteration)


def first_state(agent: Agent, hp: Hyperparameters, run: Run, seed: int) -> tuple[TrainState, jax.Array]:
    """The state that a run is resumed from, or a new one; and the key of its evaluations."""
    key, key_evaluation = jax.random.split(jax.random.key(seed))
    if run.resumed and run.resumed.state is not None:
        state, run.resumed = run.resumed.state, run.resumed._replace(state=None)  # or it would be kept
        return state, key_evaluation
    params = None if hp.init_from is None else load_params(hp.init_from, agent)
    return learner.init(agent, hp, key, params), key_evaluation


class Alone:
    """The state of a run, whose batch the devices share, and the programs that advance and evaluate it."""

    def __init__(self, experiment: Experiment, num_devices: int, state: TrainState, key: jax.Array):
        self._iterate = learner.repeat(experiment.iteration, num_devices)
        self._evaluate = partial(jax.jit(experiment.evaluation), key)
        self._state = devices.replicate(state, num_devices)

    def iterate(self, number: int) -> None:
        """Makes so many iterations, but none after one whose parameters are not finite."""
        self._state = jax.block_until_ready(self._iterate(self._state, number))

    def evaluate(self) -> dict[str, float]:
        """The metrics."""
        with jax.debug_nans(False):  # P(C) is NaN where a policy with memory never was
            return {name: float(x) for name, x in self._evaluate(self.state()).items()}

    def state(self, with_buffers: bool = False) -> TrainState:
        """The state: for a checkpoint all of it, else on one device and what evaluations and saved agents need."""
        if with_buffers:
            return self._state
        return jax.tree.map(lambda x: x.addressable_data(0), self._state.without_buffers())


def conclude(hp: Hyperparameters, agent: Agent, run: Run) -> None:
    """Prints and writes what is left to do at the end of a run."""
    spec = GAMES[run.script]

    def say(run: Run) -> None:
        for line in spec.summary(agent.game, run.metrics()):
            run.note(line)

    def draw(run: Run) -> None:
        from loqa.figures.curves import draw_run  # here, because matplotlib is slow to import

        draw_run(run, agent.game)

    run.finish(say, draw, reached=goal_held(spec, hp, run.metrics()))


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
