"""Two devices learn what one does, up to rounding: in one process that splits the CPU in two."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import setups

from loqa import learner
from loqa.run import resources
from loqa.run.config import ConfigError
from loqa.run.resources import choose_devices, count_devices

PROGRAM = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
import pytest
import setups
from ipd import make_iteration
from loqa import devices, learner

def compare(script, *overrides):
    hp = setups.make_hp(script, *overrides)
    agent = setups.make_agent(script, hp)
    first = lambda: learner.init(agent, hp, jax.random.key(0))
    on_one, on_two = (learner.repeat(make_iteration(hp, agent), n) for n in (1, 2))
    one, two = on_one(first(), 3), on_two(on_two(devices.replicate(first(), 2), 1), 2)
    assert on_two._cache_size() == 1  # compiled once
    params = lambda state: jax.tree.leaves([(me.params, me.target_params) for me in state.learners])
    distance = lambda x, y: float(np.abs(np.asarray(x) - np.asarray(y)).max())
    largest = lambda a, b: max(map(distance, a, b))
    return largest(params(one), params(two)), largest(params(one), params(first()))

print(json.dumps([compare(*words) for words in json.loads(sys.argv[1])]))
"""
# SGD, since Adam makes a full step of a gradient that is 0 but for rounding.
SMALL = ["hp.batch_size=8", "hp.num_iterations=3", "hp.actor.train.optimizer=sgd", "hp.qvalue.train.optimizer=sgd"]
BUFFERS = ["hp.agent_replay_buffer.mode=enabled", "hp.agent_replay_buffer.update_freq=1"]
BUFFERS += ["hp.qvalue.replay_buffer.mode=enabled", "hp.qvalue.replay_buffer.capacity=20"]
SHARED = ["hp.agent_replay_buffer.opponents_per_batch=4", "hp.agent_replay_buffer.cur_agent_frac=0.5"]
SHARED += ["hp.differentiable_opponent.method=n_step"]  # which has the mean over the batch, too
CASES = {  # the critics of these are centered by their means over the batch
    "ipd, two learners": ["ipd", "hp.game_length=6", "hp.just_self_play=false", *BUFFERS, *SHARED],
    "coin, self-play": [
        "coin", "hp.game.game_length=5", "hp.actor.hidden_size=4", "hp.qvalue.hidden_size=4",
        "hp.agent_replay_buffer.mode=disabled",
    ],
}  # fmt: skip


def test_two_devices_learn_what_one_does():
    """How far apart the parameters of both are after three iterations, and how far they moved."""
    folder = Path(__file__).parent
    arguments = json.dumps([[script, *SMALL, *overrides] for script, *overrides in CASES.values()])
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments],
        cwd=folder.parent,
        env=os.environ | {"PYTHONPATH": f"{folder.parent}:{folder}"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    for case, (difference, moved) in zip(CASES, json.loads(process.stdout), strict=True):
        assert moved > 1e-4, case
        assert difference < 1e-5, case


def test_auto_is_as_many_devices_as_have_something_to_share(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [None] * 4)
    assert [count_devices("auto", setups.make_hp("ipd", f"hp.batch_size={size}")) for size in (512, 6, 7)] == [4, 3, 1]
    assert count_devices("auto", setups.make_hp("ipd", "hp=pola")) == 1
    monkeypatch.setattr(resources, "memory", lambda: 10_000)
    assert count_devices("auto", setups.make_hp("ipd"), bytes_each=2_400) == 2  # which have half of it


def test_buffers_that_do_not_fit_are_refused_before_anything_starts(monkeypatch):
    hp = setups.make_hp("coin", "hp.num_iterations=100000")
    state = jax.eval_shape(partial(learner.init, setups.make_agent("coin", hp), hp, jax.random.key(0)))
    monkeypatch.setattr(resources, "memory", lambda: 8 * 10**9)
    key, takes = "hp.agent_replay_buffer.capacity", r"buffers and parameters take \d\.\d GB"
    assert re.fullmatch(f"{takes}, of 8 GB", choose_devices(1, hp, state)[1])
    monkeypatch.setattr(resources, "memory", lambda: 4 * 10**9)
    with pytest.raises(ConfigError, match=rf"^{key} is 10000, .* smaller: {takes}, and .* 4 GB"):
        choose_devices(1, hp, state)
    large = jax.eval_shape(lambda state: state._replace(key=jnp.zeros((1000, 2 * 10**6))), state)
    with pytest.raises(ConfigError, match=r"^the networks of hp.actor and hp.qvalue must be smaller: "):
        choose_devices(1, hp, large)


def write_system(root, group, files):
    """What the kernel says of a process in a control group."""
    for name, text in {"proc/self/cgroup": group, **{f"sys/fs/cgroup/{x}": text for x, text in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000", "cpu.max": "900000 100000"}, 1),
        ("3:cpu,cpuacct:/host/id", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("0::/", {"cpu.max": "nonsense"}, 64),
    ],
)
def test_a_containers_quota_counts_as_cores(group, files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    write_system(tmp_path, group, files)
    assert resources.cores(tmp_path) == expected


@pytest.mark.parametrize(
    ("group", "name", "text", "expected"),
    [
        ("0::/a", "a/memory.max", "5000", 5000),
        ("0::/a", "a/memory.max", "max", 2**20 * 4096),
        ("4:memory:/", "memory/memory.limit_in_bytes", "6000", 6000),
    ],
)
def test_a_containers_memory_counts(group, name, text, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": 2**20, "SC_PAGE_SIZE": 4096}[name])
    write_system(tmp_path, group, {name: text})
    assert resources.memory(tmp_path) == expected
