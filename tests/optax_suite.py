"""Optax's own tests, run on our optimizers: ``nox -s optax_suite``.

Ours stand under optax's names in the modules where its tests look them up, and its tables of cases keep the rows that
both libraries have. No test is changed, and none of ours is left out; what isn't collected are the tests of what
funcnn doesn't have, such as L-BFGS. Optax skips Lion on complex parameters itself: a complex number has no sign.
"""

import jax
import pytest
from absl.testing import parameterized
from optax import transforms
from optax._src import alias
from optax.transforms import _adding, _clipping

import funcnn as fnn

OPTIMIZERS = {
    name: getattr(fnn, name) for name in ("adagrad", "adam", "adamax", "adamw", "lion", "nadam", "rmsprop", "sgd")
}
TRANSFORMATIONS = {
    "add_decayed_weights": (fnn.add_decayed_weights, _adding),
    "clip": (fnn.clip_by_value, _clipping),
    "clip_by_global_norm": (fnn.clip_by_global_norm, _clipping),
}

# Optax's tests are written for JAX's defaults, not for this suite's stricter ones.
jax.config.update("jax_enable_x64", False)
jax.config.update("jax_numpy_dtype_promotion", "standard")
jax.config.update("jax_numpy_rank_promotion", "allow")
jax.config.update("jax_disable_most_optimizations", False)

for name, ours in OPTIMIZERS.items():
    setattr(alias, name, ours)
for name, (ours, module) in TRANSFORMATIONS.items():
    setattr(module, name, ours)
    setattr(transforms, name, ours)


def rows_of_ours(*tables, product=parameterized.product, **axes):
    """``parameterized.product`` over the rows whose optimizer we have."""
    kept = [[row for row in table if row.get("opt_name", "sgd") in OPTIMIZERS] for table in tables]
    if "opt_name" in axes:
        axes["opt_name"] = tuple(name for name in axes["opt_name"] if name.removesuffix("_mom") in OPTIMIZERS)
    return product(*kept, **axes)


def constructors_of_ours(cases, named_parameters=parameterized.named_parameters):
    """``parameterized.named_parameters`` over the cases whose constructor is ours."""
    ours = [*OPTIMIZERS.values(), *(ours for ours, _ in TRANSFORMATIONS.values())]
    return named_parameters([case for case in cases if case[1] in ours])


def only(case, *names):
    """A test class of optax's with these of its tests, where the others are of what we don't have."""
    others = {name: None for name in dir(case) if name.startswith("test") and name not in names}
    return type(case)(case.__name__, (case,), others)


with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parameterized, "product", rows_of_ours)
    from optax._src import transform_test
    from optax._src.alias_test import AliasTest as AliasTest

    # Ours inside optax's masks, partitions, conditions and look-ahead, and their states under its tree functions.
    from optax._src.lookahead_test import LookaheadTest as LookaheadTest
    from optax.transforms import _adding_test, _clipping_test
    from optax.transforms._combining_test import ExtraArgsTest as ExtraArgsTest, PartitionTest as PartitionTest
    from optax.transforms._conditionality_test import ConditionalityTest as ConditionalityTest
    from optax.transforms._masking_test import MaskedTest as MaskedTest
    from optax.tree_utils._state_utils_test import StateUtilsTest as StateUtilsTest
with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parameterized, "named_parameters", constructors_of_ours)
    from optax._src.float64_test import Float64Test as Float64Test

AddingTest = only(_adding_test.AddingTest, "test_add_decayed_weights", "test_none_argument")
ClippingTest = only(_clipping_test.ClippingTest, "test_clip", "test_clip_by_global_norm")
TransformTest = only(transform_test.TransformTest, "test_apply_every")


def test_ours_stand_in_optax_s_place():
    assert all(getattr(alias, name) is ours for name, ours in OPTIMIZERS.items())
    assert all(getattr(module, name) is ours for name, (ours, module) in TRANSFORMATIONS.items())
    assert transforms.clip is fnn.clip_by_value
