"""Ties in a program: comparisons of equal numbers, and the program's gradient with each tie decided."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._numerics.program import (
    Place,
    Program,
    bind,
    callee,
    compile_programs,
    equation_at,
    evaluate_jaxpr,
    is_cheaper_compiled,
    is_inlined,
    jit_once,
    primitive_names,
)

_SCREEN = 1e-6  # a tie's difference beside its operands, in compiled code too: a cancellation loses fewer digits
_COMPARISONS = ("gt", "ge", "lt", "le")
_TWO_SIDED = {"max", "min", "abs", "clamp", *_COMPARISONS}
_EXTREMES = {"reduce_max": np.max, "reduce_min": np.min}
_WORDS = {"max": "maximum", "min": "minimum", "abs": "|x|", "reduce_max": "max", "reduce_min": "min", "clamp": "clip"}


class Tie(NamedTuple):
    """The name of an operation, and the entries in which the difference that decides its side is 0."""

    name: str
    mask: np.ndarray


Ties: TypeAlias = dict[Place, Tie]


class AllTies(NamedTuple):
    """The ties of a program.

    Fields:
        exact: those in which the difference is 0 where every operation is compiled alone.
        near: those in which it is 0 up to rounding. A compiler may round a product and a sum together, and so give
            10⁻¹⁷ instead of a tie.
    """

    exact: Ties
    near: Ties


def find_ties(program: Program | None, params: PyTree, spacing: float) -> AllTies:
    """Return the operations that depend on the parameters and have ties.

    The program runs as one compiled program first. Only if something may be a tie, it runs operation by operation.

    Args:
        program, params: the program and its argument.
        spacing: ε of its arithmetic.
    """
    if program is None or not primitive_names(program.jaxpr) & (_TWO_SIDED | set(_EXTREMES)):
        return AllTies({}, {})
    leaves = jax.tree.leaves(params)
    seen: dict[Place, Any] = {}
    is_compiled = not primitive_names(program.jaxpr) & {"cond", "scan"} and is_cheaper_compiled([program])
    if is_compiled and not _has_candidates(program, leaves, spacing):
        return AllTies({}, {})
    found = _operands(program.jaxpr, leaves, seen)
    return AllTies(_select_ties(found, seen, 0.0), _select_ties(found, seen, 8 * spacing))


def _has_candidates(program: Program, leaves, spacing) -> bool:
    """Whether a compiled run has a difference that is small beside its operands, and may be a tie."""
    for place, values in compile_programs(_operands_by_place, [program])(leaves).items():
        equation = equation_at(program.jaxpr, place)
        margin = max(_SCREEN, 64 * spacing) * max(map(_largest, values))
        if _tie_mask(equation.primitive.name, values, equation.params.get("axes"), margin).any():
            return True
    return False


def _operands_by_place(program: Program):
    """The operands of the two-sided operations, compiled. Values are pairs of an array and its dependence."""

    def operands(constants, leaves):
        found: dict[Place, list] = {}

        def rule(equation, arguments, place):
            if is_inlined(equation):
                return None
            pairs = [argument if isinstance(argument, tuple) else (argument, False) for argument in arguments]
            name, values = equation.primitive.name, [value for value, _ in pairs]
            depends = name != "stop_gradient" and any(each for _, each in pairs)
            if depends and _may_tie(name, values):
                found[place] = values
            return [(output, depends) for output in bind(equation, values)]

        jaxpr = program.jaxpr.replace(consts=list(constants[0]))
        evaluate_jaxpr(jaxpr, [(leaf, True) for leaf in leaves], rule, (), lambda value: value)
        return found

    return operands


def _operands(jaxpr, leaves, seen: dict[Place, Any]) -> dict[Place, tuple[list, float]]:
    """Return the operands of every two-sided operation that depends on the parameters; enter equations in ``seen``.

    The operands come with the size of the largest number that they were computed from: a difference of two equal
    numbers is 0 up to the rounding of these.
    """
    found: dict[Place, tuple[list, float]] = {}

    def rule(equation, arguments, place):
        name, seen[place] = equation.primitive.name, equation
        if is_inlined(equation):
            return None
        known = [argument if isinstance(argument, tuple) else _known(argument, False, 0.0) for argument in arguments]
        values = [value for value, _, _ in known]
        outputs = bind(equation, values)
        depends = name != "stop_gradient" and any(np.any(each) for _, each, _ in known)
        if not depends:
            return [_known(output, False, 0.0) for output in outputs]
        size = max(part for value, _, sizes in known for part in (_largest(value), float(np.max(sizes, initial=0.0))))
        if _may_tie(name, values):
            found[place] = values, size
        return [_known(output, True, size) for output in outputs]

    evaluate_jaxpr(jaxpr, [_known(leaf, True, 0.0) for leaf in leaves], rule, (), lambda value: value)
    return found


def _known(value, depends, size) -> tuple:
    """Return a value, whether it depends on the parameters, and the size of what it was computed from.

    All three are arrays of one shape, because a ``scan`` that is unrolled slices them alike.
    """
    shape = np.shape(value)
    return value, np.broadcast_to(depends, shape), np.broadcast_to(size, shape)


def _largest(array) -> float:
    if not jnp.issubdtype(jnp.result_type(array), jnp.floating):
        return 0.0
    sizes = np.abs(np.asarray(array).astype(float))
    return float(np.max(sizes, initial=0.0, where=np.isfinite(sizes)))


def _select_ties(found, seen: dict[Place, Any], slack) -> Ties:
    ties = {}
    for place, (values, size) in found.items():
        equation = seen[place]
        mask = _tie_mask(equation.primitive.name, values, equation.params.get("axes"), slack * size)
        if mask.any():
            around = [seen.get(place[:end]) for end in range(len(place) - 1, 0, -1)]
            ties[place] = Tie(_operation_name(equation.primitive.name, around), mask)
    return ties


def _operation_name(name, around):
    """Return the name of the JAX function that contains the operation, such as ``relu``, or else of the operation."""
    names = [str(equation.params.get("name") or "").strip("_<>") for equation in around if equation is not None]
    known = [word for word in names if word not in ("", "where") and (hasattr(jax.nn, word) or hasattr(jnp, word))]
    return known[0] if known else _WORDS.get(name, "a comparison")


def _may_tie(name, values):
    """Whether an operation compares floating numbers."""
    return name in (*_EXTREMES, *_TWO_SIDED) and jnp.issubdtype(jnp.result_type(values[-1]), jnp.floating)


def _tie_mask(name, values, axes, margin):
    """Return where the two sides are equal, up to a margin."""
    arrays = [np.asarray(value) for value in values]
    with np.errstate(invalid="ignore"):
        if name in _EXTREMES:
            array, axes = arrays[0], tuple(axes)
            at_extreme = np.abs(array - _EXTREMES[name](array, axis=axes, keepdims=True)) <= margin
            at_extreme |= array == _EXTREMES[name](array, axis=axes, keepdims=True)
            return at_extreme & (at_extreme.sum(axis=axes, keepdims=True) > 1)
        if name == "clamp":
            low, middle, high = arrays
            return (np.abs(middle - low) <= margin) | (np.abs(middle - high) <= margin)
        return np.abs(_difference(name, arrays)) <= margin


def _difference(name, values):
    """Return the difference that decides the side: of two operands, or of a clipped value and the nearer bound."""
    arrays = [np.asarray(value) for value in values]
    if name == "abs":
        return arrays[0]
    if name == "clamp":
        low, middle, high = arrays
        return middle - np.where(np.abs(middle - low) < np.abs(middle - high), low, high)
    with np.errstate(invalid="ignore"):
        return arrays[0] - arrays[1]


def coupled_ties(program: Program, params: PyTree, ties: Ties, spacing: float) -> list[dict[Place, bool]]:
    """Return the ties in groups whose differences move together in every direction of the parameters.

    A softplus as max(z, 0) + log(1 + e^−|z|) has two ties at z = 0, and no kink: they can't be on different sides.

    Returns:
        For each group its places, with whether each is on the upper side when the first one is.
    """
    if len(ties) == 1:
        return [dict.fromkeys(ties, True)]
    moves = [_differences_after_a_move(program, params, ties, spacing, seed) for seed in range(2)]
    groups: list[dict[Place, bool]] = []
    signatures: list[np.ndarray] = []
    for place in ties:
        signature = np.concatenate([move.get(place, np.zeros(0)) for move in moves])
        for group, other in zip(groups, signatures, strict=True):
            same = _sign_between(signature, other)
            if same is not None:
                group[place] = same
                break
        else:
            groups.append({place: True})
            signatures.append(signature)
    return groups


def _differences_after_a_move(program, params, ties, spacing, seed):
    random, found = np.random.default_rng(seed), {}

    def moved(leaf):
        array = np.asarray(leaf)
        size = float(np.max(np.abs(array), initial=0.0)) or 1.0
        return leaf + jnp.asarray(random.standard_normal(array.shape) * size * spacing**0.5, leaf.dtype)

    def rule(equation, arguments, place):
        if is_inlined(equation):
            return None
        if place in ties and equation.primitive.name in _TWO_SIDED:
            found[place] = _difference(equation.primitive.name, arguments)[ties[place].mask]
        return bind(equation, arguments)

    program.outputs([moved(leaf) for leaf in jax.tree.leaves(params)], rule)
    return found


def _sign_between(first, second):
    """Return whether one signature is a positive multiple of the other; ``None`` if it isn't a multiple."""
    size = np.linalg.norm(second) * np.linalg.norm(first)
    if first.shape != second.shape or not size:
        return None
    cosine = float(first @ second / size)
    return cosine > 0 if abs(abs(cosine) - 1) < 1e-9 else None


def gradient_by_side(
    program: Program, params: PyTree, ties: Ties
) -> Callable[[dict[Place, float | np.ndarray]], list[np.ndarray]]:
    """Return the program's gradient as a function of the sides of its ties.

    A side is a number from 0, the lower one, to 1, or an array of such numbers.
    """
    opened = {place[:end] for place in ties for end in range(1, len(place))}

    def decided(params, sides):
        def rule(equation, arguments, place):
            if place in ties:
                return [_decide(equation, arguments, ties[place].mask, sides[place])]
            return bind(equation, arguments) if callee(equation) is not None and place not in opened else None

        return jax.tree.leaves(jax.grad(lambda at: program.evaluate(at, rule))(params))

    has_branches = primitive_names(program.jaxpr) & {"cond", "scan"}
    compiled = decided if has_branches or not is_cheaper_compiled([program], operations=3) else jit_once(decided)

    def gradient(sides):
        arrays = {
            place: np.broadcast_to(np.asarray(side, float), ties[place].mask.shape) for place, side in sides.items()
        }
        return [np.asarray(leaf) for leaf in compiled(params, arrays)]

    return gradient


def _decide(equation, arguments, mask, share):
    """Return the output of an equation with the difference that decides its side above 0 (1), below 0 (0), or between.

    A comparison has no middle: it is above from one half on.
    """
    name, (output,) = equation.primitive.name, bind(equation, arguments)
    if name in _COMPARISONS:
        return jnp.where(mask, (share >= 0.5) == (name in ("gt", "ge")), output)
    if name in _EXTREMES:
        return _decide_extreme(arguments[0], output, mask, equation.params["axes"], share)
    if name in ("max", "min"):
        above, below = arguments if name == "max" else arguments[::-1]
    elif name == "abs":
        above, below = arguments[0], -arguments[0]
    else:
        low, middle, high = arguments
        at_low = mask & (middle == low)
        above, below = jnp.where(at_low, middle, high), jnp.where(at_low, low, middle)
    return jnp.where(mask, (share * above + (1 - share) * below).astype(output.dtype), output)


def _decide_extreme(array, output, mask, axes, share):
    """Return the first of equal extremes (0), the last one (1), or a mean of both."""
    backward = tuple(np.s_[::-1] for _ in mask.shape)
    share = jnp.mean(share)
    weight = (1 - share) * _first(mask, axes) + share * _first(mask[backward], axes)[backward]
    weighed = jnp.where(mask, array, 0.0) * jnp.asarray(weight, array.dtype)
    return jnp.where(mask.any(axis=axes), weighed.sum(axis=axes), output)


def _first(mask, axes):
    """Return a mask of the first true entry along ``axes``, in row-major order."""
    kept = [axis for axis in range(mask.ndim) if axis not in axes]
    order = (*kept, *axes)
    rows = mask.transpose(order).reshape(*(mask.shape[axis] for axis in kept), -1)
    first = rows & (rows.cumsum(axis=-1) == 1)
    return first.reshape([mask.shape[axis] for axis in order]).transpose(np.argsort(order))
