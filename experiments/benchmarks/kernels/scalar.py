"""Functions of one number and the same in mpmath, with the points at which their derivatives are compared."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import optax
from jax.scipy import special
from mpmath import mp

mp.dps = 60  # the step of mpmath's differences is then far below every point


class ScalarRule(NamedTuple):
    """A function of one number, the same function by mpmath, and the points of the comparison."""

    library: str
    name: str
    function: Callable[[Any], Any]
    plain: Callable[[Any], Any]
    points: tuple[float, ...]


LINE = (-100.0, -30.0, -5.0, -1.0, -1e-3, -1e-30, 0.0, 1e-30, 1e-3, 0.5, 1.0, 5.0, 6.0, 30.0, 100.0)
CLOSE = tuple(sign * x for x in (1e-20, 1e-10, 1e-6, 1e-4, 1e-3, 0.01, 0.3, 0.999, 2.5, 10.0) for sign in (-1, 1))
UNIT = (1e-30, 1e-6, 0.01, 0.3, 0.5, 0.9, 0.999)
OPEN = tuple(sign * x for x in (0.0, 1e-20, 1e-4, 0.3, 0.9, 0.999) for sign in (-1, 1))
POSITIVE = (1e-30, 1e-6, 0.01, 0.5, 1.0, 3.0, 20.0)
MIDDLE = (1e-3, 0.1, 0.5, 1.0, 1.5, 3.0, 20.0)


def _sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def _softplus(x):
    return mp.log1p(mp.exp(x))


def _clip(x, low, high):
    return min(max(x, low), high)


def _gelu_tanh(x):
    return x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)))


def _selu(x):
    scale, alpha = mp.mpf("1.0507009873554804934193349852946"), mp.mpf("1.6732632423543772848170429916717")
    return scale * (x if x > 0 else alpha * mp.expm1(x))


def _sparse_plus(x):
    return mp.mpf(0) if x <= -1 else x if x >= 1 else (x + 1) ** 2 / 4


def _nn(name, plain, points=LINE, function=None):
    return ScalarRule("jax.nn", name, function or getattr(jax.nn, name), plain, points)


def _np(name, plain, points, function=None):
    return ScalarRule("jax.numpy", name, function or getattr(jnp, name), plain, points)


def _special(name, plain, points, function=None):
    return ScalarRule("jax.scipy.special", name, function or getattr(special, name), plain, points)


def _optax(name, plain, points, *args, **options):
    loss = getattr(optax.losses, name)
    return ScalarRule("optax.losses", name, lambda x: loss(x, *args, **options), plain, points)


def _ndtr(x):
    return mp.erfc(-x / mp.sqrt(2)) / 2


def _focal(x):
    p = _sigmoid(x)
    return -((1 - p) ** 2) * mp.log(p)


ACTIVATIONS = (
    _nn("sigmoid", _sigmoid),
    _nn("softplus", _softplus),
    _nn("log_sigmoid", lambda x: -_softplus(-x)),
    _nn("silu", lambda x: x * _sigmoid(x)),
    _nn("mish", lambda x: x * mp.tanh(_softplus(x))),
    _nn("gelu, exact", lambda x: x * _ndtr(x), function=partial(jax.nn.gelu, approximate=False)),
    _nn("gelu, tanh", _gelu_tanh, function=partial(jax.nn.gelu, approximate=True)),
    _nn("soft_sign", lambda x: x / (1 + abs(x))),
    _nn("squareplus", lambda x: (x + mp.sqrt(x * x + 4)) / 2),
    _nn("relu", lambda x: max(x, 0)),
    _nn("relu6", lambda x: _clip(x, 0, 6)),
    _nn("leaky_relu", lambda x: x if x > 0 else x / 100),
    _nn("elu", lambda x: x if x > 0 else mp.expm1(x)),
    _nn("celu", lambda x: x if x > 0 else mp.expm1(x)),
    _nn("selu", _selu),
    _nn("hard_tanh", lambda x: _clip(x, -1, 1)),
    _nn("hard_sigmoid", lambda x: _clip(x + 3, 0, 6) / 6),
    _nn("hard_silu", lambda x: x * _clip(x + 3, 0, 6) / 6),
    _nn("sparse_plus", _sparse_plus),
    _nn("sparse_sigmoid", lambda x: _clip((x + 1) / 2, 0, 1)),
    _nn("tanh", mp.tanh),
    _nn("log1mexp", lambda x: mp.log(-mp.expm1(-x)), POSITIVE),
)

ELEMENTARY = (
    _np("sinc", lambda x: mp.sinc(mp.pi * x), (*CLOSE, 0.0)),
    _np("logaddexp(x, 0)", _softplus, LINE, lambda x: jnp.logaddexp(x, 0.0)),
    _np("logaddexp2(x, 0)", lambda x: mp.log1p(2**x) / mp.log(2), LINE, lambda x: jnp.logaddexp2(x, 0.0)),
    _np("i0", lambda x: mp.besseli(0, x), CLOSE),
    _np("cbrt", lambda x: mp.cbrt(x), POSITIVE),
    _np("sqrt", mp.sqrt, POSITIVE),
    _np("log1p", mp.log1p, (-0.999, -0.5, *POSITIVE)),
    _np("expm1", mp.expm1, (-30.0, -1.0, *POSITIVE)),
    _np("log2", lambda x: mp.log(x, 2), POSITIVE),
    _np("exp2", lambda x: 2**x, (-30.0, -1.0, *POSITIVE)),
    _np("arcsinh", mp.asinh, CLOSE),
    _np("arccosh", mp.acosh, (1.001, 1.5, 3.0, 100.0, 1e10)),
    _np("arctanh", mp.atanh, OPEN),
    _np("arcsin", mp.asin, OPEN),
    _np("arccos", mp.acos, OPEN),
    _np("arctan2(x, 1)", mp.atan, LINE, lambda x: jnp.arctan2(x, 1.0)),
    _np("hypot(x, 1)", lambda x: mp.hypot(x, 1), LINE, lambda x: jnp.hypot(x, 1.0)),
    _np("tan", mp.tan, OPEN),
)

SPECIAL = (
    _special("logit", lambda x: mp.log(x / (1 - x)), UNIT),
    _special("xlogy(x, 2)", lambda x: x * mp.log(2), (0.0, *POSITIVE), lambda x: special.xlogy(x, 2.0)),
    _special("xlogy(2, x)", lambda x: 2 * mp.log(x), POSITIVE, lambda x: special.xlogy(2.0, x)),
    _special("xlogy(x, x)", lambda x: x * mp.log(x), POSITIVE, lambda x: special.xlogy(x, x)),
    _special("xlog1py(x, 2)", lambda x: x * mp.log(3), (0.0, *POSITIVE), lambda x: special.xlog1py(x, 2.0)),
    _special("xlog1py(2, x)", lambda x: 2 * mp.log1p(x), (-0.9, *POSITIVE), lambda x: special.xlog1py(2.0, x)),
    _special("entr", lambda x: -x * mp.log(x), POSITIVE),
    _special("rel_entr(x, 2)", lambda x: x * mp.log(x / 2), POSITIVE, lambda x: special.rel_entr(x, 2.0)),
    _special("rel_entr(2, x)", lambda x: 2 * mp.log(2 / x), POSITIVE, lambda x: special.rel_entr(2.0, x)),
    _special("kl_div(x, 2)", lambda x: x * mp.log(x / 2) - x + 2, POSITIVE, lambda x: special.kl_div(x, 2.0)),
    _special("boxcox(x, 0.5)", lambda x: 2 * (mp.sqrt(x) - 1), POSITIVE, lambda x: special.boxcox(x, 0.5)),
    _special("ndtr", _ndtr, (-12.0, -5.0, -1.0, -1e-10, 0.0, 1.0, 5.0, 12.0)),
    _special("log_ndtr", lambda x: mp.log(_ndtr(x)), (-100.0, -30.0, -12.0, -5.0, -1.0, 0.0, 1.0, 4.0, 8.0)),
    _special("ndtri", lambda x: mp.sqrt(2) * mp.erfinv(2 * x - 1), UNIT[1:]),
    _special("erf", mp.erf, CLOSE),
    _special("erfc", mp.erfc, CLOSE),
    _special("erfinv", mp.erfinv, OPEN),
    _special("erfcx", lambda x: mp.exp(x * x) * mp.erfc(x), (-3.0, -0.5, 0.0, 1e-6, 0.5, 3.0, 30.0, 1e4)),
    _special("dawsn", lambda x: mp.sqrt(mp.pi) / 2 * mp.exp(-x * x) * mp.erfi(x),
             (-3.0, 0.0, 1e-6, 0.9, 5.0, 30.0, 1e4)),
    _special("expi", mp.ei, (-30.0, -5.0, -1.0, 1e-6, 0.5, 3.0, 30.0)),
    _special("exp1", mp.e1, MIDDLE),
    _special("expn(2, x)", lambda x: mp.expint(2, x), MIDDLE, lambda x: special.expn(2, x)),
    _special("sici, Si", mp.si, (-20.0, -1.0, 1e-6, 0.5, 3.0, 20.0), lambda x: special.sici(x)[0]),
    _special("sici, Ci", mp.ci, MIDDLE, lambda x: special.sici(x)[1]),
    _special("fresnel, S", mp.fresnels, (-3.0, 1e-6, 0.5, 2.0, 10.0), lambda x: special.fresnel(x)[0]),
    _special("i0e", lambda x: mp.exp(-abs(x)) * mp.besseli(0, x), (-20.0, -1.0, 1e-6, 0.5, 3.0, 30.0)),
    _special("i1", lambda x: mp.besseli(1, x), (-20.0, -1.0, 0.0, 1e-20, 1e-6, 0.5, 3.0, 30.0)),
    _special("i1e", lambda x: mp.exp(-abs(x)) * mp.besseli(1, x), (-20.0, -1.0, 1e-20, 1e-6, 0.5, 3.0, 30.0)),
    _special("gammaln", mp.loggamma, MIDDLE),
    _special("gamma", mp.gamma, (-1.5, -0.5, *MIDDLE)),
    _special("digamma", mp.digamma, (-1.5, -0.5, *MIDDLE)),
    _special("polygamma(1, x)", lambda x: mp.psi(1, x), MIDDLE, lambda x: special.polygamma(1, x)),
    _special("zeta(x, 2)", lambda x: mp.zeta(x, 2), (1.1, 1.5, 3.0, 20.0), lambda x: special.zeta(x, 2.0)),
    _special("zeta(3, x)", lambda x: mp.zeta(3, x), MIDDLE, lambda x: special.zeta(3.0, x)),
    _special("betaln(x, 2)", lambda x: mp.log(mp.beta(x, 2)), MIDDLE, lambda x: special.betaln(x, 2.0)),
    _special("betainc(2, 3, x)", lambda x: mp.betainc(2, 3, 0, x, regularized=True), UNIT,
             lambda x: special.betainc(2.0, 3.0, x)),
    _special("gammainc(2, x)", lambda x: mp.gammainc(2, 0, x, regularized=True), MIDDLE,
             lambda x: special.gammainc(2.0, x)),
    _special("gammainc(x, 2)", lambda x: mp.gammainc(x, 0, 2, regularized=True), (0.1, 0.5, 1.0, 3.0, 20.0),
             lambda x: special.gammainc(x, 2.0)),
    _special("gammaincc(2, x)", lambda x: mp.gammainc(2, x, mp.inf, regularized=True), MIDDLE,
             lambda x: special.gammaincc(2.0, x)),
    _special("spence", lambda x: mp.re(mp.polylog(2, 1 - x)), (1e-3, 0.3, 0.9, 1.0, 1.001, 1.5, 2.0, 10.0)),
    _special("hyp1f1(1, 2, x)", lambda x: mp.hyp1f1(1, 2, x), (-5.0, -0.5, 1e-6, 0.5, 3.0, 20.0),
             lambda x: special.hyp1f1(1.0, 2.0, x)),
    _special("hyp2f1(1, 2, 3, x)", lambda x: mp.hyp2f1(1, 2, 3, x), (-0.5, 1e-6, 0.3, 0.5, 0.9),
             lambda x: special.hyp2f1(1.0, 2.0, 3.0, x)),
    _special("poch(x, 2)", lambda x: mp.rf(x, 2), MIDDLE, lambda x: special.poch(x, 2.0)),
)  # fmt: skip

LOSSES = (
    _optax("huber_loss", lambda x: x * x / 2 if abs(x) <= 1 else abs(x) - mp.mpf(1) / 2, LINE, 0.0),
    _optax("log_cosh", lambda x: mp.log(mp.cosh(x)), LINE, 0.0),
    _optax("l2_loss", lambda x: x * x / 2, LINE, 0.0),
    _optax("sigmoid_binary_cross_entropy", lambda x: _softplus(-x), LINE, 1.0),
    _optax("sigmoid_focal_loss", _focal, LINE, 1.0),
    _optax("hinge_loss", lambda x: max(0, 1 - x), LINE, 1.0),
    _optax("perceptron_loss", lambda x: max(0, -x), LINE, 1.0),
)

SCALAR_RULES = (*ACTIVATIONS, *ELEMENTARY, *SPECIAL, *LOSSES)


def derivatives(rule: ScalarRule, point: float) -> tuple[float, float] | None:
    """Return the derivatives from the left and from the right by mpmath, ``None`` where there are none that are real.

    They differ at a kink, where every number between them is a derivative in the sense of subgradients.
    """
    sides = []
    for direction in (-1, 1):
        try:
            slope = mpmath.diff(rule.plain, mp.mpf(point), direction=direction)
        except (ValueError, ZeroDivisionError, mpmath.libmp.NoConvergence):
            return None
        if abs(mp.im(slope)) > 0:
            return None
        sides.append(float(mp.re(slope)))
    return min(sides), max(sides)
