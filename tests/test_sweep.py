"""Multiruns: the presets of the paper's experiments, in small, and what a sweep leaves behind."""

import csv
import json
import os
import signal
import sys

import pytest
import setups
from test_scripts import ROOT, TINY, jax_options, no_figures, run  # noqa: F401 (fixtures)

import ipd
from loqa.run import trainer
from loqa.run.config import CONFIGS

EXPERIMENTS = [
    (script, path.stem) for script in CONFIGS for path in sorted((ROOT / "conf" / script / "experiment").iterdir())
]


def table(save_dir):
    (path,) = save_dir.glob("multirun/*/summary.csv")
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_presets_are_the_papers_experiments():
    assert len(EXPERIMENTS) == 7
    paper = setups.make_hp("coin")
    changed = {
        ("coin", "coin_3x3"): lambda hp: hp == paper,
        ("coin", "scaling"): lambda hp: hp.batch_size == 2048 and hp.stop_at == "strong",
        ("coin", "no_agent_buffer"): lambda hp: not hp.agent_replay_buffer.mode and hp.just_self_play,
        ("coin", "no_self_play"): lambda hp: hp.num_learners == 2 and hp.agent_0 == hp.agent_1 == "loqa",
        ("coin", "naive"): lambda hp: hp.num_learners == 2 and hp.agent_0 == hp.agent_1 == "naive",
        ("ipd", "figure"): lambda hp: hp == setups.make_hp("ipd"),
        ("ipd", "naive"): lambda hp: hp.num_learners == 2 and hp.agent_0 == hp.agent_1 == "naive",
    }
    assert set(changed) == set(EXPERIMENTS)
    for (script, name), holds in changed.items():
        assert holds(setups.make_hp(script, f"experiment={name}")), name
    five = setups.make_hp("coin", "experiment=scaling", "hp.game.height=5")
    assert (five.game.height, five.game.width) == (5, 5)


def test_a_preset_leaves_a_table_figures_and_its_seeds_apart(tmp_path):
    """In small, with two seeds side by side; .ci/run runs the other presets."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["experiment=figure", "smoke=on", "launcher=joblib", "hp.num_iterations=2", "wandb.state=enabled"]
    out = run("ipd.py", tmp_path, *words).stdout
    assert [(job["job"], job["status"], job["iteration"]) for job in table(tmp_path)] == [
        ("hp.seed=42", "finished", "2"),
        ("hp.seed=43", "finished", "2"),
    ]
    assert "job 2 of 2: " in out and "2 jobs, 2 finished" in out
    (place,) = (tmp_path / "multirun").iterdir()
    names = {path.name for path in place.iterdir()}
    assert {"curves.png", "curves.pdf", "cooperation.png", "cooperation.pdf"} <= names

    names = sorted(path.name.rsplit("_", 1)[0] for path in tmp_path.iterdir() if path.name != "multirun")
    assert names == ["ipd_seed42", "ipd_seed43"]
    files = sorted(tmp_path.glob("ipd_seed*/wandb/offline-run-*/*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 2
    for file in files:
        assert file.stat().st_size > 0 and f"wandb sync {file.parent}\n" in out
    assert out.count("no API key") == 2


@pytest.fixture
def sweep(tmp_path, monkeypatch, capfd, no_figures):  # noqa: F811 (a fixture)
    """Runs `ipd.py -m` with some words in this process; gives the exit code, stdout and stderr."""
    at_exit = []
    monkeypatch.setattr("atexit.register", lambda *call: at_exit.append(call))
    monkeypatch.chdir(ROOT)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ipd.py", "-m", *TINY["ipd.py"], f"hp.save_dir={tmp_path}", *words])
        code = 0
        try:
            ipd.main()
        except SystemExit as end:
            code = end.code
        for function, *arguments in at_exit:
            function(*arguments)
        at_exit.clear()
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize("words, jobs", [(["hp.seed=1"], 1), (["hp.seed=1,2", "launcher=seeds"], 2)])
def test_a_signal_behind_the_last_iteration_ends_the_sweep_but_not_the_job(tmp_path, sweep, monkeypatch, words, jobs):
    signals = [signal.SIGTERM]

    def conclude(*arguments, conclude=trainer.conclude):
        while signals:
            os.kill(os.getpid(), signals.pop())
        conclude(*arguments)

    monkeypatch.setattr(trainer, "conclude", conclude)
    code, out, _ = sweep("hp.num_iterations=1", "hp.batch_size=16,32", *words)
    assert code == 143 and f"{jobs} jobs, {jobs} finished" in out


def test_jobs_with_directories_of_their_own_have_one_summary(tmp_path, sweep):
    words = ["hp.seed=1,2", "hp.num_iterations=1", f"hp.save_dir={tmp_path}/${{hp.seed}}"]
    code, out, _ = sweep(*words)
    assert code == 0 and "2 jobs, 2 finished" in out and len([*tmp_path.glob("?/ipd_seed?_*")]) == 2


def test_a_sweep_goes_on_where_it_was(tmp_path, sweep):
    """The first job fails, the other ends. That one again, and further, is skipped and resumed."""
    words = ["hp.seed=1", "hp.checkpoint_every=2"]
    code, out, err = sweep(*words, "hp.num_iterations=5", "hp.qvalue.train.lr_loss_qvalue=1e38,0.01")
    assert code == 1 and "became infinite or NaN" in err.splitlines()[-1]
    assert "2 jobs, 1 finished" in out
    jobs = table(tmp_path)
    assert [job["status"][:6] for job in jobs] == ["failed", "finish"]
    assert jobs[1]["job"] == "hp.qvalue.train.lr_loss_qvalue=0.01"  # what the jobs differ in
    (place,) = (tmp_path / "multirun").iterdir()
    notes = [json.loads(path.read_text()) for path in sorted((place / "jobs").iterdir())]
    (finished,) = [note["directory"] for note in notes if note["status"] == "finished"]
    code, again, _ = sweep(*words, "hp.num_iterations=5,7", "hp.qvalue.train.lr_loss_qvalue=0.01")
    assert code == 0 and f"finished already: {finished}" in again
    assert again.count("resumed from iteration 5") == 1
    assert [path.parent for path in tmp_path.glob("ipd_*/summary.json")] == [ROOT / finished]
