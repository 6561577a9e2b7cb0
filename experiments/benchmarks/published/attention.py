"""Published mistakes in the backward passes of attention and of what stands around it."""

import jax.numpy as jnp
from jax.nn import softmax

from experiments.benchmarks.published.report import Report, Rule, UsualTest, named, random_like

THEME = "attention"
TOKENS, WIDTH = 5, 4
SCALE = WIDTH**-0.5


# One head, with or without a causal mask.
def probabilities(params, is_causal):
    scores = params["query"] @ params["key"].T * SCALE
    return softmax(jnp.where(jnp.tri(TOKENS, dtype=bool) | ~is_causal, scores, -jnp.inf))


def attention(params, is_causal):
    return probabilities(params, is_causal) @ params["value"]


def attention_vjp(params, dy, is_causal, kept=lambda p: p):
    p = kept(probabilities(params, is_causal))
    # Σ p dp of a row is Σ y dy, which fused kernels compute beforehand.
    delta = (attention(params, is_causal) * dy).sum(axis=1, keepdims=True)
    dscores = p * (dy @ params["value"].T - delta) * SCALE
    return {"query": dscores @ params["key"], "key": dscores.T @ params["query"], "value": p.T @ dy}


def always_causal(params, dy, is_causal):
    """Backward recomputes the probabilities under the causal mask, whatever the forward pass did."""
    return attention_vjp(params, dy, is_causal, kept=jnp.tril)


def attention_make(is_causal):
    def make(dtype):
        shape = (TOKENS, WIDTH)
        return named(dtype, 401, query=shape, key=shape, value=shape), (jnp.asarray(is_causal),)

    return make


# Dropout of the probabilities.
KEPT = 0.75


def dropped_attention(params, mask):
    p = softmax(params["query"] @ params["key"].T * SCALE)
    return jnp.where(mask, p / KEPT, 0) @ params["value"]


def dropped_attention_vjp(params, dy, mask, is_right=True):
    p = softmax(params["query"] @ params["key"].T * SCALE)
    dropped = jnp.where(mask, p / KEPT, 0)
    dp = dy @ params["value"].T
    if is_right:
        dp = jnp.where(mask, dp / KEPT, 0)
        dscores = p * (dp - (p * dp).sum(axis=1, keepdims=True))
    else:
        dscores = dropped * (dp - (dropped * dp).sum(axis=1, keepdims=True))
    dscores = dscores * SCALE
    return {"query": dscores @ params["key"], "key": dscores.T @ params["query"], "value": dropped.T @ dy}


def softmax_of_the_dropped(params, dy, mask):
    """The softmax's backward pass gets the probabilities after dropout, and a cotangent without its mask."""
    return dropped_attention_vjp(params, dy, mask, is_right=False)


def dropped_attention_make(dtype):
    shape = (TOKENS, WIDTH)
    mask = named("float64", 403, mask=(TOKENS, TOKENS))["mask"] > -0.7
    return named(dtype, 402, query=shape, key=shape, value=shape), (mask,)


# Rotary embedding: y = x cos + rotate(x) sin, with rotate(a, b) = (−b, a).
def rotate(x):
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([-second, first], axis=-1)


def rotary(params):
    return params["x"] * params["cos"] + rotate(params["x"]) * params["sin"]


def rotary_vjp(params, dy):
    return {
        "x": dy * params["cos"] - rotate(dy * params["sin"]),
        "cos": dy * params["x"],
        "sin": dy * rotate(params["x"]),
    }


def rotated_before_sine(params, dy):
    """The cotangent is rotated before it is multiplied by the sines."""
    return rotary_vjp(params, dy) | {"x": dy * params["cos"] - rotate(dy) * params["sin"]}


def rotary_make(are_halves_equal):
    def make(dtype):
        parts = named(dtype, 404, x=(3, 6), angles=(3, 6))
        angles = parts["angles"]
        if are_halves_equal:
            angles = jnp.tile(angles[:, :3], (1, 2))
        return {"x": parts["x"], "cos": jnp.cos(angles), "sin": jnp.sin(angles)}, ()

    return make


# Embedding whose padding token has no vector.
PADDING = 0


def padded_embedding(params, tokens):
    return jnp.where((tokens == PADDING)[:, None], 0, params["table"][tokens])


def padded_embedding_vjp(params, dy, tokens, is_masked=True):
    dy = jnp.where((tokens == PADDING)[:, None] & is_masked, 0, dy)
    return {"table": jnp.zeros_like(params["table"]).at[tokens].add(dy)}


def padding_counted(params, dy, tokens):
    return padded_embedding_vjp(params, dy, tokens, is_masked=False)


def padded_embedding_make(dtype):
    return named(dtype, 405, table=(5, 3)), (jnp.asarray([2, PADDING, 4, 2, PADDING, 1]),)


REPORTS = (
    Report(
        Rule(
            "attention_always_causal",
            THEME,
            attention,
            always_causal,
            attention_vjp,
            attention_make(False),
            # In the product for the value, the masked probabilities stand in the place of all.
            frozenset({"mask", "unit", "wrong_operand"}),
            "['value']",
        ),
        "triton-lang/triton#4541",
        "[Tutorial] Fused-attention `bwd` tutorial incorrect for `causal=True`",
        UsualTest(
            "with the causal mask, random cotangent, rtol 0, atol 1e-2",
            "test file",
            attention_make(True),
            cotangent=random_like,
            rtol=0.0,
            atol=1e-2,
        ),
    ),
    Report(
        Rule(
            "attention_softmax_of_the_dropped",
            THEME,
            dropped_attention,
            softmax_of_the_dropped,
            dropped_attention_vjp,
            dropped_attention_make,
            frozenset({"mask", "wrong_operand"}),
            "['query']",
        ),
        "aws-neuron/nki-samples#81",
        "Fix attention backward dropout",
    ),
    Report(
        Rule(
            "rotary_rotated_before_sine",
            THEME,
            rotary,
            rotated_before_sine,
            rotary_vjp,
            rotary_make(False),
            frozenset({"wrong_operand"}),
            "['x']",
        ),
        "PaddlePaddle/Paddle#74716",
        "fix_fused_rotary_position_embedding",
        UsualTest(
            "tables whose halves are equal, cotangent of ones",
            "thread",
            rotary_make(True),
            leaves=("x",),
            atol=1e-5,
        ),
    ),
    Report(
        Rule(
            "embedding_padding_counted",
            THEME,
            padded_embedding,
            padding_counted,
            padded_embedding_vjp,
            padded_embedding_make,
            frozenset({"mask", "unit"}),
            "['table']",
        ),
        "pytorch/pytorch#26302",
        "Gradient for embedding vector at padding_idx is not zero when on GPU",
    ),
)
