"""Seeds side by side (launcher=seeds): each of them is what it is alone, whatever becomes of the others."""

import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soak
from test_scripts import TINY, jax_options, no_figures, run, train  # noqa: F401 (fixtures)
from test_sweep import sweep  # noqa: F401 (a fixture)

from loqa import buffers, devices, learner
from loqa.agent import AgentParams
from loqa.learner import LearnerState, TrainState
from loqa.run.config import ConfigError, JaxConfig
from loqa.run.run import Run
from loqa.run.signals import StopSignals
from loqa.run.terminal import OfSeed, SharedTerminal
from loqa.run.together import SideBySide, check
from loqa.run.trainer import Experiment


def iteration(state):
    """Adds noise to the parameters, or doubles those that are large, and remembers them each other time."""
    (me,) = state.learners
    me = learner.remember_agent(me, state.iteration, update_freq=2)
    noise = jax.random.normal(jax.random.fold_in(state.key, state.iteration), (3,))
    params = jax.tree.map(lambda x: jnp.where(x > 100, 2 * x, x + noise), me.params)
    return state._replace(iteration=state.iteration + 1, learners=(me._replace(params=params),))


def first_state(seed, large=0.0):
    params = AgentParams(jnp.full(3, large), jnp.zeros(3))
    me = LearnerState(params, jax.tree.map(jnp.array, params), (), (), buffers.init(params, 2), None)
    return TrainState(jax.random.key(seed), jnp.zeros((), jnp.int32), (me,))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_seeds_go_on_side_by_side_and_stop_apart(backend, monkeypatch):
    """Seed 1 overflows in its second iteration. In rows of one seed, and in one of three that are vmapped."""
    evaluation = lambda key, state: {"sum": state.learners[0].params.actor.sum() + jax.random.uniform(key)}
    large = [0.0, 1.5e38, 0.0]
    keys = [jax.random.key(seed) for seed in range(3)]
    first = zip(map(first_state, range(3), large), keys, strict=True)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    placed = SideBySide(Experiment(None, iteration, evaluation), first, 3, 1)
    for numbers in ({0: 0, 1: 0, 2: 0}, {0: 3, 1: 5, 2: 1}, {2: 4}, {0: 2, 2: 3}, {0: 1, 2: 1}):
        placed.iterate(numbers)
    for seed, number in ((0, 6), (1, 5), (2, 9)):
        alone = learner.repeat(iteration)(first_state(seed, large[seed]), number)
        assert int(alone.iteration) == (2 if seed == 1 else number)
        state = placed.state(seed, with_buffers=True)
        if seed == 1:  # a slot of its buffer may hold what it would write next
            state, alone = state.without_buffers(), alone.without_buffers()
        else:
            assert placed.evaluate(seed)["sum"] == pytest.approx(float(evaluation(keys[seed], alone)["sum"]), rel=1e-6)
        assert jax.random.key_data(state.key).tolist() == jax.random.key_data(alone.key).tolist()
        jax.tree.map(np.testing.assert_array_equal, state.learners, alone.learners)


def test_devices_have_seeds_of_their_own():
    """Nothing in an iteration knows of the other devices."""
    assert jax.jit(devices.spread(lambda x: x + devices.number(), 1))(jnp.zeros(2)).tolist() == [1, 1]


def test_seeds_side_by_side_are_what_they_are_alone(tmp_path, no_figures):  # noqa: F811 (a fixture)
    """Stopped, one of them then finished alone, the others by the same command again: with the bits of one alone."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    words = ["hp.num_iterations=600", "hp.eval_every=200", "hp.checkpoint_every=200"]
    words += ["hp.agent_replay_buffer.mode=enabled", "hp.agent_replay_buffer.capacity=10"]
    command = ["-m", "hp.seed=1,2,3", "launcher=seeds", "jax.num_devices=2", *words]
    wandb = ["wandb.state=enabled", "wandb.mode=offline"]
    process = soak.popen(["ipd.py", *TINY["ipd.py"], f"hp.save_dir={together}", *command, *wandb], tmp_path)
    code, text = soak.send_at(process, " 200/600", signal.SIGTERM)
    assert code == 128 + signal.SIGTERM and "Traceback" not in text, text
    (iteration,) = re.findall(r"^stopped by SIGTERM. To resume from iteration (\d+):", text, re.MULTILINE)  # of all
    directories = [next(together.glob(f"ipd_seed{seed}_*")) for seed in (1, 2, 3)]
    for directory in directories:
        assert (directory / f"checkpoints/state_{int(iteration):09d}.npz").exists() and (directory / "wandb").exists()

    assert train("ipd.py", together, "hp.seed=2", "resume=auto", *words) == directories[1]
    text = run("ipd.py", together, *command).stdout
    assert f"finished already: {directories[1]}" in text and f"resumed from iteration {iteration}\n" in text
    assert text.count("600/600") == 1 and "3 jobs, 3 finished" in text
    assert re.findall(r"^ +seed (\d) +600 ", text, re.MULTILINE) == ["1", "3"]
    expected = [train("ipd.py", alone, f"hp.seed={seed}", *words) for seed in (1, 2)]
    for one, directory in zip(expected, directories, strict=False):
        assert soak.compare(one, directory) > 10
    assert {"agents", "checkpoints", "config.yaml", "curves.png"} <= {path.name for path in directories[0].iterdir()}
    assert soak.rows(expected[0]) != soak.rows(expected[1])  # the seeds are others


def test_a_signal_leaves_a_seed_that_is_done_finished(tmp_path, sweep, monkeypatch):  # noqa: F811 (a fixture)
    words = ["hp.checkpoint_every=2", "hp.eval_every=2", "launcher=seeds"]
    assert sweep("hp.seed=1", "hp.num_iterations=4", *words)[0] == 0

    def log(run, row, headline, log=Run.log):
        log(run, row, headline)
        if (run.hp.seed, row["iteration"]) == (2, 2):  # seed 1 is at its last one then, 6
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "log", log)
    code, out, _ = sweep("hp.seed=1,2", "hp.num_iterations=6", *words)
    assert code == 143 and "2 jobs, 1 finished" in out and "hp.seed=2: unfinished" in out
    assert len([*tmp_path.glob("ipd_seed1_*/summary.json")]) == 1


def test_what_side_by_side_cannot_do_is_refused():
    options = JaxConfig(num_devices="auto", compilation_cache=False, jax_debug_nans=False, jax_disable_jit=False)
    check(options)
    for change, message in {
        ("jax_debug_nans", True): "jax.jax_debug_nans is true, but must be false with launcher=seeds",
        ("num_devices", 99): "jax.num_devices is 99, but must be auto or at most",
    }.items():
        with pytest.raises(ConfigError, match=message):
            check(options.model_copy(update=dict([change])))


def test_the_terminal_says_once_what_all_say(capsys, tmp_path):
    hp = lambda seed: type("HP", (), {"seed": seed, "total_iterations": 10, "env_steps_per_iteration": 5})
    terminal = SharedTerminal(StopSignals())
    for seed, part in [(seed, OfSeed(hp(seed), terminal)) for seed in (7, 8, 9)]:
        part.log_line("all")
        part.note("nobody")
        if seed > 7:
            part.log_line("some")
        part.row(seed, 1.0, {"reward": seed / 2, "C": float("nan") if seed == 7 else seed})
    assert capsys.readouterr().out == ""
    terminal.flush()
    terminal.flush()
    terminal.print_last_rows()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][0] == "7/10" and lines[1][4:] == ["4.000", "8.500"]
    assert lines[2:4] == [["lowest", "3.500", "8.000"], ["highest", "4.500", "9.000"]]
    assert lines[4:6] == [["all"], ["seeds", "8,", "9:", "some"]]
    assert lines[6:] == [["seed", "7", "7", "3.500", "nan"], ["seed", "8", "8", "4.000", "8.000"]] + [
        ["seed", "9", "9", "4.500", "9.000"]
    ]
