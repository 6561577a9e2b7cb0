"""Gaussian processes, a covariance by its Cholesky factor, and Runge-Kutta steps."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.blind_third.tools import mean_square, mean_square_back, right
from experiments.benchmarks.catalogue.case import Problem, normal


def process_forward(params, x):
    """Squared-exponential kernel with a length by dimension, an amplitude and noise, all by their logarithms."""
    apart = (x[:, None] - x[None, :]) ** 2 / jnp.exp(2 * params["length"])
    smooth = jnp.exp(2 * params["amplitude"] - 0.5 * apart.sum(axis=2))
    return apart, smooth, smooth + jnp.exp(2 * params["noise"]) * jnp.eye(len(x), dtype=x.dtype)


def process_loss(params, x, y):
    """Negative log marginal likelihood without its constant; the mean is linear."""
    factor = jnp.linalg.cholesky(process_forward(params, x)[2])
    white = jax.scipy.linalg.solve_triangular(factor, y - x @ params["mean"], lower=True)
    return 0.5 * white @ white + jnp.sum(jnp.log(jnp.diag(factor)))


def process_gradient(
    d_kernel=lambda inverse, alpha: 0.5 * (inverse - jnp.outer(alpha, alpha)),
    d_length=lambda dk, smooth, apart, length: jnp.einsum("ij,ij,ijd->d", dk, smooth, apart),
    d_noise=lambda dk, noise: 2 * jnp.exp(2 * noise) * jnp.trace(dk),
    d_mean=lambda x, alpha: -x.T @ alpha,
):
    def grad_fn(params, x, y):
        apart, smooth, kernel = process_forward(params, x)
        inverse = jnp.linalg.inv(kernel)
        alpha = inverse @ (y - x @ params["mean"])
        dk = d_kernel(inverse, alpha)
        return {
            "length": d_length(dk, smooth, apart, params["length"]),
            "amplitude": 2 * jnp.sum(dk * smooth),
            "noise": d_noise(dk, params["noise"]),
            "mean": d_mean(x, alpha),
        }

    return grad_fn


def process_make(dtype, noise=-0.7):
    x, y, mean, length = normal(dtype, 91, (6, 2), (6,), (2,), (2,))
    params = {"length": length * 0.3, "amplitude": jnp.asarray(0.2, dtype), "noise": jnp.asarray(noise, dtype)}
    return {**params, "mean": mean}, (x, y)


process = Problem("gaussian process", process_loss, process_gradient, process_make)


def by_solving(inverse, alpha):
    """The inverse is made symmetric first; it was already."""
    return 0.25 * (inverse + inverse.T) - 0.5 * alpha[:, None] * alpha[None, :]


def factor_of(params):
    return jnp.tril(params["lower"], -1) + jnp.diag(jnp.exp(params["log_diag"]))


def precision_loss(params, x):
    """Mean negative log-likelihood of samples whose precision matrix is F Fᵀ, F being triangular."""
    z = (x - params["mean"]) @ factor_of(params)
    return 0.5 * jnp.mean(jnp.sum(z**2, axis=1)) - jnp.sum(params["log_diag"])


def precision_gradient(
    keep=lambda df: jnp.tril(df, -1),
    d_log=lambda df, log_diag: jnp.diag(df) * jnp.exp(log_diag) - 1,
    d_mean=lambda dz, factor: -(dz @ factor.T).sum(axis=0),
):
    def grad_fn(params, x):
        factor = factor_of(params)
        dz = (x - params["mean"]) @ factor / len(x)
        df = (x - params["mean"]).T @ dz
        return {"lower": keep(df), "log_diag": d_log(df, params["log_diag"]), "mean": d_mean(dz, factor)}

    return grad_fn


def precision_make(dtype):
    lower, log_diag, mean, x = normal(dtype, 92, (4, 4), (4,), (4,), (6, 4))
    return {"lower": lower, "log_diag": log_diag * 0.5, "mean": mean}, (x,)


precision = Problem("gaussian process", precision_loss, precision_gradient, precision_make)

STEP, STEPS = 0.4, 3


def rate(params, y):
    return jnp.tanh(y @ params["w"] + params["b"])


def orbit_forward(params, y):
    """Classic Runge-Kutta steps; kept are the points where the rate is taken, and the rates."""
    tape = []
    for _ in range(STEPS):
        points = [y]
        rates = [rate(params, y)]
        for share in (0.5, 0.5, 1.0):
            points.append(y + share * STEP * rates[-1])
            rates.append(rate(params, points[-1]))
        y = y + STEP / 6 * (rates[0] + 2 * rates[1] + 2 * rates[2] + rates[3])
        tape.append((points, rates))
    return tape, y


def orbit_loss(params, y, target):
    return mean_square(params["gain"] * orbit_forward(params, y)[1], target)


def orbit_gradient(
    shares=(0.5, 0.5, 1.0),
    weights=(1, 2, 2, 1),
    counted=(True, True, True, True),
    place=lambda points, i: points[i],
    onward=lambda dy, through: dy + through,
):
    def grad_fn(params, y, target):
        tape, last = orbit_forward(params, y)
        d_out = mean_square_back(params["gain"] * last, target)
        dy = d_out * params["gain"]
        dw, db = jnp.zeros_like(params["w"]), jnp.zeros_like(params["b"])
        for points, rates in reversed(tape):
            dks = [STEP / 6 * weight * dy for weight in weights]
            through = 0.0
            for i in (3, 2, 1, 0):
                dz = dks[i] * (1 - rates[i] ** 2)
                if counted[i]:
                    dw, db = dw + place(points, i).T @ dz, db + dz.sum(axis=0)
                d_point = dz @ params["w"].T
                through = through + d_point
                if i:
                    dks[i - 1] = dks[i - 1] + shares[i - 1] * STEP * d_point
            dy = onward(dy, through)
        return {"w": dw, "b": db, "gain": jnp.sum(d_out * last, axis=0)}

    return grad_fn


def orbit_make(dtype):
    w, b, gain, y, target = normal(dtype, 93, (3, 3), (3,), (3,), (4, 3), (4, 3))
    return {"w": w, "b": b, "gain": gain}, (y, target)


orbit = Problem("ode", orbit_loss, orbit_gradient, orbit_make)

BUGS = [
    process.bug(
        "process_determinant_forgotten",
        {"lost_path"},
        "['length']",
        d_kernel=lambda inverse, alpha: -0.5 * jnp.outer(alpha, alpha),
    ),
    process.bug(
        "process_determinant_not_halved",
        {"scaled_path"},
        "['length']",
        d_kernel=lambda inverse, alpha: inverse - 0.5 * jnp.outer(alpha, alpha),
    ),
    process.bug(
        "process_length_without_logarithm",
        {"activation_derivative", "scaled_path"},
        "['length']",
        d_length=lambda dk, smooth, apart, length: jnp.einsum("ij,ij,ijd->d", dk, smooth, apart) / jnp.exp(length),
    ),
    process.bug(
        "process_noise_without_two",
        {"scaled", "activation_derivative", "scaled_path"},
        "['noise']",
        d_noise=lambda dk, noise: jnp.exp(2 * noise) * jnp.trace(dk),
    ),
    process.bug("process_mean_sign", {"sign", "scaled"}, "['mean']", d_mean=lambda x, alpha: x.T @ alpha),
    precision.bug("precision_upper_triangle_kept", {"mask"}, "['lower']", keep=lambda df: df),
    precision.bug(
        "precision_determinant_forgotten",
        {"lost_path", "lost_use"},
        "['log_diag']",
        d_log=lambda df, log_diag: jnp.diag(df) * jnp.exp(log_diag),
    ),
    precision.bug(
        "precision_factor_untransposed",
        {"transposed"},
        "['mean']",
        d_mean=lambda dz, factor: -(dz @ factor).sum(axis=0),
    ),
    orbit.bug("orbit_third_stage_full_share", {"scaled_path"}, "['w']", shares=(0.5, 1.0, 1.0)),
    orbit.bug("orbit_middle_weights_left_out", {"scaled_path"}, "['b']", weights=(1, 1, 1, 1)),
    orbit.bug("orbit_last_stage_not_counted", {"lost_use", "lost_path"}, "['w']", counted=(True, True, True, False)),
    orbit.bug("orbit_all_stages_at_start", {"wrong_operand"}, "['w']", place=lambda points, i: points[0]),
    orbit.bug("orbit_identity_forgotten", {"lost_path"}, "['w']", onward=lambda dy, through: through),
]
RIGHT = [
    right(process, "process_likelihood"),
    right(process, "process_likelihood_symmetric", d_kernel=by_solving),
    right(process, "process_little_noise", make=lambda dtype: process_make(dtype, noise=-3.0)),
    right(precision, "precision_triangular"),
    right(orbit, "orbit_runge_kutta"),
]
