"""Settings of the tests of explanations."""

import jax
import pytest

from funcnn._numerics.precision import enable_x64


@pytest.fixture
def defaults():
    """Numbers as users have them: float64 by NumPy, and JAX's own promotion."""
    with enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
