"""Bugs in the backward passes of attention and of one-dimensional convolution."""

import jax.numpy as jnp
from jax.nn import softmax

from experiments.benchmarks.catalogue.case import Problem, normal, squared_error, squared_error_backward

THEME = "attention and convolution"
TOKENS, WIDTH = 6, 6
QUERY, KEY, VALUE = "['query']", "['key']", "['value']"


# One causal head: p = softmax(q kᵀ / √d) over what came before, out = p v.
def attention_make(dtype):
    square = (WIDTH, WIDTH)
    query, key, value, x, y = normal(dtype, 61, square, square, square, (TOKENS, WIDTH), (TOKENS, WIDTH))
    return {"query": query, "key": key, "value": value}, (x, y)


def scores_of(q, k, scale=WIDTH**-0.5, causal=True):
    scores = q @ k.T * scale
    return jnp.where(jnp.tri(TOKENS, dtype=bool), scores, -jnp.inf) if causal else scores


def attention_loss(params, x, y):
    probabilities = softmax(scores_of(x @ params["query"], x @ params["key"]))
    return squared_error(probabilities @ (x @ params["value"]), y)


def softmax_backward(p, dp):
    return p * (dp - (dp * p).sum(axis=1, keepdims=True))


def attention_gradient(
    probabilities=lambda q, k: softmax(scores_of(q, k)),
    dscores=softmax_backward,
    scale=WIDTH**-0.5,
    dq=lambda ds, k: ds @ k,
    dk=lambda ds, q: ds.T @ q,
    dv=lambda p, dout: p.T @ dout,
    dp=lambda dout, v: dout @ v.T,
    answer=lambda grads: grads,
):
    def grad_fn(params, x, y):
        q, k, v = (x @ params[name] for name in ("query", "key", "value"))
        p = probabilities(q, k)
        dout = squared_error_backward(softmax(scores_of(q, k)) @ v, y)
        ds = dscores(p, dp(dout, v)) * scale
        return answer({"query": x.T @ dq(ds, k), "key": x.T @ dk(ds, q), "value": x.T @ dv(p, dout)})

    return grad_fn


attention = Problem(THEME, attention_loss, attention_gradient, attention_make)

ATTENTION = (
    attention.bug("attention_scale_forgotten", {"scaled"}, QUERY, scale=1),
    attention.bug("attention_scale_without_root", {"scaled"}, KEY, scale=1 / WIDTH),
    attention.bug(
        "attention_softmax_diagonal", {"activation_derivative"}, QUERY, dscores=lambda p, dp: p * (1 - p) * dp
    ),
    attention.bug("attention_softmax_sum_forgotten", {"activation_derivative"}, QUERY, dscores=lambda p, dp: p * dp),
    attention.bug(
        "attention_softmax_over_queries",
        {"activation_derivative", "wrong_axis"},
        KEY,
        dscores=lambda p, dp: p * (dp - (dp * p).sum(axis=0)),
    ),
    attention.bug("attention_key_scores_untransposed", {"transposed"}, KEY, dk=lambda ds, q: ds @ q),
    attention.bug("attention_query_scores_transposed", {"transposed"}, QUERY, dq=lambda ds, k: ds.T @ k),
    attention.bug("attention_value_untransposed", {"transposed"}, VALUE, dv=lambda p, dout: p @ dout),
    attention.bug("attention_values_in_place_untransposed", {"transposed"}, QUERY, dp=lambda dout, v: dout @ v),
    attention.bug(
        "attention_causal_mask_forgotten",
        {"mask"},
        VALUE,
        probabilities=lambda q, k: softmax(scores_of(q, k, causal=False)),
    ),
    attention.bug(
        "attention_query_and_key_swapped",
        {"swapped"},
        answer=lambda grads: grads | {"query": grads["key"], "key": grads["query"]},
    ),
    attention.bug("attention_scores_detached", {"zero"}, QUERY, dscores=lambda p, dp: 0 * dp),
)

# Two valid convolutions with tanh between them: z[n, t] = Σ_k x[n, t+k] w[k] + b.
TAPS, LENGTH, CHANNELS = 3, 10, 4


def convolution_make(dtype):
    w1, b1, w2, x, y = normal(
        dtype,
        62,
        (TAPS, 2, CHANNELS),
        (CHANNELS,),
        (TAPS, CHANNELS, 2),
        (5, LENGTH, 2),
        (5, LENGTH - 2 * (TAPS - 1), 2),
    )
    return {"w1": w1, "b1": b1, "w2": w2 / 2}, (x, y)


def convolve(x, w):
    steps = x.shape[1] - len(w) + 1
    return sum(x[:, tap : tap + steps] @ w[tap] for tap in range(len(w)))


def convolution_loss(params, x, y):
    return squared_error(convolve(jnp.tanh(convolve(x, params["w1"]) + params["b1"]), params["w2"]), y)


def kernel_gradient(x, dz, shift=0):
    steps = dz.shape[1]
    windows = [jnp.roll(x, shift, axis=1)[:, tap : tap + steps] for tap in range(TAPS)]
    return jnp.stack([jnp.einsum("nti,nto->io", window, dz) for window in windows])


def input_gradient(dz, w):
    """Every tap hands its cotangent back to where it read."""
    steps = dz.shape[1]
    dx = jnp.zeros((len(dz), steps + TAPS - 1, w.shape[1]), dz.dtype)
    for tap in range(TAPS):
        dx = dx.at[:, tap : tap + steps].add(dz @ w[tap].T)
    return dx


def convolution_gradient(
    dw1=kernel_gradient, db1=lambda dz: dz.sum(axis=(0, 1)), dw2=kernel_gradient, da=input_gradient
):
    def grad_fn(params, x, y):
        a = jnp.tanh(convolve(x, params["w1"]) + params["b1"])
        dz2 = squared_error_backward(convolve(a, params["w2"]), y)
        dz1 = da(dz2, params["w2"]) * (1 - a**2)
        return {"w1": dw1(x, dz1), "b1": db1(dz1), "w2": dw2(a, dz2)}

    return grad_fn


convolution = Problem(THEME, convolution_loss, convolution_gradient, convolution_make)

CONVOLUTION = (
    # The tap in the middle stays where it is.
    convolution.bug(
        "convolution_kernel_flipped", {"kernel_flipped"}, "['w2']", dw2=lambda a, dz: kernel_gradient(a, dz)[::-1]
    ),
    convolution.bug(
        "convolution_input_shifted", {"shifted"}, "['w2']", dw2=lambda a, dz: kernel_gradient(a, dz, shift=1)
    ),
    convolution.bug(
        "convolution_cotangent_not_flipped", {"kernel_flipped"}, "['w1']", da=lambda dz, w: input_gradient(dz, w[::-1])
    ),
    convolution.bug(
        "convolution_centre_tap_only", {"lost_path"}, "['w1']", da=lambda dz, w: input_gradient(dz, w.at[::2].set(0))
    ),
    convolution.bug(
        "convolution_bias_mean_over_positions", {"scaled"}, "['b1']", db1=lambda dz: dz.mean(axis=1).sum(axis=0)
    ),
    convolution.bug("convolution_bias_first_position", {"lost_path"}, "['b1']", db1=lambda dz: dz[:, 0].sum(axis=0)),
    convolution.bug(
        "convolution_kernel_first_sample",
        {"subset_of_batch"},
        "['w1']",
        dw1=lambda x, dz: kernel_gradient(x[:1], dz[:1]),
    ),
)

CASES = ATTENTION + CONVOLUTION
