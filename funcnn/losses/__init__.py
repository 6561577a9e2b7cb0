"""Losses: each forward pass with its hand-written gradient below it.

``regression`` holds the losses on values, ``margin`` the hinge loss, ``probabilities`` and ``logits`` the
cross-entropies, ``weighted_logits`` the one with ignored labels, ``divergence`` the Kullback–Leibler divergence. Every
loss is a mean: over all entries, or, for exclusive classes, over all axes but the last. The mean is taken in forward
and nowhere else, so that the gradient has exactly one division.

Each loss has a pair of functions, ``forward(prediction, target) -> (loss, residuals)`` and
``backward(residuals, dloss) -> dprediction``.

Args:
    prediction: the output of a model, floating, ``(batch, ...)`` or ``(batch, ..., classes)``.
    target: values of the prediction's shape and dtype; for exclusive classes integer labels ``(batch, ...)`` or one-hot
        rows of the prediction's shape and dtype.
    residuals: what forward returned beside the loss.
    dloss: the cotangent of the loss, a scalar.

Returns:
    The loss, a scalar of the prediction's dtype: cross-entropies in nats, a squared error in the square of the target's
    units. The gradient with respect to the prediction, of its shape and dtype.

Raises:
    ValueError: a target of another shape, which would broadcast; an empty prediction; on concrete arrays, a probability
        outside [0, 1] or a label outside 0…classes−1.
    TypeError: a prediction that is not floating; a target of another dtype.

Under ``jit``, where values are not known, such a probability or label makes the loss NaN.
"""

from funcnn.losses._targets import (
    DeltaResiduals as DeltaResiduals,
    LabelResiduals as LabelResiduals,
    ValueResiduals as ValueResiduals,
    WeightedResiduals as WeightedResiduals,
    loss_spec as loss_spec,
)
from funcnn.losses.divergence import (
    kl_divergence as kl_divergence,
    kl_divergence_backward as kl_divergence_backward,
    kl_divergence_forward as kl_divergence_forward,
)
from funcnn.losses.logits import (
    sigmoid_cross_entropy as sigmoid_cross_entropy,
    sigmoid_cross_entropy_backward as sigmoid_cross_entropy_backward,
    sigmoid_cross_entropy_forward as sigmoid_cross_entropy_forward,
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_cross_entropy_backward as softmax_cross_entropy_backward,
    softmax_cross_entropy_forward as softmax_cross_entropy_forward,
)
from funcnn.losses.margin import (
    hinge as hinge,
    hinge_backward as hinge_backward,
    hinge_forward as hinge_forward,
)
from funcnn.losses.probabilities import (
    SMALLEST_PROBABILITY as SMALLEST_PROBABILITY,
    binary_cross_entropy as binary_cross_entropy,
    binary_cross_entropy_backward as binary_cross_entropy_backward,
    binary_cross_entropy_forward as binary_cross_entropy_forward,
    categorical_cross_entropy as categorical_cross_entropy,
    categorical_cross_entropy_backward as categorical_cross_entropy_backward,
    categorical_cross_entropy_forward as categorical_cross_entropy_forward,
)
from funcnn.losses.regression import (
    absolute_error as absolute_error,
    absolute_error_backward as absolute_error_backward,
    absolute_error_forward as absolute_error_forward,
    huber as huber,
    huber_backward as huber_backward,
    huber_forward as huber_forward,
    mean_squared_error as mean_squared_error,
    mean_squared_error_backward as mean_squared_error_backward,
    mean_squared_error_forward as mean_squared_error_forward,
)
from funcnn.losses.weighted_logits import (
    softmax_cross_entropy_with as softmax_cross_entropy_with,
    softmax_cross_entropy_with_backward as softmax_cross_entropy_with_backward,
    softmax_cross_entropy_with_forward as softmax_cross_entropy_with_forward,
)
