"""Losses composed of others: a loss after an activation, and weighted sums of losses."""

import jax
import jax.numpy as jnp

import funcnn as fnn


def after_activation(activation: fnn.Layer, loss: fnn.Loss) -> fnn.Loss:
    """Return the loss of an activation's output, as a loss of the logits."""

    def forward(logits, target):
        activated, _, kept = activation.forward((), (), logits, train=True)
        value, residuals = loss.forward(activated, target)
        return value, (kept, residuals)

    def backward(residuals, dloss):
        kept, rest = residuals
        return activation.backward(kept, loss.backward(rest, dloss))[1]

    return fnn.Loss(forward, backward)


def weighted_sum(weights: jax.Array, losses: tuple[fnn.Loss, ...]) -> fnn.Loss:
    """Return a weighted sum of losses. One-hot weights, which may be vmapped, select one of them."""

    def forward(prediction, target):
        values, residuals = zip(*(loss.forward(prediction, target) for loss in losses), strict=True)
        return weights @ jnp.stack(values), residuals

    def backward(residuals, dloss):
        each = [
            loss.backward(kept, dloss * weight) for loss, kept, weight in zip(losses, residuals, weights, strict=True)
        ]
        return sum(each[1:], each[0])

    return fnn.Loss(forward, backward)
