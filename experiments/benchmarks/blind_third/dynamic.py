"""Dynamic programs: a chain of labels with transitions, and a soft alignment of two sequences."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_third.tools import right
from experiments.benchmarks.catalogue.case import Problem, normal


def chain_forward(params, x):
    """Scores by step, and the logarithms of the sums over all the paths up to each step."""
    scores = jnp.tanh(x @ params["inner"]) @ params["w"]
    alpha = [params["start"] + scores[:, 0]]
    for t in range(1, x.shape[1]):
        alpha.append(scores[:, t] + jax.nn.logsumexp(alpha[-1][:, :, None] + params["jump"], axis=1))
    return scores, alpha


def chain_loss(params, x, path):
    """Negative log-likelihood of the path, mean over the sequences."""
    scores, alpha = chain_forward(params, x)
    taken = jnp.take_along_axis(scores, path[..., None], axis=2)[..., 0].sum(axis=1)
    jumps = params["jump"][path[:, :-1], path[:, 1:]].sum(axis=1) + params["start"][path[:, 0]]
    return jnp.mean(jax.nn.logsumexp(alpha[-1], axis=1) - taken - jumps)


def chain_gradient(
    gold_jump=lambda jump, path: jnp.zeros_like(jump).at[path[:, :-1], path[:, 1:]].add(1.0),
    arrange=lambda pair: pair,
    ahead=lambda scores, t: scores[:, t],
    look=lambda jump: jump,
    d_start=lambda single, gold: (single - gold)[:, 0].sum(axis=0),
):
    """Expected counts less those of the path, by the forward and backward sums."""

    def grad_fn(params, x, path):
        scores, alpha = chain_forward(params, x)
        n, steps, jump = *x.shape[:2], params["jump"]
        beta = [jnp.zeros_like(alpha[0])]
        for t in range(steps - 1, 0, -1):
            beta.insert(0, jax.nn.logsumexp(look(jump) + (ahead(scores, t) + beta[0])[:, None, :], axis=2))
        total = jax.nn.logsumexp(alpha[-1], axis=1)[:, None]
        single = jnp.exp(jnp.stack([a + b for a, b in zip(alpha, beta, strict=True)], axis=1) - total[:, None])
        pair = sum(
            jnp.exp(alpha[t - 1][:, :, None] + jump + (scores[:, t] + beta[t])[:, None] - total[:, None])
            for t in range(1, steps)
        )
        gold = jax.nn.one_hot(path, scores.shape[2], dtype=x.dtype)
        ds = (single - gold) / n
        a = jnp.tanh(x @ params["inner"])
        dz = ds @ params["w"].T * (1 - a**2)
        return {
            "inner": jnp.einsum("bti,bth->ih", x, dz),
            "w": jnp.einsum("bth,btl->hl", a, ds),
            "jump": (arrange(pair.sum(axis=0)) - gold_jump(jump, path)) / n,
            "start": d_start(single, gold) / n,
        }

    return grad_fn


def chain_make(dtype, spread=1.0):
    inner, w, jump, start, x = normal(dtype, 71, (2, 4), (4, 3), (3, 3), (3,), (3, 4, 2))
    path = jnp.asarray(np.random.default_rng(71).integers(3, size=(3, 4)))
    return {"inner": inner, "w": w * spread, "jump": jump, "start": start}, (x, path)


chain = Problem("dynamic program", chain_loss, chain_gradient, chain_make)

WARMTH, FAR = 0.7, 1e6


def align_forward(params, x, y):
    """Soft alignment cost of an embedded sequence with a fixed one; the cells in a dict by row and column."""
    e = x @ params["w"] + params["b"]
    cost = jnp.sum((e[:, None] - y[None, :]) ** 2, axis=2)
    cell, weight = {(0, 0): jnp.zeros((), x.dtype)}, {}
    for i in range(1, len(x) + 1):
        for j in range(1, len(y) + 1):
            before = [cell.get(place, jnp.asarray(FAR, x.dtype)) for place in ((i - 1, j - 1), (i - 1, j), (i, j - 1))]
            scores = -jnp.stack(before) / WARMTH
            cell[i, j] = cost[i - 1, j - 1] - WARMTH * jax.nn.logsumexp(scores)
            weight[i, j] = jax.nn.softmax(scores)
    return e, cell, weight


def align_loss(params, x, y):
    return align_forward(params, x, y)[1][len(x), len(y)]


def align_gradient(
    order=((1, 1, 0), (1, 0, 1), (0, 1, 2)),
    d_square=lambda difference: 2 * difference,
    corner=lambda n, m: (n, m),
    d_b=lambda de: de.sum(axis=0),
):
    """``order`` tells for each successor how far down and right it lies, and which of its weights is meant."""

    def grad_fn(params, x, y):
        e, _, weight = align_forward(params, x, y)
        n, m = len(x), len(y)
        mass = {corner(n, m): jnp.ones((), x.dtype)}
        for i in range(n, 0, -1):
            for j in range(m, 0, -1):
                if (i, j) not in mass:
                    mass[i, j] = sum(
                        (mass[i + a, j + b] * weight[i + a, j + b][k] for a, b, k in order if (i + a, j + b) in mass),
                        jnp.zeros((), x.dtype),
                    )
        shares = jnp.stack([jnp.stack([mass[i, j] for j in range(1, m + 1)]) for i in range(1, n + 1)])
        de = jnp.einsum("ij,ijd->id", shares, d_square(e[:, None] - y[None, :]))
        return {"w": x.T @ de, "b": d_b(de)}

    return grad_fn


def align_make(dtype):
    w, b, x, y = normal(dtype, 72, (3, 2), (2,), (4, 3), (3, 2))
    return {"w": w, "b": b}, (x * 0.5, y)


align = Problem("dynamic program", align_loss, align_gradient, align_make)

BUGS = [
    chain.bug(
        "chain_jumps_of_path_forgotten",
        {"lost_path", "lost_use"},
        "['jump']",
        gold_jump=lambda jump, path: jnp.zeros_like(jump),
    ),
    chain.bug("chain_expected_jumps_transposed", {"transposed"}, "['jump']", arrange=lambda pair: pair.T),
    chain.bug(
        "chain_backward_sum_one_step_off",
        {"shifted", "wrong_operand"},
        "['w']",
        ahead=lambda scores, t: scores[:, t - 1],
    ),
    chain.bug("chain_backward_jumps_untransposed", {"transposed"}, "['w']", look=lambda jump: jump.T),
    chain.bug(
        "chain_start_counts_last_step",
        {"wrong_operand"},
        "['start']",
        d_start=lambda single, gold: (single - gold)[:, -1].sum(axis=0),
    ),
    align.bug("align_diagonal_forgotten", {"lost_path"}, "['w']", order=((1, 0, 1), (0, 1, 2))),
    align.bug("align_weights_exchanged", {"wrong_operand"}, "['w']", order=((1, 1, 0), (1, 0, 2), (0, 1, 1))),
    align.bug(
        "align_square_without_two",
        {"scaled", "activation_derivative", "scaled_path"},
        "['w']",
        d_square=lambda difference: difference,
    ),
]
RIGHT = [
    right(chain, "chain_forward_backward"),
    right(chain, "chain_certain", make=lambda dtype: chain_make(dtype, spread=8.0)),
    right(align, "align_soft"),
]
