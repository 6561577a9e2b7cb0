"""Activation functions: each forward pass with its backward pass below it.

Every plain pair has one form. Forward takes the pre-activations z, of any shape (``(..., classes)`` for softmax and
log-softmax), floating, and returns the activations a, of z's shape and dtype, and the residuals. It raises a
``TypeError`` where z isn't floating. Backward takes the residuals and ``da``, the cotangent of a, and returns ``dz``,
of da's shape.

All but softmax and log-softmax act entry by entry, so their Jacobian is diagonal and the backward pass is a product:
dz = da f′(z). The residual is the one from which f′ is cheapest: the output a where f′ is a function of it (the next
layer keeps that array anyway), the input z otherwise. Every form but the squared ReLU is finite at any finite z, in
value and in gradient.
"""

from funcnn.layers.activation_layer import activation_layer as activation_layer
from funcnn.layers.activations.classes import (
    log_softmax as log_softmax,
    log_softmax_backward as log_softmax_backward,
    log_softmax_forward as log_softmax_forward,
    softmax as softmax,
    softmax_backward as softmax_backward,
    softmax_forward as softmax_forward,
)
from funcnn.layers.activations.rectifiers import (
    elu as elu,
    elu_backward as elu_backward,
    elu_forward as elu_forward,
    leaky_relu as leaky_relu,
    leaky_relu_backward as leaky_relu_backward,
    leaky_relu_forward as leaky_relu_forward,
    relu as relu,
    relu_backward as relu_backward,
    relu_forward as relu_forward,
    selu as selu,
    selu_backward as selu_backward,
    selu_forward as selu_forward,
    squared_relu as squared_relu,
    squared_relu_backward as squared_relu_backward,
    squared_relu_forward as squared_relu_forward,
)
from funcnn.layers.activations.saturating import (
    hard_tanh as hard_tanh,
    hard_tanh_backward as hard_tanh_backward,
    hard_tanh_forward as hard_tanh_forward,
    identity as identity,
    identity_backward as identity_backward,
    identity_forward as identity_forward,
    sigmoid as sigmoid,
    sigmoid_backward as sigmoid_backward,
    sigmoid_forward as sigmoid_forward,
    tanh as tanh,
    tanh_backward as tanh_backward,
    tanh_forward as tanh_forward,
)
from funcnn.layers.activations.smooth import (
    gelu as gelu,
    gelu_backward as gelu_backward,
    gelu_forward as gelu_forward,
    gelu_tanh as gelu_tanh,
    gelu_tanh_backward as gelu_tanh_backward,
    gelu_tanh_forward as gelu_tanh_forward,
    mish as mish,
    mish_backward as mish_backward,
    mish_forward as mish_forward,
    silu as silu,
    silu_backward as silu_backward,
    silu_forward as silu_forward,
    softplus as softplus,
    softplus_backward as softplus_backward,
    softplus_forward as softplus_forward,
)
