"""The figures: valid files of a sensible size, of the runs that were asked for, with the right numbers in them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import setups
import yaml
from PIL import Image

from loqa.figures import curves
from loqa.figures.curves import over_seeds
from loqa.figures.runs import SavedRun
from loqa.games import GAMES
from loqa.games.coin import CoinGame
from loqa.games.ipd import STATES, MatrixGame, is_tit_for_tat
from loqa.run.config import flat
from loqa.run.trainer import goal_held
from loqa.tools.common import split_label
from loqa.tools.league import read_league
from loqa.tools.plot import goal_table, times
from loqa.tools.saved_runs import group_runs, read_runs


def image_size(path):
    with Image.open(path) as image:
        image.load()
        assert np.asarray(image.convert("L")).std() > 5  # something is drawn
        return image.size


class FakeRun:
    """A finished run as the figures see it: metrics, and files that it writes."""

    def __init__(self, directory, rows, learners):
        self.directory, self.hp_settings = directory, flat({"game": {"height": 3, "width": 3}})
        names = ["mean_rewards_0", "mean_rewards_1", "qvalue_0_bias", "qvalue_0_mean", "own_coins_0", "other_coins_0"]
        names += [f"p_{i}_{state}_C" for i in range(learners) for state in STATES]
        names += [f"always_{x}_mean_rewards_{y}" for x in ("defect_0", "defect_1", "cooperate_0") for y in "ad"]
        iteration = 100.0 * np.arange(rows)
        self._metrics = {"iteration": iteration}
        self._metrics |= {name: np.exp(-iteration / 200) for name in names}
        self._metrics["qvalue_0_mean"][rows // 2] = np.nan

    def metrics(self):
        return self._metrics

    def write(self, name, function):
        function(self.directory / name)


def test_the_figures_of_a_finished_run(tmp_path, monkeypatch):
    drawn = []
    draw = curves.draw_seed_curves
    monkeypatch.setattr(curves, "draw_seed_curves", lambda *args: drawn.append(args[2]) or draw(*args))
    run = FakeRun(tmp_path, rows=4, learners=1)
    curves.draw_run(run, CoinGame())
    assert {"own_coins_0", "always_defect_0_mean_rewards_a", "self_play", "qvalue_0_bias"} <= set(drawn)
    image_size(tmp_path / "curves.png")
    _, ours, papers = GAMES["coin"].summary(CoinGame(), run.metrics())
    assert papers.split()[:3] == ["paper,", "3x3", "0.316"] and "this run" in ours
    drawn.clear()
    run = FakeRun(tmp_path, rows=1, learners=2)
    curves.draw_run(run, MatrixGame())
    assert {f"p_{i}_{state}_C" for i in (0, 1) for state in STATES} < set(drawn)
    assert all(image_size(tmp_path / name) for name in ("curves.png", "cooperation_0.png", "cooperation_1.png"))
    lines = GAMES["ipd"].summary(MatrixGame(), run.metrics())
    assert lines[1] == lines[3] == "tit-for-tat: yes"


def test_tit_for_tat_cooperates_and_gives_always_defect_little():
    names = ("p_0_CC_C", "mean_rewards_0", "always_defect_0_mean_rewards_a")
    rows = [(0.95, -1.01, -2.05), (0.85, -1.01, -2.05), (0.95, -1.1, -2.05), (0.95, -1.01, -2.2)]
    metrics = dict(zip(names, np.array(rows).T, strict=True))
    assert is_tit_for_tat(metrics).tolist() == [True, False, False, False]


# -------------------------------------------------------------------------------------------- groups of seeds


def made_up(path="run", label="", seed=0, size=3, **metrics):
    steps = np.arange(len(next(iter(metrics.values()))), dtype=float)
    counted = {"iteration": 10 * steps, "env_steps": 1000 * steps, "walltime": 7 + steps}
    if "self_play" in metrics:  # the mean of these
        metrics |= {"mean_rewards_0": metrics["self_play"], "mean_rewards_1": metrics["self_play"]}
    settings = {"seed": seed} | ({"game.height": size, "game.width": size} if size else {})
    metrics = counted | {key: np.array(x, float) for key, x in metrics.items()}
    return SavedRun(path, label, settings, metrics, GAMES["ipd" if "p_0_CC_C" in metrics else "coin"])


def test_seeds_are_compared_where_all_have_a_value_that_have_not_ended():
    """One misses a value, ends sooner, and takes longer."""
    first, second = made_up(q=[0, 10, 20, 30, 40]), made_up(q=[5, np.nan, 25, 35])
    second.metrics["walltime"][:] += 1
    x, values = over_seeds([first, second], "walltime", "q")
    np.testing.assert_allclose(x, [7.5, 9.5, 10.5, 11])
    np.testing.assert_allclose(values, [[0, 20, 30, 40], [5, 25, 35, np.nan]])
    np.testing.assert_allclose(over_seeds([first, second], "env_steps", "q")[0], [0, 2000, 3000, 4000])
    x, values = over_seeds([made_up(q=[np.nan])], "iteration", "q")
    assert x.size == 0 and values.shape == (1, 0)


def test_a_figure_says_how_many_seeds_it_shows_where(tmp_path, monkeypatch):
    labels, titles = [], []
    legend = curves.legend_below
    keep = lambda figure, axes, note: labels.extend(axes.get_legend_handles_labels()[1]) or legend(figure, axes, note)
    monkeypatch.setattr(curves, "legend_below", keep)
    runs = [made_up(seed=i, p_0_CC_C=[0.1 * i] * (2 if i == 2 else 5)) for i in range(3)]
    curves.seed_curves({"LOQA": runs, "new": [made_up(p_0_CC_C=[1] * 5)]}, tmp_path / "a.png", ["p_0_CC_C"])
    assert labels == ["LOQA (n = 3, 2 from 20 on)", "new (n = 1)"]
    for run in runs:
        run.metrics.update({f"p_0_{state}_C": run.metrics["p_0_CC_C"] for state in STATES})
    keep = lambda figure, path: titles.extend(axes.get_title() for axes in figure.axes)
    monkeypatch.setattr(curves, "save", keep)
    curves.group_bars({"LOQA": runs}, tmp_path / "a.png")
    assert titles == ["LOQA\niteration 40, n = 2 of 3; others\nended before"]


def test_an_algorithm_has_one_color_in_all_figures():
    color = lambda *labels: [style["color"] for style in curves.styles(labels)]
    assert color("POLA, GRU", "LOQA, mlp") == color("LOQA", "POLA")[::-1]
    other, loqa, naive = color("no buffer", "LOQA", "naive learners")
    assert len({other, loqa, naive}) == 3 and [loqa] == color("") == color("this code")
    assert [style["linestyle"] for style in curves.styles(["LOQA a", "LOLA", "LOQA b"])] == ["-", "-", "--"]


# ------------------------------------------------------------------------------------------------- thresholds


def test_both_rewards_must_pass_in_one_evaluation():
    """On 3x3, n is 2: weak needs more than 0.025 and -0.6 per step, strong 0.1 and -0.1."""
    rewards = {
        "self_play": [0.2, 0.0, 0.025, 0.026, 0.2, 0.0],
        "always_defect_0_mean_rewards_a": [-0.7, 0.0, 0.0, -0.59, -0.2, 0.0],
    }
    first = lambda threshold: times([made_up(**rewards)], threshold, "iteration")
    assert first("weak") == [30]  # 0 and 1 pass one condition each, 2 is not above
    assert first("medium") == [40]
    assert first("strong") == [np.inf]  # each at times, never both
    # n is 2, 4, 4, 6, 6: the first is too little in self-play, the last too little against always-defect.
    rewards = {"self_play": [0.013], "always_defect_0_mean_rewards_a": [-0.29]}
    found = times([made_up(size=size, **rewards) for size in (3, 4, 5, 6, 7)], "weak", "iteration")
    assert found.tolist() == [np.inf, 0, 0, np.inf, np.inf]


def test_a_threshold_is_held_by_the_last_five_evaluations():
    rewards = np.array([1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0])
    metrics = {name: rewards for name in ("mean_rewards_0", "mean_rewards_1", "always_defect_0_mean_rewards_a")}
    until = lambda row: {name: column[:row] for name, column in metrics.items()}
    hp = setups.make_hp("coin", "hp.stop_at=strong")
    assert [goal_held(GAMES["coin"], hp, until(row)) for row in range(9)] == [None] * 7 + ["strong", None]


def passing_at(*rows):
    """Runs of 9 evaluations that pass all thresholds at a row and after it; None: never."""
    runs = []
    for seed, row in enumerate(rows):
        reward = np.where(np.arange(9) >= (9 if row is None else row), 1.0, -1.0)
        runs.append(made_up(seed=seed, self_play=reward, always_defect_0_mean_rewards_a=reward))
    return runs


def test_the_table_of_thresholds():
    """Seeds that never pass are not left out; a threshold is held at the fifth evaluation in a row."""
    groups = {"mine": passing_at(2, 4, 6), "none": passing_at(None), "of four": passing_at(2, None, 6, 3)}
    text = goal_table(groups | {"most do not": passing_at(2, None, None)}).splitlines()
    assert "| mine | weak 3x3 | 3 of 3 | 40 [20, 60] | 11 | 80 [60, never] | 15 | 0.0M | 150 |" in text
    assert "| none | strong 3x3 | 0 of 1 | > 80 | > 15 | > 80 | > 15 | > 0.0M | 300 |" in text
    assert "| of four | weak 3x3 | 3 of 4 | 45 [20, never] | 12 | > 80 | > 15 | 0.0M | 150 |" in text
    assert "| most do not | weak 3x3 | 1 of 3 | > 80 | > 15 | > 80 | > 15 | > 0.0M | 150 |" in text
    of_each = [seconds for by_goal in GAMES["coin"].published_seconds.values() for seconds in by_goal.values()]
    assert {tuple(seconds) for seconds in of_each} == {(3, 4, 5, 6, 7)}


# ------------------------------------------------------------------------------------------------- saved runs

COUNTED = "iteration,walltime,env_steps,mean_rewards_0,mean_rewards_1,"
COIN = COUNTED + "always_defect_0_mean_rewards_a,always_cooperate_0_mean_rewards_a,"
COIN += "always_cooperate_0_mean_rewards_d,own_coins_0,other_coins_0\n"
IPD = COUNTED + ",".join(f"p_0_{state}_C" for state in STATES) + "\n"


def save(path, header, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + "".join(f"{','.join(map(str, row))}\n" for row in rows))


def save_run(directory, seed=42, size=3, gamma=0.9, number=3, width=None):
    """A run that passes all thresholds at its third evaluation, and the beginning of a row after the last."""
    rows = [[100 * i, 10 * i + seed / 100, 5000 * i, *[0.15 * i - 0.1] * 7] for i in range(number)]
    save(directory / "metrics.csv", COIN, *rows, [300, 1])
    hp = {"seed": seed, "game": {"height": size, "width": width or size}, "qvalue": {"gamma": gamma}}
    hp["save_every"] = seed
    (directory / "config.yaml").write_text(yaml.safe_dump({"game": "coin", "hp": hp}))


@pytest.fixture
def sweep(tmp_path):
    for seed in (42, 43):
        for gamma in (0.0, 0.9):
            for size in (3, 4):
                save_run(tmp_path / "sweep" / f"{seed} {gamma} {size}", seed, size, gamma if seed == 42 else gamma or 0)
    save_run(tmp_path / "sweep" / "just begun", 44, number=0)
    (tmp_path / "sweep" / "just begun" / "metrics.csv").write_text(COIN)
    rows = [0, 1, 0, -1.5, -1.5, *[0.5] * 5], [50, 2, 9, -1, -1.2, *[0.9] * 5]
    save(tmp_path / "ipd_seed7" / "metrics.csv", IPD, *rows)
    (tmp_path / "ipd_seed7" / "config.yaml").write_text("{game: ipd, hp: {seed: 7}}")
    return tmp_path


def test_runs_are_read_with_what_tells_them_apart(sweep):
    runs = read_runs([str(sweep / "sweep")])
    assert len(runs) == 8
    assert {(run.seed, run.board, run.settings["qvalue.gamma"]) for run in runs} == {
        (seed, f"{size}x{size}", gamma) for seed in (42, 43) for size in (3, 4) for gamma in (0.0, 0.9)
    }
    assert list(runs[0].metrics["iteration"]) == [0, 100, 200]  # without half a row
    (one,) = read_runs([f"a={sweep / 'ipd_seed7'}"])
    assert (one.label, one.seed, one.board) == ("a", 7, "")
    np.testing.assert_allclose(one.metrics["self_play"], [-1.5, -1.1])
    with open(sweep / "ipd_seed7" / "metrics.csv", "a") as file:
        file.write("100,1,2,3,4,5,6,7,8,9")  # all its columns, but the last number may be cut
    (cut,) = read_runs([str(sweep / "ipd_seed7" / "metrics.csv")])  # its file, in place of its directory
    assert len(cut.metrics["walltime"]) == 2


def test_a_directory_is_a_label_where_its_runs_are_alike_and_no_other_has_its_name(sweep):
    for where, gamma, seeds in (("a/ours", 0.9, (1, 2)), ("b/ours", 0.5, (3, 4)), ("others", 0.9, (5, 6))):
        for seed in seeds:
            save_run(sweep / where / str(seed), seed, gamma=gamma)
    labels = lambda *words: [*group_runs(read_runs([str(sweep / word) for word in words]))]
    assert labels("a/ours", "others") == ["ours", "others"]
    assert labels("a/ours", "b/ours") == ["gamma=0.9", "gamma=0.5"]
    assert labels("a", "sweep", "b") == ["a 3x3", "gamma=0 3x3", "gamma=0 4x4", "gamma=0.9 3x3"] + [
        "gamma=0.9 4x4",
        "b 3x3",
    ]
    assert {run.seed for run in read_runs([f"{sweep}/others@5-5"])} == {5}
    with pytest.raises(ValueError, match="has no runs of seed5-6"):
        read_runs([f"{sweep}/others@seed5-6"])


def test_a_run_that_cannot_be_read_does_not_cost_the_others(sweep, capsys):
    """A byte-order mark is read; what is refused is named, with its row."""
    files = sorted((sweep / "sweep").rglob("metrics.csv"))
    whole = files[0].read_text()
    files[0].write_text(whole, encoding="utf-8-sig")
    files[1].write_text("")
    files[2].write_text(whole.replace("100,", "100,nonsense,", 1).replace(",10.42", "", 1))
    files[3].write_text(whole.replace("100,10.42,", "100,", 1))
    assert len(read_runs([str(sweep / "sweep"), str(files[1].parent)])) == 5
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ", 2)[0] for line in lines] == ["left out"] * 5 and len({*lines}) == 4
    assert lines[0].endswith("it is empty") and f"{files[2]} is not of a run" in lines[1]
    assert "row 3 has a cell that is no number" in lines[1]
    assert lines[2].endswith("row 3 has 9 cells, but must have 10")


def test_groups_differ_in_label_settings_and_board_not_in_seed(sweep):
    runs = read_runs([str(sweep / "sweep")])
    groups = group_runs(runs)
    assert sorted(groups) == ["gamma=0 3x3", "gamma=0 4x4", "gamma=0.9 3x3", "gamma=0.9 4x4"]
    assert [run.seed for run in groups["gamma=0.9 4x4"]] == [42, 43]
    of_all_boards = group_runs(runs, split_boards=False)
    assert {label: len(members) for label, members in of_all_boards.items()} == {"gamma=0": 4, "gamma=0.9": 4}
    same = [run for run in runs if run.settings["qvalue.gamma"] == 0.9 and run.board == "3x3"]
    same[0].settings["new_key"] = 1
    assert list(group_runs(same)) == ["this code"]
    assert list(group_runs([same[0]._replace(label="x"), same[1]._replace(label="y")])) == ["x", "y"]
    with pytest.raises(ValueError, match="both seed 42"):
        group_runs([run._replace(label="x") for run in runs])


def test_labels_stand_before_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hp.seed=1").mkdir()
    assert [str(x) for x in split_label("hp.seed=1")] == ["", "hp.seed=1"]
    assert [str(x) for x in split_label("hp.seed=1@3x3")] == ["", "hp.seed=1@3x3"]
    assert [str(x) for x in split_label("ours=hp.seed=1")] == ["ours", "hp.seed=1"]
    assert [str(x) for x in split_label("nothing")] == ["", "nothing"]


# ------------------------------------------------------------------------------------------------- the command


def test_a_backend_that_is_not_installed_does_not_matter():
    words = [sys.executable, "-c", "import loqa.tools.league, loqa.tools.plot"]
    subprocess.run(words, env=os.environ | {"MPLBACKEND": "nosuch"}, check=True, timeout=600)


@pytest.mark.parametrize("x_axis, last", [("iteration", 200), ("env_steps", 10000), ("walltime", 20.42)])
def test_curves_are_drawn_against_each_axis(sweep, monkeypatch, tool, capsys, x_axis, last):
    drawn = []
    monkeypatch.setattr(curves, "over_seeds", lambda *args: drawn.append(over_seeds(*args)) or drawn[-1])
    out = sweep / "new" / "curves"
    words = [f"3x3={sweep}/sweep/{seed} 0.9 3" for seed in (42, 43)] + [f"4x4={sweep}/sweep/42 0.9 4"]
    tool("plot", "curves", *words, "--x", x_axis, "--out", out)
    image_size(out.with_suffix(".png"))
    assert out.with_suffix(".pdf").read_bytes().startswith(b"%PDF") and f"{out}.png" in capsys.readouterr().out
    # Two groups in each of the panels.
    assert [len(values) for _, values in drawn] == [2, 1] * (len(drawn) // 2)
    assert [x[-1] for x, _ in drawn] == pytest.approx([last + (x_axis == "walltime") * 0.005, last] * (len(drawn) // 2))
    drawn.clear()
    tool("plot", "curves", words[0], "--metrics", "own_coins_0", "--out", out)
    assert len(drawn) == 1


def test_bars_and_thresholds_are_written(sweep, tool, capsys):
    tool("plot", "bars", sweep / "ipd_seed7", f"x={sweep / 'ipd_seed7'}", "--out", sweep / "bars")
    image_size(sweep / "bars.png")
    save_run(sweep / "sweep" / "wide", width=4)
    tool("plot", "thresholds", sweep / "sweep", "--out", sweep / "thresholds.svg")
    assert "<svg" in (sweep / "thresholds.svg").read_text()
    out = capsys.readouterr().out
    assert "| gamma=0.9 | strong 4x4 | 2 of 2 | 200 [200, 200] | 20 | > 200 |" in out
    assert "Left out, as thresholds are of square boards: 3x4." in out


def test_a_league_is_read_from_both_seats(sweep):
    header = "player_0,player_1,kind_0,mean_reward_0,mean_reward_1\n"
    pairs = [("a", "a", "k", 0, 0), ("a", "b", "k", 1, 2), ("b", "a", "l", 4, 3), ("b", "b", "l", 0, 0)]
    save(sweep / "league.csv", header, *pairs)
    rewards, kinds = read_league(sweep / "league.csv")
    assert rewards.tolist() == [[0, 2], [3, 0]] and kinds == ["k", "l"]
    save(sweep / "league.csv", header, *pairs[:3])
    for file, lacks in ((sweep / "league.csv", r"\('b', 'b'\)"), (sweep / "ipd_seed7" / "metrics.csv", "'player_0'")):
        with pytest.raises(ValueError, match=f"not a whole league.csv, it lacks {lacks}"):
            read_league(file)


REFUSED = {
    "no words": (["curves"], "RUNS"),
    "nothing there": (["curves", "nowhere"], "no runs in nowhere"),
    "no runs": (["curves", "{}/empty"], "there are no runs in"),
    "just begun": (["curves", "{}/sweep/just begun"], "it has no evaluation yet"),
    "other seeds": (["curves", "{}/sweep@8-9"], "sweep has no runs of 8-9"),
    "an empty file": (["curves", "{}/nothing"], "it is empty"),
    "foreign": (["curves", "{}/foreign"], "no column iteration, walltime, env_steps"),
    "no text": (["curves", "{}/image"], "image/metrics.csv is not of a run"),
    "no settings": (["curves", "{}/bad_config"], "bad_config/metrics.csv is not of a run, with config.yaml beside it"),
    "no game": (["curves", "{}/nameless"], "config.yaml beside it: it names no game"),
    "a seed twice": (["curves", "{}/ipd_seed7", "{}/ipd_seed7"], "both seed 7"),
    "no such column": (["curves", "{}/ipd_seed7", "--metrics", "x"], "no column 'x'"),
    "bars of coins": (["bars", "{}/sweep"], "not a run with bars"),
    "no second agent": (["bars", "{}/ipd_seed7", "--agent", "1"], "agent 1"),
    "thresholds of the IPD": (["thresholds", "{}/ipd_seed7"], "not a run with thresholds"),
    "no board": (["thresholds", "{}/boardless"], "not a run with thresholds on a known square board"),
    "a file in the way": (["bars", "{}/ipd_seed7", "--out", "{}/file/x"], "file"),
}


@pytest.mark.parametrize("words, reason", REFUSED.values(), ids=REFUSED)
def test_bad_words_are_one_sentence(sweep, monkeypatch, refusal, words, reason):
    monkeypatch.chdir(sweep)
    (sweep / "empty").mkdir()
    (sweep / "file").write_text("")
    for name, content in {"nothing": b"", "foreign": b"a,b\n1,2\n", "image": b"\x89PNG\n\x00"}.items():
        (sweep / name).mkdir()
        (sweep / name / "metrics.csv").write_bytes(content)
        (sweep / name / "config.yaml").write_text("{game: coin, hp: {seed: 1}}")
    save(sweep / "boardless" / "metrics.csv", COIN, [0] * 10)
    save(sweep / "bad_config" / "metrics.csv", COIN, [0] * 10)
    save(sweep / "nameless" / "metrics.csv", COIN, [0] * 10)
    (sweep / "nameless" / "config.yaml").write_text("hp: {seed: 1}")
    (sweep / "bad_config" / "config.yaml").write_text("{game: coin, hp: 3}")
    (sweep / "boardless" / "config.yaml").write_text("{game: coin, hp: {seed: 1}}")
    assert reason in refusal("plot", *(word.format(sweep) for word in words))
