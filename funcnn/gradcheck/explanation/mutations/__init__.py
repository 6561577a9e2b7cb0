"""Mutations of the backward pass of a loss: the right one with a mistake in it, of the kinds that people make.

A new cause belongs here if the backward pass has to be run with the mistake, as for an activation's derivative or a
lost path: a function that takes a ``Situation`` and yields mutations, in one of these modules, and its place in
``FAMILIES``. A cause that the two gradients of a leaf show by themselves is a detector in ``explanation/causes``.

The families of mutations are tried in the order of the list, and the first mutation that gives the gradient by hand in
every wrong leaf names the cause. The names of all causes are in ``Cause`` in ``gradcheck/report.py``.
"""

from collections.abc import Callable, Iterator

from funcnn.gradcheck.explanation.mutations.activation import (
    generate_fitted_slopes,
    generate_misplaced_slopes,
    generate_slopes,
    generate_slopes_at_other_values,
    generate_slopes_by_hand,
    generate_slopes_of_groups,
)
from funcnn.gradcheck.explanation.mutations.borders import generate_borders
from funcnn.gradcheck.explanation.mutations.by_hand import (
    generate_cotangents_of_iterations,
    generate_values_of_iterations,
)
from funcnn.gradcheck.explanation.mutations.calls import generate_values_of_other_calls
from funcnn.gradcheck.explanation.mutations.convolution import (
    generate_paddings,
    generate_slices,
    generate_windows,
)
from funcnn.gradcheck.explanation.mutations.convolution_forms import generate_convolutions
from funcnn.gradcheck.explanation.mutations.factors import generate_factors
from funcnn.gradcheck.explanation.mutations.gates import generate_exchanged_factors, generate_slopes_of_parts
from funcnn.gradcheck.explanation.mutations.layout import (
    generate_layouts,
    generate_orders_of_parts,
    generate_parts_of_sums,
    generate_rearranged_gradients,
    generate_rolls,
)
from funcnn.gradcheck.explanation.mutations.leaves import generate_ways_of_leaves
from funcnn.gradcheck.explanation.mutations.linear import generate_untransposed_maps
from funcnn.gradcheck.explanation.mutations.loops import (
    generate_misplaced_slopes_of_iterations,
    generate_numbers_of_iterations,
    generate_operands_of_iterations,
    generate_paths_of_iterations,
    generate_slopes_of_iterations,
    generate_states_of_other_iterations,
    generate_terms_of_iterations,
)
from funcnn.gradcheck.explanation.mutations.loss import generate_loss_derivatives, generate_loss_gradients_by_hand
from funcnn.gradcheck.explanation.mutations.masked_values import generate_masked_values, generate_masks_of_choices
from funcnn.gradcheck.explanation.mutations.masks import (
    generate_losses_without_masks,
    generate_masks,
    generate_masks_by_hand,
    generate_pairs,
)
from funcnn.gradcheck.explanation.mutations.normalization import (
    generate_normalization_formulas,
    generate_normalizations_of_iterations,
)
from funcnn.gradcheck.explanation.mutations.operands import (
    generate_constant_operands,
    generate_constants_by_hand,
    generate_cotangents,
    generate_factors_out_of_order,
    generate_operands,
    generate_operands_by_hand,
    generate_operands_of_lines,
    generate_other_operands,
    generate_updated_weights,
)
from funcnn.gradcheck.explanation.mutations.paths import (
    generate_ignored_stops,
    generate_lines,
    generate_lost_uses,
    generate_moved_stops,
    generate_normalization,
    generate_paths,
    generate_paths_of_lines,
)
from funcnn.gradcheck.explanation.mutations.penalties import generate_penalties
from funcnn.gradcheck.explanation.mutations.pooling import generate_merged_axes, generate_pooling
from funcnn.gradcheck.explanation.mutations.readings import (
    generate_other_inputs,
    generate_other_losses,
    generate_other_points,
    generate_other_weights,
    generate_rotations,
    generate_updated_parameters,
)
from funcnn.gradcheck.explanation.mutations.reductions import (
    generate_exchanged_sides,
    generate_overwritten_parts,
    generate_reductions,
)
from funcnn.gradcheck.explanation.mutations.softmax import generate_softmax
from funcnn.gradcheck.explanation.mutations.softmax_values import generate_softmax_values
from funcnn.gradcheck.explanation.search import Mutation
from funcnn.gradcheck.explanation.situation import Situation

FAMILIES: tuple[Callable[[Situation], Iterator[Mutation]], ...] = (
    generate_masks,
    generate_losses_without_masks,
    generate_normalization_formulas,
    generate_lines,
    generate_penalties,
    generate_terms_of_iterations,
    generate_slopes,
    generate_softmax,
    generate_masked_values,
    generate_masks_of_choices,
    generate_softmax_values,
    generate_ignored_stops,
    generate_moved_stops,
    generate_normalization,
    generate_normalizations_of_iterations,
    generate_orders_of_parts,
    generate_paths_of_iterations,
    generate_exchanged_factors,
    generate_lost_uses,
    generate_numbers_of_iterations,
    generate_values_of_other_calls,
    generate_updated_parameters,
    generate_slopes_of_groups,
    generate_slopes_of_parts,
    generate_slopes_of_iterations,
    generate_operands_of_iterations,
    generate_convolutions,
    generate_paddings,
    generate_windows,
    generate_slices,
    generate_paths,
    generate_other_inputs,
    generate_rotations,
    generate_layouts,
    generate_rolls,
    generate_parts_of_sums,
    generate_borders,
    generate_pooling,
    generate_merged_axes,
    generate_exchanged_sides,
    generate_reductions,
    generate_overwritten_parts,
    generate_updated_weights,
    generate_constant_operands,
    generate_operands,
    generate_slopes_at_other_values,
    generate_ways_of_leaves,
    generate_states_of_other_iterations,
    generate_misplaced_slopes_of_iterations,
    generate_cotangents,
    generate_factors_out_of_order,
    generate_paths_of_lines,
    generate_other_weights,
    generate_other_operands,
    generate_operands_of_lines,
    generate_masks_by_hand,
    generate_untransposed_maps,
    generate_misplaced_slopes,
    generate_rearranged_gradients,
    generate_pairs,
    generate_other_points,
    generate_loss_derivatives,
    generate_other_losses,
    generate_factors,
    generate_constants_by_hand,
    generate_operands_by_hand,
    generate_values_of_iterations,
    generate_cotangents_of_iterations,
    generate_fitted_slopes,
    generate_slopes_by_hand,
)

LAST: tuple[Callable[[Situation], Iterator[Mutation]], ...] = (generate_loss_gradients_by_hand,)
"""The families that say where a mistake is more than what it is, tried where nothing else explains a leaf."""

ALONE: tuple[Callable[[Situation], Iterator[Mutation]], ...] = (
    generate_masks,
    generate_exchanged_sides,
    generate_slopes,
    generate_softmax,
    generate_pairs,
    generate_paths,
    generate_reductions,
    generate_constant_operands,
    generate_operands,
    generate_other_inputs,
    generate_rotations,
    generate_loss_derivatives,
    generate_loss_gradients_by_hand,
)
"""The families that are tried of the gradient of one parameter alone, where the others find nothing."""

OF_TIES: tuple[Callable[[Situation], Iterator[Mutation]], ...] = (
    generate_paddings,
    generate_slices,
    generate_windows,
    generate_pooling,
    generate_reductions,
    generate_overwritten_parts,
)
"""The families that are tried where entries tie for a maximum, and the first one takes all."""
