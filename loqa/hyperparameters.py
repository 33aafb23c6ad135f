"""The hyperparameters, `hp`, that all games share: typed and frozen, with attributes named as the YAML keys.

conf/ has the meaning and the default of each key. Here are its type, its range, and which values contradict each
other; those of a game are in its file in loqa/games. `loqa.run.config` makes one line of what pydantic refuses.
"""

import difflib
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic import NonNegativeFloat as NonNegative
from pydantic import PositiveFloat as Positive

from loqa.losses import PolicyOptions

# Keys and values of the code published with the paper, and what they are here.
RENAMED = {
    "gnumactions": "the Coin Game always has four moves",
    "reset": "the resets of the published code are not part of this one",
    "loaded-ios": "that method of the published code is not part of this one",
    "loaded-aa": "use loaded-dice with stop_grad_normalizing_constant=enabled",
    "IPD": "use ipd",
    "model": "use network",
    "activation": "all networks have ReLU",
    "optimizer": "use hp.actor.train.optimizer and hp.qvalue.train.optimizer",
    "separate_optimizers": "use actor.train.separate",
    "lr_loss_agent": "use lr_loss_actor_agent",
    "lr_loss_opponent": "use lr_loss_actor_opponent",
    "advantage_offset": "use hp.actor.train.kindness",
    "inf_weight": "use hp.opponent_differentiation_weight",
}

# Keys that change no bit of an iteration or an evaluation: a run may be resumed with other values of them.
LENGTH_AND_FILES = {"num_iterations", "max_env_steps", "stop_at"}
LENGTH_AND_FILES |= {"eval_every", "save_every", "checkpoint_every", "save_dir"}
# Runs that differ in nothing but these, and in the size of the board, are compared as one algorithm.
NOT_COMPARED = LENGTH_AND_FILES | {"seed", "eval_episodes"}


def show(value: Any) -> str:
    """A value as in YAML, in one short line."""
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _switch(value: Any) -> bool:
    if not isinstance(value, bool) and value not in ("enabled", "disabled"):
        raise ValueError("must be enabled or disabled")
    return value is True or value == "enabled"


# Types of values, beside pydantic's.
Integer = Annotated[int, BeforeValidator(lambda x: int(x) if type(x) is float and x.is_integer() else x)]
Count = Annotated[Integer, Field(ge=1)]
OneOrTwo = Annotated[Integer, Field(ge=1, le=2)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Switch = Annotated[bool, BeforeValidator(_switch)]  # enabled or disabled in YAML
Text = Annotated[str, Field(pattern=r"\S")]


def flat(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """A configuration in one level, its keys joined by dots."""
    keys = {}
    for key, value in tree.items():
        keys |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return keys


class Section(BaseModel):
    """A level of the configuration: no conversions, no unknown keys, no missing ones, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    def contradictions(self) -> Iterable[tuple[str, str]]:
        """The keys whose values others do not allow, and what these must be."""
        return ()

    @model_validator(mode="after")
    def _check_contradictions(self) -> Self:
        for key, allowed in self.contradictions():
            raise ValueError(f"{key} is {show(attrgetter(key)(self))}, but must be {allowed}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, values: Any) -> Any:
        for key in values if isinstance(values, Mapping) else ():
            if key not in cls.model_fields:
                elsewhere = [name for name in flat(values) if name.endswith(f".{key}")]
                close = elsewhere or difflib.get_close_matches(str(key), cls.model_fields, n=1)
                hint = f"did you mean {' or '.join(close)}?" if close else f"the keys are {', '.join(cls.model_fields)}"
                if "network" in values:
                    hint = f"with network {values['network']}, {hint} (~ in front of a key removes it)"
                why = RENAMED.get(key, hint)
                raise ValueError(f"{key} is {show(values[key])}, but there is no such key: {why}")
        return values


class ClipGrad(Section):
    mode: Literal["norm", "disabled"]
    max_norm: Positive


class ActorTrain(Section):
    optimizer: Literal["adam", "sgd"]
    lr_loss_actor: NonNegative
    advantage: Literal["TD0", "MC", "GAE"]
    gae_lambda: Fraction
    kindness: float
    stop_grad_advantage: bool
    center_q_values: bool
    entropy_beta: NonNegative
    clip_grad: ClipGrad
    separate: Switch
    lr_loss_actor_agent: NonNegative
    lr_loss_actor_opponent: NonNegative


class LogitsActor(Section):
    network: Literal["logits"]
    train: ActorTrain


class MLPActor(LogitsActor):
    network: Literal["mlp"]
    hidden_size: Count


class GRUActor(MLPActor):
    network: Literal["gru"] = "gru"  # the Coin Game has no other, so its YAML does not name it
    layers_before_gru: OneOrTwo


class QValueTrain(Section):
    optimizer: Literal["adam", "sgd"]
    lr_loss_qvalue: NonNegative
    target_ema_gamma: Fraction


class ReplayBuffer(Section):
    mode: Switch
    capacity: Count


class MLPQValue(Section):
    network: Literal["mlp"]
    hidden_size: Count
    mode: Literal["mean", "argmax"]
    td_lambda: Fraction
    terminal: Literal["zero", "bootstrap"]
    time: Literal["normalized", "raw"]
    output_scale: Positive
    train: QValueTrain
    replay_buffer: ReplayBuffer


class GRUQValue(MLPQValue):
    network: Literal["gru"] = "gru"
    layers_before_gru: OneOrTwo


class DifferentiableOpponent(Section):
    method: Literal["loaded-dice", "n_step"]
    n_step: Annotated[Integer, Field(ge=2)]
    discount: Fraction
    gae_lambda: Fraction
    exclude_after_step: Annotated[Integer, Field(ge=0, lt=2**31)]  # as the number of an iteration, an int32
    differentiable_current_reward: bool
    stop_grad_normalizing_constant: Switch
    center_q_values: bool

    def contradictions(self):
        if self.method == "n_step" and self.differentiable_current_reward:
            later = "false with method n_step, whose window starts after our simultaneous action"
            yield "differentiable_current_reward", later


class AgentReplayBuffer(ReplayBuffer):
    update_freq: Count
    cur_agent_frac: Fraction
    opponents_per_batch: Count | None

    def contradictions(self):
        without = "when hp.agent_replay_buffer.mode is disabled: all episodes are against the current agent then"
        if self.cur_agent_frac and not self.mode:
            yield "cur_agent_frac", f"0 {without}"
        if self.opponents_per_batch and not self.mode:
            yield "opponents_per_batch", f"null {without}"


class Lookahead(Section):
    inner_steps: Count
    outer_steps: Count
    lr_inner: NonNegative
    inner_beta: NonNegative
    outer_beta: NonNegative


# The networks, where a game leaves the choice.
NETWORKS = ("logits", "mlp", "gru")
Actor = Annotated[LogitsActor | MLPActor | GRUActor, Field(discriminator="network")]
QValue = Annotated[MLPQValue | GRUQValue, Field(discriminator="network")]


class Hyperparameters(Section):
    """The hp of all games.

    Each game adds its `actor`, its `qvalue`, a `game_length`, an `epsilon_greedy`, and a `run_name`, the first words of
    the name of a run's directory.
    """

    seed: Annotated[Integer, Field(ge=0, le=2**32 - 1)]
    num_iterations: Count
    max_env_steps: Count | None
    batch_size: Count
    reward_discount: Fraction
    agent_0: Literal["loqa", "naive", "lola", "pola"]
    agent_1: Literal["loqa", "naive", "lola", "pola"]
    just_self_play: bool
    op_softmax_temp: Positive
    opponent_differentiation_weight: NonNegative
    eval_every: Count
    eval_episodes: Count
    save_every: Count
    checkpoint_every: Count
    save_dir: Text
    init_from: Text | None
    differentiable_opponent: DifferentiableOpponent
    agent_replay_buffer: AgentReplayBuffer
    lookahead: Lookahead | None

    @property
    def num_learners(self) -> int:
        """One agent that plays itself, or two that learn against each other."""
        return 1 if self.just_self_play else 2

    def is_naive(self, seat: int) -> bool:
        """True where the learner in seat 0 or 1 raises its own return only: without shaping, without kindness."""
        return (self.agent_0, self.agent_1)[seat] == "naive"

    @property
    def env_steps_per_iteration(self) -> int:
        """Steps of the environment in one iteration; each learner plays episodes of its own."""
        look = self.lookahead
        batches = look.outer_steps * (1 + look.inner_steps) if look else 1
        return self.num_learners * batches * self.batch_size * self.game_length

    @property
    def total_iterations(self) -> int:
        """num_iterations, or as many as fit in max_env_steps if those are fewer."""
        if self.max_env_steps is None:
            return self.num_iterations
        return min(self.num_iterations, self.max_env_steps // self.env_steps_per_iteration)

    @property
    def num_opponents(self) -> int:
        """Opponents drawn for an iteration from the agent replay buffer, each for an equal share of the episodes."""
        return self.agent_replay_buffer.opponents_per_batch or self.batch_size

    @property
    def num_current_opponents(self) -> int:
        """Those of them that are the current agent instead, by `cur_agent_frac`."""
        return self.num_current_episodes // (self.batch_size // self.num_opponents)

    @property
    def num_current_episodes(self) -> int:
        """The episodes against the current agent: this share of the batch, rounded down."""
        return int(round(self.batch_size * self.agent_replay_buffer.cur_agent_frac, 6))  # 57.99999999 is 58

    def policy_options(self, seat: int = 0) -> PolicyOptions:
        """The options of `agent_policy_loss` for the learner in seat 0 or 1."""
        train, opponent = self.actor.train, self.differentiable_opponent
        return PolicyOptions(
            discount=self.reward_discount,
            advantage=train.advantage,
            gae_lambda=train.gae_lambda,
            stop_grad_advantage=train.stop_grad_advantage,
            terminal_value=self.qvalue.terminal == "bootstrap",
            kindness=0.0 if self.is_naive(seat) else train.kindness,
            method=opponent.method,
            lam=opponent.discount,
            opponent_gae_lambda=opponent.gae_lambda,
            n_step=opponent.n_step,
            differentiable_current_reward=opponent.differentiable_current_reward,
            op_softmax_temp=self.op_softmax_temp,
            stop_grad_normalizing_constant=opponent.stop_grad_normalizing_constant,
        )

    def contradictions(self):
        opponent, replay, past = self.differentiable_opponent, self.qvalue.replay_buffer, self.agent_replay_buffer
        if self.total_iterations == 0:
            yield "max_env_steps", f"at least {self.env_steps_per_iteration}, the steps of one iteration"
        for seat, name in enumerate((self.agent_0, self.agent_1)):
            if (name in ("lola", "pola")) != (self.lookahead is not None):
                yield f"agent_{seat}", "lola or pola with the presets of these names, and only with them"
            if self.just_self_play and name == "naive":
                yield f"agent_{seat}", "loqa where hp.just_self_play is true: a naive learner needs two learners"
        if self.lookahead is not None:
            for key in ("just_self_play", "agent_replay_buffer.mode", "qvalue.replay_buffer.mode"):
                if attrgetter(key)(self):
                    yield key, "false for LOLA and POLA: two learners, against each other as they are"
            if self.epsilon_greedy:
                yield "epsilon_greedy", "0 for LOLA and POLA, whose policies play as they are"
        if opponent.method == "n_step" and self.game_length == 1:
            yield "differentiable_opponent.method", "loaded-dice where an episode has one step"
        elif opponent.method == "n_step" and opponent.n_step > self.game_length:
            yield "differentiable_opponent.n_step", f"at most {self.game_length}, the game_length"
        if replay.mode and replay.capacity < self.batch_size:
            yield "qvalue.replay_buffer.capacity", f"at least {self.batch_size}, the hp.batch_size"
        if past.opponents_per_batch:
            each, left_over = divmod(self.batch_size, past.opponents_per_batch)
            current, key = self.num_current_episodes, "agent_replay_buffer.opponents_per_batch"
            if left_over:
                yield key, f"a divisor of hp.batch_size, {self.batch_size}"
            elif current % each:
                share = f"cur_agent_frac={past.cur_agent_frac}, {current} episodes"
                yield key, f"such that {share}, is a multiple of {each}, the episodes of each opponent"
