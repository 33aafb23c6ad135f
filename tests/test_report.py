"""Runs that are kept, the tables and figures that are built from them, and the numbers that pages quote."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image

from loqa.run.agents import load_agent, save_agent
from loqa.run.config import read_settings
from loqa.run.launch import compose
from loqa.tools import report
from loqa.tools.report import archive, build
from loqa.tools.saved_runs import read_runs

ROOT = Path(__file__).parents[1]
STATES = ("START", "CC", "CD", "DC", "DD")


def make_run(directory, script, seed, rewards, *words, end=100):
    """A finished run with two evaluations, as the scripts leave it; `rewards` are of the second one."""
    directory.mkdir(parents=True, exist_ok=True)
    hp = compose(script, [f"hp.seed={seed}", *words])
    config = {"game": script, "hp": OmegaConf.to_container(hp.hp, resolve=True)}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    names = [f"p_0_{state}_C" for state in STATES] if script == "ipd" else ["always_defect_0_mean_rewards_a"]
    head = ["iteration", "walltime", "env_steps", "mean_rewards_0", "mean_rewards_1", *names, "loss"]
    rows = [[0, 1, 0, 0, 0] + [0.5] * len(names) + [9], [end, 61, 2e6, *rewards] + [0.25 * seed] * len(names) + [9]]
    (directory / "metrics.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in [head, *rows]))
    summary = {
        "iteration": end,
        "commits": [f"{'01234567' * 5}-dirty"],
        "command": f"python {script}.py hp.seed={seed}",
    }
    summary |= {"versions": {"jax": "0.11"}, "machine": {"processor": "Z80", "cores": 1}}
    (directory / "summary.json").write_text(json.dumps(summary))
    return directory


def test_runs_of_an_experiment_are_three_files(tmp_path):
    """Whose runs read as before; one that is archived again replaces itself, and another of its name is refused."""
    runs = [make_run(tmp_path / f"ipd_seed{seed}_20260101-120000", "ipd", seed, (-1, -2)) for seed in (1, 2)]
    out = tmp_path / "out"
    archive(runs, out)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(files) == ["config.yaml", "curves.csv", "runs.csv"]
    before, after = read_runs([str(run) for run in runs]), read_runs([str(out)])
    for one, other in zip(before, after, strict=True):
        assert other.path == out / one.path.name[:9] and other.origin == one.origin and other.compared == one.compared
        assert one.metrics.keys() - other.metrics.keys() == {"loss"}  # which no table or figure shows
        for column, values in other.metrics.items():
            np.testing.assert_array_equal(values, one.metrics[column])
    row = files["runs.csv"].decode().splitlines()[2]
    assert row.startswith("ipd_seed2,2,1.0,100,")
    assert row.endswith(',100,0123456701-dirty,jax 0.11,"processor Z80, cores 1",python ipd.py hp.seed=2')
    archive(runs[:1], out)
    assert read_settings(out)["hp"]["actor"]["train"]["lr_loss_actor"] == 0.001  # for hp=DIRECTORY
    assert files == {path.name: path.read_bytes() for path in out.iterdir()}
    archive([make_run(tmp_path / "longer" / "ipd_seed2", "ipd", 2, (-1, -1), end=200)], out)
    assert [run.end for run in read_runs([str(out)])] == [100, 200]
    wide = "[[-1.0000000000000002,-3,0.3333333333333333,-2.2222222222222223],[-1.0000000000000002,-3,0,-2]]"
    words = ["hp.batch_size=8", "hp.game_name=custom", f"hp.payoffs={wide}", "hp.just_self_play=false"]
    other = make_run(tmp_path / "other" / "ipd_seed1", "ipd", 1, (-1, -2), *words)
    seed = make_run(tmp_path / "seed" / "ipd_seed1", "ipd", 5, (-1, -2))
    for run in (runs[1], other, seed):  # a shorter one, one of other settings, one of another seed
        with pytest.raises(ValueError, match="that is another run, or is longer"):
            archive([run], out)
    archive([other.rename(tmp_path / "other" / "ipd_seed7")], out)
    runs = read_runs([str(out)])
    assert [run.settings["batch_size"] for run in runs] == [2048, 2048, 8]
    assert runs[2].settings["payoffs"] == yaml.safe_load(wide)


def test_agents_are_kept_at_half_precision(tmp_path):
    run = make_run(tmp_path / "ipd_seed1", "ipd", 1, (-1, -2))
    for iteration in (50, 100):
        (run / "agents").mkdir(exist_ok=True)
        params = type("Params", (), {"_asdict": lambda self: {"actor": {"w": np.float32([0.1])}, "qvalue": {}}})()
        save_agent(run / "agents" / f"agent_0_{iteration:06d}.npz", params, {"policy_only": True})
    archive([run], tmp_path / "out", with_agents=True)
    (file,) = (tmp_path / "out").rglob("*.npz")
    assert file == tmp_path / "out/ipd_seed1/agents/agent_0_000100.npz"
    actor = load_agent(file)[0].actor["w"]
    assert actor.dtype == np.float32 and actor == np.float16(0.1)
    archive([run], tmp_path / "out")
    assert file.exists()
    archive([make_run(tmp_path / "longer/ipd_seed1", "ipd", 1, (-1, -2), end=200)], tmp_path / "out")
    assert not file.exists()  # it is of the shorter one


def written(directory, sections, **more):
    (directory / "report.yaml").write_text(
        yaml.safe_dump({"title": "All", "sections": sections} | more, sort_keys=False)
    )
    pages = build(directory)
    for figure in directory.glob("*.png"):
        with Image.open(figure) as image:
            assert np.asarray(image.convert("L")).std() > 5
    return pages


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Two groups of runs of the IPD: seeds 1 and 2, and 1; a Coin Game; and a league."""
    path = tmp_path_factory.mktemp("results")
    make_run(path / "ours/ipd_seed1", "ipd", 1, (-1.0, -2.0))
    make_run(path / "ours/ipd_seed2", "ipd", 2, (-2.0, -3.0))
    make_run(path / "theirs/ipd_seed0", "ipd", 0, (-1.0, -1.0))
    make_run(path / "coins/coin_3x3_seed0", "coin", 0, (0.2, 0.2))
    players = {"a": "our own", "b": "our own", "random": "random"}
    lines = ["player_0,player_1,kind_0,kind_1,mean_reward_0,mean_reward_1"]
    for i, first in enumerate(players):
        for j, second in enumerate(players):
            lines.append(f"{first},{second},{players[first]},{players[second]},{i + 0.1 * j},{-i - 0.1 * j}")
    (path / "league.csv").write_text("\n".join(lines) + "\n")
    rows = [f"naive,{player},our own,{i},{i * reward},-{i}" for player, reward in (("a", 1), ("b", 2)) for i in (0, 1)]
    (path / "exploit.csv").write_text("\n".join(["learner,agent,kind,iteration,learner_reward,agent_reward", *rows]))
    return path


def test_tables_and_figures(directory):
    runs = {"our critic": "ours@1-1 ours@2-2", "their critic": "theirs"}
    columns = ["p_0_CC_C", "self_play", "self_play -2 0"]
    sections = {
        "ipd": {"title": "IPD", "text": "Read.", "runs": runs, "columns": columns, "table": "late", "figure": "bars"},
        "last": {"title": "Its end", "runs": {"seed 2": "ours@2-2"}, "columns": columns, "figure": "curves"},
        "goals": {"title": "Goals", "runs": runs, "table": "goals", "figure": "steps", "columns": columns},
        "coin": {"title": "Coin", "runs": {"ours": "coins@3x3"}, "table": "goals", "figure": "goals"},
        "all": {"title": "League", "league": "league.csv", "table": "league", "figure": "league"},
        "kinds": {"title": "Kinds", "league": "league.csv", "exploit": "exploit.csv", "table": "algorithms"}
        | {"runs": {"our own": "theirs"}},
    }
    page = "Ours has <!--=ours:self_play:last-->1<!--/--> and\n<!--=last-->\n<!--/-->\n"
    (directory / "page.md").write_text(page)
    pages = written(directory, sections, pages=["page.md"])
    text = pages[directory / "README.md"]
    lines = text.splitlines()
    assert lines[:2] == ["# All", ""] and "## Its end" in lines and "## IPD" in lines and "Read." in lines
    # The mean of both players, for each seed; over both evaluations, of which the first has rewards of 0.
    assert "| our critic, iteration 100 | 2 | 0.438 (0.088) | -1.000 (0.354) |" in lines
    assert "| their critic, iteration 100 | 1 | 0.250 | -0.500 |" in lines  # a single seed has no spread
    assert "| the paper |  | 1 |  |" in lines and "| seed 2, iteration 100 | 1 | 0.500 | -2.500 |" in lines
    # Seed 1 ends with P(C|DD) = 0.25; those of 0.5 do not reciprocate either.
    assert "| our critic | reciprocity  | 0 of 2 | > 100 | > 61 | > 100 | > 61 | > 2.0M |  |" in lines
    assert "| their critic | reciprocity  | 1 of 1 | 100 | 61 | > 100 | > 61 | 2.0M |  |" in lines
    assert "| ours | strong 3x3 | 1 of 1 | 100 | 61 | > 100 | > 61 | 2.0M | 300 |" in lines
    # Our own against random: 0.2 and 1.2 in seat 0, -2.0 and -2.1 in seat 1; random has the opposite.
    assert "| our own (2) | 0.000 | 0.000 |  | -0.675 |" in lines and "| random (1) | 0.000 |  | 0.675 |  |" in lines
    assert "| our own (2) | 0.000 | 0.000 |  |  | -1.000 | 1.500 | 2.0M | 61 |" in lines  # a learner's last rewards
    assert {path.stem for path in directory.glob("*.png")} == sections.keys() - {"kinds"}
    quotes = pages[directory / "page.md"].splitlines()
    assert quotes[0] == "Ours has <!--=ours:self_play:last-->-2.000 (0.707)<!--/--> and" and quotes[4] in lines


def test_quoted_numbers(directory):
    expected = {"ours:p_0_CC_C:late": "0.438 (0.088)", "league.csv:our_own:random": "-0.675"}
    expected |= {
        "exploit.csv:naive_b:learner_reward": "1.00",
        "flags.csv:a_b:is_so": "1 of 2",
        "flags.csv:a_c:x": "0.5",
    }
    (directory / "flags.csv").write_text("one,two,is_so,x\na,b,True,1\na,b,False,2\na,c,True,0.5\n")
    goal = {"seeds": "1 of 1", "first": "100", "s": "61", "held": "> 100"}
    for mark, number in (expected | {f"theirs:reciprocity:{what}": number for what, number in goal.items()}).items():
        assert report.quoted(directory, mark) == number
    for mark in (
        "ours",
        "nowhere:x:last",
        "ours@8-9:self_play:last",
        "ours:x:last",
        "ours:x:seeds",
        "flags.csv:a:x",
        "flags.csv:a_c:y",
        "ours:self_play:7",
    ):
        with pytest.raises(ValueError, match=f"the mark '{mark}' names no number"):
            report.quoted(directory, mark)


RUNS = {"title": "t", "runs": {"a": "ours"}}


@pytest.mark.parametrize(
    "sections, reason",
    [
        ("a: [", "is not a report"),
        ({"a": 3}, "sections.a\n  Input should be a valid dictionary"),
        ({"a": RUNS | {"figures": []}}, "figures\n  Extra inputs are not permitted"),
        ({"a": RUNS | {"figure": "pie"}}, "figure\n  Input should be 'bars', 'curves'"),
        ({"a": {"runs": {"a": "b"}}}, "title\n  Field required"),
        ({"a": RUNS | {"table": "algorithms"}}, "needs league, exploit and runs"),
        ({"a": {"title": "t", "runs": {"a": "nowhere"}}}, "there are no runs in"),
        ({"a": RUNS | {"figure": "goals"}}, "not a run with thresholds"),
        ({"a": RUNS | {"figure": "league"}}, "a table or figure of a league needs league"),
        ({"a": RUNS | {"columns": ["loss_of"]}}, "not all runs of a have the column 'loss_of'"),
        ({"a": RUNS | {"columns": [""]}}, "should match pattern"),
    ],
)
def test_a_wrong_report_is_refused(directory, sections, reason):
    if isinstance(sections, str):
        (directory / "report.yaml").write_text(sections)
    with pytest.raises(ValueError, match=reason):
        build(directory) if isinstance(sections, str) else written(directory, sections)


def test_every_number_that_a_page_has_of_the_results_is_theirs():
    """As `python -m loqa.tools.report build results` writes them."""
    for page, text in build(ROOT / "results", draw=False).items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name} is not what its results give"
