"""Matrix products, sums and maxima of a few numbers, written out as elementwise operations.

A call of XLA's matrix library takes longer than a product of a few numbers. Elementwise operations are fused with the
operations around them, also under ``vmap`` over many small networks.
"""

from functools import reduce
from operator import add

import jax.numpy as jnp

MOST_MULTIPLICATIONS = 2048
"""The largest matrix product, in multiplications, that is computed as elementwise operations. Measured on CPUs."""

MOST_TERMS = 4
"""The longest sum or maximum that is written out term by term. Measured on CPUs."""


def small_matmul(a, b):
    """Return the matrix product a b of two matrices."""
    inner = a.shape[1]
    # XLA computes products of half-precision numbers in float32, and rounds no term.
    if a.shape[0] * inner * b.shape[1] > MOST_MULTIPLICATIONS or a.dtype.itemsize < 4:
        return a @ b
    terms = a[:, :, None] * b[None, :, :]
    if not _is_written_out(inner, terms):
        return terms.sum(axis=1)
    return reduce(add, (terms[:, i] for i in range(inner)))


def small_sum(scores):
    """Return the sum over the last axis, which is kept with length 1."""
    if not _is_written_out(scores.shape[-1], scores):
        return scores.sum(axis=-1, keepdims=True)
    return reduce(add, _columns(scores))


def small_max(scores):
    """Return the maximum over the last axis, which is kept with length 1."""
    if scores.shape[-1] > MOST_TERMS:
        return scores.max(axis=-1, keepdims=True)
    return reduce(jnp.maximum, _columns(scores))


def _columns(scores):
    return (scores[..., i : i + 1] for i in range(scores.shape[-1]))


def _is_written_out(terms, array):
    # XLA computes its own sums of half-precision numbers in float32.
    return terms <= MOST_TERMS and array.dtype.itemsize >= 4
