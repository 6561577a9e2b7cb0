"""Mixtures of experts: every expert, the best two, and the best one with a loss of balance."""

import jax.numpy as jnp

from experiments.benchmarks.blind_second.common import maker, right, softmax, softmax_backward
from experiments.benchmarks.catalogue.case import Problem, squared_error, squared_error_backward

THEME = "mixture of experts"
EXPERTS = {"gate": (4, 3), "experts": (3, 4, 3)}


def outputs(params, x):
    """Return the probability of every expert and its output, (samples, experts, features)."""
    return softmax(x @ params["gate"]), jnp.tanh(jnp.einsum("ni,eio->neo", x, params["experts"]))


def experts_backward(x, f, df):
    return jnp.einsum("ni,neo->eio", x, df * (1 - f**2))


# Every expert


def all_loss(params, x, target):
    p, f = outputs(params, x)
    return squared_error((p[..., None] * f).sum(1), target)


def all_gradient(
    d_gate=lambda dy, f, y: (dy[:, None] * f).sum(-1),
    weigh=lambda p, dy: p[..., None] * dy[:, None],
):
    def grad_fn(params, x, target):
        p, f = outputs(params, x)
        y = (p[..., None] * f).sum(1)
        dy = squared_error_backward(y, target)
        return {
            "gate": x.T @ softmax_backward(p, d_gate(dy, f, y)),
            "experts": experts_backward(x, f, weigh(p, dy)),
        }

    return grad_fn


ALL = Problem(THEME, all_loss, all_gradient, maker(801, EXPERTS, (5, 4), (5, 3)))

# The best two, whose weights are normalized again


def best_two(p):
    return (p > p.min(-1, keepdims=True)).astype(p.dtype)


def two_loss(params, x, target):
    p, f = outputs(params, x)
    kept = p * best_two(p)
    return squared_error(((kept / kept.sum(-1, keepdims=True))[..., None] * f).sum(1), target)


def two_gradient(d_total=lambda dg, g: (dg * g).sum(-1, keepdims=True), choose=lambda dp, chosen: dp * chosen):
    def grad_fn(params, x, target):
        p, f = outputs(params, x)
        chosen = best_two(p)
        total = (p * chosen).sum(-1, keepdims=True)
        g = p * chosen / total
        dy = squared_error_backward((g[..., None] * f).sum(1), target)
        dg = (dy[:, None] * f).sum(-1)
        dp = choose((dg - d_total(dg, g)) / total, chosen)
        return {
            "gate": x.T @ softmax_backward(p, dp),
            "experts": experts_backward(x, f, g[..., None] * dy[:, None]),
        }

    return grad_fn


TWO = Problem(THEME, two_loss, two_gradient, maker(802, EXPERTS, (5, 4), (5, 3)))

# The best one, with a loss of balance


def best_one(p):
    return (p == p.max(-1, keepdims=True)).astype(p.dtype)


def one_loss(params, x, target):
    p, f = outputs(params, x)
    chosen = best_one(p)
    balance = 3 * (chosen.mean(0) * p.mean(0)).sum()
    return squared_error(((p * chosen)[..., None] * f).sum(1), target) + 0.5 * balance


def one_gradient(d_balance=lambda chosen: 0.5 * 3 * chosen.mean(0) / len(chosen), scale=lambda kept, chosen: kept):
    def grad_fn(params, x, target):
        p, f = outputs(params, x)
        chosen = best_one(p)
        dy = squared_error_backward(((p * chosen)[..., None] * f).sum(1), target)
        dp = (dy[:, None] * f).sum(-1) * chosen + d_balance(chosen)
        return {
            "gate": x.T @ softmax_backward(p, dp),
            "experts": experts_backward(x, f, scale(p * chosen, chosen)[..., None] * dy[:, None]),
        }

    return grad_fn


ONE = Problem(THEME, one_loss, one_gradient, maker(803, EXPERTS, (6, 4), (6, 3)))

BUGS = (
    ALL.bug("experts_gate_constant", ("zero",), "['gate']", d_gate=lambda dy, f, y: 0 * f[..., 0]),
    ALL.bug(
        "experts_weighted_by_mean_gate",
        ("wrong_operand",),
        "['experts']",
        weigh=lambda p, dy: p.mean(0)[:, None] * dy[:, None],
    ),
    TWO.bug("two_experts_total_constant", ("lost_path",), "['gate']", d_total=lambda dg, g: 0.0),
    TWO.bug("two_experts_gate_of_all", ("mask",), "['gate']", choose=lambda dp, chosen: dp),
    ONE.bug("one_expert_without_gate", ("scaled_path",), "['experts']", scale=lambda kept, chosen: chosen),
    ONE.bug("one_expert_balance_missed", ("lost_path",), "['gate']", d_balance=lambda chosen: 0.0),
)
RIGHT = (
    right(ALL, "experts_right"),
    right(TWO, "two_experts_right"),
    right(ONE, "one_expert_right"),
)
