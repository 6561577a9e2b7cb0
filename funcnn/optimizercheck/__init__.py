"""Comparison of a candidate optimizer with a trusted reference, step by step, on gradients that stress both.

``check`` holds the public call. ``sequences`` builds the gradients, ``evaluation`` applies both optimizers to them,
``trajectories`` runs one optimizer, and ``comparison`` computes tolerances and the first difference.

``update_rules`` contains textbook optimizers in NumPy, and ``identification`` finds the one that reproduces the
reference. ``mutations`` lists one-line changes of such a rule, ``fitting`` estimates changed coefficients, and
``diagnosis`` selects the change that reproduces the candidate. ``report`` defines the result.
"""

from funcnn.optimizercheck.check import check_optimizer as check_optimizer
from funcnn.optimizercheck.report import (
    OptimizerCause as OptimizerCause,
    OptimizerReport as OptimizerReport,
    SequenceReport as SequenceReport,
)
