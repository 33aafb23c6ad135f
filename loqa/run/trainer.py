"""The host's loop: it runs an experiment's iterations, evaluates, logs, saves, checkpoints and handles signals."""

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from loqa import devices, learner
from loqa.agent import Agent
from loqa.game import Game, GameSpec
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


class Alone:
    """The state of a run, number 0, whose batch the devices share, and the programs that advance and evaluate it."""

    def __init__(self, experiment: Experiment, num_devices: int):
        self._iterate = learner.repeat(experiment.iteration, num_devices)
        self._evaluate, self._num_devices = jax.jit(experiment.evaluation), num_devices

    def put(self, states: Iterable[TrainState], keys: Sequence[jax.Array]) -> None:
        """Takes the first states, which are updated in place, and the keys of evaluations."""
        (state,), (self._key,) = states, keys
        self._state = devices.replicate(state, self._num_devices)

    def iterate(self, numbers: dict[int, int]) -> None:
        """Makes so many iterations of each of these runs, but none after one whose parameters are not finite."""
        self._state = jax.block_until_ready(self._iterate(self._state, numbers[0]))

    def evaluate(self, which: Sequence[int]) -> dict[int, dict[str, float]]:
        """The metrics of these runs."""
        metrics = self._evaluate(self._key, self.without_buffers(0))
        return {0: {name: float(x) for name, x in metrics.items()}}

    def state(self, which: int) -> TrainState:
        """The state of a run."""
        return self._state

    def without_buffers(self, which: int) -> TrainState:
        """As `state`, on one device and without what neither evaluations nor saved agents need."""
        return jax.tree.map(lambda x: x.addressable_data(0), self._state.without_buffers())


def train(config: Config, experiment: Experiment, run: Run) -> None:
    """Trains, evaluates and saves until the last iteration, or until the goal `hp.stop_at` is held."""
    (end,) = train_all(experiment, [config.hp], [run], Alone(experiment, run.num_devices))
    if end:
        raise end


def train_all(
    experiment: Experiment,
    hps: Sequence[Hyperparameters],
    runs: Sequence[Run],
    placed: Alone,
    after_each: Callable[[], object] = lambda: None,
) -> list[RunError | SystemExit | None]:
    """As `train`, of runs that differ in nothing but the seed; returns how each ended: None is well.

    `after_each`: is called when all have done what is to be done between two computations.
    """
    keys, evaluation_keys = zip(*(jax.random.split(jax.random.key(hp.seed)) for hp in hps), strict=True)
    placed.put(map(partial(_first_state, experiment.agent, hps[0]), runs, keys), evaluation_keys)
    attended = [_attend(hps[0], experiment.agent, run, placed, i) for i, run in enumerate(runs)]
    ends: list[RunError | SystemExit | None] = [None] * len(runs)
    wanted: dict[int, int | None] = {}

    def go_on(metrics: dict[int, dict[str, float] | None]) -> None:
        reached = {}
        for which, of_this in metrics.items():
            wanted.pop(which, None)
            try:
                wanted[which] = attended[which].send(of_this)
            except StopIteration as stop:
                reached[which] = stop.value
            except (RunError, SystemExit) as end:  # the others go on, or write their checkpoints
                ends[which] = end
                if len(runs) > 1 and isinstance(end, RunError):
                    runs[which].log_line(f"ended: {end}")
        after_each()
        for which, goal in reached.items():
            _conclude(experiment.agent, runs[which], goal)

    go_on(dict.fromkeys(range(len(runs))))
    while wanted:
        evaluated = [which for which, number in wanted.items() if number is None]
        if evaluated:  # first, so that all iterate together
            with jax.debug_nans(False):  # P(C) is NaN where a policy with memory never was
                metrics = placed.evaluate(evaluated)
            go_on(metrics)
        else:
            placed.iterate(wanted)
            go_on(dict.fromkeys(wanted))
    return ends


def _first_state(agent: Agent, hp: Hyperparameters, run: Run, key: jax.Array) -> TrainState:
    """The state that a run is resumed from, or a new one."""
    if run.resumed and run.resumed.state is not None:
        state, run.resumed = run.resumed.state, run.resumed._replace(state=None)  # or it would be kept
        return state
    return learner.init(agent, hp, key, None if hp.init_from is None else load_params(hp.init_from, agent))


def _attend(
    hp: Hyperparameters, agent: Agent, run: Run, placed: Alone, which: int
) -> Generator[int | None, dict[str, float], str | None]:
    """All of a run but its computations, for which it waits: it yields how many iterations it wants, or None for the
    metrics, which it is sent. Returns the goal that it reached.
    """
    game, checkpoints, state = GAMES[run.script], Checkpoints(run), partial(placed.without_buffers, which)

    def measure() -> Generator[None, dict[str, float], None]:
        metrics = yield None
        iteration = int(state().iteration)
        position = {"iteration": iteration, "env_steps": iteration * hp.env_steps_per_iteration}
        run.log(position | metrics, {title: metrics[key] for title, key in game.columns.items()})
        require_finite(state(), {name: x for name, x in metrics.items() if name.startswith("loss_")})

    iteration = int(state().iteration)
    periods = hp.eval_every, hp.save_every, hp.checkpoint_every, game.progress_every
    reached = goal_held(game, hp, run.metrics()) if run.last_iteration == iteration > 0 else None
    last = iteration if reached else hp.total_iterations
    if iteration < last:
        run.log_line("compiling the evaluation and the training step ...")
        yield 0  # here, it does not count in the first ETA
    if iteration in (0, last) and run.last_iteration != iteration:  # the last one: of a run that was made shorter
        yield from measure()
    if iteration == last:
        save_agents(run, state())
    while iteration < last and not devices.in_any_process(run.stop_signal):
        stop = next_stop(iteration, last, *periods)
        yield stop - iteration
        require_finite(state())
        iteration = stop
        run.progress(iteration)
        if iteration % hp.eval_every == 0 or iteration == last:
            yield from measure()
            if reached := goal_held(game, hp, run.metrics()):
                run.log_line(f"the {reached} threshold is held: done")
                last = iteration
        if iteration % hp.save_every == 0 or iteration == last:
            save_agents(run, state())
        if iteration % hp.checkpoint_every == 0 or iteration == last:
            checkpoints.save(placed.state(which))
    if iteration < last:  # a signal ended it
        if checkpoints.iteration != iteration:
            checkpoints.save(placed.state(which))
        run.stop(checkpoints.iteration)
    return reached


def _conclude(agent: Agent, run: Run, reached: str | None) -> None:
    """Prints and writes what is left to do at the end of a run."""
    run.finish(partial(_say, game=agent.game), partial(_draw, game=agent.game), reached=reached)


def _say(run: Run, game: Game) -> None:
    for line in GAMES[run.script].summary(game, run.metrics()):
        run.note(line)


def _draw(run: Run, game: Game) -> None:
    from loqa.figures.curves import draw_run  # here, because matplotlib is slow to import

    draw_run(run, game)


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
