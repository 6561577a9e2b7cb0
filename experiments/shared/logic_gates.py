"""The logic gates AND, OR, NAND and XOR as data, and gradients of a part of the parameters."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

GATES = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "NAND": (1, 1, 1, 0), "XOR": (0, 1, 1, 0)}


def gate_inputs() -> Array:
    return jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def gate_targets(gate: str) -> Array:
    return jnp.array(GATES[gate], float)[:, None]


def is_correct(logits: Array, y: Array) -> Array:
    """Return whether each answer is on its target's side of ½, which is a logit of 0."""
    return (logits > 0) == (y > 0.5)


def masked_value_and_grad(grad, present):
    """Return gradients multiplied by a mask, 0 for the parameters that a network lacks."""

    def of(model, loss):
        def value_and_grad(*given, key=None):
            value, gradients = grad(model, loss)(*given, key=key)
            return value, jax.tree.map(jnp.multiply, gradients, present)

        return value_and_grad

    return of
