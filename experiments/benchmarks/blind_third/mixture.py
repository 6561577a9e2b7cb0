"""A mixture of experts, an autoencoder, a normalizing flow."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.blind_third.tools import mean_square, mean_square_back, right, sigmoid, softmax_back
from experiments.benchmarks.catalogue.case import Problem, normal

EXPERTS, BALANCE = 4, 0.3


def experts_forward(params, x):
    """Each token goes to its two best experts; a second term balances the load, whose counts are constants."""
    logits = x @ params["gate"]
    chosen = logits >= jax.lax.top_k(logits, 2)[0][:, -1:]
    weight = jax.nn.softmax(jnp.where(chosen, logits, -jnp.inf), axis=1)
    a = jnp.tanh(jnp.einsum("nd,edh->neh", x, params["up"]))
    out = jnp.einsum("neh,eho->neo", a, params["down"])
    share = jax.lax.stop_gradient((logits == logits.max(axis=1, keepdims=True)).mean(axis=0, dtype=x.dtype))
    p = jax.nn.softmax(logits, axis=1)
    return chosen, weight, a, out, share, p, jnp.einsum("ne,neo->no", weight, out)


def experts_loss(params, x, target):
    _, _, _, _, share, p, y = experts_forward(params, x)
    return mean_square(y, target) + BALANCE * EXPERTS * jnp.sum(share * p.mean(axis=0))


def experts_gradient(
    d_choice=lambda weight, dw: softmax_back(weight, dw),
    into_expert=lambda weight, dy: jnp.einsum("ne,no->neo", weight, dy),
    d_balance=lambda share, p: jnp.broadcast_to(share, p.shape) / len(p),
    d_logits=lambda from_output, from_balance: from_output + from_balance,
):
    def grad_fn(params, x, target):
        _chosen, weight, a, out, share, p, y = experts_forward(params, x)
        dy = mean_square_back(y, target)
        choice = d_choice(weight, jnp.einsum("no,neo->ne", dy, out))
        balance = softmax_back(p, BALANCE * EXPERTS * d_balance(share, p))
        d_out = into_expert(weight, dy)
        dz = jnp.einsum("neo,eho->neh", d_out, params["down"]) * (1 - a**2)
        return {
            "gate": x.T @ d_logits(choice, balance),
            "up": jnp.einsum("nd,neh->edh", x, dz),
            "down": jnp.einsum("neh,neo->eho", a, d_out),
        }

    return grad_fn


def experts_make(dtype):
    gate, up, down, x, target = normal(dtype, 51, (3, EXPERTS), (EXPERTS, 3, 5), (EXPERTS, 5, 2), (7, 3), (7, 2))
    return {"gate": gate, "up": up, "down": down}, (x, target)


experts = Problem("mixture of experts", experts_loss, experts_gradient, experts_make)

BETA = 0.5


def autoencoder_forward(params, x, noise):
    h = jnp.tanh(x @ params["enc"])
    mean, log_var = h @ params["mean"], h @ params["log_var"]
    spread = jnp.exp(log_var / 2)
    z = mean + spread * noise
    a = jnp.tanh(z @ params["dec"])
    return h, mean, log_var, spread, z, a, a @ params["out"] + params["bias"]


def autoencoder_loss(params, x, noise):
    """Bernoulli likelihood and β times the divergence from the standard normal, by sample."""
    _, mean, log_var, _, _, _, scores = autoencoder_forward(params, x, noise)
    likelihood = jnp.sum(jnp.logaddexp(scores, 0) - x * scores)
    divergence = -0.5 * jnp.sum(1 + log_var - mean**2 - jnp.exp(log_var))
    return (likelihood + BETA * divergence) / len(x)


def autoencoder_gradient(
    d_scores=lambda scores, x: sigmoid(scores) - x,
    d_mean=lambda dz, mean, n: dz + BETA * mean / n,
    d_spread=lambda dz, noise, spread: dz * noise * spread / 2,
    d_divergence=lambda log_var: 0.5 * (jnp.exp(log_var) - 1),
    join=lambda from_mean, from_var: from_mean + from_var,
):
    def grad_fn(params, x, noise):
        h, mean, log_var, spread, z, a, scores = autoencoder_forward(params, x, noise)
        ds = d_scores(scores, x) / len(x)
        da = ds @ params["out"].T * (1 - a**2)
        dz = da @ params["dec"].T
        dm = d_mean(dz, mean, len(x))
        dv = d_spread(dz, noise, spread) + BETA * d_divergence(log_var) / len(x)
        dh = join(dm @ params["mean"].T, dv @ params["log_var"].T) * (1 - h**2)
        return {
            "enc": x.T @ dh,
            "mean": h.T @ dm,
            "log_var": h.T @ dv,
            "dec": z.T @ da,
            "out": a.T @ ds,
            "bias": ds.sum(axis=0),
        }

    return grad_fn


def autoencoder_make(dtype):
    enc, mean, log_var, dec, out, bias, raw, noise = normal(
        dtype, 52, (5, 4), (4, 2), (4, 2), (2, 4), (4, 5), (5,), (3, 5), (3, 2)
    )
    params = {"enc": enc, "mean": mean, "log_var": log_var, "dec": dec, "out": out, "bias": bias}
    return params, ((raw > 0).astype(dtype), noise)


autoencoder = Problem("autoencoder", autoencoder_loss, autoencoder_gradient, autoencoder_make)


def flow_forward(params, x):
    """Two affine couplings; the halves change places between them. The parameters are stacked by layer."""
    left, right_half = jnp.split(x, 2, axis=1)
    tape, log_det = [], 0.0
    for k in range(2):
        s = jnp.tanh(left @ params["scale"][k] + params["b"][k])
        moved = right_half * jnp.exp(s) + left @ params["shift"][k]
        tape.append((left, right_half, s))
        log_det = log_det + s.sum(axis=1)
        left, right_half = moved, left
    return tape, left, right_half, log_det


def flow_loss(params, x):
    """Mean negative log-likelihood under a standard normal, without its constant."""
    _, left, right_half, log_det = flow_forward(params, x)
    return jnp.mean(0.5 * jnp.sum(left**2, axis=1) + 0.5 * jnp.sum(right_half**2, axis=1) - log_det)


def flow_gradient(
    d_log=lambda d, old, s: d * old * jnp.exp(s),
    volume=lambda n: -1 / n,
    through=lambda d, s: d * jnp.exp(s),
    d_left=lambda copied, scale, shift: copied + scale + shift,
):
    def grad_fn(params, x):
        tape, left, right_half, _ = flow_forward(params, x)
        d_moved, d_copied = left / len(x), right_half / len(x)
        out = {name: [None, None] for name in params}
        for k in (1, 0):
            entry, old, s = tape[k]
            dz = (d_log(d_moved, old, s) + volume(len(x))) * (1 - s**2)
            out["scale"][k], out["shift"][k], out["b"][k] = entry.T @ dz, entry.T @ d_moved, dz.sum(axis=0)
            d_entry = d_left(d_copied, dz @ params["scale"][k].T, d_moved @ params["shift"][k].T)
            d_moved, d_copied = d_entry, through(d_moved, s)
        return {name: jnp.stack(pair) for name, pair in out.items()}

    return grad_fn


def flow_make(dtype):
    scale, shift, b, x = normal(dtype, 53, (2, 2, 2), (2, 2, 2), (2, 2), (5, 4))
    return {"scale": scale, "shift": shift, "b": b}, (x,)


flow = Problem("flow", flow_loss, flow_gradient, flow_make)

BUGS = [
    experts.bug(
        "experts_gate_detached_from_output",
        {"lost_path"},
        "['gate']",
        d_logits=lambda from_output, from_balance: from_balance,
    ),
    experts.bug(
        "experts_weights_not_renormalized",
        {"activation_derivative", "lost_path"},
        "['gate']",
        d_choice=lambda weight, dw: weight * dw,
    ),
    experts.bug(
        "experts_output_without_gate",
        {"scaled_path", "mask"},
        "['down']",
        into_expert=lambda weight, dy: jnp.broadcast_to(dy[:, None, :], (*weight.shape, dy.shape[1])),
    ),
    experts.bug(
        "experts_balance_not_averaged",
        {"scaled_path"},
        "['gate']",
        d_balance=lambda share, p: jnp.broadcast_to(share, p.shape),
    ),
    autoencoder.bug(
        "autoencoder_likelihood_sigmoid_twice",
        {"loss_derivative", "activation_derivative"},
        "['out']",
        d_scores=lambda scores, x: (sigmoid(scores) - x) * sigmoid(scores) * (1 - sigmoid(scores)),
    ),
    autoencoder.bug("autoencoder_mean_without_divergence", {"lost_path"}, "['mean']", d_mean=lambda dz, mean, n: dz),
    autoencoder.bug(
        "autoencoder_half_of_spread",
        {"activation_derivative", "scaled_path"},
        "['log_var']",
        d_spread=lambda dz, noise, spread: dz * noise * spread,
    ),
    autoencoder.bug(
        "autoencoder_divergence_constant",
        {"lost_path"},
        "['log_var']",
        d_divergence=lambda log_var: 0.5 * jnp.exp(log_var),
    ),
    autoencoder.bug(
        "autoencoder_variance_path_lost", {"lost_path"}, "['enc']", join=lambda from_mean, from_var: from_mean
    ),
    flow.bug("flow_volume_sign", {"scaled_path"}, "['b']", volume=lambda n: 1 / n),
    flow.bug(
        "flow_scale_without_exponential",
        {"activation_derivative", "scaled_path"},
        "['scale']",
        d_log=lambda d, old, s: d * old,
    ),
    flow.bug(
        "flow_copied_half_forgotten",
        {"lost_path", "unit"},
        "['shift']",
        d_left=lambda copied, scale, shift: scale + shift,
    ),
]
RIGHT = [right(experts, "experts_top_two"), right(autoencoder, "autoencoder_beta"), right(flow, "flow_coupling")]
