"""Fingerprints of arrays, computed on their own devices. Damaged and different arrays have other fingerprints."""

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
    """Return 64 bits for every array, in hexadecimal: sums of its words, each mixed with its place.

    Any single changed word changes the sum, because at each place the mixing is a bijection. The sums are of integers,
    so they do not depend on how the array is split over devices.

    Example:
        >>> fingerprints(jnp.arange(3.0)) == fingerprints(jnp.array([0.0, 2.0, 1.0]))
        False
    """
    plain = jax.tree.map(lambda leaf: jnp.asarray(key_data(leaf)), tree)
    return jax.tree.map(lambda pair: "".join(f"{word:08x}" for word in np.asarray(pair)), _sums(plain))


def host_fingerprint(array: np.ndarray) -> str:
    """Return 64 bits of an array on the host. Nothing is compiled, so its shape may change from call to call."""
    content = f"{array.dtype} {array.shape}".encode() + array.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def key_data(leaf: Array) -> Array:
    """Return the words of a typed random key, and any other array unchanged."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _sum(leaf, seed):
    words = _words(leaf).ravel()
    places = jax.lax.iota(jnp.uint32, words.size) * np.uint32(0x9E3779B1) + np.uint32(seed)
    return _mix(words ^ _mix(places)).sum(dtype=jnp.uint32)


def _words(leaf):
    """Return the bits of an array as 32-bit words."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag])
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    narrow = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, narrow).astype(jnp.uint32)


def _mix(words):
    """Apply MurmurHash3's last step, a bijection of 32-bit words in which each input bit affects half of the output."""
    words = (words ^ (words >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return words ^ (words >> np.uint32(16))
