"""Normalization: group, RMS, weight, spectral, batch, layer, and a residual block with one in front."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.common import maker, right
from experiments.benchmarks.catalogue.case import Problem, squared_error, squared_error_backward

THEME = "normalization"

# Groups of channels


def group_forward(params, x):
    h = (x @ params["w"]).reshape(3, 3, 2, 2)
    inverse = 1 / jnp.sqrt(h.var((1, 3), keepdims=True) + 1e-3)
    unit = (h - h.mean((1, 3), keepdims=True)) * inverse
    return h, inverse, unit, params["gain"] * unit.reshape(3, 3, 4) + params["shift"]


def group_loss(params, x, target):
    return squared_error(group_forward(params, x)[-1], target)


def group_gradient(axes=(1, 3), d_gain=lambda dy, unit, h: (dy * unit.reshape(3, 3, 4)).sum((0, 1))):
    def grad_fn(params, x, target):
        h, inverse, unit, y = group_forward(params, x)
        dy = squared_error_backward(y, target)
        du = (dy * params["gain"]).reshape(3, 3, 2, 2)
        dh = inverse * (du - du.mean(axes, keepdims=True) - unit * (du * unit).mean(axes, keepdims=True))
        return {
            "w": jnp.einsum("nsi,nso->io", x, dh.reshape(3, 3, 4)),
            "gain": d_gain(dy, unit, h),
            "shift": dy.sum((0, 1)),
        }

    return grad_fn


GROUP = Problem(
    THEME,
    group_loss,
    group_gradient,
    maker(501, {"w": (3, 4), "gain": (4,), "shift": (4,)}, (3, 3, 3), (3, 3, 4), add={"gain": 1.0}),
)

# RMS


def rms_forward(params, x):
    h = x @ params["w"]
    r = jnp.sqrt((h**2).mean(1, keepdims=True) + 1e-3)
    return h, r, params["gain"] * h / r


def rms_loss(params, x, target):
    return squared_error(rms_forward(params, x)[-1], target)


def rms_gradient(reduce=lambda g: g.mean(1, keepdims=True), d_gain=lambda dy, h, r: (dy * h / r).sum(0)):
    def grad_fn(params, x, target):
        h, r, y = rms_forward(params, x)
        dy = squared_error_backward(y, target)
        du = dy * params["gain"]
        dh = (du - h * reduce(du * h) / r**2) / r
        return {"w": x.T @ dh, "gain": d_gain(dy, h, r)}

    return grad_fn


RMS = Problem(THEME, rms_loss, rms_gradient, maker(502, {"w": (3, 4), "gain": (4,)}, (5, 3), (5, 4), add={"gain": 1.0}))

# Weight normalization


def weight_forward(params):
    norm = jnp.sqrt((params["v"] ** 2).sum(0))
    return norm, params["g"] * params["v"] / norm


def weight_loss(params, x, target):
    return squared_error(jnp.tanh(x @ weight_forward(params)[1]), target)


def weight_gradient(
    project=lambda dw, unit: dw - unit * (dw * unit).sum(0), d_g=lambda dw, v, norm: (dw * v).sum(0) / norm
):
    def grad_fn(params, x, target):
        norm, w = weight_forward(params)
        y = jnp.tanh(x @ w)
        dw = x.T @ (squared_error_backward(y, target) * (1 - y**2))
        return {
            "v": params["g"] / norm * project(dw, params["v"] / norm),
            "g": d_g(dw, params["v"], norm),
        }

    return grad_fn


WEIGHT = Problem(
    THEME, weight_loss, weight_gradient, maker(503, {"v": (4, 4), "g": (4,)}, (5, 4), (5, 4), add={"g": 1.0})
)

# Spectral normalization with the two vectors given


def spectral_forward(params, u, v):
    sigma = u @ params["w"] @ v
    return sigma, params["w"] / sigma


def spectral_loss(params, x, target, u, v):
    return squared_error(x @ spectral_forward(params, u, v)[1], target)


def spectral_gradient(through_sigma=lambda g, unit, u, v: (g * unit).sum() * jnp.outer(u, v)):
    def grad_fn(params, x, target, u, v):
        sigma, unit = spectral_forward(params, u, v)
        g = x.T @ squared_error_backward(x @ unit, target)
        return {"w": (g - through_sigma(g, unit, u, v)) / sigma}

    return grad_fn


U = np.array([1.0, 2.0, 3.0, 4.0]) / 30**0.5
V = np.array([4.0, 1.0, 2.0, 2.0]) / 5
SPECTRAL = Problem(
    THEME,
    spectral_loss,
    spectral_gradient,
    maker(504, {"w": (4, 4)}, (5, 4), (5, 4), extra=(U, V), add={"w": 2 * np.eye(4)}),
)

# Batch normalization


def batch_forward(params, x):
    h = x @ params["w"]
    inverse = 1 / jnp.sqrt(h.var(0) + 1e-3)
    return h, inverse, (h - h.mean(0)) * inverse


def batch_loss(params, x, target, running):
    return squared_error(params["gain"] * batch_forward(params, x)[2] + params["shift"], target)


def batch_gradient(
    scale=lambda inverse, running: inverse,
    through_variance=lambda du, unit: unit * (du * unit).mean(0),
):
    def grad_fn(params, x, target, running):
        _, inverse, unit = batch_forward(params, x)
        dy = squared_error_backward(params["gain"] * unit + params["shift"], target)
        du = dy * params["gain"]
        dh = scale(inverse, running) * (du - du.mean(0) - through_variance(du, unit))
        return {"w": x.T @ dh, "gain": (dy * unit).sum(0), "shift": dy.sum(0)}

    return grad_fn


RUNNING = np.array([0.6, 1.7, 1.1, 0.4])
BATCH = Problem(
    THEME,
    batch_loss,
    batch_gradient,
    maker(
        505,
        {"w": (3, 4), "gain": (4,), "shift": (4,)},
        (5, 3),
        (5, 4),
        extra=(RUNNING,),
        add={"gain": 1.0},
    ),
)

# Layer normalization by the unbiased deviation


def layer_forward(params, x):
    h = x @ params["w"]
    inverse = 1 / jnp.sqrt(h.var(1, ddof=1, keepdims=True) + 1e-3)
    return inverse, (h - h.mean(1, keepdims=True)) * inverse


def layer_loss(params, x, target):
    return squared_error(layer_forward(params, x)[1], target)


def layer_gradient(count=3):
    def grad_fn(params, x, target):
        inverse, y = layer_forward(params, x)
        dy = squared_error_backward(y, target)
        dh = inverse * (dy - dy.mean(1, keepdims=True) - y * (dy * y).sum(1, keepdims=True) / count)
        return {"w": x.T @ dh}

    return grad_fn


LAYER = Problem(THEME, layer_loss, layer_gradient, maker(506, {"w": (3, 4)}, (5, 3), (5, 4)))

# A residual block that is normalized in front


def block_forward(params, x):
    h = x @ params["w0"]
    inverse = 1 / jnp.sqrt(h.var(1, keepdims=True) + 1e-3)
    unit = (h - h.mean(1, keepdims=True)) * inverse
    return h, inverse, unit, jnp.tanh(unit @ params["w1"])


def block_loss(params, x, target):
    h, _, _, f = block_forward(params, x)
    return squared_error(h + f, target)


def norm_backward(du, unit, inverse):
    return inverse * (du - du.mean(1, keepdims=True) - unit * (du * unit).mean(1, keepdims=True))


def block_gradient(join=lambda skip, branch: skip + branch, through_norm=norm_backward):
    def grad_fn(params, x, target):
        h, inverse, unit, f = block_forward(params, x)
        dy = squared_error_backward(h + f, target)
        df = dy * (1 - f**2)
        dh = join(dy, through_norm(df @ params["w1"].T, unit, inverse))
        return {"w0": x.T @ dh, "w1": unit.T @ df}

    return grad_fn


BLOCK = Problem(THEME, block_loss, block_gradient, maker(507, {"w0": (3, 4), "w1": (4, 4)}, (5, 3), (5, 4)))

BUGS = (
    GROUP.bug("group_means_over_channels_alone", ("wrong_axis", "normalization_term"), "['w']", axes=(3,)),
    GROUP.bug(
        "group_gain_of_raw_features",
        ("wrong_operand",),
        "['gain']",
        d_gain=lambda dy, unit, h: (dy * h.reshape(3, 3, 4)).sum((0, 1)),
    ),
    RMS.bug(
        "rms_projection_without_width",
        ("normalization_term", "scaled_path"),
        "['w']",
        reduce=lambda g: g.sum(1, keepdims=True),
    ),
    RMS.bug(
        "rms_gain_of_whole_batch", ("wrong_axis",), "['gain']", d_gain=lambda dy, h, r: (dy * h / r).sum() + 0 * h[0]
    ),
    WEIGHT.bug("weight_norm_constant", ("lost_path", "normalization_term"), "['v']", project=lambda dw, unit: dw),
    WEIGHT.bug(
        "weight_gain_of_raw_direction",
        ("scaled_path", "wrong_operand"),
        "['g']",
        d_g=lambda dw, v, norm: (dw * v).sum(0),
    ),
    SPECTRAL.bug(
        "spectral_vectors_swapped",
        ("transposed",),
        "['w']",
        through_sigma=lambda g, unit, u, v: (g * unit).sum() * jnp.outer(v, u),
    ),
    BATCH.bug(
        "batch_variance_constant", ("lost_path", "normalization_term"), "['w']", through_variance=lambda du, unit: 0.0
    ),
    BATCH.bug(
        "batch_running_variance",
        ("wrong_operand", "normalization_term"),
        "['w']",
        scale=lambda inverse, running: 1 / jnp.sqrt(running + 1e-3),
    ),
    LAYER.bug("layer_biased_count", ("normalization_term", "scaled_path"), "['w']", count=4),
    BLOCK.bug("block_skip_missed", ("lost_path",), "['w0']", join=lambda skip, branch: branch),
    BLOCK.bug(
        "block_branch_around_norm",
        ("normalization_term", "scaled_path"),
        "['w0']",
        through_norm=lambda du, unit, inverse: du,
    ),
)
RIGHT = (
    right(GROUP, "group_right"),
    right(RMS, "rms_right"),
    right(WEIGHT, "weight_right"),
    right(SPECTRAL, "spectral_right"),
    right(BATCH, "batch_right"),
    right(LAYER, "layer_right"),
    right(BLOCK, "block_right"),
)
