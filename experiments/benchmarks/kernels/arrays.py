"""Functions of arrays with rules of their own, beside plain functions of the same arguments, with ties and edges."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from funcnn.pytest_plugin.cases import Sweep


class Kernel(NamedTuple):
    """A function of arrays, a plain function of the same arguments, and the cases.

    Fields:
        library, name: what is checked.
        function: ``(*args, **options) -> output``.
        reference: the same in plain operations, which autodiff differentiates.
        args: the arguments of the first case.
        sweep: the other cases; the default ones if it is empty.
        options: keyword arguments.
        is_rule: whether the function has a rule by ``custom_vjp`` or ``custom_jvp``; its vjp is checked otherwise.
    """

    library: str
    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    args: tuple[Any, ...]
    sweep: Sweep = Sweep()
    options: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's field, never changed
    is_rule: bool = False


AS_GIVEN = Sweep(dtypes=("float32",))
"""No other case than the given arguments."""


def normal(*shape: int, seed: int = 0) -> Any:
    """Return standard normal numbers in float32."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def array(values: Any) -> Any:
    """Return an array in float32."""
    return jnp.asarray(values, jnp.float32)


def _log_softmax(x):
    return x - jnp.log(jnp.exp(x).sum(-1, keepdims=True))


def _simplex(x, scale=1.0):
    """Return the projection onto the simplex, by the largest threshold over the sizes of the support."""
    ordered = jnp.sort(x)[::-1]
    sizes = jnp.arange(1, len(x) + 1).astype(x.dtype)
    return jnp.maximum(x - jnp.max((jnp.cumsum(ordered) - scale) / sizes), 0)


def _l1_ball(x):
    inside = jnp.abs(x).sum() <= 1
    return jnp.where(inside, x, jnp.sign(x) * _simplex(jnp.abs(x)))


def _determinant(a):
    """Return the determinant by Leibniz' formula."""
    size, total = a.shape[-1], 0.0
    for order in itertools.permutations(range(size)):
        sign = np.linalg.det(np.eye(size)[list(order)]).round()
        total = total + sign * jnp.stack([a[..., row, column] for row, column in enumerate(order)]).prod(0)
    return total


def _pseudoinverse(a):
    return jnp.linalg.inv(a.T @ a) @ a.T


def _attention(query, key, value, is_causal=False):
    scores = jnp.einsum("bqhc,bkhc->bhqk", query, key) / np.sqrt(query.shape[-1])
    allowed = jnp.tril(jnp.ones(scores.shape[-2:], bool)) | (not is_causal)
    return jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf)), value)


def _of_jax() -> tuple[Kernel, ...]:
    square, tie = normal(3, 3), array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    singular = array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]])
    qkv = tuple(normal(2, 5, 2, 4, seed=seed) for seed in range(3))
    nn, jx = partial(Kernel, "jax.nn"), partial(Kernel, "jax.numpy")
    return (
        nn("softmax", jax.nn.softmax, lambda x: jnp.exp(_log_softmax(x)), (normal(3, 5),), is_rule=True),
        nn("softmax, ties", jax.nn.softmax, lambda x: jnp.exp(_log_softmax(x)), (tie,), is_rule=True),
        nn("log_softmax", jax.nn.log_softmax, _log_softmax, (normal(3, 5),)),
        nn("logsumexp", jax.nn.logsumexp, lambda x: jnp.log(jnp.exp(x).sum()), (normal(3, 5),)),
        nn("logsumexp, ties", jax.nn.logsumexp, lambda x: jnp.log(jnp.exp(x).sum()), (tie,)),
        nn("standardize", jax.nn.standardize,
           lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5), (normal(3, 5),)),
        nn("glu", jax.nn.glu, lambda x: (lambda a, b: a / (1 + jnp.exp(-b)))(*jnp.split(x, 2, -1)), (normal(3, 6),)),
        nn("dot_product_attention", jax.nn.dot_product_attention, _attention, qkv, AS_GIVEN),
        nn("dot_product_attention, causal", partial(jax.nn.dot_product_attention, is_causal=True),
           partial(_attention, is_causal=True), qkv, AS_GIVEN),
        jx("linalg.det", jnp.linalg.det, _determinant, (square,), AS_GIVEN),
        jx("linalg.det, 4 by 4", jnp.linalg.det, _determinant, (normal(2, 4, 4),), AS_GIVEN),
        jx("linalg.det, singular", jnp.linalg.det, _determinant, (singular,), AS_GIVEN),
        jx("linalg.det, zeros", jnp.linalg.det, _determinant, (array(np.zeros((3, 3))),), AS_GIVEN),
        jx("linalg.det, 4 by 4, singular", jnp.linalg.det, _determinant,
           (array(np.diag([1.0, 2.0, 3.0, 0.0])),), AS_GIVEN),
        jx("linalg.slogdet", lambda a: jnp.linalg.slogdet(a)[1], lambda a: jnp.log(jnp.abs(_determinant(a))),
           (normal(4, 4),), AS_GIVEN),
        jx("linalg.pinv", jnp.linalg.pinv, _pseudoinverse, (normal(4, 3),), AS_GIVEN),
        jx("linalg.norm", jnp.linalg.norm, lambda x: jnp.sqrt((x * x).sum()), (normal(3, 5),)),
        jx("cumprod, zeros", jnp.cumprod, lambda x: jnp.stack([jnp.stack(list(x[: n + 1])).prod() for n in range(4)]),
           (array([2.0, 0.0, 3.0, 0.0]),), AS_GIVEN),
        jx("prod, zeros", jnp.prod, lambda x: x[0] * x[1] * x[2] * x[3], (array([2.0, 0.0, 3.0, 0.0]),), AS_GIVEN),
        jx("var", jnp.var, lambda x: (x * x).mean() - x.mean() ** 2, (normal(3, 5),)),
        Kernel("jax.scipy.sparse", "cg", lambda b: jax.scipy.sparse.linalg.cg(_positive(), b, tol=1e-7)[0],
               lambda b: jnp.linalg.solve(_positive(), b), (normal(4),), AS_GIVEN),
        Kernel("jax.lax", "custom_root", _root_by_jax, _root, (normal(4),)),
    )  # fmt: skip


def _positive():
    root = normal(4, 4, seed=5)
    return root @ root.T + 4 * jnp.eye(4, dtype=jnp.float32)


def _root(x):
    """Return y with y³ + y = x, by Cardano's formula."""
    half = jnp.sqrt(x * x / 4 + 1 / 27)
    return jnp.cbrt(x / 2 + half) + jnp.cbrt(x / 2 - half)


def _root_by_jax(x):
    def solve(f, y):
        return jax.lax.fori_loop(0, 40, lambda _, y: y - f(y) / (3 * y * y + 1), y)

    return jax.lax.custom_root(lambda y: y**3 + y - x, jnp.zeros_like(x), solve, lambda g, y: y / g(jnp.ones_like(y)))


def _of_optax() -> tuple[Kernel, ...]:
    onto, losses = optax.projections, optax.losses
    labels, sparse = jax.nn.softmax(normal(3, 5, seed=4)), array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    projection, loss = partial(Kernel, "optax.projections"), partial(Kernel, "optax.losses")
    outside, inside = normal(7), array([0.1, -0.2, 0.05])

    def entropy(logits, labels):
        return -(labels * _log_softmax(logits)).sum(-1)

    def cosine(x, y):
        return (x * y).sum(-1) / jnp.sqrt((x * x).sum(-1) * (y * y).sum(-1))

    def divergence(logits, targets):
        return jnp.where(targets > 0, targets * (jnp.log(jnp.where(targets > 0, targets, 1.0)) - logits), 0.0).sum(-1)

    sizes = Sweep(shapes=((7,), (2,), (11,)))
    picked = jnp.array([1, 0, 4])
    return (
        projection("projection_simplex", onto.projection_simplex, _simplex, (outside,), sizes),
        projection("projection_simplex, one number", onto.projection_simplex, _simplex, (outside[:1],), AS_GIVEN),
        projection("projection_l1_ball", onto.projection_l1_ball, _l1_ball, (outside,), sizes),
        projection("projection_l1_ball, inside", onto.projection_l1_ball, _l1_ball, (inside,), AS_GIVEN),
        projection("projection_l2_ball", onto.projection_l2_ball, lambda x: x / jnp.sqrt((x * x).sum()), (outside,),
                   AS_GIVEN),
        projection("projection_l2_ball, inside", onto.projection_l2_ball, lambda x: 1 * x, (inside,), AS_GIVEN),
        projection("projection_l2_ball, zero", onto.projection_l2_ball, lambda x: 1 * x, (0 * inside,), AS_GIVEN),
        projection("projection_l1_ball, zero", onto.projection_l1_ball, lambda x: 1 * x, (0 * inside,), AS_GIVEN),
        projection("projection_linf_ball", onto.projection_linf_ball, lambda x: jnp.clip(x, -1, 1), (outside,), sizes),
        projection("projection_l2_sphere", onto.projection_l2_sphere, lambda x: x / jnp.sqrt((x * x).sum()),
                   (outside,), sizes),
        projection("projection_non_negative", onto.projection_non_negative, lambda x: jnp.maximum(x, 0), (outside,),
                   sizes),
        projection("projection_hyperplane", lambda x, a: onto.projection_hyperplane(x, a, 1.0),
                   lambda x, a: x - a * ((a * x).sum() - 1) / (a * a).sum(), (outside, normal(7, seed=3)), sizes),
        projection("projection_halfspace", lambda x, a: onto.projection_halfspace(x, a, 1.0),
                   lambda x, a: x - a * jnp.maximum((a * x).sum() - 1, 0) / (a * a).sum(),
                   (outside, normal(7, seed=3)), sizes),
        loss("softmax_cross_entropy", losses.softmax_cross_entropy, entropy, (normal(3, 5), labels)),
        loss("softmax_cross_entropy, labels of 0", losses.softmax_cross_entropy, entropy, (normal(2, 3), sparse),
             AS_GIVEN),
        loss("safe_softmax_cross_entropy", losses.safe_softmax_cross_entropy, entropy, (normal(3, 5), labels)),
        loss("safe_softmax_cross_entropy, labels of 0", lambda x: losses.safe_softmax_cross_entropy(x, sparse),
             lambda x: entropy(x, sparse), (normal(2, 3),), AS_GIVEN),
        loss("softmax_cross_entropy_with_integer_labels",
             lambda x: losses.softmax_cross_entropy_with_integer_labels(x, picked),
             lambda x: -_log_softmax(x)[jnp.arange(3), picked], (normal(3, 5),), AS_GIVEN),
        loss("kl_divergence", losses.kl_divergence, divergence, (_log_softmax(normal(3, 5)), labels)),
        loss("kl_divergence, targets of 0", lambda x: losses.kl_divergence(x, sparse),
             lambda x: divergence(x, sparse), (_log_softmax(normal(2, 3)),), AS_GIVEN),
        loss("cosine_similarity", losses.cosine_similarity, cosine, (normal(3, 5), normal(3, 5, seed=2))),
        loss("poly_loss_cross_entropy", losses.poly_loss_cross_entropy,
             lambda x, y: entropy(x, y) + 2 * (y * (1 - jnp.exp(_log_softmax(x)))).sum(-1), (normal(3, 5), labels)),
        loss("ranking_softmax_loss", losses.ranking_softmax_loss, lambda x, y: entropy(x, y).mean(),
             (normal(3, 5), labels), AS_GIVEN),
    )  # fmt: skip


def _of_others() -> tuple[Kernel, ...]:
    """Return the functions of Equinox, Flax, Lineax and Optimistix, as far as they are installed."""
    found: list[Kernel] = []
    try:
        import equinox.internal as eqxi

        def powers(x):
            def step(state):
                return state[0] + 1, state[1] * x + jnp.sin(state[1])

            start, bounds = (0, jnp.ones_like(x)), {"max_steps": 8, "checkpoints": 2}
            return eqxi.while_loop(lambda state: state[0] < 5, step, start, kind="checkpointed", **bounds)[1]

        def plain_powers(x):
            y = jnp.ones_like(x)
            for _ in range(5):
                y = y * x + jnp.sin(y)
            return y

        found.append(Kernel("equinox", "while_loop, checkpointed", powers, plain_powers, (normal(4),)))
    except ImportError:
        pass
    try:
        from flax.linen import fp8_ops

        columns = (((1,), (0,)), ((), ()))
        # With a largest value of 448, that of the format, its scale is 1, and quarters below 4 are its numbers.
        one, largest = jnp.ones(1, jnp.float32), jnp.full(16, 448.0, jnp.float32)
        quarters = jnp.round(4 * normal(3, 5)) / 4

        def straight_through(x):
            return fp8_ops.in_qdq(jnp.float32, jnp.float8_e4m3fn, x, one, largest)

        found += [
            Kernel("flax", "fp8_ops.dot_general_with_precision",
                   lambda a, b: fp8_ops.dot_general_with_precision(a, b, columns), lambda a, b: a @ b,
                   (normal(3, 5), normal(5, 4, seed=1)), Sweep(shapes=(((1, 7), (7, 2)), ((4, 1), (1, 3)))),
                   is_rule=True),
            Kernel("flax", "fp8_ops.in_qdq, numbers of the format", straight_through, lambda x: 1 * x, (quarters,),
                   AS_GIVEN, is_rule=True),
        ]  # fmt: skip
    except ImportError:
        pass
    try:
        import lineax

        def solve(a, b):
            return lineax.linear_solve(lineax.MatrixLinearOperator(a), b).value

        def fit(a, b):
            return lineax.linear_solve(lineax.MatrixLinearOperator(a), b, lineax.QR()).value

        found += [
            Kernel("lineax", "linear_solve, LU", solve, jnp.linalg.solve, (_positive(), normal(4)), AS_GIVEN),
            Kernel("lineax", "linear_solve, QR, 5 by 3", fit, lambda a, b: _pseudoinverse(a) @ b,
                   (normal(5, 3), normal(5, seed=1)), AS_GIVEN),
        ]  # fmt: skip
    except ImportError:
        pass
    try:
        import optimistix

        def root(x):
            solver = optimistix.Newton(rtol=1e-7, atol=1e-7)
            return optimistix.root_find(lambda y, x: y**3 + y - x, solver, jnp.zeros_like(x), args=x).value

        def minimum(x):
            solver = optimistix.LevenbergMarquardt(rtol=1e-7, atol=1e-7)
            return optimistix.least_squares(lambda y, x: y**3 + y - x, solver, jnp.ones_like(x), args=x).value

        found += [
            Kernel("optimistix", "root_find, Newton", root, _root, (normal(4),), AS_GIVEN),
            Kernel("optimistix", "least_squares, LevenbergMarquardt", minimum, _root, (normal(4),), AS_GIVEN),
        ]
    except ImportError:
        pass
    return tuple(found)


def array_rules() -> tuple[Kernel, ...]:
    """Return the functions of all libraries."""
    return (*_of_jax(), *_of_optax(), *_of_others())


def pallas_rules() -> tuple[Kernel, ...]:
    """Return the Pallas operations with a rule, in interpret mode. Their import needs JAX's Triton support."""
    from jax.experimental.pallas.ops.gpu import attention, layer_norm, rms_norm

    shapes = (((2, 4, 8), (8,), (8,)), ((1, 3, 7), (7,), (7,)), ((3, 17, 130), (130,), (130,)))
    blocks = attention.BlockSizes(16, 16, 16, 16, 16, 16)
    norm_args = normal(2, 4, 8), normal(8, seed=1), normal(8, seed=2)

    def mha(q, k, v, causal=False):
        return attention.mha(q, k, v, None, 0.25, causal, blocks, "triton", None, 2, None, True)

    def plain_layer_norm(x, weight, bias):
        moved = x - x.mean(-1, keepdims=True)
        return moved * jax.lax.rsqrt((moved**2).mean(-1, keepdims=True) + 1e-5) * weight + bias

    def plain_rms_norm(x, weight, bias):
        return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight + bias

    def interpreted(function):
        return lambda x, weight, bias: function(x, weight, bias, None, 3, 1e-5, "triton", True)

    pallas, norms = partial(Kernel, "jax.experimental.pallas"), Sweep(shapes=shapes, dtypes=("float32", "bfloat16"))
    attended = Sweep(shapes=(((1, 32, 2, 16),) * 3, ((1, 16, 1, 16),) * 3), options={"causal": [False, True]})
    qkv = tuple(normal(1, 32, 2, 16, seed=seed) for seed in range(3))
    return (
        pallas("layer_norm", interpreted(layer_norm.layer_norm), plain_layer_norm, norm_args, norms, is_rule=True),
        pallas("rms_norm", interpreted(rms_norm.rms_norm), plain_rms_norm, norm_args, norms, is_rule=True),
        pallas("mha", mha, lambda q, k, v, causal=False: _attention(q, k, v, causal), qkv, attended, {"causal": False},
               is_rule=True),
    )  # fmt: skip
