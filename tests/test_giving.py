"""A third game is a file, its presets and its script: everything else works on it as it is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent

# Runs Python's command lines one after another in one process, with a rule before the output of each.
DRIVER = """
import json, runpy, sys
for words in json.loads(sys.argv[1]):
    print("====", flush=True)
    sys.argv = words if words[0].endswith(".py") else words[1:]
    try:
        if words[0] == "-c":
            exec(words[1])
        elif words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        print("exit code", end.code, flush=True)
    from loqa.figures import curves
    curves.draw_run = lambda *_: None  # the figures of one run are enough
"""
# An agent that always gives 2, to start from.
GENEROUS = """
from pathlib import Path
from loqa.run.agents import load_agent, save_agent
params, description = load_agent(next(Path("runs").glob("giving_seed42_*/agents/*.npz")))
params.actor["params"]["Dense_2"]["bias"][:] = [-50, -50, 50]
save_agent("generous.npz", params, description)
"""


def test_a_third_game_touches_no_other_file(tmp_path):
    """It trains, resumes, sweeps, refuses a bad key, is drawn, plays a league, says it has no film, stops early."""
    for name in ("loqa", "conf"):
        shutil.copytree(TESTS.parent / name, tmp_path / name)
    shutil.copy(TESTS.parent / "ipd.py", tmp_path)
    new = [path.relative_to(TESTS / "giving") for path in (TESTS / "giving").rglob("*.*") if path.is_file()]
    assert not any((tmp_path / path).exists() for path in new)
    shutil.copytree(TESTS / "giving", tmp_path, dirs_exist_ok=True)
    assert (TESTS / "giving/loqa/games/giving.py").read_text() in (TESTS.parent / "docs/extend.md").read_text()

    small = ["giving.py", "hp.batch_size=8", "hp.eval_episodes=8", "hp.game_length=4", "hp.save_dir=runs"]
    frozen = ["hp.init_from=generous.npz", "hp.actor.train.lr_loss_actor=0", "hp.eval_every=1"]
    commands = [
        [*small, "hp.num_iterations=2"],
        [*small, "hp.num_iterations=3", "resume=auto"],
        [small[0], "-m", *small[1:], "hp.num_iterations=1", "hp.seed=1,2"],
        [*small, "hp.factor=-1"],
        ["-m", "loqa.tools.plot", "curves", "runs", "--out", "curves"],
        ["-m", "loqa.tools.league", "runs", "--episodes", "4", "--steps", "4", "--out", "league"],
        ["-m", "loqa.tools.render", "always-cooperate", "always-defect", "--game", "giving"],
        ["-c", GENEROUS],
        [*small, "hp.num_iterations=9", "hp.seed=5", "hp.stop_at=generous", *frozen],
    ]
    command = [sys.executable, "-c", DRIVER, json.dumps(commands)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    _, first, resumed, sweep, refused, _, league, render, _, stopped = done.stdout.split("====\n")
    assert "preset giving, seed 42" in first and "agent 0 gives" in first
    assert "resumed from iteration 2" in resumed and "3/3" in resumed
    assert "job 2 of 2: " in sweep and "2 jobs, 2 finished" in stopped  # at the exit of the process
    assert "exit code 2" in refused and "hp.factor is -1" in done.stderr
    assert (tmp_path / "curves.png").exists()
    assert "players of the game of giving" in league and (tmp_path / "league/league.png").exists()
    assert "exit code 2" in render and "error: the game of giving has no film" in done.stderr
    assert "the generous threshold is held: done" in stopped and "agent 0 gives 2.00 of 2" in stopped
