"""Bugs in the backward passes of what turns tokens and positions into features, of rotations, and of SwiGLU."""

import jax
import jax.numpy as jnp
from jax.nn import log_softmax, sigmoid, silu, softmax

from experiments.benchmarks.catalogue.case import Problem, normal, squared_error, squared_error_backward

THEME = "tokens and positions"
# As many samples as tokens in each, so that a sum over the wrong one of the two goes unnoticed by the shapes.
SAMPLES = TIME = 4
VOCABULARY, FEATURES, LENGTH = 6, 4, 7
IDS = ((2, 0, 5, 2), (2, 3, 5, 0), (5, 2, 2, 3), (0, 1, 5, 5))
TABLE, POSITIONS, W = "['table']", "['positions']", "['w']"
SIZE = FEATURES**0.5


# Rows of a table, times √features as in the transformer, plus a learned vector of each position.
def embedding_make(dtype):
    table, positions, y = normal(dtype, 321, (VOCABULARY, FEATURES), (LENGTH, FEATURES), (SAMPLES, TIME, FEATURES))
    return {"table": table, "positions": positions / 2}, (jnp.array(IDS), y)


def embedded(params, ids):
    return jnp.tanh(SIZE * params["table"][ids] + params["positions"][:TIME])


def embedding_loss(params, ids, y):
    return squared_error(embedded(params, ids), y)


def add_rows(ids, rows):
    return jnp.zeros((VOCABULARY, FEATURES), rows.dtype).at[ids].add(SIZE * rows)


def to_positions(rows, first=0):
    return jnp.zeros((LENGTH, FEATURES), rows.dtype).at[first : first + TIME].set(rows)


def embedding_gradient(
    dtable=add_rows,
    dpositions=lambda dz: to_positions(dz.sum(axis=0)),
    dz_of=lambda dz, params: dz,
):
    def grad_fn(params, ids, y):
        a = embedded(params, ids)
        dz = dz_of(squared_error_backward(a, y) * (1 - a**2), params)
        return {"table": dtable(ids, dz), "positions": dpositions(dz)}

    return grad_fn


embedding = Problem(THEME, embedding_loss, embedding_gradient, embedding_make)


def last_sample_with_the_token(ids, rows):
    """Added within a sample, overwritten by the next sample."""
    table = jnp.zeros((VOCABULARY, FEATURES), rows.dtype)
    for sample in range(SAMPLES):
        table = table.at[ids[sample]].set(0).at[ids[sample]].add(SIZE * rows[sample])
    return table


EMBEDDING = (
    embedding.bug(
        "embedding_last_occurrence_only", {"lost_use", "unit"}, TABLE,
        dtable=lambda ids, rows: jnp.zeros((VOCABULARY, FEATURES), rows.dtype)
        .at[ids.ravel()].set(SIZE * rows.reshape(-1, FEATURES)),
    ),
    embedding.bug("embedding_last_sample_only", {"lost_use", "unit"}, TABLE, dtable=last_sample_with_the_token),
    embedding.bug("embedding_factor_forgotten", {"scaled"}, TABLE, dtable=lambda ids, rows: add_rows(ids, rows) / SIZE),
    embedding.bug(
        "embedding_row_of_token_0_taken_for_padding", {"unit", "mask"}, TABLE,
        dtable=lambda ids, rows: add_rows(ids, rows).at[0].set(0),
    ),
    embedding.bug(
        "embedding_first_token_of_every_sample", {"lost_use", "lost_path"}, TABLE,
        dtable=lambda ids, rows: add_rows(ids[:, :1], rows[:, :1]),
    ),
    embedding.bug(
        "embedding_samples_and_time_exchanged", {"transposed", "wrong_operand"}, TABLE,
        dtable=lambda ids, rows: add_rows(ids.T, rows),
    ),
    embedding.bug(
        "positions_mean_over_the_batch", {"scaled"}, POSITIONS, dpositions=lambda dz: to_positions(dz.mean(axis=0))
    ),
    embedding.bug(
        "positions_summed_over_time", {"wrong_axis"}, POSITIONS, dpositions=lambda dz: to_positions(dz.sum(axis=1))
    ),
    embedding.bug(
        "positions_of_the_first_sample", {"subset_of_batch"}, POSITIONS, dpositions=lambda dz: to_positions(dz[0])
    ),
    embedding.bug(
        "positions_from_the_second_row", {"shifted"}, POSITIONS, dpositions=lambda dz: to_positions(dz.sum(axis=0), 1)
    ),
    embedding.bug(
        "positions_in_reverse", {"kernel_flipped"}, POSITIONS, dpositions=lambda dz: to_positions(dz.sum(axis=0)[::-1])
    ),
    embedding.bug(
        "positions_multiplied_for_added", {"scaled_path", "wrong_operand"}, TABLE,
        dz_of=lambda dz, params: dz * params["positions"][:TIME],
    ),
)  # fmt: skip


# One table as the embedding and as the output: logits tanh(T[ids] w) Tᵀ. It is square, as w is.
def tied_make(dtype):
    table, w = normal(dtype, 322, (VOCABULARY, VOCABULARY), (VOCABULARY, VOCABULARY))
    return {"table": table, "w": w / 2}, (jnp.array(IDS), (jnp.array(IDS) * 5 + 1) % VOCABULARY)


def tied_logits(params, ids):
    h = jnp.tanh(params["table"][ids] @ params["w"])
    return h, h @ params["table"].T


def tied_loss(params, ids, targets):
    log_p = log_softmax(tied_logits(params, ids)[1])
    return -jnp.take_along_axis(log_p, targets[..., None], axis=-1).mean()


def tied_gradient(
    together=lambda ids, rows, output: output.at[ids].add(rows),
    dlogits=lambda p, targets: p - jax.nn.one_hot(targets, VOCABULARY, dtype=p.dtype),
    dh=lambda dlogits, table: dlogits @ table,
    doutput=lambda dlogits, h: jnp.einsum("ntv,ntf->vf", dlogits, h),
):
    def grad_fn(params, ids, targets):
        h, logits = tied_logits(params, ids)
        dz = dlogits(softmax(logits), targets) / targets.size
        output = doutput(dz, h)
        da = dh(dz, params["table"]) * (1 - h**2)
        dw = jnp.einsum("ntf,ntg->fg", params["table"][ids], da)
        return {"table": together(ids, da @ params["w"].T, output), "w": dw}

    return grad_fn


tied = Problem(THEME, tied_loss, tied_gradient, tied_make)

TIED = (
    tied.bug(
        "tied_table_as_output_not_counted", {"lost_use"}, TABLE,
        together=lambda ids, rows, output: (output * 0).at[ids].add(rows),
    ),
    tied.bug(
        "tied_table_as_embedding_not_counted", {"lost_use", "unit"}, TABLE, together=lambda ids, rows, output: output,
    ),
    tied.bug(
        "tied_table_mean_of_both_uses", {"scaled"}, TABLE,
        together=lambda ids, rows, output: output.at[ids].add(rows) / 2,
    ),
    tied.bug(
        "tied_embedding_written_over_the_output", {"lost_use", "unit"}, TABLE,
        together=lambda ids, rows, output: output.at[ids].set(0).at[ids].add(rows),
    ),
    tied.bug("tied_output_untransposed", {"transposed"}, W, dh=lambda dlogits, table: dlogits @ table.T),
    tied.bug(
        "tied_output_gradient_untransposed", {"transposed"}, TABLE,
        doutput=lambda dlogits, h: jnp.einsum("ntv,ntf->fv", dlogits, h),
    ),
    tied.bug("tied_logits_without_their_targets", {"loss_derivative"}, W, dlogits=lambda p, targets: p),
    tied.bug(
        "tied_targets_of_the_token_before", {"loss_derivative", "shifted"}, W,
        dlogits=lambda p, targets: p - jax.nn.one_hot(jnp.roll(targets, 1, axis=1), VOCABULARY, dtype=p.dtype),
    ),
)  # fmt: skip


# Scores of rotated queries and keys. Each head's features are two halves, of which the pairs are made.
HALF = FEATURES // 2
QUERY, KEY = "['query']", "['key']"


def rotary_make(dtype):
    query, key, x, y = normal(
        dtype, 323, (FEATURES, FEATURES), (FEATURES, FEATURES), (SAMPLES, TIME, FEATURES), (SAMPLES, TIME, TIME)
    )
    return {"query": query, "key": key}, (x, y)


def angles(dtype, first=0, base=100.0):
    frequencies = base ** (-jnp.arange(HALF, dtype=dtype) / HALF)
    return (first + jnp.arange(TIME, dtype=dtype))[:, None] * frequencies


def rotated(v, angle):
    first, second = v[..., :HALF], v[..., HALF:]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=-1)


def back(dv):
    return rotated(dv, -angles(dv.dtype))


def rotary_scores(params, x):
    q, k = (rotated(x @ params[name], angles(x.dtype)) for name in ("query", "key"))
    return q, k, jnp.tanh(q @ k.swapaxes(1, 2))


def rotary_loss(params, x, y):
    return squared_error(rotary_scores(params, x)[2], y)


def rotary_gradient(dquery=back, dkey=back):
    def grad_fn(params, x, y):
        q, k, scores = rotary_scores(params, x)
        ds = squared_error_backward(scores, y) * (1 - scores**2)
        dq, dk = dquery(ds @ k), dkey(ds.swapaxes(1, 2) @ q)
        return {"query": jnp.einsum("ntf,ntg->fg", x, dq), "key": jnp.einsum("ntf,ntg->fg", x, dk)}

    return grad_fn


rotary = Problem(THEME, rotary_loss, rotary_gradient, rotary_make)


def pairs_of_neighbours(dv):
    order = jnp.array([0, 2, 1, 3])
    return back(dv[..., order])[..., order]


def sine_of_one_half(dv):
    angle = angles(dv.dtype)
    first, second = dv[..., :HALF], dv[..., HALF:]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([first * cosine + second * sine, first * sine + second * cosine], axis=-1)


ROTARY = (
    rotary.bug("rotary_turned_on", {"transposed"}, KEY, dkey=lambda dv: rotated(dv, angles(dv.dtype))),
    rotary.bug("rotary_left_out", {"scaled_path", "wrong_operand"}, QUERY, dquery=lambda dv: dv),
    rotary.bug("rotary_pairs_of_neighbours", {"transposed", "wrong_operand"}, QUERY, dquery=pairs_of_neighbours),
    rotary.bug(
        "rotary_positions_from_one", {"shifted", "wrong_operand"}, KEY,
        dkey=lambda dv: rotated(dv, -angles(dv.dtype, first=1)),
    ),
    rotary.bug(
        "rotary_base_of_another_model", {"wrong_operand", "unit"}, QUERY,
        dquery=lambda dv: rotated(dv, -angles(dv.dtype, base=10.0)),
    ),
    rotary.bug("rotary_sine_with_one_sign", {"transposed", "unit", "scaled_path"}, KEY, dkey=sine_of_one_half),
    rotary.bug(
        "rotary_first_half_alone", {"lost_path"}, KEY, dkey=lambda dv: back(dv.at[..., HALF:].set(0))
    ),
)  # fmt: skip


# A feed-forward block (silu(h g) ∘ (h u)) d over h = tanh(x w).
GATE, UP, DOWN = "['gate']", "['up']", "['down']"


def swiglu_make(dtype):
    w, gate, up, down, x, y = normal(
        dtype, 324, (3, FEATURES), (FEATURES, 5), (FEATURES, 5), (5, FEATURES), (8, 3), (8, FEATURES)
    )
    return {"w": w, "gate": gate, "up": up, "down": down}, (x, y)


def swiglu_parts(params, x):
    h = jnp.tanh(x @ params["w"])
    z, u = h @ params["gate"], h @ params["up"]
    return h, z, silu(z), u


def swiglu_loss(params, x, y):
    _, _, a, u = swiglu_parts(params, x)
    return squared_error((a * u) @ params["down"], y)


def silu_slope(z):
    return sigmoid(z) * (1 + z * (1 - sigmoid(z)))


def swiglu_gradient(
    slope=silu_slope,
    da=lambda dproduct, u: dproduct * u,
    du=lambda dproduct, z, a: dproduct * a,
    hidden=lambda a, u: a * u,
    dh=lambda through_gate, through_up: through_gate + through_up,
    answer=lambda grads: grads,
):
    def grad_fn(params, x, y):
        h, z, a, u = swiglu_parts(params, x)
        dy = squared_error_backward((a * u) @ params["down"], y)
        dproduct = dy @ params["down"].T
        dz, dlifted = da(dproduct, u) * slope(z), du(dproduct, z, a)
        dx = dh(dz @ params["gate"].T, dlifted @ params["up"].T) * (1 - h**2)
        grads = {"w": x.T @ dx, "gate": h.T @ dz, "up": h.T @ dlifted, "down": hidden(a, u).T @ dy}
        return answer(grads)

    return grad_fn


swiglu = Problem(THEME, swiglu_loss, swiglu_gradient, swiglu_make)

SWIGLU = (
    swiglu.bug(
        "swiglu_slope_of_a_sigmoid", {"activation_derivative"}, GATE, slope=lambda z: sigmoid(z) * (1 - sigmoid(z)),
    ),
    swiglu.bug("swiglu_slope_without_its_second_term", {"activation_derivative"}, GATE, slope=sigmoid),
    swiglu.bug(
        "swiglu_gate_without_the_other_factor", {"scaled_path", "wrong_operand"}, GATE, da=lambda dproduct, u: dproduct,
    ),
    swiglu.bug(
        "swiglu_up_by_the_gate_before_silu", {"wrong_operand", "activation_derivative"}, UP,
        du=lambda dproduct, z, a: dproduct * z,
    ),
    swiglu.bug("swiglu_down_by_the_gate_alone", {"wrong_operand"}, DOWN, hidden=lambda a, u: a),
    swiglu.bug("swiglu_path_of_up_lost", {"lost_path"}, W, dh=lambda through_gate, through_up: through_gate),
    swiglu.bug("swiglu_path_of_the_gate_lost", {"lost_path"}, W, dh=lambda through_gate, through_up: through_up),
    swiglu.bug(
        "swiglu_gate_and_up_swapped", {"swapped"}, GATE,
        answer=lambda grads: grads | {"gate": grads["up"], "up": grads["gate"]},
    ),
)  # fmt: skip

CASES = EMBEDDING + TIED + ROTARY + SWIGLU
