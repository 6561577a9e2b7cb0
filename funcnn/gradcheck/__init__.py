"""Comparing gradients: written by hand on one side, ``jax.grad`` on the other.

``check`` asks both sides, in the ``precision`` that tells right from wrong; ``comparison`` sets the tolerances and
compares leaf by leaf; ``diagnosis`` names what is wrong with a leaf; ``report`` is what comes back.
"""

from funcnn.gradcheck.check import (
    assert_gradients as assert_gradients,
    check_gradients as check_gradients,
    check_layer as check_layer,
    check_model as check_model,
)
from funcnn.gradcheck.report import Cause as Cause, GradientReport as GradientReport, LeafReport as LeafReport
