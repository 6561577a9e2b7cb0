"""Bugs where a value is used more than once or elsewhere: skips, sharing, embeddings, recurrence, pooling."""

import jax.numpy as jnp

from experiments.benchmarks.catalogue.case import Problem, normal, plain, squared_error, squared_error_backward

THEME = "structure"
SAMPLES, WIDTH = 8, 5


# Skip connection: h = tanh(x w0), out = h + tanh(h w1).
def skip_make(dtype):
    w0, w1, x, y = normal(dtype, 51, (4, WIDTH), (WIDTH, WIDTH), (SAMPLES, 4), (SAMPLES, WIDTH))
    return {"w0": w0, "w1": w1}, (x, y)


def skip_loss(params, x, y):
    h = jnp.tanh(x @ params["w0"])
    return squared_error(h + jnp.tanh(h @ params["w1"]), y)


def skip_gradient(dh=lambda dout, dinner, branch: dout + dinner):
    def grad_fn(params, x, y):
        h = jnp.tanh(x @ params["w0"])
        branch = jnp.tanh(h @ params["w1"])
        dout = squared_error_backward(h + branch, y)
        dz = dout * (1 - branch**2)
        return {"w0": x.T @ (dh(dout, dz @ params["w1"].T, branch) * (1 - h**2)), "w1": h.T @ dz}

    return grad_fn


skip = Problem(THEME, skip_loss, skip_gradient, skip_make)

SKIP = (
    skip.bug("skip_shortcut_forgotten", {"lost_path"}, "['w0']", dh=lambda dout, dinner, branch: dinner),
    skip.bug(
        "skip_shortcut_counted_twice", {"scaled_path"}, "['w0']", dh=lambda dout, dinner, branch: 2 * dout + dinner
    ),
    skip.bug("skip_branch_forgotten", {"lost_path"}, "['w0']", dh=lambda dout, dinner, branch: dout),
    skip.bug("skip_branch_subtracted", {"scaled_path"}, "['w0']", dh=lambda dout, dinner, branch: dout - dinner),
    skip.bug(
        "skip_shortcut_through_the_activation",
        {"activation_derivative"},
        "['w0']",
        dh=lambda dout, dinner, branch: dout * (1 - branch**2) + dinner,
    ),
)


# Shared weights: an autoencoder tanh(x w) wᵀ, and one square layer applied twice.
def tied_make(dtype):
    w, x = normal(dtype, 52, (WIDTH, WIDTH), (SAMPLES, WIDTH))
    return w, (x,)


def tied_loss(w, x):
    return squared_error(jnp.tanh(x @ w) @ w.T, x)


def tied_gradient(together=lambda encoder, decoder: encoder + decoder.T):
    def grad_fn(w, x):
        code = jnp.tanh(x @ w)
        dy = squared_error_backward(code @ w.T, x)
        return together(x.T @ (dy @ w * (1 - code**2)), code.T @ dy)

    return grad_fn


def twice_loss(w, x):
    return squared_error(jnp.tanh(jnp.tanh(x @ w) @ w), x)


def twice_gradient(together=lambda first, second: first + second):
    def grad_fn(w, x):
        h = jnp.tanh(x @ w)
        y = jnp.tanh(h @ w)
        dz = squared_error_backward(y, x) * (1 - y**2)
        return together(x.T @ (dz @ w.T * (1 - h**2)), h.T @ dz)

    return grad_fn


tied = Problem(THEME, tied_loss, tied_gradient, tied_make)
twice = Problem(THEME, twice_loss, twice_gradient, tied_make)

SHARED = (
    tied.bug("tied_decoder_not_counted", {"lost_use"}, together=lambda encoder, decoder: encoder),
    tied.bug("tied_encoder_not_counted", {"lost_use"}, together=lambda encoder, decoder: decoder.T),
    tied.bug("tied_decoder_untransposed", {"transposed"}, together=lambda encoder, decoder: encoder + decoder),
    twice.bug("shared_layer_last_use_only", {"lost_use"}, together=lambda first, second: second),
    twice.bug("shared_layer_first_use_only", {"lost_use"}, together=lambda first, second: first),
    twice.bug("shared_layer_mean_of_uses", {"scaled"}, together=lambda first, second: (first + second) / 2),
)


# Embedding lookup: rows 2 and 5 of the table are used more than once, row 6 never.
def embedding_make(dtype):
    table, y = normal(dtype, 53, (7, 4), (SAMPLES, 4))
    return table, (jnp.array([2, 0, 5, 2, 1, 5, 2, 3]), y)


def embedding_loss(table, ids, y):
    return squared_error(jnp.tanh(table[ids]), y)


def embedding_gradient(scatter=lambda table, ids, rows: jnp.zeros_like(table).at[ids].add(rows)):
    def grad_fn(table, ids, y):
        a = jnp.tanh(table[ids])
        return scatter(table, ids, squared_error_backward(a, y) * (1 - a**2))

    return grad_fn


def mean_of_repeats(table, ids, rows):
    counts = jnp.zeros(len(table), rows.dtype).at[ids].add(1)
    return jnp.zeros_like(table).at[ids].add(rows) / jnp.maximum(counts, 1)[:, None]


embedding = Problem(THEME, embedding_loss, embedding_gradient, embedding_make)

EMBEDDING = (
    embedding.bug(
        "embedding_set_for_add",
        {"lost_use", "unit"},
        scatter=lambda table, ids, rows: jnp.zeros_like(table).at[ids].set(rows),
    ),
    embedding.bug("embedding_mean_of_repeated_rows", {"unit"}, scatter=mean_of_repeats),
    embedding.bug(
        "embedding_rows_off_by_one",
        {"shifted"},
        scatter=lambda table, ids, rows: jnp.zeros_like(table).at[ids + 1].add(rows),
    ),
    embedding.bug(
        "embedding_gradient_at_every_row",
        {"wrong_operand"},
        scatter=lambda table, ids, rows: jnp.zeros_like(table) + rows.mean(axis=0),
    ),
)

# A recurrent network over five steps, h_t = tanh(x_t u + h_{t−1} w), its loss at the last one.
STEPS = 5


def recurrent_make(dtype):
    u, w, start, x, y = normal(
        dtype, 54, (3, WIDTH), (WIDTH, WIDTH), (SAMPLES, WIDTH), (STEPS, SAMPLES, 3), (SAMPLES, WIDTH)
    )
    return {"u": u / 2, "w": w / 2}, (start, x, y)


def recurrent_states(params, start, x):
    states = [start]
    for step in range(STEPS):
        states.append(jnp.tanh(x[step] @ params["u"] + states[-1] @ params["w"]))
    return states


def recurrent_loss(params, start, x, y):
    return squared_error(recurrent_states(params, start, x)[-1], y)


def recurrent_gradient(
    steps=range(STEPS),
    carry=lambda dz, w: dz @ w.T,
    before=lambda states, step: states[step],
    accumulate=lambda total, term: total + term,
):
    def grad_fn(params, start, x, y):
        states = recurrent_states(params, start, x)
        du, dw = jnp.zeros_like(params["u"]), jnp.zeros_like(params["w"])
        dh = squared_error_backward(states[-1], y)
        for step in reversed(steps):
            dz = dh * (1 - states[step + 1] ** 2)
            du, dw = accumulate(du, x[step].T @ dz), accumulate(dw, before(states, step).T @ dz)
            dh = carry(dz, params["w"])
        return {"u": du, "w": dw}

    return grad_fn


recurrent = Problem(THEME, recurrent_loss, recurrent_gradient, recurrent_make)

RECURRENT = (
    recurrent.bug("recurrent_last_step_only", {"lost_path", "lost_use"}, "['w']", steps=range(STEPS - 1, STEPS)),
    recurrent.bug(
        "recurrent_truncated_after_three_steps", {"lost_path", "lost_use"}, "['w']", steps=range(STEPS - 3, STEPS)
    ),
    recurrent.bug("recurrent_first_step_forgotten", {"lost_path", "lost_use"}, "['u']", steps=range(1, STEPS)),
    recurrent.bug("recurrent_kernel_untransposed", {"transposed"}, "['w']", carry=lambda dz, w: dz @ w),
    recurrent.bug(
        "recurrent_state_after_for_before",
        {"shifted", "wrong_operand"},
        "['w']",
        before=lambda states, step: states[step + 1],
    ),
    recurrent.bug("recurrent_overwritten_for_summed", {"lost_use"}, "['w']", accumulate=lambda total, term: term),
)


# Max pooling over four patches, all the same in half of the samples, a plain background: their values tie at every w.
def pooling_make(dtype):
    w, x, y = normal(dtype, 55, (WIDTH,), (SAMPLES, 4, WIDTH), (SAMPLES,))
    return w, (x.at[::2].set(x[::2, :1]), y)


def pooling_loss(w, x, y):
    return squared_error((x @ w).max(axis=1), y)


def pooling_gradient(share=lambda won: won / won.sum(axis=1, keepdims=True)):
    def grad_fn(w, x, y):
        z = x @ w
        pooled = z.max(axis=1)
        dz = share((z == pooled[:, None]).astype(z.dtype)) * squared_error_backward(pooled, y)[:, None]
        return jnp.einsum("npf,np->f", x, dz)

    return grad_fn


def mean_pooling_loss(w, x, y):
    return squared_error(jnp.tanh(x @ w).mean(axis=1), y)


def mean_pooling_gradient(w, x, y):
    a = jnp.tanh(x @ w)
    dz = squared_error_backward(a.mean(axis=1), y)[:, None] * (1 - a**2) / a.shape[1]
    return jnp.einsum("npf,np->f", x, dz)


pooling = Problem(THEME, pooling_loss, pooling_gradient, pooling_make)
mean_pooling = plain(mean_pooling_loss, mean_pooling_gradient, pooling_make, THEME)

POOLING = (
    pooling.bug("max_pool_every_tie_in_full", {"mask"}, share=lambda won: won),
    pooling.bug("max_pool_mask_forgotten", {"mask"}, share=jnp.ones_like),
    pooling.bug("max_pool_taken_for_mean_pool", {"mask"}, share=lambda won: jnp.ones_like(won) / won.shape[1]),
    pooling.bug(
        "max_pool_argument_of_first_sample",
        {"mask", "wrong_operand"},
        share=lambda won: jnp.zeros_like(won).at[:, 0].set(1),
    ),
    mean_pooling.bug(
        "mean_pool_not_divided", {"scaled"}, grad_fn=lambda w, x, y: mean_pooling_gradient(w, x, y) * x.shape[1]
    ),
)

CASES = SKIP + SHARED + EMBEDDING + RECURRENT + POOLING
