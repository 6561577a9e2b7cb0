"""Any of several optimizers in one compiled program."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax


def select_optimizer(
    choice: jax.Array, optimizers: Sequence[optax.GradientTransformation]
) -> optax.GradientTransformation:
    """Return an optimizer that applies one of several. The choice may be vmapped; all of them update their state."""

    def init(params):
        return tuple(optimizer.init(params) for optimizer in optimizers)

    def update(gradients, states, params=None):
        stepped = [opt.update(gradients, state, params) for opt, state in zip(optimizers, states, strict=True)]
        updates, states = zip(*stepped, strict=True)
        return jax.tree.map(lambda *each: jnp.stack(each)[choice], *updates), states

    return optax.GradientTransformation(init, update)
