"""How fast training is: `python -m loqa.tools.benchmark`, from the root of the repository.

Runs the two scripts themselves, each setting in a process of its own, and reads the times off their metrics.csv:
the median of several chunks of iterations after compilation, compilation and start apart, and the peak of memory.

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
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from loqa.networks import gru
from loqa.run.metrics_file import read_metrics
from loqa.tools.common import one_line_errors, run_tool, tool_parser, whole, write_csv

# What is timed: names, and the words of the commands.
SETTINGS = {
    "IPD, paper's command": "ipd.py hp.eval_every=100",
    "Coin 3x3, batch 512": "coin_train.py",
    "Coin 3x3, batch 512, 64 opponents": "coin_train.py hp.agent_replay_buffer.opponents_per_batch=64",
    "Coin 7x7, batch 512": "coin_train.py hp.game.height=7 hp.game.width=7",
}


def seconds(function: Callable[..., jax.Array], *args: jax.Array) -> float:
    """The median time of seven calls, after a first one."""
    times = []
    for _ in range(8):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
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


def run_script(words: str, chunks: int) -> dict[str, float]:
    """Runs a command until it has timed so many chunks of iterations, and reads its times.

    The time of an iteration is the median of the chunks; that to the first one is from the start of the process,
    and the memory is its peak. Raises ValueError where the script failed.
    """
    # Capacity and the number of iterations are the paper's: memory is what a real run has.
    script, *overrides = words.split()
    overrides = ["hp.eval_every=4", "hp.eval_episodes=1", *overrides]
    start, metrics = time.time(), {"iteration": []}
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, script, *overrides, f"hp.save_dir={directory}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            while len(metrics["iteration"]) < 2 + chunks:
                if process.poll() is not None:
                    raise ValueError(f"{words} ended: {process.stderr.read()}")
                time.sleep(0.2)
                for path in Path(directory).glob("*/metrics.csv"):
                    before_run = (path.parent / "config.yaml").stat().st_mtime - start  # its clock starts then
                    if text := path.read_text():
                        metrics = read_metrics(io.StringIO(text))
        finally:
            process.kill()
        _, _, usage = os.wait4(process.pid, 0)
    iterations, walltime = metrics["iteration"], metrics["walltime"]
    each = float(np.median(np.diff(walltime[1:]) / np.diff(iterations[1:])))
    return {
        "ms an iteration": 1000 * each,
        "environment steps/s": metrics["env_steps"][1] / iterations[1] / each,
        "s to the first iteration": before_run + walltime[1] - (iterations[1] - 1) * each,
        "GiB": usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20),
    }


def main() -> None:
    parser = tool_parser("benchmark", __doc__)
    parser.add_argument("--chunks", type=whole(1), default=5, help="chunks of iterations of the median (5)")
    parser.add_argument("--csv", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    gflops = 2 * 2048**3 / seconds(jax.jit(lambda x: x @ x), jnp.ones((2048, 2048))) / 1e9
    print(f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}; {gflops:.0f} GFLOP/s in a matmul", flush=True)
    unit, rows = calibration(), []
    for name, words in SETTINGS.items():
        before = unit()
        with one_line_errors(parser):
            times = run_script(words, options.chunks)
        one = (before + unit()) / 2
        times = {"units an iteration": times["ms an iteration"] / 1000 / one} | times | {"s a unit": one}
        rows.append({"setting": name} | times)
        print(f"{name}: " + ", ".join(f"{value:.4g} {what}" for what, value in times.items()), flush=True)
    if options.csv:
        write_csv(options.csv, rows)


if __name__ == "__main__":
    run_tool(main)
