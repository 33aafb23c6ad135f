"""The optimizers of the policy and of the critic."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loqa import devices
from loqa.hyperparameters import ActorTrain, QValueTrain
from loqa.losses import PolicyLoss

KINDS = {"adam": optax.adam, "sgd": optax.sgd}

# The policy's loss: params, weights of its terms (None: left out) -> their weighted sum [], the terms.
Loss = Callable[[Any, PolicyLoss], tuple[jax.Array, PolicyLoss]]


class PolicyOptimizer(NamedTuple):
    """An optimizer of the policy's loss, all of its terms together."""

    transformation: optax.GradientTransformation

    def init(self, params: Any) -> optax.OptState:
        return self.transformation.init(params)

    def step(self, params: Any, state: optax.OptState, loss: Loss, weights: PolicyLoss) -> tuple[Any, optax.OptState]:
        """One step on `loss`: params, state."""
        gradient, _ = devices.mean(jax.grad(loss, has_aux=True)(params, weights))
        updates, state = self.transformation.update(gradient, state, params)
        return optax.apply_updates(params, updates), state


class SeparateOptimizers(NamedTuple):
    """`actor.train.separate`: one optimizer for the actor term with the entropy, one for the shaping term.

    Each clips its own gradient and has its own rate. Both gradients are of the parameters before the step. Where the
    weight of the shaping term is 0 its optimizer waits: else its momentum would go on moving the parameters.
    """

    actor: optax.GradientTransformation
    shaping: optax.GradientTransformation

    def init(self, params: Any) -> tuple[optax.OptState, optax.OptState]:
        return self.actor.init(params), self.shaping.init(params)

    def step(self, params: Any, states: tuple, loss: Loss, weights: PolicyLoss) -> tuple[Any, tuple]:
        """One step of both on `loss`: params, states."""
        actor_state, shaping_state = states
        actor_weights, shaping_weights = weights._replace(shaping=None), PolicyLoss(None, weights.shaping, None)
        gradient, _ = devices.mean(jax.grad(loss, has_aux=True)(params, actor_weights))
        updates, new_actor_state = self.actor.update(gradient, actor_state, params)
        new_params = optax.apply_updates(params, updates)
        if weights.shaping is None:
            return new_params, (new_actor_state, shaping_state)
        gradient, _ = devices.mean(jax.grad(loss, has_aux=True)(params, shaping_weights))
        updates, new_shaping_state = self.shaping.update(gradient, shaping_state, params)
        active = weights.shaping != 0
        updates = jax.tree.map(lambda x: jnp.where(active, x, 0.0), updates)
        new_shaping_state = jax.tree.map(lambda new, old: jnp.where(active, new, old), new_shaping_state, shaping_state)
        return optax.apply_updates(new_params, updates), (new_actor_state, new_shaping_state)


def policy_optimizer(train: ActorTrain) -> PolicyOptimizer | SeparateOptimizers:
    """The policy's optimizer. It owns the Q-network too, which the policy's loss reaches through the advantage."""
    clipped = train.clip_grad.mode == "norm"
    clip = optax.clip_by_global_norm(train.clip_grad.max_norm) if clipped else optax.identity()
    optimizer = lambda rate: optax.chain(clip, KINDS[train.optimizer](rate))
    if train.separate:
        return SeparateOptimizers(optimizer(train.lr_loss_actor_agent), optimizer(train.lr_loss_actor_opponent))
    return PolicyOptimizer(optax.chain(optimizer(train.lr_loss_actor)))  # a chain of one: as checkpoints name its state


def critic_optimizer(train: QValueTrain) -> optax.GradientTransformation:
    """The Q-network's own optimizer."""
    return KINDS[train.optimizer](train.lr_loss_qvalue)
