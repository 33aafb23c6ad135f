"""Runs that are kept, and the tables and figures that are built from them."""

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from loqa.run.launch import compose
from loqa.tools import report

STATES = ("START", "CC", "CD", "DC", "DD")


def make_run(directory, script, seed, rewards):
    """A finished run with two evaluations, as the scripts leave it; `rewards` are of the second one."""
    (directory / "agents").mkdir(parents=True)
    hp = compose(script, [f"hp.seed={seed}"])
    (directory / "config.yaml").write_text(yaml.safe_dump({"hp": json.loads(json.dumps(dict(hp.hp), default=dict))}))
    names = [f"p_0_{state}_C" for state in STATES] if script == "ipd" else ["always_defect_0_mean_rewards_a"]
    head = ["iteration", "walltime", "env_steps", "mean_rewards_0", "mean_rewards_1", *names]
    rows = [[0, 1, 0, 0, 0] + [0.5] * len(names), [100, 61, 2e6, *rewards] + [0.25 * seed] * len(names)]
    lines = [head, *rows]
    (directory / "metrics.csv").write_text("\n".join(",".join(map(str, line)) for line in lines) + "\n")
    summary = {
        "iteration": 100,
        "commits": [f"{'01234567' * 5}-dirty"],
        "command": f"python {script}.py hp.seed={seed}",
    }
    summary["machine"] = {"processor": "Z80", "cores": 1, "device": "cpu"}
    (directory / "summary.json").write_text(json.dumps(summary))
    for iteration in (50, 100):
        np.savez(directory / "agents" / f"agent_0_{iteration:06d}.npz", x=np.ones(iteration))
    return directory


def test_archive_copies_what_documents_a_run(tmp_path):
    run = make_run(tmp_path / "ipd_seed1_20260101-120000", "ipd", 1, (-1, -1))
    (run / "checkpoints").mkdir()
    other = make_run(tmp_path / "ipd_seed2_20260101-120000_1", "ipd", 2, (-1, -1))
    copies = report.archive([run, other], tmp_path / "out")
    assert copies == [tmp_path / "out" / name for name in ("ipd_seed1", "ipd_seed2")]
    kept = sorted(str(path.relative_to(copies[0])) for path in copies[0].rglob("*") if path.is_file())
    assert kept == ["agents/agent_0_000100.npz", "config.yaml", "metrics.csv", "summary.json"]
    assert (copies[0] / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    (bare,) = report.archive([run], tmp_path / "bare", with_agents=False)
    assert sorted(path.name for path in bare.iterdir()) == ["config.yaml", "metrics.csv", "summary.json"]
    with pytest.raises(ValueError, match="cannot be copied to .*: that exists already"):
        report.archive([run], tmp_path / "out")
    with open(run / "metrics.csv", "a") as file:
        file.write("200,1,1,1,1,1,1,1,1,1\n")
    with pytest.raises(ValueError, match="not a finished run: it continued to iteration 200"):
        report.archive([run], tmp_path / "elsewhere")
    (run / "summary.json").write_text((run / "summary.json").read_text().replace("100", "200"))
    assert report.archive([run], tmp_path / "bare") == [bare]  # over the shorter one, which had no agents
    assert (bare / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes() and (bare / "agents").exists()
    config = copies[0] / "config.yaml"
    config.write_text(config.read_text().replace("batch_size: 2048", "batch_size: 8"))
    with pytest.raises(ValueError, match="cannot be copied to .*: that exists already"):  # a run of other settings
        report.archive([run], tmp_path / "out")
    (run / "summary.json").unlink()
    with pytest.raises(ValueError, match="not a finished run: it has no summary.json"):
        report.archive([run], tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def built(directory, sections):
    (directory / "report.yaml").write_text(yaml.safe_dump(sections, sort_keys=False))
    report.build(directory)
    for figure in directory.glob("*.png"):
        with Image.open(figure) as image:
            assert np.asarray(image.convert("L")).std() > 5
    return (directory / "README.md").read_text()


def test_tables_and_figures_of_groups(tmp_path):
    for seed, rewards in ((1, (-1.0, -2.0)), (2, (-2.0, -3.0))):
        make_run(tmp_path / f"ours/ipd_seed{seed}", "ipd", seed, rewards)
    make_run(tmp_path / "theirs/ipd_seed1", "ipd", 1, (-1.25, -1.25))
    runs = {"our critic": "ours", "their critic": "theirs"}
    show = ["last", "late", "bars", "curves"]
    text = built(tmp_path, {"ipd": {"title": "IPD", "text": "Read.", "runs": runs, "show": show}})
    lines = text.splitlines()
    assert "## IPD" in lines and "Read." in lines
    # The mean of both players, for each seed; and mean and standard deviation over seeds.
    assert f"| our critic | 1 | {'0.250 | ' * 5}-1.500 |" in lines
    assert f"| our critic, iteration 100 | 2 | {'0.375 (0.177) | ' * 5}-2.000 (0.707) |" in lines
    assert f"| their critic, iteration 100 | 1 | {'0.250 | ' * 5}-1.250 |" in lines  # a single seed has no spread
    # The same over both evaluations, of which the first has rewards of 0.
    assert f"| our critic, iteration 100 | 2 | {'0.438 (0.088) | ' * 5}-1.000 (0.354) |" in lines
    where = "0123456701-dirty | Z80, 1, cpu | `python ipd.py hp.seed=2`"
    assert f"| our critic | 2 | 100 | 2.0M | 1.0 | {where} |" in lines
    assert {path.name for path in tmp_path.glob("*.png")} == {"ipd_bars.png", "ipd_curves.png"}
    shutil.rmtree(tmp_path / "theirs")
    with pytest.raises(ValueError, match="there are no runs in"):
        report.build(tmp_path)
    wanted = [{"path": "theirs", "command": "ipd.py", "seeds": [1, 1], "iterations": 100}]
    text = built(tmp_path, {"ipd": {"title": "IPD", "runs": runs, "show": show, "wanted": wanted}})
    assert "our critic" in text and "their critic" not in text


def test_runs_up_to_an_iteration(tmp_path):
    make_run(tmp_path / "ours/ipd_seed1", "ipd", 1, (-1.0, -2.0))
    section = {"title": "IPD", "runs": {"ours": "ours"}, "show": ["last"]}
    lines = built(tmp_path, {"ipd": section | {"until": 99}}).splitlines()
    assert f"| ours, iteration 0 | 1 | {'0.500 | ' * 5}0.000 |" in lines
    assert any(line.startswith("| ours | 1 | 100 | 2.0M |") for line in lines)  # where it comes from stays whole


def test_thresholds_of_the_coin_game(tmp_path):
    make_run(tmp_path / "runs/coin_3x3_seed0", "coin", 0, (0.2, 0.2))
    text = built(tmp_path, {"coin": {"title": "Coin", "runs": {"ours": "runs"}, "show": ["thresholds"]}})
    assert "| ours | strong | 3x3 | 1 of 1 | 61 | 2,000,000 | 100 |" in text.splitlines()


def test_when_runs_of_the_ipd_reciprocate(tmp_path):
    """Seed 1 ends with P(C|DD) = 0.25; of those with 0 one earns too little."""
    for path, rewards in ((tmp_path / "a/ipd_seed0", (-1.0, -1.0)), (tmp_path / "b/ipd_seed0", (-1.2, -1.2))):
        make_run(path, "ipd", 0, rewards)
    make_run(tmp_path / "a/ipd_seed1", "ipd", 1, (-1.0, -1.0))
    section = {"title": "IPD", "runs": {"a": "a", "b": "b"}, "show": ["reciprocity"]}
    lines = built(tmp_path, {"ipd": section}).splitlines()
    assert "| a | 1 of 2 | > 61 | > 2,000,000 | > 100 |" in lines
    assert "| b | 0 of 1 | > 61 | > 2,000,000 | > 100 |" in lines


def test_what_is_missing(tmp_path, capsys, monkeypatch):
    """Seed 3 is; and seed 2, where it ended early; and all of another board."""
    for seed in (1, 2):
        make_run(tmp_path / f"ours/coin_3x3_seed{seed}", "coin", seed, (0.2, 0.2))
    want = {"path": "ours", "command": "coin_train.py hp.batch_size=8", "seeds": [1, 3], "iterations": 100}
    others = {"boards": ["3x3", "4x4"], "seeds": [1, 2]}
    section = {"title": "Coin", "runs": {"ours": "ours"}, "wanted": [want, want | others]}
    (tmp_path / "report.yaml").write_text(yaml.safe_dump({"coin": section}))
    ask = lambda: report.missing(tmp_path)
    archive = f"python -m loqa.tools.report archive experiments/ours/*_seed* --out {tmp_path}/ours"
    command = "python coin_train.py -m hp.batch_size=8 hp.seed={} hp.save_dir=experiments/ours"
    sized = command.replace("=8", "=8 hp.game.height=4 hp.game.width=4").format("1,2")
    assert ask() == ["# 1 of ours", command.format(3), archive, "# 2 of ours 4x4", sized, archive]
    metrics = tmp_path / "ours/coin_3x3_seed2/metrics.csv"
    metrics.write_text("\n".join(metrics.read_text().splitlines()[:2]) + "\n")  # its first evaluation alone
    assert ask()[1] == command.format("2,3")
    section["wanted"] = [want | {"seeds": [1, 1]}]
    (tmp_path / "report.yaml").write_text(yaml.safe_dump({"coin": section}))
    monkeypatch.setattr("sys.argv", ["report", "missing", str(tmp_path)])
    report.main()
    assert capsys.readouterr().out == "nothing is missing\n"


def test_the_table_of_a_league(tmp_path):
    """Two agents of a kind and a scripted player; a number stands for who plays whom in which seat."""
    players = {"a": "ours", "b": "ours", "random": "random"}
    lines = ["player_0,player_1,kind_0,kind_1,mean_reward_0,mean_reward_1"]
    for i, first in enumerate(players):
        for j, second in enumerate(players):
            lines.append(f"{first},{second},{players[first]},{players[second]},{i + 0.1 * j},{-i - 0.1 * j}")
    (tmp_path / "league.csv").write_text("\n".join(lines) + "\n")
    text = built(tmp_path, {"all": {"title": "League", "league": "league.csv"}})
    # Ours against random: 0.2 and 1.2 in seat 0, -2.0 and -2.1 in seat 1; random has the opposite.
    assert "| ours (2) | 0.000 / 0.000 | 0.000 / 0.000 |  | -0.675 / 0.675 |" in text.splitlines()
    assert "| random (1) | 0.000 / 0.000 |  | 0.675 / -0.675 |  |" in text.splitlines()
    assert (tmp_path / "all.png").exists()


RUNS = {"title": "t", "runs": {"a": "runs"}, "show": ["last"]}


@pytest.mark.parametrize(
    "sections, reason",
    [
        ("", "report.yaml, : Input should be a valid dictionary"),
        ("a: 3", "report.yaml, a: Input should be a valid dictionary"),
        ("a: [", "is not YAML"),
        ({"a": RUNS | {"figures": []}}, "a.figures: Extra inputs are not permitted"),
        ({"a": RUNS | {"show": ["pie"]}}, "a.show.0: Input should be 'last', 'late', 'bars'"),
        ({"a": RUNS | {"runs": "x"}}, "a.runs: Input should be a valid dictionary"),
        ({"a": RUNS | {"until": -1}}, "a.until: Input should be greater than or equal to 0"),
        ({"a": {"runs": {"a": "b"}, "show": ["last"]}}, "a.title: Field required"),
        ({"a": RUNS | {"show": ["thresholds"]}}, "not a run with thresholds"),
    ],
)
def test_a_wrong_report_is_refused(tmp_path, sections, reason):
    make_run(tmp_path / "runs/ipd_seed1", "ipd", 1, (-1, -1))
    text = sections if isinstance(sections, str) else yaml.safe_dump(sections)
    (tmp_path / "report.yaml").write_text(text)
    with pytest.raises(ValueError, match=reason):
        report.build(tmp_path)


def test_a_broken_summary_is_named(tmp_path):
    run = make_run(tmp_path / "runs/ipd_seed1", "ipd", 1, (-1, -1))
    (tmp_path / "report.yaml").write_text(yaml.safe_dump({"a": RUNS}))
    for text in ("{", "[1]"):
        (run / "summary.json").write_text(text)
        with pytest.raises(ValueError, match="summary.json is not"):
            report.build(tmp_path)
