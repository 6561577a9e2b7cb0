"""The check of a rule in the dtype of its arguments, beside the digits that a sound implementation has in that dtype.

The reference's gradient is computed in float64, exactly and with the result of every operation rounded to the narrowest
dtype of the arguments. The second is the rounded reference: it has the digits that an implementation can have that
rounds every intermediate value. A rule may have an error of a few times the rounded reference's.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._numerics.arrays import as_float64, distances, max_abs
from funcnn._numerics.precision import allow_promotion, cast_array, enable_x64, highest_matmul_precision, widen
from funcnn._numerics.program import Program, bind, callee, jit_once, trace
from funcnn._numerics.rewriting import rewrite
from funcnn._numerics.widening import widen_program
from funcnn.gradcheck.engine.functions import describe_error
from funcnn.gradcheck.engine.pullbacks import Arguments
from funcnn.gradcheck.explanation.numbers import best_factor, format_factor
from funcnn.gradcheck.report import Cause, LeafReport

_ROUNDED_ERRORS = 4.0
"""How many times the rounded reference's error a rule may have."""

_LEAST_POWER = 0.75  # of ε, the share of a leaf's largest entry that counts as rounding in any case


class Rule(NamedTuple):
    """A gradient to be judged, and the plain function that it is a gradient of.

    Fields:
        plain: ``(*args) -> output``.
        forward: the function in question, without its gradient.
        pull: ``(arguments, cotangent) -> (output, a gradient for each floating argument)``.
        split: from the arguments to those parts that the gradients are of.
    """

    plain: Callable[..., PyTree]
    forward: Callable[..., PyTree]
    pull: Callable[[Arguments, PyTree], tuple[PyTree, PyTree]]
    split: Callable[[tuple], Arguments]


class Outcome(NamedTuple):
    """What was found in one case.

    Fields:
        state: ``"right"``, ``"wrong"``, or ``"rejected"`` if the function or the reference doesn't take the arguments.
        detail: the digits, the difference, or the error.
        leaves: a row for each gradient at its worst cotangent; empty if there are no values.
        digits: the decimal digits of the worst gradient.
        sound: the digits of the rounded reference there.
        cause: what is wrong, as far as the values of this case show it.
    """

    state: Literal["right", "wrong", "rejected"]
    detail: str
    leaves: tuple[LeafReport, ...] = ()
    digits: float = math.nan
    sound: float = math.nan
    cause: Cause | None = None


class CannotTrace(Exception):  # noqa: N818 - a fact about the caller's function, which never leaves the plugin
    """The plain function can't be traced or differentiated by JAX, so that it is no reference here."""


def judge(rule: Rule, args: tuple, cotangent_dtype: str = "") -> Outcome:
    """Return what a rule's gradients are for some arguments, in their own dtypes.

    The cotangents are random numbers, all ones, a one at one place, and zeros. For a cotangent of another dtype the
    output is cast to it.

    Raises:
        CannotTrace: there is no reference by autodiff.
    """
    arguments = rule.split(args)
    try:
        with allow_promotion():
            expected = _shapes(rule.plain, arguments)
    except jax.errors.JAXTypeError as error:
        raise CannotTrace(describe_error(error, 200)) from error
    except Exception as error:  # whatever a function raises for arguments that it doesn't take
        return Outcome("rejected", f"the reference doesn't take it: {describe_error(error, 200)}")
    cotangents = {kind: _cotangent(kind, expected) for kind in ("random", "all ones", "one-hot", "zero")}
    if cotangent_dtype:
        cotangents = {kind: _rounded_tree(tree, cotangent_dtype) for kind, tree in cotangents.items()}
    exact, rounded = _references(rule, arguments, cotangents)
    try:
        with highest_matmul_precision(), allow_promotion():
            found = _by_rule(rule, arguments, cotangents, cotangent_dtype)
    except NotImplementedError as error:
        return Outcome("rejected", f"the function doesn't take it: {describe_error(error, 200)}")
    except Exception as error:  # whatever a rule raises
        return outcome_of_error(rule.forward, arguments, error)
    return _compared(arguments, expected, found, exact, rounded)


def divides_by_zero(function: Callable[..., PyTree], arguments: Arguments) -> bool:
    """Return whether a function divides integers by a constant 0: XLA's compiler then ends the process.

    A number of groups that is computed from a size may be 0 for a small size.
    """
    with allow_promotion():
        program = trace(lambda floating: function(*arguments.filled(floating)), arguments.floating)
    return program is not None and _has_zero_divisor(program.jaxpr, ())


def _has_zero_divisor(jaxpr: Any, inputs: Sequence[Any]) -> bool:
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    known = dict(zip(inner.invars, inputs, strict=False))
    for equation in inner.eqns:
        values = [atom.val if hasattr(atom, "val") else known.get(atom) for atom in equation.invars]
        name, body = equation.primitive.name, callee(equation)
        is_integer = bool(equation.invars) and jnp.issubdtype(equation.invars[0].aval.dtype, jnp.integer)
        if name in ("div", "rem") and is_integer and values[1] is not None and not np.all(values[1]):
            return True
        if body is not None and _has_zero_divisor(body, values):
            return True
        if name in ("convert_element_type", "broadcast_in_dim") and values[0] is not None:
            known[equation.outvars[0]] = values[0]
    return False


def _shapes(function: Callable[..., PyTree], arguments: Arguments) -> PyTree:
    return jax.eval_shape(lambda floating: function(*arguments.filled(floating)), arguments.floating)


def outcome_of_error(forward: Callable[..., PyTree], arguments: Arguments, error: Exception) -> Outcome:
    """Return the outcome where a check raises: a rejection if the forward raises too, and a fault otherwise."""
    words = describe_error(error, 300)
    try:
        with allow_promotion():
            _shapes(forward, arguments)
    except Exception:  # whatever the forward raises for arguments that it doesn't take
        return Outcome("rejected", f"the function doesn't take it: {words}")
    cause: Cause = "shape" if "shape" in str(error) or "aval" in str(error) else "unknown"
    return Outcome("wrong", f"the backward pass raises {words}", cause=cause)


def _by_rule(rule: Rule, arguments: Arguments, cotangents, cotangent_dtype: str) -> dict[str, tuple]:
    floating, whole = arguments

    def both(floating, cotangent):
        return rule.pull(Arguments(floating, whole), cotangent)

    compiled = jit_once(both)
    found = {}
    for kind, cotangent in cotangents.items():
        if cotangent_dtype:
            cotangent = jax.tree.map(lambda leaf: cast_array(jnp.asarray(leaf), jnp.dtype(cotangent_dtype)), cotangent)
        output, gradients = compiled(floating, cotangent)
        found[kind] = ([as_float64(leaf) for leaf in jax.tree.leaves(output)],
                       [as_float64(leaf) for leaf in jax.tree.leaves(gradients)])  # fmt: skip
    return found


def _references(rule: Rule, arguments: Arguments, cotangents) -> tuple[dict[str, tuple], dict[str, tuple]]:
    """Return the reference's output and gradients for each cotangent, exact and rounded."""
    narrowest = max((leaf.dtype for leaf in jax.tree.leaves(arguments.floating)), key=lambda dtype: _epsilon(dtype))
    with enable_x64(True), allow_promotion():
        wide, whole = widen(arguments.floating), widen(arguments.whole)

        def of_plain(tree):
            floating, cotangent = tree
            output, pullback = jax.vjp(lambda at: rule.plain(*Arguments(at, whole).filled(at)), floating)
            return output, pullback(_like(cotangent, output))[0]

        wide_cotangents = {kind: widen(tree) for kind, tree in cotangents.items()}
        first = (wide, wide_cotangents["random"])
        program = trace(of_plain, first)
        if program is None:
            raise CannotTrace("the reference can't be differentiated by autodiff")
        program = widen_program(program, first) or program
        both = jit_once(_both_runs(program, narrowest))
        exact, rounded = {}, {}
        for kind, cotangent in wide_cotangents.items():
            runs = both(jax.tree.leaves((wide, cotangent)))
            exact[kind], rounded[kind] = (_split_outputs(program, run) for run in runs)
    return exact, rounded


def _both_runs(program: Program, dtype: Any) -> Callable:
    """Return the function of a program's inputs to its outputs, exact and with every result rounded to a dtype."""
    info = jnp.finfo(dtype)
    exponent, mantissa = int(info.bits - info.nmant - 1), int(info.nmant)

    def round_output(value):
        if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            return value
        return jax.lax.reduce_precision(value, exponent, mantissa)

    def apply(equation, inputs):
        return [round_output(value) for value in bind(equation, inputs)]

    def runs(leaves):
        return rewrite(program.jaxpr, leaves), rewrite(program.jaxpr, leaves, apply)

    return runs


def _split_outputs(program: Program, leaves) -> tuple:
    output, gradients = jax.tree.unflatten(program.structure, leaves)
    return ([as_float64(leaf) for leaf in jax.tree.leaves(output)],
            [as_float64(leaf) for leaf in jax.tree.leaves(gradients)])  # fmt: skip


def _compared(arguments: Arguments, expected, found, exact, rounded) -> Outcome:
    paths = jax.tree_util.tree_leaves_with_path(arguments.floating)
    narrowest = max(_epsilon(leaf.dtype) for _, leaf in paths)
    rows: list[tuple[LeafReport, float, float, str]] = []

    def scale_of(part, number, kind):
        """Return the largest entry over all cotangents, because a sum may be 0 for one of them; 0 for zeros.

        A gradient below ε |y| / |x| is zero up to rounding for every cotangent.
        """
        if kind == "zero":
            return 0.0
        largest = max(max_abs(side[part][number]) for side in exact.values())
        if part == 0 or not (size := max_abs(as_float64(paths[number][1]))):
            return largest
        usual = max((max_abs(output) for output in exact[kind][0]), default=0.0) / size
        return usual if largest < narrowest * usual else largest

    for kind in found:
        for number, leaf in enumerate(jax.tree.leaves(expected)):
            path = f"output {number}" if len(jax.tree.leaves(expected)) > 1 else "output"
            values = (side[kind][0][number] for side in (found, exact, rounded))
            rows.append((*_row(path, leaf.dtype, narrowest, scale_of(0, number, "random"), *values), kind))
        for number, (keys, leaf) in enumerate(paths):
            name = jax.tree_util.keystr(keys)
            values = (side[kind][1][number] for side in (found, exact, rounded))
            rows.append((*_row(name, leaf.dtype, narrowest, scale_of(1, number, kind), *values), kind))
    worst: dict[str, tuple[LeafReport, float, float, str]] = {}
    for row, digits, sound, kind in rows:
        if row.path not in worst or _badness(row) > _badness(worst[row.path][0]):
            worst[row.path] = (row, digits, sound, kind)
    chosen = sorted(worst.values(), key=lambda entry: -_badness(entry[0]))
    row, digits, sound, kind = chosen[0]
    leaves = tuple(entry[0] for entry in worst.values())
    text = f"{digits:.1f} digits, a sound implementation in {jnp.dtype(row.dtype)} {sound:.1f}"
    if all(leaf.ok for leaf in leaves):
        return Outcome("right", text, leaves, digits, sound)
    where = f"{row.path}{list(row.worst) if row.worst else ''}"
    pair = f"{where} is {row.by_hand:.6g}, the reference's {row.by_autodiff:.6g}"
    return Outcome("wrong", f"{pair}, for a cotangent of {_WORDS[kind]}; {text}", leaves, digits, sound, row.cause)


_WORDS = {"random": "random numbers", "all ones": "all ones", "one-hot": "a one at one place", "zero": "zeros"}


def _badness(row: LeafReport) -> float:
    if row.ok:
        return row.max_abs_difference / row.tolerance if row.tolerance else 0.0
    return math.inf if math.isnan(row.max_abs_difference) else 1e6 + row.relative_difference


def _row(
    path: str, dtype: Any, narrowest: float, largest: float, found, exact, rounded
) -> tuple[LeafReport, float, float]:
    """Return the row of one array, its digits and the rounded reference's; ``largest`` is the scale of its rounding."""
    epsilon = max(_epsilon(dtype), narrowest)
    if found.shape != exact.shape:
        detail = f"has the shape {found.shape}, the reference's {exact.shape}"
        return (LeafReport(path, exact.shape, str(dtype), False, False, math.nan, math.nan, 0.0, "shape", detail),
                0.0, math.nan)  # fmt: skip
    known = np.isfinite(exact)
    scale = max_abs(exact)
    rounded_error = float(np.max(distances(rounded, exact), initial=0.0, where=known & np.isfinite(rounded)))
    tolerance = max(_ROUNDED_ERRORS * (rounded_error + epsilon / 2 * largest), epsilon**_LEAST_POWER * scale)
    gaps = np.where(known, distances(found, exact), 0.0)
    gaps = np.where(known & ~np.isfinite(found) & np.isfinite(rounded), np.inf, np.where(np.isnan(gaps), 0.0, gaps))
    gap = float(np.max(gaps, initial=0.0))
    place = tuple(map(int, np.unravel_index(np.argmax(gaps), gaps.shape))) if gaps.size and gap else ()
    is_right = gap <= tolerance
    cause, detail = (None, "") if is_right else _cause(found, exact, gap, tolerance, scale, epsilon)
    by_hand, by_reference = (_number(array, place) for array in (found, exact))
    relative = gap / scale if scale else (0.0 if not gap else math.inf)
    row = LeafReport(
        path, exact.shape, str(dtype), is_right, gap == 0, gap, relative, tolerance, cause, detail,
        "a few times the error of rounding every intermediate value", place, by_hand, by_reference,
    )  # fmt: skip
    most = -math.log10(epsilon)
    return row, _digits(gap, largest, most), _digits(max(rounded_error, epsilon / 2 * largest), largest, most)


def _number(array: np.ndarray, place: tuple[int, ...]) -> float | complex:
    if not array.size:
        return math.nan
    entry = array[place] if len(place) == array.ndim else array.ravel()[0]
    return complex(entry) if np.iscomplexobj(array) else float(entry)


def _digits(error: float, scale: float, most: float) -> float:
    if not error or not scale:
        return most if not error else 0.0
    return max(0.0, min(most, -math.log10(error / scale))) if math.isfinite(error) else 0.0


def _cause(found, exact, gap, tolerance, scale, epsilon) -> tuple[Cause, str]:
    """Return what is wrong as far as two arrays show it."""
    if not np.isfinite(found).all():
        return "nonfinite", "a NaN or an infinity where the reference is finite"
    if not found.any():
        return "zero", "all zero"
    factor = best_factor(found, exact)
    if abs(factor - 1) > 0.02 and np.all(np.abs(found - factor * exact) <= 4 * tolerance * max(1.0, abs(factor))):
        # The tolerance of eight bits would take any number for any other.
        slack = min(max(10 * tolerance / scale, 1e-9), 0.05) if scale else 1e-9
        if abs(factor + 1) <= slack:
            return "sign", "has the other sign"
        return "scaled", f"is {format_factor(factor, slack)} times the reference's"
    if gap <= math.sqrt(epsilon) * scale:
        return "unstable", "has fewer digits than the dtype allows"
    return "unknown", "differs from the reference's"


def _cotangent(kind: str, shapes: PyTree) -> PyTree:
    """Return a cotangent of one kind for outputs of these shapes; zeros for outputs that aren't floating."""
    random = np.random.default_rng(3)

    def fill(leaf):
        values = np.zeros(leaf.shape, np.float64)
        if kind == "random":
            values = random.standard_normal(leaf.shape)
        elif kind == "all ones":
            values = np.ones(leaf.shape)
        elif kind == "one-hot" and values.size:
            values.flat[int(random.integers(values.size))] = 1.0
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating) and kind == "random":
            values = values + 1j * random.standard_normal(leaf.shape)
        is_inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return np.asarray(values).astype(leaf.dtype if is_inexact else np.float32)

    return jax.tree.map(fill, shapes)


def _rounded_tree(tree: PyTree, dtype: str) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(jnp.dtype(dtype)).astype(leaf.dtype), tree)


def _like(cotangent: PyTree, output: PyTree) -> PyTree:
    """Return a cotangent as JAX expects it for an output: in its dtypes, and float0 for what isn't floating."""

    def fitting(y, dy):
        dtype = jnp.result_type(y)
        is_inexact = jnp.issubdtype(dtype, jnp.inexact)
        return jnp.asarray(dy).astype(dtype) if is_inexact else np.zeros(np.shape(y), jax.dtypes.float0)

    return jax.tree.map(fitting, output, cotangent)


def pull_of_function(function: Callable[..., PyTree]) -> Callable[[Arguments, PyTree], tuple[PyTree, PyTree]]:
    """Return the pull of a function that has a rule: its output and its gradients by ``jax.vjp``.

    A cotangent of another dtype comes through a cast of the output.
    """

    def pull(arguments, cotangent):
        def cast_output(at):
            output = function(*arguments.filled(at))
            return jax.tree.map(
                lambda y, dy: y.astype(dy.dtype) if jnp.issubdtype(y.dtype, jnp.inexact) else y, output, cotangent
            ), output  # fmt: skip

        cast, pullback, output = jax.vjp(cast_output, arguments.floating, has_aux=True)
        return output, pullback(_like(cotangent, cast))[0]

    return pull


def _epsilon(dtype: Any) -> float:
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0
