"""Settings of the tests of explanations."""

import jax
import pytest


@pytest.fixture
def defaults():
    """Numbers as users have them: float64 by NumPy, and JAX's own promotion."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
