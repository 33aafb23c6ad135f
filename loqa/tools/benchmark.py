"""How fast training is: `python -m loqa.tools.benchmark`, from the root of the repository.

Runs the two scripts themselves, each setting in a process of its own, and reads the times off their metrics.csv:
the median of several chunks of iterations after compilation, compilation and start apart, and the peak of memory.
The phases of an iteration are timed in this process, by the functions that the scripts call.

Times depend on the machine and on the minute. So each is also given in units of a fixed piece of JAX work, timed
before and after each measurement: forward and backward of a 128-wide GRU over 50 steps and 512 sequences.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ipd import critic_loss, policy_losses
from loqa import learner
from loqa.networks import gru
from loqa.opponents import draw_opponents
from loqa.rollout import draw_noise, play
from loqa.run.agents import game_and_agent
from loqa.run.config import CONFIGS, parse
from loqa.run.launch import compose
from loqa.run.metrics_file import read_metrics
from loqa.tools.common import run_tool, tool_parser, whole, write_csv

# Names of the settings, and the words of their commands; hp.eval_every=4 where a command does not set it.
BATCH, GROUPED = "coin_train.py hp.batch_size=", "hp.agent_replay_buffer.opponents_per_batch=64"
GRID = "coin_train.py hp.game.height={0} hp.game.width={0}"
PAPER = {
    "IPD, paper's command": "ipd.py hp.eval_every=100",
    "Coin 3x3, batch 512": "coin_train.py",
    "Coin 3x3, batch 512, 64 opponents": f"coin_train.py {GROUPED}",
    "Coin 7x7, batch 512": GRID.format(7),
}
MORE = {
    **{f"Coin {size}x{size}, batch 512": GRID.format(size) for size in (4, 5, 6)},
    **{f"Coin 3x3, batch {size}": f"{BATCH}{size}" for size in (128, 256, 1024, 2048)},
    "Coin 3x3, batch 2048, 64 opponents": f"{BATCH}2048 {GROUPED}",
    "Coin 3x3, batch 512, 25 steps": "coin_train.py hp.game.game_length=25",
    "Coin 3x3, batch 512, capacity 1000": "coin_train.py hp.agent_replay_buffer.capacity=1000",
    "Coin 3x3, batch 512, capacity 10": "coin_train.py hp.agent_replay_buffer.capacity=10",
    "IPD, gru": "ipd.py hp=gru",
}


def seconds(function: Callable[[], object], runs: int = 7) -> float:
    """The median time of a call, after a first one."""
    times = []
    for _ in range(1 + runs):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def calibration() -> Callable[[], float]:
    """A function that times the fixed piece of work: the seconds of a unit."""
    size, steps, batch = 128, 50, 512
    keys = jax.random.split(jax.random.key(0), 3)
    weights = (
        jax.random.normal(keys[0], (36, 3 * size)) / 6,
        jax.random.normal(keys[1], (size, 3 * size)) / 11,
        jnp.zeros(size),
    )
    inputs = jax.random.normal(keys[2], (steps, batch, 36))

    def loss(weights):
        kernel_in, kernel_hidden, bias = weights
        step = lambda hidden, gates: (gru(gates, hidden, kernel_hidden, bias), None)
        hidden, _ = jax.lax.scan(step, jnp.zeros((batch, size)), inputs @ kernel_in)
        return (hidden**2).sum()

    work = jax.jit(jax.grad(loss))
    return lambda: seconds(lambda: work(weights))


def run_script(words: str, chunks: int) -> dict[str, float]:
    """Runs a command until it has timed so many chunks of iterations, and reads its times.

    Returns:
      seconds an iteration (median of the chunks), environment steps per second, seconds from the start of the
      process to the first evaluation and to the first iteration, and the peak of memory in GiB.

    Raises:
      RuntimeError: the script failed.
    """
    with tempfile.TemporaryDirectory() as directory:
        # Capacity and the number of iterations are the paper's: memory is what a real run has.
        script, *overrides = words.split()
        overrides = ["hp.eval_every=4", "hp.eval_episodes=1", *overrides, f"hp.save_dir={directory}"]
        start, walltime = time.time(), []
        process = subprocess.Popen(
            [sys.executable, script, *overrides], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while len(walltime) < 2 + chunks:
            if process.poll() is not None:
                raise RuntimeError(f"{words} ended: {process.stderr.read()}")
            time.sleep(0.2)
            for path in Path(directory).glob("*/metrics.csv"):
                before_run = max((path.parent / "config.yaml").stat().st_mtime - start, 0)  # its clock starts then
                if text := path.read_text():
                    metrics = read_metrics(io.StringIO(text))
                    walltime = metrics["walltime"]
        process.kill()
        _, _, usage = os.wait4(process.pid, 0)
    iterations = metrics["iteration"]
    seconds_each = float(np.median(np.diff(walltime[1:]) / np.diff(iterations[1:])))
    return {
        "seconds_per_iteration": seconds_each,
        "env_steps_per_second": metrics["env_steps"][1] / iterations[1] / seconds_each,
        "seconds_to_first_evaluation": before_run + walltime[0],
        "seconds_to_first_iteration": before_run + walltime[1] - (iterations[1] - 1) * seconds_each,
        "peak_memory_gib": usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20),
    }


def phases(script: str, overrides: list[str]) -> dict[str, float]:
    """Seconds of each phase of an iteration of a script's settings, each jitted alone."""
    hp = parse(compose(script, overrides), CONFIGS[script]).hp
    game, agent = game_and_agent(script, hp)
    me = learner.init(agent, hp, jax.random.key(0)).learners[0]
    # A full ring, so that an opponent's parameters come from anywhere in it.
    past = me.past and me.past._replace(added=jnp.array(2**30))
    opponents = draw_opponents(jax.random.key(1), me.params, past, hp)
    noise = jax.jit(lambda key: draw_noise(key, hp.game_length, hp.batch_size))
    roll_out = jax.jit(lambda *args: play(game, agent, *args, hp.epsilon_greedy))

    @jax.jit
    def policy_gradient(params, episodes):
        return jax.grad(lambda params: sum(policy_losses(hp, agent, params, episodes, 0)))(params)

    @jax.jit
    def critic_gradient(params, episodes):
        return jax.grad(lambda params: critic_loss(hp, agent, params, me.target_params, episodes.mine))(params)

    drawn = noise(jax.random.key(2))
    episodes = roll_out(me.params, opponents, drawn)
    return {
        "noise": seconds(partial(noise, jax.random.key(2))),
        "rollout": seconds(partial(roll_out, me.params, opponents, drawn)),
        "policy gradient": seconds(partial(policy_gradient, me.params, episodes)),
        "critic gradient": seconds(partial(critic_gradient, me.params, episodes)),
    }


def machine_limits() -> dict[str, float]:
    """What the processor can do here: GFLOP/s of a large float32 matmul, GB/s of an addition of large arrays."""
    square = jnp.ones((2048, 2048))
    large = jnp.ones(2**26)
    matmul, addition = jax.jit(lambda x: x @ x), jax.jit(lambda x, y: x + y, donate_argnums=0)

    def add():
        nonlocal large
        large = addition(large, 1.0)
        return large

    return {
        "GFLOP/s": 2 * 2048**3 / seconds(lambda: matmul(square)) / 1e9,
        "GB/s": 2 * large.nbytes / seconds(add) / 1e9,
    }


def main() -> None:
    parser = tool_parser("benchmark", __doc__)
    every = "grids 4 to 6, batches 128 to 2048, capacities and more"
    parser.add_argument("--all", action="store_true", help=every)
    parser.add_argument(
        "--chunks", type=whole(1), default=5, help="chunks of iterations to take the median of (5)"
    )
    parser.add_argument("--csv", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    for name in ("ipd.py", "coin_train.py"):
        if not Path(name).exists():
            parser.error(f"{name} is not here: run it from the root of the repository")

    limits = ", ".join(f"{value:.0f} {name}" for name, value in machine_limits().items())
    print(f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}; {limits}", flush=True)
    unit, rows = calibration(), []
    for name, words in (PAPER | MORE if options.all else PAPER).items():
        before = unit()
        times = run_script(words, options.chunks)
        one = (before + unit()) / 2
        units = times["seconds_per_iteration"] / one
        rows.append({"setting": name, "units": units} | times | {"unit_seconds": one})
        print(
            f"{name:36} {units:7.3f} units = {times['seconds_per_iteration'] * 1e3:7.1f} ms an "
            f"iteration, {times['env_steps_per_second']:9.0f} steps/s, first iteration after "
            f"{times['seconds_to_first_iteration']:4.1f} s, {times['peak_memory_gib']:.2f} GiB (unit {one:.3f} s)",
            flush=True,
        )
    for script, name in (("ipd", "IPD"), ("coin", "Coin 3x3, batch 512")):
        one = unit()
        text = ", ".join(f"{phase} {value / one:.3f}" for phase, value in phases(script, []).items())
        print(f"phases of {name}, in units: {text}", flush=True)
    if options.csv:
        write_csv(options.csv, rows)


if __name__ == "__main__":
    run_tool(main)
