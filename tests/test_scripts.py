"""Both scripts as a user runs them: short runs, some in processes of their own, and what they leave behind."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import ipd
from loqa.games import GAMES
from loqa.run import launch
from loqa.run.agents import load_agent

ROOT = Path(__file__).parent.parent
# Most runs share these, and so what they compile; test_devices.py and test_seeds.py have more than one device.
TINY = {
    "ipd.py": ["hp.batch_size=8", "hp.game_length=5", "hp.eval_episodes=4", "jax.num_devices=1"],
    "coin_train.py": ["hp.batch_size=8", "hp.game.game_length=5", "hp.eval_episodes=4", "hp.actor.hidden_size=8"],
}


def run(script, save_dir, *overrides, check=True):
    flags = [word for word in overrides if word.startswith("-")]  # Hydra wants them first
    overrides = [word for word in overrides if word not in flags]
    command = [sys.executable, script, *flags, *TINY[script], f"hp.save_dir={save_dir}", *overrides]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment |= {"HOME": str(save_dir.parent), "NETRC": os.devnull}  # no account of whoever runs the tests
    environment |= {"MPLBACKEND": "nosuch"}  # as of a notebook elsewhere: figures need none
    result = subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(autouse=True)
def jax_options():
    """Those of a run in this process end with the test."""
    yield
    for name in ("jax_debug_nans", "jax_disable_jit"):
        jax.config.update(name, False)


def train(script, save_dir, *overrides):
    """The same in this process; returns the run's directory."""
    name = {"ipd.py": "ipd", "coin_train.py": "coin"}[script]
    cfg = launch.compose(name, [*TINY[script], f"hp.save_dir={save_dir}", *overrides])
    return launch.train(name, cfg, ipd.make_experiment)


def rows(directory):
    with open(directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def only_run(save_dir):
    (directory,) = [path for path in save_dir.iterdir() if path.name != "multirun"]
    return directory


@pytest.fixture
def no_figures(monkeypatch):
    """Runs end without their figures."""
    monkeypatch.setattr("loqa.figures.curves.draw_run", lambda run, game: None)


# Each way through the scripts runs once; test_options.py has every key. With the iterations of its rows.
RUNS = {
    "ipd": ("ipd.py", ["hp.num_iterations=3", "hp.eval_every=2", "hp.save_every=1"], [0, 2, 3]),
    "two learners": (
        "ipd.py",
        ["hp=logits_published", "hp.num_iterations=9", "hp.max_env_steps=160", "hp.just_self_play=false"]
        + ["hp.agent_1=naive", "hp.game_name=custom", "hp.payoffs=[[-1,-3,0,-2],[0,-2,-1,-3]]"]
        + ["jax.jax_debug_nans=true", "hp.eval_episodes=6"],
        [0, 2],
    ),
    "coin": (
        "coin_train.py",
        ["hp.num_iterations=2", "hp.eval_every=1", "wandb.state=enabled", "hp.game.width=4"],
        [0, 1, 2],
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_leaves_everything(name, tmp_path, capsys):
    script, overrides, iterations = RUNS[name]
    if name == "two learners":  # in this process, which is quicker
        train(script, tmp_path, *overrides)
        out = capsys.readouterr().out
    else:
        out = run(script, tmp_path, *overrides).stdout
    directory = only_run(tmp_path)
    table = rows(directory)
    assert [int(row["iteration"]) for row in table] == iterations
    learners = 2 if name == "two learners" else 1
    assert [int(row["env_steps"]) for row in table] == [learners * 8 * 5 * i for i in iterations]
    numbers = {key: [float(row[key]) for row in table] for key in table[0]}
    assert all(np.isfinite(values).all() for values in numbers.values())
    assert (np.diff(numbers["walltime"]) > 0).all()
    expected = {"mean_rewards_0", "mean_rewards_1", "loss_agent_0_qvalue", "agent0_entropy"}
    expected |= {"grad_agent0_norm", "grad_opponent0_norm"}
    if script == "ipd.py":
        episodes = 6 if learners == 2 else 4  # hp.eval_episodes: rewards are whole, so means are n-ths
        sums = np.array(numbers["mean_rewards_0"]) * episodes * 5
        np.testing.assert_allclose(sums, sums.round(), atol=1e-4)
        expected |= {f"p_{i}_{state}_C" for state in ("START", "CC", "CD", "DC", "DD") for i in range(learners)}
        assert -3 <= min(numbers["mean_rewards_0"]) <= max(numbers["mean_rewards_0"]) <= 0
    else:
        expected |= {f"always_{x}_0_mean_rewards_{y}" for x in ("cooperate", "defect") for y in "ad"}
    assert expected <= numbers.keys()

    last = iterations[-1]
    saved = sorted(path.name for path in (directory / "agents").iterdir())
    stops = [1, 2, 3] if name == "ipd" else [last]
    assert saved == sorted(f"agent_{i}_{k:06d}.npz" for i in range(learners) for k in stops)
    _, description = load_agent(directory / "agents" / saved[-1])
    assert description["hp"]["batch_size"] == 8
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["iteration"] == last
    assert np.float32(summary["mean_rewards_0"]) == np.float32(numbers["mean_rewards_0"][-1])
    pictures = ["curves.png"] + [f"cooperation_{i}.png" for i in range(learners) if script == "ipd.py"]
    for picture in pictures:
        with Image.open(directory / picture) as image:
            assert min(image.size) > 300
    assert "compiling" in out and f"{last}/{last}" in out
    assert ("wandb sync" in out) == ("wandb.state=enabled" in overrides)
    assert ((directory / "wandb").exists()) == ("wandb.state=enabled" in overrides)


def test_saving_and_evaluating_change_no_bit(tmp_path, no_figures):
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    directories = [
        train("ipd.py", often, "hp.num_iterations=4", "hp.eval_every=1", "hp.save_every=1", "hp.checkpoint_every=1"),
        train("ipd.py", seldom, "hp.num_iterations=4", "hp.eval_every=3", "hp.save_every=100"),
    ]
    files = [directory / "agents" / "agent_0_000004.npz" for directory in directories]
    jax.tree.map(np.testing.assert_array_equal, *(load_agent(file)[0] for file in files))
    same = [row for row in rows(only_run(often)) if row["iteration"] in ("0", "3", "4")]
    for x, y in zip(same, rows(only_run(seldom)), strict=True):
        assert x | {"walltime": ""} == y | {"walltime": ""}


def test_a_coin_run_stops_at_its_threshold_and_goes_on_without_it(tmp_path, no_figures):
    """With an iteration that learns nothing, and an evaluation in which every threshold is passed."""
    names = {"mean_rewards_0", "mean_rewards_1", "always_defect_0_mean_rewards_d"}
    names |= {*GAMES["coin"].columns.values()} - {"self_play"}
    parts = {
        "iteration": lambda state: state._replace(iteration=state.iteration + 1),
        "evaluation": lambda key, state: dict.fromkeys(sorted(names), jnp.ones(())),
    }

    def trained(*overrides):
        fixed = [*TINY["coin_train.py"], "hp.agent_replay_buffer.mode=disabled", "hp.eval_every=1"]
        cfg = launch.compose("coin", [*fixed, f"hp.save_dir={tmp_path}", *overrides])
        experiment = lambda game, hp: ipd.make_experiment(game, hp)._replace(**parts)
        directory = launch.train("coin", cfg, experiment)
        return json.loads((directory / "summary.json").read_text())

    for _ in range(2):  # the second time there is nothing left to do
        summary = trained("hp.stop_at=weak", "hp.num_iterations=9", "resume=auto")
        assert (summary["iteration"], summary["reached"]) == (4, "weak")  # five rows, from iteration 0 on
        assert (only_run(tmp_path) / "agents" / "agent_0_000004.npz").exists()
    summary = trained("hp.num_iterations=6", "resume=auto")
    assert (summary["iteration"], summary["reached"]) == (6, None)
    assert [int(row["iteration"]) for row in rows(only_run(tmp_path))] == [*range(7)]


def test_a_signal_while_it_compiles_stops_it_before_an_iteration(tmp_path, monkeypatch, no_figures):
    signals = [signal.SIGTERM]

    def make_iteration(hp, agent, make=ipd.make_iteration):
        def iteration(state):  # while it is traced
            while signals:
                os.kill(os.getpid(), signals.pop())
            return make(hp, agent)(state)

        return iteration

    monkeypatch.setattr(ipd, "make_iteration", make_iteration)
    with pytest.raises(SystemExit) as end:
        train("ipd.py", tmp_path, "hp.num_iterations=5")
    assert end.value.code == 128 + signal.SIGTERM
    assert [row["iteration"] for row in rows(only_run(tmp_path))] == ["0"]
    assert train("ipd.py", tmp_path, "hp.num_iterations=5", "resume=auto") == only_run(tmp_path)
    assert [row["iteration"] for row in rows(only_run(tmp_path))] == ["0", "5"]
