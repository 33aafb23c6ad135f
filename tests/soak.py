"""Kills a run again and again and resumes it; it must end with the bits of a run that was left alone.

    python tests/soak.py ipd 100      # from the root of the repository
    python tests/soak.py coin 20

A kill comes at a random moment, from the first instant of the process on, by SIGKILL or by a signal that the run
catches. What must agree: the parameters of the last saved agent, everything in the last checkpoint, and
metrics.csv but for the wall time.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

# All that a state can hold: both replay buffers, the rings of which wrap around, and two learners in the IPD.
COMMON = (
    "hp.agent_replay_buffer.mode=enabled hp.agent_replay_buffer.update_freq=3 hp.agent_replay_buffer.capacity=40 "
    "hp.qvalue.replay_buffer.mode=enabled hp.qvalue.replay_buffer.capacity=100 hp.batch_size=16 hp.eval_episodes=8"
)
SETTINGS = {
    "ipd": ("ipd.py", COMMON + " hp.game_length=10 hp.just_self_play=false hp.eval_every=2500 hp.checkpoint_every=300"),
    "coin": (
        "coin_train.py",
        COMMON + " hp.game.game_length=10 hp.actor.hidden_size=16 hp.qvalue.hidden_size=8 hp.eval_every=200 "
        "hp.checkpoint_every=45",
    ),
}


def words(game: str, iterations: int) -> list[str]:
    return [*SETTINGS[game][1].split(), f"hp.num_iterations={iterations}"]


def start(game: str, iterations: int, save_dir: Path, *overrides: str) -> subprocess.Popen:
    return popen([SETTINGS[game][0], *words(game, iterations), f"hp.save_dir={save_dir}", *overrides], save_dir)


def popen(command: list[str], save_dir: Path) -> subprocess.Popen:
    """Starts `python` with these words."""
    environment = {  # so that a process starts in seconds; the tests have a cache already
        "JAX_COMPILATION_CACHE_DIR": str(save_dir.parent / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    } | os.environ
    # A job in the background ignores SIGINT, and so would its children.
    handle = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    options = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "preexec_fn": handle}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, **options)


def send_at(process: subprocess.Popen, text: str, number: int | None) -> tuple[int, str]:
    """Sends a signal, if any, when the process has printed `text`; returns its exit code and its output."""
    printed = ""
    for line in process.stdout:
        printed += line.decode()
        if text in line.decode() and number:
            process.send_signal(number)
    assert text in printed, printed
    return process.wait(), printed


def kill_somewhen(process: subprocess.Popen, dice: random.Random, startup: float, running: float) -> str:
    """Sends one of SIGNALS in the start or while it trains; returns what the process printed."""
    if dice.random() < 0.3:
        time.sleep(dice.uniform(0.0, startup))
    else:
        for line in process.stdout:
            if b"compiling" in line:
                break
        time.sleep(dice.uniform(0.0, startup + running))
    number = dice.choice(SIGNALS)
    process.send_signal(number)
    text = process.communicate()[0].decode()
    expected = {-number, 0} | ({128 + number} if number != signal.SIGKILL else set())  # 0: it had just ended
    assert process.returncode in expected, (number, process.returncode, text)
    return text


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as file:
        return [row | {"walltime": ""} for row in csv.DictReader(file)]


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name != "metadata"}


def compare(directory: Path, other: Path) -> int:
    """Raises AssertionError where the runs differ; returns how many arrays were the same."""
    assert rows(directory) == rows(other)
    count = 0
    for pattern in ("agents/*.npz", "checkpoints/state_*.npz"):
        one, two = (sorted(path.glob(pattern))[-1] for path in (directory, other))
        assert one.name == two.name
        one, two = arrays(one), arrays(two)
        assert one.keys() == two.keys()
        for name in one:
            if name != "description":  # it has the save_dir
                np.testing.assert_array_equal(one[name], two[name], err_msg=name)
                count += 1
    return count


def soak(game: str, kills: int, iterations: int, startup: float, running: float, seed: int = 0) -> int:
    """Returns how often the run was killed before it ended."""
    dice, done = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as place:
        alone, killed = Path(place) / "alone", Path(place) / "killed"
        process = start(game, iterations, alone)
        text = process.communicate()[0].decode()
        assert process.returncode == 0, text
        while done < kills:
            text = kill_somewhen(start(game, iterations, killed, "resume=auto"), dice, startup, running)
            if f"{iterations}/{iterations}" in text:
                break
            done += 1
            states = sorted(killed.glob("*/checkpoints/state_*.npz"))
            print(f"kill {done}: {states[-1].stem if states else 'no checkpoint yet'}", flush=True)
        process = start(game, iterations, killed, "resume=auto")
        text = process.communicate()[0].decode()
        assert process.returncode == 0, text
        (directory,) = [path for path in killed.iterdir() if (path / "summary.json").exists()]
        count = compare(next(alone.iterdir()), directory)
    print(f"{game}: {done} kills, {iterations} iterations: {count} arrays and metrics.csv are the same")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("game", choices=SETTINGS)
    parser.add_argument("kills", type=int)
    parser.add_argument("--iterations", type=int, help="of the run (2500 or 400 for each kill)")
    parser.add_argument("--startup", type=float, default=3.0, help="seconds that a process needs to start (3)")
    parser.add_argument("--running", type=float, default=1.0, help="seconds that it trains at most (1)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    iterations = options.iterations or options.kills * {"ipd": 2500, "coin": 400}[options.game]
    soak(options.game, options.kills, iterations, options.startup, options.running, options.seed)


if __name__ == "__main__":
    main()
