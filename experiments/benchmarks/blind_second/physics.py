"""Losses of physics: a differential equation's residual, conduction, a leapfrog, forces between atoms, advection."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.common import maker, right
from experiments.benchmarks.catalogue.case import Problem

THEME = "physics"

# Residual of u'' + u = f with a network of one layer


def residual_forward(params, x, f):
    tanh = jnp.tanh(x[:, None] * params["w"] + params["b"])
    d1 = 1 - tanh**2
    d2 = -2 * tanh * d1
    residual = (params["a"] * (params["w"] ** 2 * d2 + tanh)).sum(1) - f
    return tanh, d1, d2, residual


def residual_loss(params, x, f):
    boundary = params["a"] @ jnp.tanh(params["b"])
    return (residual_forward(params, x, f)[-1] ** 2).mean() + 2 * boundary**2


def residual_gradient(
    d_w=lambda a, w, x, tanh, d1, d2, d3: a * (2 * w * d2 + (w**2 * d3 + d1) * x[:, None]),
    boundary_b=lambda g, a, b: g * a * (1 - jnp.tanh(b) ** 2),
    third=lambda tanh, d1: d1 * (6 * tanh**2 - 2),
):
    def grad_fn(params, x, f):
        a, w, b = params["a"], params["w"], params["b"]
        tanh, d1, d2, residual = residual_forward(params, x, f)
        d3 = third(tanh, d1)
        dr = (2 * residual / len(x))[:, None]
        g = 4 * (a @ jnp.tanh(b))
        return {
            "a": (dr * (w**2 * d2 + tanh)).sum(0) + g * jnp.tanh(b),
            "w": (dr * d_w(a, w, x, tanh, d1, d2, d3)).sum(0),
            "b": (dr * a * (w**2 * d3 + d1)).sum(0) + boundary_b(g, a, b),
        }

    return grad_fn


RESIDUAL = Problem(
    THEME,
    residual_loss,
    residual_gradient,
    maker(1001, {"a": (4,), "w": (4,), "b": (4,)}, (6,), (6,), scale=1.0),
)

# Conduction through a rod with a conductivity for each face

TIME_STEP = 0.2


def conduction_forward(params):
    temperatures = [params["start"]]
    for _ in range(3):
        now = temperatures[-1]
        flux = params["conductivity"] * (now[1:] - now[:-1])
        temperatures.append(now + TIME_STEP * (jnp.pad(flux, (0, 1)) - jnp.pad(flux, (1, 0))))
    return temperatures


def conduction_loss(params, measured):
    return ((conduction_forward(params)[-1] - measured) ** 2).sum()


def conduction_gradient(
    d_flux=lambda d: d[:-1] - d[1:], through=lambda d_slope: jnp.pad(d_slope, (1, 0)) - jnp.pad(d_slope, (0, 1))
):
    def grad_fn(params, measured):
        temperatures = conduction_forward(params)
        d, dk = 2 * (temperatures[-1] - measured), 0.0
        for now in temperatures[-2::-1]:
            df = TIME_STEP * (d[:-1] - d[1:])
            dk = dk + TIME_STEP * d_flux(d) * (now[1:] - now[:-1])
            d = d + through(df * params["conductivity"])
        return {"start": d, "conductivity": dk}

    return grad_fn


CONDUCTION = Problem(
    THEME,
    conduction_loss,
    conduction_gradient,
    maker(1002, {"start": (5,), "conductivity": (4,)}, (5,), add={"conductivity": 1.0}),
)

# Oscillators integrated by a leapfrog

H = 0.3


def leapfrog_forward(params, momentum):
    q, p = params["start"], momentum
    trace = []
    for _ in range(3):
        before = q
        p = p - H / 2 * (params["stiffness"] * q + q**3)
        q = q + H * p
        p = p - H / 2 * (params["stiffness"] * q + q**3)
        trace.append((before, q))
    return q, p, trace


def leapfrog_loss(params, momentum, q_end, p_end):
    q, p, _ = leapfrog_forward(params, momentum)
    return ((q - q_end) ** 2).sum() + ((p - p_end) ** 2).sum()


def leapfrog_gradient(second_kick=lambda q, dp: -H / 2 * q * dp, force_slope=lambda k, q: k + 3 * q**2):
    def grad_fn(params, momentum, q_end, p_end):
        k = params["stiffness"]
        q, p, trace = leapfrog_forward(params, momentum)
        dq, dp, dk = 2 * (q - q_end), 2 * (p - p_end), 0.0
        for before, after in reversed(trace):
            dk = dk + second_kick(after, dp)
            dq = dq - H / 2 * force_slope(k, after) * dp
            dp = dp + H * dq
            dk = dk - H / 2 * before * dp
            dq = dq - H / 2 * force_slope(k, before) * dp
        return {"start": dq, "stiffness": dk}

    return grad_fn


LEAPFROG = Problem(
    THEME,
    leapfrog_loss,
    leapfrog_gradient,
    maker(1003, {"start": (3,), "stiffness": (3,)}, (3,), (3,), (3,), add={"stiffness": 1.5}),
)

# Forces between atoms

ATOMS = np.array([[0.0, 0.0], [1.1, 0.1], [0.2, 1.2], [1.3, 1.1]])
UPPER = np.triu(np.ones((4, 4), bool), 1)


def pairs_of(x):
    offset = x[:, None] - x[None]
    squared = (offset**2).sum(-1) + jnp.eye(len(x), dtype=x.dtype)
    return offset, squared


def strength(sigma, squared):
    return 24 * (2 * sigma**12 / squared**7 - sigma**6 / squared**4)


def forces(params, x):
    offset, squared = pairs_of(x)
    return params["depth"] * (strength(params["size"], squared)[..., None] * offset).sum(1)


def forces_loss(params, x, measured):
    return ((forces(params, x) - measured) ** 2).mean()


def forces_gradient(
    per_pair=lambda residual, offset: (residual[:, None] * offset).sum(-1),
    d_strength=lambda s, squared: 24 * (24 * s**11 / squared**7 - 6 * s**5 / squared**4),
):
    def grad_fn(params, x, measured):
        offset, squared = pairs_of(x)
        residual = 2 * (forces(params, x) - measured) / measured.size
        full = (residual[:, None] * offset).sum(-1)
        return {
            "depth": (per_pair(residual, offset) * strength(params["size"], squared)).sum(),
            "size": params["depth"] * (full * d_strength(params["size"], squared)).sum(),
        }

    return grad_fn


FORCES = Problem(
    THEME,
    forces_loss,
    forces_gradient,
    maker(
        1004,
        {"depth": (), "size": ()},
        extra=(ATOMS, np.random.default_rng(10041).normal(size=(4, 2))),
        add={"depth": 1.0, "size": 1.0},
        scale=0.05,
    ),
)

# Advection around a ring


def advection_forward(params):
    trace = [params["start"]]
    for _ in range(3):
        u = trace[-1]
        trace.append(u - params["speed"] * (u - jnp.roll(u, 1)))
    return trace


def advection_loss(params, target):
    return ((advection_forward(params)[-1] - target) ** 2).sum()


def advection_gradient(return_by=-1, upwind=lambda u: u - jnp.roll(u, 1)):
    def grad_fn(params, target):
        trace = advection_forward(params)
        d, dc = 2 * (trace[-1] - target), 0.0
        for u in trace[-2::-1]:
            dc = dc - d * upwind(u)
            carried = params["speed"] * d
            d = d - carried + jnp.roll(carried, return_by)
        return {"start": d, "speed": dc}

    return grad_fn


ADVECTION = Problem(
    THEME,
    advection_loss,
    advection_gradient,
    maker(1005, {"start": (6,), "speed": (6,)}, (6,), scale=0.3, add={"speed": 0.5}),
)

BUGS = (
    RESIDUAL.bug(
        "residual_weight_outside_missed",
        ("lost_use", "lost_path"),
        "['w']",
        d_w=lambda a, w, x, tanh, d1, d2, d3: a * (w**2 * d3 + d1) * x[:, None],
    ),
    RESIDUAL.bug("residual_boundary_missed", ("lost_use", "lost_path"), "['b']", boundary_b=lambda g, a, b: 0.0),
    CONDUCTION.bug(
        "conduction_heat_flows_uphill",
        ("sign", "scaled_path"),
        "['start']",
        through=lambda d_slope: jnp.pad(d_slope, (0, 1)) - jnp.pad(d_slope, (1, 0)),
    ),
    CONDUCTION.bug("conduction_one_side_of_face", ("lost_path",), "['conductivity']", d_flux=lambda d: d[:-1]),
    LEAPFROG.bug(
        "leapfrog_second_kick_missed", ("lost_use", "lost_path"), "['stiffness']", second_kick=lambda q, dp: 0.0
    ),
    LEAPFROG.bug(
        "leapfrog_cubic_force_missed", ("lost_path", "activation_derivative"), "['start']", force_slope=lambda k, q: k
    ),
    FORCES.bug(
        "forces_without_reaction",
        ("lost_path",),
        "['depth']",
        per_pair=lambda residual, offset: (residual[:, None] * offset).sum(-1) * UPPER,
    ),
    FORCES.bug(
        "forces_exponent_of_repulsion",
        ("activation_derivative", "scaled_path"),
        "['size']",
        d_strength=lambda s, squared: 24 * (12 * s**11 / squared**7 - 6 * s**5 / squared**4),
    ),
    ADVECTION.bug("advection_rolled_the_same_way", ("transposed", "shifted"), "['start']", return_by=1),
    ADVECTION.bug(
        "advection_central_difference",
        ("wrong_operand",),
        "['speed']",
        upwind=lambda u: (jnp.roll(u, -1) - jnp.roll(u, 1)) / 2,
    ),
)
RIGHT = (
    right(RESIDUAL, "residual_right"),
    right(CONDUCTION, "conduction_right"),
    right(LEAPFROG, "leapfrog_right"),
    right(FORCES, "forces_right"),
    right(ADVECTION, "advection_right"),
)
