"""Comparing optimizers: somebody's own beside one that is trusted, step by step, on gradients that are awkward.

``check`` is the question; ``sequences`` are the gradients, ``asking`` puts them to both optimizers, ``runs`` runs them,
``comparison`` says where they part and how far rounding may take them. ``recipes`` are textbook optimizers in NumPy,
and ``identification`` finds the one that the reference follows; ``slips`` are its lines written otherwise, ``fitting``
its numbers, ``diagnosis`` names the change that gives the candidate's updates. ``report`` is what comes back.
"""

from funcnn.optimizercheck.check import check_optimizer as check_optimizer
from funcnn.optimizercheck.report import (
    OptimizerCause as OptimizerCause,
    OptimizerReport as OptimizerReport,
    SequenceReport as SequenceReport,
)
