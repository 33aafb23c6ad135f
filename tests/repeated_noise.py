"""Trains in the matrix games as the authors' loop does, which never advances its key: all iterations have one noise.

python -m tests.repeated_noise hp=logits_published hp.seed=42     # with the words of ipd.py, in the root
"""

import jax.numpy as jnp

import ipd


def repeat_noise(make):
    """A `make_iteration` whose iterations all take themselves for the first one."""

    def make_iteration(hp, agent):
        iteration = make(hp, agent)
        first = lambda state: state._replace(iteration=jnp.zeros_like(state.iteration))
        return lambda state: iteration(first(state))._replace(iteration=state.iteration + 1)

    return make_iteration


if __name__ == "__main__":
    ipd.make_iteration = repeat_noise(ipd.make_iteration)
    ipd.main()
