"""Products, sums and maxima of a few numbers: a call of XLA's libraries for them takes longer than they do.

Plain sums are fused with what stands around them, and best, for many networks at once too, where they are written out.
"""

from functools import reduce
from operator import add

import jax.numpy as jnp

TINY, WRITTEN_OUT = 2048, 4
"""Multiplications in a matrix product that is quicker as plain sums, and the terms of a sum that is quicker written
out: measured on CPUs for networks of a few units."""


def product(a, b):
    """The matrix product a b."""
    inner = a.shape[1]
    # XLA takes products of half-precision numbers in float32, and rounds no term.
    if a.shape[0] * inner * b.shape[1] > TINY or a.dtype.itemsize < 4:
        return a @ b
    terms = a[:, :, None] * b[None, :, :]
    if not _is_written_out(inner, terms):
        return terms.sum(axis=1)
    return reduce(add, (terms[:, i] for i in range(inner)))


def total(scores):
    """The sum over the last axis, which stays as one of length 1."""
    if not _is_written_out(scores.shape[-1], scores):
        return scores.sum(axis=-1, keepdims=True)
    return reduce(add, _columns(scores))


def largest(scores):
    """The maximum over the last axis, which stays as one of length 1."""
    if scores.shape[-1] > WRITTEN_OUT:
        return scores.max(axis=-1, keepdims=True)
    return reduce(jnp.maximum, _columns(scores))


def _columns(scores):
    return (scores[..., i : i + 1] for i in range(scores.shape[-1]))


def _is_written_out(terms, array):
    # XLA takes its own sums of half-precision numbers in float32.
    return terms <= WRITTEN_OUT and array.dtype.itemsize >= 4
