"""Fingerprints of arrays, computed where the arrays are: what tells a damaged or a foreign array from the right one."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

_SEEDS = (0x2545F491, 0x9E3779B9)


@jax.jit
def _sums(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.stack([_sum(leaf, seed) for seed in _SEEDS]), tree)


def fingerprints(tree: PyTree[Array]) -> PyTree[str]:
    """64 bits of every array, in hexadecimal: sums of its words, each mixed with its place.

    Any single changed word changes the sum: for a place the mixing is a bijection. The sums are of integers, so they
    are the same however the array is split over devices, and whichever device adds them.

    Example:
        >>> fingerprints(jnp.arange(3.0)) == fingerprints(jnp.array([0.0, 2.0, 1.0]))
        False
    """
    plain = jax.tree.map(lambda leaf: jnp.asarray(key_data(leaf)), tree)
    return jax.tree.map(lambda pair: "".join(f"{word:08x}" for word in np.asarray(pair)), _sums(plain))


def host_fingerprint(array: np.ndarray) -> str:
    """64 bits of an array on the host, whose shape changes from time to time: nothing is compiled for it."""
    told = f"{array.dtype} {array.shape}".encode() + array.tobytes()
    return hashlib.sha256(told).hexdigest()[:16]


def key_data(leaf: Array) -> Array:
    """The words of a typed random key; any other array as it is."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _sum(leaf, seed):
    words = _words(leaf).ravel()
    places = jax.lax.iota(jnp.uint32, words.size) * np.uint32(0x9E3779B1) + np.uint32(seed)
    return _mixed(words ^ _mixed(places)).sum(dtype=jnp.uint32)


def _words(leaf):
    """The bits of an array as 32-bit words."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag])
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    narrow = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, narrow).astype(jnp.uint32)


def _mixed(words):
    """A bijection of 32-bit words; every bit of the input moves half of the output's. MurmurHash3's last step."""
    words = (words ^ (words >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return words ^ (words >> np.uint32(16))
