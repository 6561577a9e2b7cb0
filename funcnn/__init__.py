"""funcnn: neural networks as pure functions, with every backward pass written by hand and checked against autodiff.

>>> import funcnn as fnn
>>> model = fnn.mlp((64, 128, 64, 10))
"""

from funcnn import datasets as datasets, practice as practice
from funcnn.backprop import (
    as_custom_vjp as as_custom_vjp,
    autodiff_value_and_grad as autodiff_value_and_grad,
    manual_value_and_grad as manual_value_and_grad,
)
from funcnn.ensembles import (
    mean_over_members as mean_over_members,
    predict_ensemble as predict_ensemble,
    train_ensemble as train_ensemble,
)
from funcnn.generation import generate as generate
from funcnn.gradcheck import (
    GradientReport as GradientReport,
    LeafReport as LeafReport,
    assert_gradients as assert_gradients,
    check_custom_vjp as check_custom_vjp,
    check_gradients as check_gradients,
    check_layer as check_layer,
    check_model as check_model,
    check_vjp as check_vjp,
    tap as tap,
)
from funcnn.health import Finding as Finding, HealthReport as HealthReport
from funcnn.layers.activation_layer import activation_layer as activation_layer
from funcnn.layers.activations import (
    elu as elu,
    elu_backward as elu_backward,
    elu_forward as elu_forward,
    gelu as gelu,
    gelu_backward as gelu_backward,
    gelu_forward as gelu_forward,
    gelu_tanh as gelu_tanh,
    gelu_tanh_backward as gelu_tanh_backward,
    gelu_tanh_forward as gelu_tanh_forward,
    hard_tanh as hard_tanh,
    hard_tanh_backward as hard_tanh_backward,
    hard_tanh_forward as hard_tanh_forward,
    identity as identity,
    identity_backward as identity_backward,
    identity_forward as identity_forward,
    leaky_relu as leaky_relu,
    leaky_relu_backward as leaky_relu_backward,
    leaky_relu_forward as leaky_relu_forward,
    log_softmax as log_softmax,
    log_softmax_backward as log_softmax_backward,
    log_softmax_forward as log_softmax_forward,
    mish as mish,
    mish_backward as mish_backward,
    mish_forward as mish_forward,
    relu as relu,
    relu_backward as relu_backward,
    relu_forward as relu_forward,
    selu as selu,
    selu_backward as selu_backward,
    selu_forward as selu_forward,
    sigmoid as sigmoid,
    sigmoid_backward as sigmoid_backward,
    sigmoid_forward as sigmoid_forward,
    silu as silu,
    silu_backward as silu_backward,
    silu_forward as silu_forward,
    softmax as softmax,
    softmax_backward as softmax_backward,
    softmax_forward as softmax_forward,
    softplus as softplus,
    softplus_backward as softplus_backward,
    softplus_forward as softplus_forward,
    squared_relu as squared_relu,
    squared_relu_backward as squared_relu_backward,
    squared_relu_forward as squared_relu_forward,
    tanh as tanh,
    tanh_backward as tanh_backward,
    tanh_forward as tanh_forward,
)
from funcnn.layers.attention import (
    attention_backward as attention_backward,
    attention_forward as attention_forward,
)
from funcnn.layers.blockwise_attention import (
    blockwise_attention_backward as blockwise_attention_backward,
    blockwise_attention_forward as blockwise_attention_forward,
)
from funcnn.layers.combinators import SkipParts as SkipParts, repeat as repeat, serial as serial, skip as skip
from funcnn.layers.convolution import (
    ConvParams as ConvParams,
    conv1d_backward as conv1d_backward,
    conv1d_forward as conv1d_forward,
    conv2d_backward as conv2d_backward,
    conv2d_forward as conv2d_forward,
)
from funcnn.layers.convolution_layers import (
    conv1d as conv1d,
    conv2d as conv2d,
)
from funcnn.layers.dropout import (
    dropout as dropout,
    dropout_backward as dropout_backward,
    dropout_forward as dropout_forward,
)
from funcnn.layers.embedding import (
    EmbeddingParams as EmbeddingParams,
    embedding as embedding,
    embedding_backward as embedding_backward,
    embedding_forward as embedding_forward,
    unembedding as unembedding,
    unembedding_backward as unembedding_backward,
    unembedding_forward as unembedding_forward,
)
from funcnn.layers.group_normalization import (
    group_norm as group_norm,
    group_norm_backward as group_norm_backward,
    group_norm_forward as group_norm_forward,
)
from funcnn.layers.gru import (
    GRUParams as GRUParams,
    gru as gru,
    gru_backward as gru_backward,
    gru_forward as gru_forward,
)
from funcnn.layers.linear import (
    LinearParams as LinearParams,
    linear as linear,
    linear_backward as linear_backward,
    linear_forward as linear_forward,
)
from funcnn.layers.lstm import lstm as lstm, lstm_backward as lstm_backward, lstm_forward as lstm_forward
from funcnn.layers.mixed_precision import mixed_precision as mixed_precision
from funcnn.layers.normalization import (
    BatchNormState as BatchNormState,
    NormalizationParams as NormalizationParams,
    batch_norm as batch_norm,
    batch_norm_backward as batch_norm_backward,
    batch_norm_forward as batch_norm_forward,
    layer_norm as layer_norm,
    layer_norm_backward as layer_norm_backward,
    layer_norm_forward as layer_norm_forward,
)
from funcnn.layers.pooling import (
    avg_pool2d as avg_pool2d,
    avg_pool2d_backward as avg_pool2d_backward,
    avg_pool2d_forward as avg_pool2d_forward,
    max_pool2d as max_pool2d,
    max_pool2d_backward as max_pool2d_backward,
    max_pool2d_forward as max_pool2d_forward,
)
from funcnn.layers.positions import (
    PositionParams as PositionParams,
    learned_positions as learned_positions,
    learned_positions_backward as learned_positions_backward,
    learned_positions_forward as learned_positions_forward,
    rotary as rotary,
    rotary_backward as rotary_backward,
    rotary_forward as rotary_forward,
    sinusoidal_positions as sinusoidal_positions,
    sinusoidal_positions_backward as sinusoidal_positions_backward,
    sinusoidal_positions_forward as sinusoidal_positions_forward,
)
from funcnn.layers.recompute import recompute as recompute
from funcnn.layers.recurrent import (
    RecurrentParams as RecurrentParams,
    last_step as last_step,
    last_step_backward as last_step_backward,
    last_step_forward as last_step_forward,
    rnn as rnn,
    rnn_backward as rnn_backward,
    rnn_forward as rnn_forward,
)
from funcnn.layers.reshaping import (
    flatten as flatten,
    flatten_backward as flatten_backward,
    flatten_forward as flatten_forward,
    global_avg_pool as global_avg_pool,
    global_avg_pool_backward as global_avg_pool_backward,
    global_avg_pool_forward as global_avg_pool_forward,
)
from funcnn.layers.rms_normalization import (
    RMSNormParams as RMSNormParams,
    rms_norm as rms_norm,
    rms_norm_backward as rms_norm_backward,
    rms_norm_forward as rms_norm_forward,
)
from funcnn.layers.self_attention import (
    AttentionParams as AttentionParams,
    self_attention as self_attention,
    self_attention_backward as self_attention_backward,
    self_attention_forward as self_attention_forward,
)
from funcnn.layers.swiglu import (
    SwiGLUParams as SwiGLUParams,
    swiglu as swiglu,
    swiglu_backward as swiglu_backward,
    swiglu_forward as swiglu_forward,
)
from funcnn.layers.tied import tied as tied
from funcnn.layers.transposed_convolution import (
    conv_transpose2d as conv_transpose2d,
    conv_transpose2d_backward as conv_transpose2d_backward,
    conv_transpose2d_forward as conv_transpose2d_forward,
)
from funcnn.losses import (
    absolute_error as absolute_error,
    absolute_error_backward as absolute_error_backward,
    absolute_error_forward as absolute_error_forward,
    binary_cross_entropy as binary_cross_entropy,
    binary_cross_entropy_backward as binary_cross_entropy_backward,
    binary_cross_entropy_forward as binary_cross_entropy_forward,
    categorical_cross_entropy as categorical_cross_entropy,
    categorical_cross_entropy_backward as categorical_cross_entropy_backward,
    categorical_cross_entropy_forward as categorical_cross_entropy_forward,
    hinge as hinge,
    hinge_backward as hinge_backward,
    hinge_forward as hinge_forward,
    huber as huber,
    huber_backward as huber_backward,
    huber_forward as huber_forward,
    kl_divergence as kl_divergence,
    kl_divergence_backward as kl_divergence_backward,
    kl_divergence_forward as kl_divergence_forward,
    mean_squared_error as mean_squared_error,
    mean_squared_error_backward as mean_squared_error_backward,
    mean_squared_error_forward as mean_squared_error_forward,
    sigmoid_cross_entropy as sigmoid_cross_entropy,
    sigmoid_cross_entropy_backward as sigmoid_cross_entropy_backward,
    sigmoid_cross_entropy_forward as sigmoid_cross_entropy_forward,
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_cross_entropy_backward as softmax_cross_entropy_backward,
    softmax_cross_entropy_forward as softmax_cross_entropy_forward,
    softmax_cross_entropy_with as softmax_cross_entropy_with,
    softmax_cross_entropy_with_backward as softmax_cross_entropy_with_backward,
    softmax_cross_entropy_with_forward as softmax_cross_entropy_with_forward,
)
from funcnn.metrics import (
    accuracy as accuracy,
    binary_accuracy as binary_accuracy,
    confusion_matrix as confusion_matrix,
)
from funcnn.models import cnn as cnn, gpt as gpt, mlp as mlp, perceptron as perceptron
from funcnn.nonfinite import NonfiniteReport as NonfiniteReport, find_nonfinite as find_nonfinite
from funcnn.optimizercheck import OptimizerReport as OptimizerReport, check_optimizer as check_optimizer
from funcnn.optimizers import (
    adagrad as adagrad,
    adam as adam,
    adamax as adamax,
    adamw as adamw,
    add_decayed_weights as add_decayed_weights,
    clip_by_global_norm as clip_by_global_norm,
    clip_by_value as clip_by_value,
    lion as lion,
    momentum as momentum,
    nadam as nadam,
    nesterov as nesterov,
    rmsprop as rmsprop,
    sgd as sgd,
)
from funcnn.plots import (
    draw_network as draw_network,
    plot_decision_boundary as plot_decision_boundary,
    plot_history as plot_history,
    plot_kernels as plot_kernels,
    plot_signals as plot_signals,
)
from funcnn.preprocessing import (
    Scaler as Scaler,
    Scaling as Scaling,
    min_max_scaler as min_max_scaler,
    standard_scaler as standard_scaler,
)
from funcnn.summary import LayerSummary as LayerSummary, Summary as Summary, summarize as summarize
from funcnn.torch_weights import load_torch as load_torch
from funcnn.training import (
    CheckpointError as CheckpointError,
    Checkpoints as Checkpoints,
    DivergenceError as DivergenceError,
    EarlyStopping as EarlyStopping,
    History as History,
    JSONLines as JSONLines,
    Progress as Progress,
    RunError as RunError,
    TensorBoard as TensorBoard,
    Trained as Trained,
    Validation as Validation,
    evaluate as evaluate,
    fit as fit,
    predict as predict,
    train as train,
)
from funcnn.types import (
    Batch as Batch,
    GradFn as GradFn,
    Layer as Layer,
    LayerSpec as LayerSpec,
    Loss as Loss,
    LossSpec as LossSpec,
    Structure as Structure,
)
from funcnn.weights import load as load, save as save
