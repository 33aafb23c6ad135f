"""How fast training is: `python -m loqa.tools.benchmark`, from the root of the repository.

Runs the two scripts themselves, on one device and on all (cores of the CPU, or GPUs), each setting in a process of its
own, and reads the times off their metrics.csv: the median of several chunks of iterations after compilation, the start
apart, and the peak of memory. With --strong, also how long the 3x3 Coin Game takes from the start of the process to
the strong threshold: the median of three seeds.

Times depend on the machine and on the minute. So each is also given in units of a fixed piece of JAX work, timed
before and after each measurement: forward and backward of a 128-wide GRU over 50 steps and 512 sequences. The limit
is the time that the matrix products of an iteration take at the speed of a large one.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr

from loqa import learner
from loqa.games import GAMES
from loqa.networks import gru
from loqa.run.agents import game_and_agent
from loqa.run.config import CONFIGS, parse
from loqa.run.launch import compose
from loqa.run.metrics_file import read_metrics
from loqa.scripts.ipd import make_iteration
from loqa.tools.common import ArgumentParser, tool, whole, write_csv

# What is timed: names, and the words of the commands.
SIXTY_FOUR = "coin_train.py hp.agent_replay_buffer.opponents_per_batch=64"
SETTINGS = {
    "IPD, paper's command": "ipd.py hp.eval_every=100",
    "Coin 3x3, batch 512": "coin_train.py",
    "Coin 3x3, batch 512, 64 opponents": SIXTY_FOUR,
    "Coin 7x7, batch 512": "coin_train.py hp.game.height=7 hp.game.width=7",
}
SEEDS = (42, 43, 44)


def seconds(function: Callable[..., jax.Array], *args: jax.Array) -> float:
    """The median time of seven calls, after a first one."""
    times = timeit.repeat(lambda: jax.block_until_ready(function(*args)), number=1, repeat=8)
    return float(np.median(times[1:]))


def calibration() -> Callable[[], float]:
    """A function that times the fixed piece of work: the seconds of a unit."""
    size, steps, batch = 128, 50, 512
    keys = jax.random.split(jax.random.key(0), 3)
    kernel_in = jax.random.normal(keys[0], (36, 3 * size)) / 6
    kernel_hidden = jax.random.normal(keys[1], (size, 3 * size)) / 11
    inputs = jax.random.normal(keys[2], (steps, batch, 36))

    @jax.jit
    @jax.grad
    def work(weights):
        kernel_in, kernel_hidden, bias = weights
        step = lambda hidden, gates: (gru(gates, hidden, kernel_hidden, bias), None)
        hidden, _ = jax.lax.scan(step, jnp.zeros((batch, size)), inputs @ kernel_in)
        return (hidden**2).sum()

    return lambda: seconds(work, (kernel_in, kernel_hidden, jnp.zeros(size)))


def matmul_flops(jaxpr: Jaxpr) -> float:
    """The floating-point operations of a program's matrix products."""
    total = 0.0
    for equation in jaxpr.eqns:
        options = equation.params
        if equation.primitive.name == "dot_general":
            summed = [equation.invars[0].aval.shape[i] for i in options["dimension_numbers"][0][0]]
            total += 2 * equation.outvars[0].aval.size * math.prod(summed)
        inner = [getattr(value, "jaxpr", value) for value in options.values()]
        times = options["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(matmul_flops(each) for each in inner if isinstance(each, Jaxpr))
    return total


def iteration_flops(words: str) -> float:
    """`matmul_flops` of an iteration of a command."""
    script, *overrides = words.split()
    name = next(game.name for game in GAMES.values() if script == (game.script or f"{game.name}.py"))
    hp = parse(compose(name, overrides), CONFIGS[name]).hp
    _, agent = game_and_agent(name, hp)
    state = jax.eval_shape(lambda: learner.init(agent, hp, jax.random.key(0)))
    return matmul_flops(jax.make_jaxpr(make_iteration(hp, agent))(state).jaxpr)


def run_script(words: str, is_done: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Any], float, float]:
    """Runs a command until its metrics are such that it is done: these, seconds before the run's clock, GiB.

    Memory is the peak of the process. Raises ValueError where the script failed.
    """
    start, metrics = time.time(), {"iteration": []}
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, *words.split(), f"hp.save_dir={directory}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            while not is_done(metrics):
                if process.poll() is not None:
                    raise ValueError(f"{words} ended: {process.stderr.read()}")
                time.sleep(0.2)
                for path in Path(directory).glob("*/metrics.csv"):
                    before_run = (path.parent / "config.yaml").stat().st_mtime - start  # its clock starts then
                    if text := path.read_text():
                        metrics = read_metrics(text)
        finally:
            process.kill()
        _, _, usage = os.wait4(process.pid, 0)
    return metrics, before_run, usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def time_iterations(words: str, chunks: int) -> dict[str, float]:
    """The time of an iteration, the median of so many chunks, and what else a run of a command costs."""
    # Capacity and the number of iterations are the paper's: memory is what a real run has.
    script, *overrides = words.split()
    words = " ".join([script, "hp.eval_every=4 hp.eval_episodes=1", *overrides])
    metrics, before_run, memory = run_script(words, lambda metrics: len(metrics["iteration"]) >= 2 + chunks)
    iterations, walltime = metrics["iteration"], metrics["walltime"]
    each = float(np.median(np.diff(walltime[1:]) / np.diff(iterations[1:])))
    return {
        "ms an iteration": 1000 * each,
        "environment steps/s": metrics["env_steps"][1] / iterations[1] / each,
        "s to the first iteration": before_run + walltime[1] - (iterations[1] - 1) * each,
        "GiB": memory,
    }


def time_to_strong(words: str) -> float:
    """Seconds from the start of the process to the first evaluation, of one every 50, that passes the threshold."""
    passed = lambda metrics: GAMES["coin"].goals["strong"](metrics, {"game.height": 3})
    is_done = lambda metrics: len(metrics["iteration"]) > 0 and passed(metrics).any()
    metrics, before_run, _ = run_script(f"{words} hp.eval_every=50", is_done)
    return before_run + float(metrics["walltime"][passed(metrics).argmax()])


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("--chunks", type=whole(1), default=5, help="chunks of iterations of the median (5)")
    parser.add_argument("--strong", action="store_true", help="measure the time to the strong threshold, too")
    parser.add_argument("--csv", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    flops_a_second = 2 * 2048**3 / seconds(jax.jit(lambda x: x @ x), jnp.ones((2048, 2048)))
    machine = f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}"
    print(f"{machine}; {flops_a_second / 1e9:.0f} GFLOP/s in a matmul", flush=True)
    unit, rows = calibration(), []
    for name, words in SETTINGS.items():
        limit = 1000 * iteration_flops(words) / flops_a_second
        for devices in ("1", "auto"):
            before = unit()
            times = time_iterations(f"{words} jax.num_devices={devices}", options.chunks)
            one = (before + unit()) / 2
            ms = times["ms an iteration"]
            times = {"units an iteration": ms / 1000 / one} | times | {"s a unit": one}
            rows.append({"setting": name, "devices": devices} | times | {"limit, ms": limit, "to it": ms / limit})
            print(*(x if isinstance(x, str) else f"{x:.4g} {key}" for key, x in rows[-1].items()), sep=", ")
            sys.stdout.flush()
    if options.strong:
        words = f"{SIXTY_FOUR} jax.num_devices=auto"
        times = [time_to_strong(f"{words} hp.seed={seed}") for seed in SEEDS]
        rows.append({"setting": "Coin 3x3, 64 opponents, to the strong threshold", "s": float(np.median(times))})
        print(f"s to the strong threshold, seeds {SEEDS}: {times}", flush=True)
    if options.csv:
        write_csv(options.csv, rows)


if __name__ == "__main__":
    main()
