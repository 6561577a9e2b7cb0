"""Right gradients of convolutions, attention and recurrence: in other forms than usual, and at difficult points."""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.benchmarks.catalogue import (
    blocks,
    convolutions,
    heads,
    images,
    outputs,
    recurrence,
    tokens,
)
from experiments.benchmarks.catalogue.case import Case, normal, squared_error, squared_error_backward

THEME = "right layers"


def right(name, loss_fn, grad_fn, make, **fields) -> Case:
    return Case(name, THEME, loss_fn, grad_fn, make, **fields)


def twin(name, problem, **lines) -> Case:
    """The gradient of a problem of which bugs were made, without a bug; other ``lines`` are right as well."""
    return right(name, problem.loss_fn, problem.gradient(**lines), problem.make)


TWINS = (
    twin("strided_convolution_by_taps", convolutions.strided),
    twin("causal_dilated_convolution_by_taps", convolutions.causal),
    twin("grouped_convolution_by_taps", convolutions.grouped),
    twin("transposed_convolution_by_taps", convolutions.larger),
    twin("avg_pooling_without_the_padding", images.avg_pooled_inside),
    twin("group_norm_of_images", images.group_norm),
    twin("batch_norm_of_images", images.image_batch_norm),
    twin("tied_table", tokens.tied),
    twin("swiglu", tokens.swiglu),
    twin("attention_of_shared_keys_with_dropout", heads.attention),
    twin("rnn_through_time", recurrence.rnn),
    twin("lstm_through_time", recurrence.lstm),
    twin("gru_through_time", recurrence.gru),
    twin("distillation", outputs.distilled),
    twin("labels_ignored_and_smoothed", outputs.labelled),
    twin("residual_network", blocks.residual),
    twin("gpt", blocks.gpt),
)


# The same gradients in other forms.
def tie_shares(a):
    won = images.every_winner(a)
    return won / won.sum(axis=3, keepdims=True)


def max_pool_in_shares(dy, pooled, a):
    return images.back_from_windows(tie_shares(a).astype(a.dtype) * dy[:, :, :, None])


def max_pool_by_pair(dy, pooled, a):
    _, residuals = fnn.max_pool2d_forward(a, 3, stride=2, padding=((1, 1), (1, 1)))
    return fnn.max_pool2d_backward(residuals, dy)


def rms_norm_by_cubes(dx_hat, x_hat, inverse, axes):
    """dx = dx̂/r − x (dx̂ · x)/(n r³), of x = r x̂."""
    x = x_hat / inverse
    return dx_hat * inverse - x * (dx_hat * x).mean(axis=axes, keepdims=True) * inverse**3


def rows_in_segments(ids, rows):
    """Sorted by their tokens."""
    order = np.argsort(np.asarray(tokens.IDS).ravel(), kind="stable")
    flat = rows.reshape(-1, tokens.FEATURES)[order]
    return tokens.SIZE * jax.ops.segment_sum(
        flat, ids.ravel()[order], num_segments=tokens.VOCABULARY, indices_are_sorted=True
    )


def rows_by_one_hot(ids, rows):
    return tokens.SIZE * jnp.einsum("ntv,ntf->vf", jax.nn.one_hot(ids, tokens.VOCABULARY, dtype=rows.dtype), rows)


def rotated_by_complex_numbers(dv):
    pairs = dv[..., : tokens.HALF] + 1j * dv[..., tokens.HALF :]
    turned = pairs * jnp.exp(-1j * tokens.angles(dv.dtype))
    return jnp.concatenate([turned.real, turned.imag], axis=-1).astype(dv.dtype)


def kernel_gradient_by_matrix(x, dz):
    """The windows as the rows of a matrix (im2col)."""
    x = convolutions.padded(x, convolutions.SAME)
    places = dz.shape[1:3]
    windows = [x[:, *convolutions.window((row, column), places)] for row in range(3) for column in range(3)]
    columns = jnp.stack(windows, axis=3).reshape(-1, 9 * x.shape[-1])
    return (columns.T @ dz.reshape(-1, dz.shape[-1])).reshape(3, 3, x.shape[-1], dz.shape[-1])


def input_gradient_by_two_convolutions(dy, kernel, shape):
    params = fnn.ConvParams(kernel, jnp.zeros(kernel.shape[-1], kernel.dtype))
    _, residuals = fnn.conv2d_forward(params, jnp.zeros(shape, dy.dtype), **convolutions.STRIDED)
    return fnn.conv2d_backward(residuals, dy)[1]


def time_input_gradient_by_matrix(dy, kernel):
    """The convolution as a matrix of all steps (Toeplitz), transposed."""
    steps = np.arange(convolutions.STEPS)
    behind = (steps[:, None] - steps) / convolutions.DILATION
    taps = [jnp.asarray(behind == len(kernel) - 1 - tap, dy.dtype) for tap in range(len(kernel))]
    return jnp.einsum("kts,kco,nto->nsc", jnp.stack(taps), kernel, dy)


FORMS = (
    twin("max_pooling_ties_in_shares", images.max_pooled, da=max_pool_in_shares),
    twin("max_pooling_ties_to_the_first", images.max_pooled, da=max_pool_by_pair),
    twin("rms_norm_by_the_cube_of_its_root", images.image_rms_norm, dh=rms_norm_by_cubes),
    twin("embedding_in_sorted_segments", tokens.embedding, dtable=rows_in_segments),
    twin("embedding_by_one_hot_rows", tokens.embedding, dtable=rows_by_one_hot),
    twin("rotary_by_complex_numbers", tokens.rotary, dquery=rotated_by_complex_numbers),
    twin("convolution_by_a_matrix_of_windows", convolutions.strided, dk1=kernel_gradient_by_matrix),
    twin("convolution_by_a_convolution", convolutions.strided, da=input_gradient_by_two_convolutions),
    twin("convolution_by_a_matrix_of_steps", convolutions.causal, da=time_input_gradient_by_matrix),
)


# A recurrent network by real-time recurrent learning: the derivatives of the state are carried forward.
def forward_in_time(params, x, y):
    width = recurrence.WIDTH
    h, _ = recurrence.rnn_forward(params, x)
    dy = squared_error_backward(h[1:], y)
    eye = jnp.eye(width, dtype=x.dtype)
    derivatives = {name: jnp.zeros((len(x[0]), width, *leaf.shape), x.dtype) for name, leaf in params.items()}
    grads = jax.tree.map(jnp.zeros_like, params)
    for step in range(recurrence.STEPS):
        slope = 1 - h[step + 1] ** 2
        direct = {
            "w": jnp.einsum("ni,jk->njik", x[step], eye),
            "u": jnp.einsum("ni,jk->njik", h[step], eye),
            "b": jnp.broadcast_to(eye, (len(x[0]), width, width)),
        }
        derivatives = {
            name: jnp.einsum(
                "nj,nj...->nj...", slope, direct[name] + jnp.einsum("kj,nk...->nj...", params["u"], before)
            )
            for name, before in derivatives.items()
        }
        grads = {name: grad + jnp.einsum("nj,nj...->...", dy[step], derivatives[name]) for name, grad in grads.items()}
    return grads


# Layers by their pairs, over more steps, and with gates that are shut or open.
def sequences_make(blocks, shift=0.0, steps=12, fields=fnn.RecurrentParams):
    def make(dtype):
        w, u, b, d, x, y = normal(
            dtype, 371, (2, blocks * 3), (3, blocks * 3), (blocks * 3,), (3,), (2, steps, 2), (2, steps, 3)
        )
        vectors = (b + shift * jnp.sign(b),) + ((d,) if fields is fnn.GRUParams else ())
        return fields(w, u / 2, *vectors), (x, y)

    return make


def by_pair(forward, backward):
    """A loss of the outputs of a plain pair, and its gradient."""

    def loss_fn(params, x, y):
        return squared_error(forward(params, x)[0], y)

    def grad_fn(params, x, y):
        outputs, residuals = forward(params, x)
        return backward(residuals, squared_error_backward(outputs, y))[0]

    return loss_fn, grad_fn


SEQUENCES = (
    right("rnn_forward_in_time", recurrence.rnn.loss_fn, forward_in_time, recurrence.rnn.make),
    right("rnn_of_12_steps", *by_pair(fnn.rnn_forward, fnn.rnn_backward), sequences_make(1)),
    right("lstm_of_12_steps", *by_pair(fnn.lstm_forward, fnn.lstm_backward), sequences_make(4)),
    right("lstm_with_shut_and_open_gates", *by_pair(fnn.lstm_forward, fnn.lstm_backward), sequences_make(4, shift=6.0)),
    right("gru_of_12_steps", *by_pair(fnn.gru_forward, fnn.gru_backward), sequences_make(3, fields=fnn.GRUParams)),
)


# Attention with sharp and with hidden rows, and blockwise.
def attention_make(factor):
    def make(dtype):
        q, k, v, y = normal(dtype, 372, (2, 4, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4), (2, 4, 5, 4))
        return {"q": factor * q, "k": k, "v": v}, (y,)

    return make


# The second query sees nothing, and gets 0.
VISIBLE = np.tri(5, dtype=bool) & (np.arange(5)[:, None] != 1)


def attention_pair(forward, backward=fnn.attention_backward, of_loss=None, **settings):
    of_loss = of_loss or forward

    def attend(of, params):
        return of(params["q"], params["k"], params["v"], **settings)

    def loss_fn(params, y):
        return squared_error(attend(of_loss, params)[0], y)

    def grad_fn(params, y):
        heads, residuals = attend(forward, params)
        return dict(zip("qkv", backward(residuals, squared_error_backward(heads, y)), strict=True))

    return loss_fn, grad_fn


def in_blocks(q, k, v, causal):
    return fnn.blockwise_attention_forward(q, k, v, causal=causal, block_size=2)


ATTENTION = (
    right("attention_with_sharp_weights", *attention_pair(fnn.attention_forward), attention_make(6.0)),
    right(
        "attention_with_a_query_that_sees_nothing",
        *attention_pair(fnn.attention_forward, mask=VISIBLE),
        attention_make(1.0),
    ),
    right(
        "attention_in_blocks_of_keys",
        *attention_pair(in_blocks, fnn.blockwise_attention_backward, of_loss=fnn.attention_forward, causal=True),
        attention_make(1.0),
    ),
)


# Points where a derivative is a matter of convention, vanishes, or is lost in rounding.
def values_make(*differences):
    def make(dtype):
        (p,) = normal(dtype, 373, (8,))
        p = jnp.round(8 * p) / 8
        return p, (p - jnp.asarray((*differences, 0.25, -0.75, 1.5, -2.0, 0.5)[:8], dtype),)

    return make


def loss_by_pair(loss):
    def grad_fn(p, y):
        value, residuals = loss.forward(p, y)
        return loss.backward(residuals, jnp.ones((), value.dtype))

    return lambda p, y: loss.forward(p, y)[0], grad_fn


def hinge_make(dtype):
    (p,) = normal(dtype, 374, (8,))
    return p.at[:3].set(jnp.asarray((1.0, -1.0, 1.0), dtype)), (jnp.asarray((1, -1, 1, 1, -1, -1, 1, -1), dtype),)


def hinge_at_the_margin(p, y):
    """The slope that counts a margin of exactly 1 as too small."""
    return jnp.where(y * p <= 1, -y, 0) / p.size


def selu_make(dtype):
    z, y = normal(dtype, 375, (9,), (9,))
    return z.at[::4].set(0), (y,)


def selu_at_zero(z, y):
    """The slope of its upper side."""
    below = outputs.LAMBDA * outputs.ALPHA * jnp.exp(jnp.minimum(z, 0))
    return 2 * (outputs.selu(z) - y) * jnp.where(z >= 0, outputs.LAMBDA, below)


def logits_make(dtype):
    z, _ = normal(dtype, 376, (6, 4), (1,))
    return 200 * z, (jnp.array([0, 3, -1, 2, -1, 1]),)


def one_label_make(dtype):
    z, _ = normal(dtype, 377, (6, 4), (1,))
    return z, (jnp.array([-1, -1, 3, -1, -1, -1]),)


def hard_targets_make(dtype):
    (z,) = normal(dtype, 378, (5, 4))
    return z, (jnp.asarray([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0.25, 0.75], [0, 1, 0, 0], [0.25] * 4], dtype),)


def divergence(z, t):
    terms = jnp.where(t > 0, t * (jnp.log(jnp.where(t > 0, t, 1)) - jax.nn.log_softmax(z)), 0)
    return terms.sum(axis=-1).mean()


def one_pixel_make(dtype):
    """Groups of one feature at one position: what is standardised is 0."""
    w, scale, offset, x, y = normal(dtype, 379, (3, 4), (4,), (4,), (5, 1, 1, 3), (5, 1, 1, 4))
    return {"w": w, "scale": scale, "offset": offset}, (x, y)


def one_pixel_loss(params, x, y):
    norm = fnn.NormalizationParams(params["scale"], params["offset"])
    return squared_error(fnn.group_norm_forward(norm, x @ params["w"], groups=4)[0], y)


def one_pixel_gradient(params, x, y):
    dy = 2 * (jnp.broadcast_to(params["offset"], y.shape) - y) / len(y)
    zeros = jnp.zeros_like(params["scale"])
    return {"w": jnp.zeros_like(params["w"]), "scale": zeros, "offset": dy.sum(axis=(0, 1, 2))}


def dead_make(dtype):
    """Beyond the edges of a hard tanh in every sample."""
    params, args = outputs.make(dtype)
    return params | {"b1": jnp.asarray((30.0, -30.0, 30.0, -30.0), dtype)}, args


IGNORING = fnn.softmax_cross_entropy_with(ignore_label=-1, label_smoothing=0.1)

POINTS = (
    right("huber_where_its_branches_meet", *loss_by_pair(fnn.huber(0.5)), values_make(0.5, -0.5, 0.0)),
    right(
        "absolute_error_of_exact_predictions", *loss_by_pair(fnn.absolute_error), values_make(0.0, 0.0, 0.0),
        autodiff_differs=True,
    ),
    right(
        "hinge_exactly_at_the_margin", lambda p, y: fnn.hinge.forward(p, y)[0], hinge_at_the_margin, hinge_make,
        autodiff_differs=True,
    ),
    right(
        "selu_exactly_at_zero", lambda z, y: ((outputs.selu(z) - y) ** 2).sum(), selu_at_zero, selu_make,
        autodiff_differs=True,
    ),
    right("cross_entropy_of_logits_in_the_hundreds", *loss_by_pair(IGNORING), logits_make),
    right("cross_entropy_of_one_label", *loss_by_pair(IGNORING), one_label_make),
    right(
        "divergence_from_certainty", divergence, lambda z, t: (jax.nn.softmax(z) - t) / len(z), hard_targets_make
    ),
    right("group_norm_of_one_number", one_pixel_loss, one_pixel_gradient, one_pixel_make),
    right("hard_tanh_of_dead_units", outputs.hard.loss_fn, outputs.hard.gradient(), dead_make),
)  # fmt: skip

CASES = TWINS + FORMS + SEQUENCES + ATTENTION + POINTS
