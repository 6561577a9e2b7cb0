"""Checks of gradients: the hand-written gradient, autodiff, and measured slopes of the loss are compared.

``check`` holds ``check_gradients``, ``layers`` the checks of layers and models, ``vjp`` those of vjps and registered
rules; each becomes a loss and a gradient for ``engine.examination``. In ``engine``, ``precision`` selects the dtype,
``comparison`` sets the tolerances, ``kinks`` finds points without a derivative, ``slopes`` and ``verdict`` decide which
gradient is wrong, and ``stability`` compares with the caller's own dtype. ``explanation`` names the cause.
``report`` is the result.
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
from funcnn.gradcheck.taps import tap as tap
from funcnn.gradcheck.vjp import check_custom_vjp as check_custom_vjp, check_vjp as check_vjp
