"""How fast training is: `python -m loqa.tools.benchmark`, or of settings in quotes, such as "coin hp.game.width=7".

Trains on one device and on all (cores of the CPU, or GPUs), each setting in a process of its own, and reads the times
off its metrics.csv: the median of several chunks of iterations after compilation, the start apart, and the peak of
memory. Times depend on the machine and on the minute. So each is also given in units of a fixed piece of JAX work,
timed before and after each measurement: 200 products of 512 x 512 matrices, with a tanh of each.
"""

import os
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from loqa.games import GAMES
from loqa.run.metrics_file import read_metrics
from loqa.tools.common import ArgumentParser, tool, whole, write_csv


def calibration() -> Callable[[], float]:
    """A function that times the fixed piece of work, the median of seven: the seconds of a unit."""
    work = jax.jit(lambda x: jax.lax.fori_loop(0, 200, lambda _, y: jnp.tanh(y @ x), x))
    x = jax.random.normal(jax.random.key(0), (512, 512)) / 20
    once = lambda: jax.block_until_ready(work(x))
    return lambda: float(np.median(timeit.repeat(once, number=1, repeat=8)[1:]))


def run_script(name: str, overrides: list[str], rows: int) -> tuple[dict[str, np.ndarray], float, float]:
    """Runs a game's script until its metrics have so many rows, or raises ValueError where it fails.

    Returns the metrics, the seconds before the run's clock began, and the GiB at the peak.
    """
    start, metrics = time.time(), {"iteration": []}
    module = (GAMES[name].script or name).removesuffix(".py")
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", f"loqa.scripts.{module}", *overrides, f"hp.save_dir={directory}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            while len(metrics["iteration"]) < rows:
                if process.poll() is not None:
                    raise ValueError(f"{name} {' '.join(overrides)} ended: {process.stderr.read()}")
                time.sleep(0.2)
                for path in Path(directory).glob("*/metrics.csv"):
                    before_run = (path.parent / "config.yaml").stat().st_mtime - start  # its clock starts then
                    metrics = read_metrics(path.read_text())
        finally:
            process.kill()
        _, _, usage = os.wait4(process.pid, 0)
    return metrics, before_run, usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


@tool
def main(parser: ArgumentParser) -> None:
    parser.add_argument("settings", nargs="*", metavar="'GAME KEY=VALUE ...'", help="(each game as it is)")
    parser.add_argument("--chunks", type=whole(1), default=5, help="chunks of iterations of the median (%(default)s)")
    parser.add_argument("--csv", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    settings = [words.split() for words in options.settings or GAMES]
    if unknown := [name for name, *_ in settings if name not in GAMES]:
        raise ValueError(f"the game is {unknown[0]!r}, but must be {' or '.join(GAMES)}")
    print(f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}", flush=True)
    unit, rows = calibration(), []
    for (name, *overrides), devices in product(settings, ("1", "auto")):
        before = unit()
        # Capacity and the number of iterations are the preset's: memory is what a real run has.
        words = ["hp.eval_every=4", "hp.eval_episodes=1", *overrides, f"jax.num_devices={devices}"]
        metrics, before_run, memory = run_script(name, words, 2 + options.chunks)
        one = (before + unit()) / 2
        iterations, walltime = metrics["iteration"], metrics["walltime"]
        each = float(np.median(np.diff(walltime[1:]) / np.diff(iterations[1:])))  # without the first, which compiles
        measured = {
            "units an iteration": each / one,
            "ms an iteration": 1000 * each,
            "environment steps/s": metrics["env_steps"][1] / iterations[1] / each,
            "s to the first iteration": before_run + walltime[1] - (iterations[1] - 1) * each,
            "GiB": memory,
            "s a unit": one,
        }
        rows.append({"setting": " ".join([name, *overrides]), "devices": devices} | measured)
        print(rows[-1]["setting"], devices, *(f"{x:.4g} {key}" for key, x in measured.items()), sep=", ", flush=True)
    if options.csv:
        write_csv(options.csv, rows)


if __name__ == "__main__":
    main()
