"""Implicit layers: a fixed point, a linear system, ridge regression, an integrated equation and a determinant."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.common import maker, right
from experiments.benchmarks.catalogue.case import Problem, squared_error, squared_error_backward

THEME = "implicit layers"

# A fixed point z = tanh(z w + x u)


def fixed_point(params, x):
    z = jnp.zeros((len(x), 3), x.dtype)
    for _ in range(60):
        z = jnp.tanh(z @ params["w"] + x @ params["u"])
    return z


def fixed_loss(params, x, target):
    return squared_error(fixed_point(params, x), target)


def solve_adjoint(w, slope, dz):
    """Solve λ = dz + (slope λ) wᵀ for each sample."""
    eye = jnp.eye(3, dtype=dz.dtype)
    return jnp.stack([jnp.linalg.solve(eye - w * s, d) for s, d in zip(slope, dz, strict=True)])


def fixed_gradient(adjoint=solve_adjoint, state=lambda z, x, params: z):
    def grad_fn(params, x, target):
        z = fixed_point(params, x)
        slope = 1 - z**2
        d = adjoint(params["w"], slope, squared_error_backward(z, target)) * slope
        return {"w": state(z, x, params).T @ d, "u": x.T @ d}

    return grad_fn


def solve_untransposed(w, slope, dz):
    eye = jnp.eye(3, dtype=dz.dtype)
    return jnp.stack([jnp.linalg.solve(eye - w.T * s, d) for s, d in zip(slope, dz, strict=True)])


FIXED = Problem(THEME, fixed_loss, fixed_gradient, maker(901, {"w": (3, 3), "u": (4, 3)}, (4, 4), (4, 3), scale=0.22))

# A linear system


def system_loss(params, target):
    return ((jnp.linalg.solve(params["a"], params["b"]) - target) ** 2).sum()


def system_gradient(d_matrix=lambda adjoint, x: -jnp.outer(adjoint, x), transpose=lambda a: a.T):
    def grad_fn(params, target):
        x = jnp.linalg.solve(params["a"], params["b"])
        adjoint = jnp.linalg.solve(params["a"].T, 2 * (x - target))
        return {
            "a": d_matrix(adjoint, x),
            "b": jnp.linalg.solve(transpose(params["a"]), 2 * (x - target)),
        }

    return grad_fn


SYSTEM = Problem(
    THEME, system_loss, system_gradient, maker(902, {"a": (4, 4), "b": (4,)}, (4,), add={"a": 2 * np.eye(4)})
)

# Ridge regression inside the loss


def ridge_forward(params, x, y, x_held):
    f, held = jnp.tanh(x @ params["p"]), jnp.tanh(x_held @ params["p"])
    gram = f.T @ f + jnp.exp(params["log_ridge"]) * jnp.eye(3, dtype=x.dtype)
    return f, held, gram, jnp.linalg.solve(gram, f.T @ y)


def ridge_loss(params, x, y, x_held, y_held):
    _, held, _, w = ridge_forward(params, x, y, x_held)
    return ((held @ w - y_held) ** 2).mean()


def ridge_gradient(
    d_features=lambda y, f, adjoint, w: jnp.outer(y, adjoint) - f @ (jnp.outer(adjoint, w) + jnp.outer(w, adjoint)),
    d_log=lambda adjoint, w, ridge: -(adjoint @ w) * ridge,
    held_part=lambda part: part,
):
    def grad_fn(params, x, y, x_held, y_held):
        f, held, gram, w = ridge_forward(params, x, y, x_held)
        dr = 2 * (held @ w - y_held) / len(y_held)
        adjoint = jnp.linalg.solve(gram, held.T @ dr)
        df = d_features(y, f, adjoint, w) * (1 - f**2)
        d_held = held_part(x_held.T @ (jnp.outer(dr, w) * (1 - held**2)))
        return {"p": x.T @ df + d_held, "log_ridge": d_log(adjoint, w, jnp.exp(params["log_ridge"]))}

    return grad_fn


RIDGE = Problem(
    THEME,
    ridge_loss,
    ridge_gradient,
    maker(903, {"p": (4, 3), "log_ridge": ()}, (6, 4), (6,), (5, 4), (5,)),
)

# An equation integrated by Heun's method

STEP = 0.4


def heun_forward(params, x):
    states, slopes = [x @ params["e"]], []
    for _ in range(3):
        z = states[-1]
        k1 = jnp.tanh(z @ params["w"])
        k2 = jnp.tanh((z + STEP * k1) @ params["w"])
        states.append(z + STEP / 2 * (k1 + k2))
        slopes.append((k1, k2))
    return states, slopes


def heun_loss(params, x, target):
    return squared_error(heun_forward(params, x)[0][-1], target)


def heun_gradient(through_first=lambda dz, d_middle: STEP / 2 * dz + STEP * d_middle, at=lambda time: time):
    def grad_fn(params, x, target):
        states, slopes = heun_forward(params, x)
        w, dz, dw = params["w"], squared_error_backward(states[-1], target), 0.0
        for time in (2, 1, 0):
            z, (k1, k2) = states[at(time)], slopes[time]
            d2 = STEP / 2 * dz * (1 - k2**2)
            d_middle = d2 @ w.T
            d1 = through_first(dz, d_middle) * (1 - k1**2)
            dw = dw + (z + STEP * k1).T @ d2 + z.T @ d1
            dz = dz + d_middle + d1 @ w.T
        return {"e": x.T @ dz, "w": dw}

    return grad_fn


HEUN = Problem(THEME, heun_loss, heun_gradient, maker(904, {"e": (4, 3), "w": (3, 3)}, (4, 4), (4, 3)))

# Likelihood of a linear map


def flow_loss(params, x):
    z = x @ params["a"].T + params["b"]
    return 0.5 * (z**2).sum() / len(x) - jnp.linalg.slogdet(params["a"])[1]


def flow_gradient(d_determinant=lambda a: jnp.linalg.inv(a).T):
    def grad_fn(params, x):
        z = x @ params["a"].T + params["b"]
        return {"a": z.T @ x / len(x) - d_determinant(params["a"]), "b": z.mean(0)}

    return grad_fn


FLOW = Problem(
    THEME, flow_loss, flow_gradient, maker(905, {"a": (4, 4), "b": (4,)}, (5, 4), add={"a": 1.5 * np.eye(4)})
)

BUGS = (
    FIXED.bug("fixed_point_single_step", ("lost_use", "lost_path"), "['w']", adjoint=lambda w, slope, dz: dz),
    FIXED.bug("fixed_point_jacobian_untransposed", ("transposed",), "['u']", adjoint=solve_untransposed),
    SYSTEM.bug("system_matrix_sign", ("sign",), "['a']", d_matrix=jnp.outer),
    SYSTEM.bug(
        "system_matrix_outer_swapped", ("transposed",), "['a']", d_matrix=lambda adjoint, x: -jnp.outer(x, adjoint)
    ),
    SYSTEM.bug("system_right_side_untransposed", ("transposed",), "['b']", transpose=lambda a: a),
    RIDGE.bug(
        "ridge_gram_from_one_side",
        ("lost_path",),
        "['p']",
        d_features=lambda y, f, adjoint, w: jnp.outer(y, adjoint) - f @ jnp.outer(adjoint, w),
    ),
    RIDGE.bug("ridge_held_out_features_constant", ("lost_use", "lost_path"), "['p']", held_part=lambda part: 0 * part),
    HEUN.bug(
        "heun_first_slope_inside_second", ("lost_path",), "['w']", through_first=lambda dz, d_middle: STEP / 2 * dz
    ),
    HEUN.bug("heun_state_after_step", ("shifted", "wrong_operand"), "['w']", at=lambda time: time + 1),
    FLOW.bug("flow_inverse_untransposed", ("transposed",), "['a']", d_determinant=jnp.linalg.inv),
)
RIGHT = (
    right(FIXED, "fixed_point_right"),
    right(SYSTEM, "system_right"),
    right(RIDGE, "ridge_right"),
    right(HEUN, "heun_right"),
    right(FLOW, "flow_right"),
)
