"""JAX's own settings for tests that are written as users write."""

import pytest

from funcnn._numerics.precision import enable_x64


@pytest.fixture
def as_in_a_users_tests(promotion_as_for_users):
    """JAX's own settings, in the place of the stricter ones of this suite."""
    with enable_x64(False):
        yield
