"""The benchmark's count of floating-point operations; the times themselves are not tested."""

import jax
import jax.numpy as jnp

from loqa.tools.benchmark import SETTINGS, iteration_flops, matmul_flops


def test_matrix_products_are_counted_in_loops_and_batches():
    def program(x, y):  # [3, 4] @ [4, 5], seven times, of which a batch of two
        _, products = jax.lax.scan(lambda carry, _: (carry, jax.jit(jnp.matmul)(x, y)), 0, length=7)
        return products

    batched = jax.make_jaxpr(jax.vmap(program))(jnp.ones((2, 3, 4)), jnp.ones((2, 4, 5)))
    assert matmul_flops(batched.jaxpr) == 2 * 7 * (2 * 3 * 4 * 5)


def test_an_iteration_has_the_products_of_its_networks():
    flops = iteration_flops(f"{SETTINGS['Coin 3x3, batch 512']} hp.batch_size=8 hp.actor.hidden_size=128")
    forward = 2 * (36 * 128 + 128 * 128 + 2 * 128 * 384 + 128 * 4)  # of the actor, a step
    assert 5 * forward < flops / (8 * 51) < 10 * forward  # rollouts, losses and critics
