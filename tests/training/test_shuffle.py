"""The order of an epoch: a permutation always, and every one as likely as any other."""

import math
from collections import Counter

import jax
import numpy as np
import pytest
from scipy import stats

from funcnn.training.shuffle import random_order

KEY = jax.random.key(41)


def orders(size, count):
    draw = jax.jit(jax.vmap(lambda key: random_order(key, size)))
    return np.asarray(draw(jax.random.split(KEY, count)))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1797])
def test_every_sample_comes_once(size):
    drawn = orders(size, 20)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.broadcast_to(np.arange(size), drawn.shape))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_every_order_of_a_few_is_equally_likely(size):
    counted = Counter(map(tuple, orders(size, 20_000).tolist()))
    assert len(counted) == math.factorial(size)
    assert stats.chisquare(list(counted.values())).pvalue > 1e-3


def test_orders_of_many_have_the_statistics_of_random_permutations():
    size, count = 500, 2000
    drawn = orders(size, count)
    places = np.arange(size)
    firsts = np.bincount(drawn[:, 0], minlength=size)
    assert stats.chisquare(firsts).pvalue > 1e-3
    for of_one in ((drawn == places), (np.diff(drawn, axis=1) == 1)):  # fixed points and successions: one each
        assert abs(of_one.sum(axis=1).mean() - 1) < 4 / math.sqrt(count)
    ascents = (np.diff(drawn, axis=1) > 0).sum(axis=1)
    assert abs(ascents.mean() - (size - 1) / 2) < 4 * math.sqrt((size + 1) / 12 / count)
    assert abs(ascents.var() / ((size + 1) / 12) - 1) < 0.2
    halves = (drawn[:, : size // 2] < size // 2).sum(axis=1)  # hypergeometric
    assert abs(halves.var() / (size / 16) - 1) < 0.2


def test_another_key_gives_another_order():
    first, second = orders(100, 2)
    assert not np.array_equal(first, second)
