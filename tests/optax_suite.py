"""Optax's own tests of its optimizers, run on ours: ``nox -s optax_suite``.

``optax._src.alias_test`` looks every optimizer up in ``optax._src.alias`` by name and takes its cases from tables of
names. Here ours stand under those names, and the tables keep the rows that both libraries have. No test is changed and
none is skipped; tests of optimizers that funcnn doesn't have (L-BFGS has a class of its own) are not collected.
"""

import jax
import pytest
from absl.testing import parameterized
from optax._src import alias

import funcnn as fnn

OURS = {name: getattr(fnn, name) for name in ("adam", "sgd")}

# Optax's tests are written for JAX's defaults, not for this suite's stricter ones.
jax.config.update("jax_enable_x64", False)
jax.config.update("jax_numpy_dtype_promotion", "standard")
jax.config.update("jax_numpy_rank_promotion", "allow")
jax.config.update("jax_disable_most_optimizations", False)


def rows_of_ours(*tables, product=parameterized.product, **axes):
    """``parameterized.product`` over the rows whose optimizer we have."""
    kept = [[row for row in table if row.get("opt_name", "sgd") in OURS] for table in tables]
    if "opt_name" in axes:
        axes["opt_name"] = tuple(name for name in axes["opt_name"] if name.removesuffix("_mom") in OURS)
    return product(*kept, **axes)


with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parameterized, "product", rows_of_ours)
    from optax._src.alias_test import AliasTest as AliasTest

for name, ours in OURS.items():
    setattr(alias, name, ours)


def test_ours_stand_in_optax_s_place():
    assert all(getattr(alias, name) is ours for name, ours in OURS.items())
