"""The order of the samples in an epoch."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PRNGKeyArray


def random_order(key: PRNGKeyArray, size: int) -> Int[Array, " size"]:
    """Draw a random permutation of 0…size−1 by the swap-or-not shuffle, several times faster than sorting.

    Round k pairs every place x with k − x mod n and swaps the pair if a coin, a function of the pair, shows heads.
    Every round is a permutation, and so is their composition. With a few rounds per bit of n, statistical tests find
    no difference from a uniform draw.

    Args:
        key: random key.
        size: n, at least 1.

    Returns:
        The permutation, int32.

    Example:
        >>> sorted(random_order(jax.random.key(0), 10).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

    Source:
        Hoang, Morris and Rogaway, "An enciphering scheme based on a card shuffle", 2012. The coins are the top bits of
        a pair mixed with the round's seed, as MurmurHash3 mixes its last word (Appleby 2011).
    """
    rounds = 4 * size.bit_length() + 8
    numbers, seeds = jax.random.bits(key, (2, rounds), jnp.uint32)
    shifts = numbers % size

    def one_round(k, places):
        shift = shifts[k]
        partners = jnp.where(places <= shift, shift - places, shift - places + jnp.uint32(size))
        return jnp.where(_coins(jnp.maximum(places, partners) ^ seeds[k]), partners, places)

    return lax.fori_loop(0, rounds, one_round, jnp.arange(size, dtype=jnp.uint32)).astype(jnp.int32)


def _coins(words):
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words >> 31 == 1
