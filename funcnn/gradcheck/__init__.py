"""Comparing gradients: written by hand on one side, autodiff on the other, measured slopes of the loss as referee.

``check``, ``layers`` and ``rules`` are the questions one can ask; each becomes a loss and a gradient, which
``examination`` puts to all witnesses. ``precision`` chooses the dtype that tells right from wrong, ``comparison`` sets
the tolerances, with ``rounding`` measured where it matters; ``kinks`` finds points without a derivative, ``slopes`` and
``verdict`` decide who is wrong, ``stability`` judges the caller's own dtype, ``diagnosis`` names the cause. ``program``
runs what JAX records of a function, equation by equation; ``report`` is what comes back.
"""

from funcnn.gradcheck.check import assert_gradients as assert_gradients, check_gradients as check_gradients
from funcnn.gradcheck.layers import check_layer as check_layer, check_model as check_model
from funcnn.gradcheck.report import (
    Cause as Cause,
    GradientReport as GradientReport,
    LeafReport as LeafReport,
    PropertyReport as PropertyReport,
    Verdict as Verdict,
)
from funcnn.gradcheck.rules import check_custom_vjp as check_custom_vjp, check_vjp as check_vjp
from funcnn.gradcheck.taps import tap as tap
