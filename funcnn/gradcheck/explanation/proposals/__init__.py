"""Wrong backward passes, a family in each function.

A family takes a ``Situation`` and yields proposals. They are tried in this order, and the first one that gives the
gradient by hand in every wrong leaf names the cause. A new cause of this sort is a function in one of these modules, a
place in ``FAMILIES``, and a name in ``Cause`` in ``gradcheck/report.py``.
"""

from collections.abc import Callable, Iterator

from funcnn.gradcheck.explanation.proposals.activation import (
    propose_fitted_slopes,
    propose_misplaced_slopes,
    propose_slopes,
    propose_slopes_at_other_values,
    propose_slopes_by_hand,
    propose_slopes_of_groups,
)
from funcnn.gradcheck.explanation.proposals.borders import propose_borders
from funcnn.gradcheck.explanation.proposals.by_hand import (
    propose_cotangents_of_iterations,
    propose_values_of_iterations,
)
from funcnn.gradcheck.explanation.proposals.calls import propose_values_of_other_calls
from funcnn.gradcheck.explanation.proposals.convolution import (
    propose_paddings,
    propose_slices,
    propose_windows,
)
from funcnn.gradcheck.explanation.proposals.convolution_forms import propose_convolutions
from funcnn.gradcheck.explanation.proposals.factors import propose_factors
from funcnn.gradcheck.explanation.proposals.gates import propose_exchanged_factors, propose_slopes_of_parts
from funcnn.gradcheck.explanation.proposals.layout import (
    propose_layouts,
    propose_orders_of_parts,
    propose_parts_of_sums,
    propose_rearranged_gradients,
    propose_rolls,
)
from funcnn.gradcheck.explanation.proposals.leaves import propose_ways_of_leaves
from funcnn.gradcheck.explanation.proposals.linear import propose_untransposed_maps
from funcnn.gradcheck.explanation.proposals.loops import (
    propose_misplaced_slopes_of_iterations,
    propose_numbers_of_iterations,
    propose_operands_of_iterations,
    propose_paths_of_iterations,
    propose_slopes_of_iterations,
    propose_states_of_other_iterations,
    propose_terms_of_iterations,
)
from funcnn.gradcheck.explanation.proposals.loss import propose_loss_derivatives, propose_loss_gradients_by_hand
from funcnn.gradcheck.explanation.proposals.masked_values import propose_masked_values, propose_masks_of_choices
from funcnn.gradcheck.explanation.proposals.masks import (
    propose_losses_without_masks,
    propose_masks,
    propose_masks_by_hand,
    propose_pairs,
)
from funcnn.gradcheck.explanation.proposals.normalization import (
    propose_normalization_formulas,
    propose_normalizations_of_iterations,
)
from funcnn.gradcheck.explanation.proposals.operands import (
    propose_constant_operands,
    propose_constants_by_hand,
    propose_cotangents,
    propose_factors_out_of_order,
    propose_operands,
    propose_operands_by_hand,
    propose_operands_of_lines,
    propose_other_operands,
    propose_updated_weights,
)
from funcnn.gradcheck.explanation.proposals.paths import (
    propose_ignored_stops,
    propose_lines,
    propose_lost_uses,
    propose_moved_stops,
    propose_normalization,
    propose_paths,
    propose_paths_of_lines,
)
from funcnn.gradcheck.explanation.proposals.penalties import propose_penalties
from funcnn.gradcheck.explanation.proposals.pooling import propose_merged_axes, propose_pooling
from funcnn.gradcheck.explanation.proposals.readings import (
    propose_other_inputs,
    propose_other_losses,
    propose_other_points,
    propose_other_weights,
    propose_rotations,
    propose_updated_parameters,
)
from funcnn.gradcheck.explanation.proposals.reductions import (
    propose_exchanged_sides,
    propose_overwritten_parts,
    propose_reductions,
)
from funcnn.gradcheck.explanation.proposals.softmax import propose_softmax
from funcnn.gradcheck.explanation.proposals.softmax_values import propose_softmax_values
from funcnn.gradcheck.explanation.search import Proposal
from funcnn.gradcheck.explanation.situation import Situation

FAMILIES: tuple[Callable[[Situation], Iterator[Proposal]], ...] = (
    propose_masks,
    propose_losses_without_masks,
    propose_normalization_formulas,
    propose_lines,
    propose_penalties,
    propose_terms_of_iterations,
    propose_slopes,
    propose_softmax,
    propose_masked_values,
    propose_masks_of_choices,
    propose_softmax_values,
    propose_ignored_stops,
    propose_moved_stops,
    propose_normalization,
    propose_normalizations_of_iterations,
    propose_orders_of_parts,
    propose_paths_of_iterations,
    propose_exchanged_factors,
    propose_lost_uses,
    propose_numbers_of_iterations,
    propose_values_of_other_calls,
    propose_updated_parameters,
    propose_slopes_of_groups,
    propose_slopes_of_parts,
    propose_slopes_of_iterations,
    propose_operands_of_iterations,
    propose_convolutions,
    propose_paddings,
    propose_windows,
    propose_slices,
    propose_paths,
    propose_other_inputs,
    propose_rotations,
    propose_layouts,
    propose_rolls,
    propose_parts_of_sums,
    propose_borders,
    propose_pooling,
    propose_merged_axes,
    propose_exchanged_sides,
    propose_reductions,
    propose_overwritten_parts,
    propose_updated_weights,
    propose_constant_operands,
    propose_operands,
    propose_slopes_at_other_values,
    propose_ways_of_leaves,
    propose_states_of_other_iterations,
    propose_misplaced_slopes_of_iterations,
    propose_cotangents,
    propose_factors_out_of_order,
    propose_paths_of_lines,
    propose_other_weights,
    propose_other_operands,
    propose_operands_of_lines,
    propose_masks_by_hand,
    propose_untransposed_maps,
    propose_misplaced_slopes,
    propose_rearranged_gradients,
    propose_pairs,
    propose_other_points,
    propose_loss_derivatives,
    propose_other_losses,
    propose_factors,
    propose_constants_by_hand,
    propose_operands_by_hand,
    propose_values_of_iterations,
    propose_cotangents_of_iterations,
    propose_fitted_slopes,
    propose_slopes_by_hand,
)

LAST: tuple[Callable[[Situation], Iterator[Proposal]], ...] = (propose_loss_gradients_by_hand,)
"""The families that say where a mistake is more than what it is, tried where nothing else explains a leaf."""

ALONE: tuple[Callable[[Situation], Iterator[Proposal]], ...] = (
    propose_masks,
    propose_exchanged_sides,
    propose_slopes,
    propose_softmax,
    propose_pairs,
    propose_paths,
    propose_reductions,
    propose_constant_operands,
    propose_operands,
    propose_other_inputs,
    propose_rotations,
    propose_loss_derivatives,
    propose_loss_gradients_by_hand,
)
"""The families that are tried of the gradient of one parameter alone, where the others find nothing."""

OF_TIES: tuple[Callable[[Situation], Iterator[Proposal]], ...] = (
    propose_paddings,
    propose_slices,
    propose_windows,
    propose_pooling,
    propose_reductions,
    propose_overwritten_parts,
)
"""The families that are tried where entries tie for a maximum, and the first one takes all."""
