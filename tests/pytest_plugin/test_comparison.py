"""The comparison of one case."""

import jax.numpy as jnp

from funcnn.gradcheck.engine.pullbacks import select_arguments
from funcnn.pytest_plugin.comparison import divides_by_zero


def test_a_division_of_integers_by_zero_is_found_before_it_is_compiled():
    def by_groups(groups):
        return lambda x: x * (jnp.arange(3) // groups).astype(x.dtype)

    arguments = select_arguments((jnp.ones(3),))
    assert divides_by_zero(by_groups(0), arguments)
    assert not divides_by_zero(by_groups(2), arguments)
    assert not divides_by_zero(lambda x: x / 0, arguments)
