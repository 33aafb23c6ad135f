"""Signal and noise of the policy's gradient at each lambda: `python -m loqa.tools.gradient_noise AGENTS...`.

AGENTS are saved agents, runs (their newest agents) or directories of either. Each plays itself as in training, and
the gradients of batches of episodes are compared: of the shaping loss, for several lambdas of the opponent's advantage,
and of the actor loss, without kindness and entropy, for as many lambdas of our own.

signal  length of the expected gradient, estimated from two halves of the batches, whose noise is independent
noise   root mean square of the distance of a batch's gradient from the expected one
ratio   (signal / noise)^2: how clearly a single batch shows the way
cosine  between the expected gradient and that at lambda 1, which adds no bias; as an estimate, it may exceed 1
nan     more batches are needed: the two halves do not point the same way
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from loqa.agent import Agent, AgentParams
from loqa.figures.curves import in_style, legend_below, panels, save
from loqa.hyperparameters import Hyperparameters
from loqa.rollout import Noise, Opponents, draw_noise, play
from loqa.run.agents import load_agent, rebuild
from loqa.run.config import parse_hp, without_gone
from loqa.scripts.ipd import policy_terms
from loqa.tools.common import ArgumentParser, markdown_table, tool, whole, write_csv
from loqa.tools.players import agent_files, load_player

BATCH = 512
LAMBDAS = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0)  # the last one is what the cosine is with
LOSSES, MEASURES = ("shaping", "actor"), ("signal", "noise", "ratio", "cosine")
NOTE = f"ratio: squared signal-to-noise ratio of {BATCH} episodes; cosine: with the gradient at lambda 1"


def load(path: Path) -> tuple[str, Agent, tuple[Hyperparameters, ...], AgentParams]:
    """A saved agent: its name, itself, its hyperparameters with each of LAMBDAS, its parameters; or ValueError."""
    _, one = load_player(path)  # which says what is wrong with a file
    params, description = load_agent(path)
    if not params.qvalue:
        raise ValueError(f"{path} has no Q-network, and so no advantages")
    hp, settings = without_gone(description["hp"]), []
    for each in LAMBDAS:
        hp["actor"]["train"] |= {"advantage": "GAE", "gae_lambda": each, "kindness": 0.0}
        hp["differentiable_opponent"] |= {"gae_lambda": each}
        settings.append(parse_hp(description["game"], hp))
    return one.name, rebuild(description)[1], tuple(settings), params


@partial(jax.jit, static_argnames=("agent", "settings"))
def gradients(agent: Agent, settings: tuple[Hyperparameters, ...], params: AgentParams, noise: Noise) -> jax.Array:
    """Gradients in the actor's P parameters of both LOSSES of a batch, with each of L hyperparameters: [2, L, P]."""
    episodes = play(agent.game.from_seat(0), agent, params, Opponents.now(params), noise, settings[0].epsilon_greedy)

    def losses(actor):
        mine = agent.side(params._replace(actor=actor), episodes.mine)
        computed = SimpleNamespace(side=lambda *_: mine)  # in place of the agent: the networks run once for all
        terms = [policy_terms(hp, computed, params, episodes) for hp in settings]
        return jnp.stack([jnp.stack([getattr(each, loss) for each in terms]) for loss in LOSSES])

    values, pull_back = jax.vjp(losses, params.actor)
    each = jnp.eye(values.size).reshape(-1, *values.shape)  # one loss of one lambda at a time
    return jax.lax.map(lambda one: ravel_pytree(pull_back(one))[0], each).reshape(*values.shape, -1)


def statistics(batches: Iterable[np.ndarray]) -> np.ndarray:
    """The MEASURES, [4, ..., L], of the gradients [..., L, P] of an even number of batches; lambda 1 is the last."""
    halves, square = [0.0, 0.0], 0.0
    for number, batch in enumerate(batches, 1):
        batch = np.asarray(batch, np.float64)
        halves[number % 2] = halves[number % 2] + batch
        square = square + (batch**2).sum(-1)
    one, other = (half * 2 / number for half in halves)
    dot = lambda x, y: (x * y).sum(-1)
    signal = dot(one, other)  # squared, as is the noise
    noise = np.maximum(square / number - signal, 0)  # of equal batches a rounding error
    signal = np.where(signal > 0, signal, np.nan)
    with_last = (dot(one, other[..., -1:, :]) + dot(other, one[..., -1:, :])) / 2
    return np.stack([signal**0.5, noise**0.5, signal / noise, with_last / (signal * signal[..., -1:]) ** 0.5])


def table(values: np.ndarray) -> list[dict[str, str]]:
    """An agent's `statistics` [4, 2, L] as a row for each lambda."""
    head = ["lambda", *(f"{loss} {measure}" for loss in LOSSES for measure in MEASURES)]
    rows = np.vstack([LAMBDAS, *values.swapaxes(0, 1).reshape(-1, len(LAMBDAS))]).T
    return [{title: f"{cell:.3g}" for title, cell in zip(head, row, strict=True)} for row in rows]


@in_style
def draw(measured: Sequence[tuple[str, np.ndarray]], path: Path) -> list[str]:
    """Draws ratio and cosine of both losses against lambda, from names and `statistics` [4, 2, L] of agents."""
    figure, grid = panels(4, (2.4, 1.65), columns=2, sharex=True, sharey="row")
    for i, loss in enumerate(LOSSES):
        for name, (_, _, ratio, cosine) in measured:
            grid[i].plot(LAMBDAS, ratio[i], marker="o", label=name)
            grid[2 + i].plot(LAMBDAS, cosine[i], marker="o")
        grid[i].set(title=f"{loss} loss", yscale="log")
        grid[2 + i].set(xlabel=("the opponent's lambda", "our lambda")[i])
        grid[2 * i].set(ylabel=MEASURES[2 + i])
    legend_below(figure, grid[0], NOTE)
    return save(figure, path)


@tool
def main(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("agents", nargs="+", metavar="AGENTS", help="saved agents, runs, directories")
    add("--batches", type=whole(2), default=32, help=f"an even number, of {BATCH} episodes each (%(default)s)")
    add("--out", type=Path, default="experiments/plots/gradient_noise", help="picture and CSV (%(default)s)")
    options = parser.parse_args()
    if options.batches % 2:
        raise ValueError(f"--batches is {options.batches}, but must be even: the signal is from two halves of them")
    loaded = [load(file) for word in options.agents for file in agent_files(Path(word))]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    measured, rows, keys = [], [], jax.random.split(jax.random.key(0), options.batches)
    for name, agent, settings, params in loaded:
        noises = (draw_noise(key, agent.game_length, BATCH) for key in keys)
        measured.append((name, statistics(gradients(agent, settings, params, noise) for noise in noises)))
        lines = table(measured[-1][1])
        text = markdown_table([*lines[0]], [[*line.values()] for line in lines], ())
        print(f"{name}, {options.batches} batches of {BATCH} episodes\n\n{text}\n", flush=True)
        rows += [{"agent": name} | line for line in lines]
    files = draw(measured, options.out)
    write_csv(table_file := Path(files[0]).with_suffix(".csv"), rows)
    print(table_file, *files, sep="\n")


if __name__ == "__main__":
    main()
