"""A vjp of a function with any output, examined as the gradients of Σ y dy."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from funcnn._checks import check_key, is_concrete
from funcnn._numerics.arrays import as_float64, distances, max_abs
from funcnn._numerics.drawing import numpy_generator
from funcnn._numerics.precision import cast_array
from funcnn._numerics.program import jit_once, trace
from funcnn._numerics.rounding import rounding_dtypes
from funcnn._tree_checks import describe_tree, same_structure
from funcnn.gradcheck.engine.examination import examine
from funcnn.gradcheck.engine.functions import check_any_floating, check_arguments, uncompared
from funcnn.gradcheck.engine.precision import Comparison
from funcnn.gradcheck.engine.properties import agreement, linearity, not_checked
from funcnn.gradcheck.engine.surrogates import SURROGATE
from funcnn.gradcheck.report import GradientReport, PropertyReport


class Arguments(NamedTuple):
    """A call's arguments: those parts that can be differentiated, ``None`` elsewhere; and the whole."""

    floating: tuple
    whole: tuple

    def filled(self, floating: tuple) -> tuple:
        """The arguments with their floating parts replaced."""
        return jax.tree.map(
            lambda new, old: old if new is None else new, floating, self.whole, is_leaf=lambda leaf: leaf is None
        )


class Question(NamedTuple):
    """A function, a vjp of it and a call; examined as the gradients of Σ y dy by the floating arguments."""

    name: str
    function: Callable[..., PyTree]
    vjp: Callable[..., tuple]
    arguments: Arguments
    key: PRNGKeyArray | None

    def examined(self, also, properties, no_autodiff="") -> GradientReport:
        arguments = self.arguments.floating, self.arguments.whole, self.cotangents()[0]
        report = examine(
            self.name, self.projection, self.pulled, arguments, also, properties, no_autodiff=no_autodiff
        )  # fmt: skip
        return report._replace(not_compared=uncompared(self.arguments.whole, _is_floating))

    def cotangents(self) -> tuple[PyTree, PyTree]:
        """Return two random cotangents."""
        if self.key is not None:
            check_key(f"{self.name}(key)", self.key)
        arguments = self.arguments
        try:
            shapes = jax.eval_shape(lambda floating: self.function(*arguments.filled(floating)), arguments.floating)
        except Exception:  # code that JAX can't trace, such as NumPy's
            output = self.function(*arguments.whole)
            shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)), output)
        if not any(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(shapes)):
            raise TypeError(
                f"{self.name}(function): expected at least one floating output to differentiate, got "
                f"{describe_tree(shapes)}, none of them floating. Return what is to be differentiated."
            )
        # By NumPy: compiling JAX's draws takes longer than most checks.
        random = np.random.default_rng([0, 0]) if self.key is None else numpy_generator(self.key)
        return _drawn(shapes, random), _drawn(shapes, random)

    def projection(self, floating, whole, cotangent):
        """Return Σ y dy."""
        return _projected(self.function(*Arguments(floating, whole).filled(floating)), cotangent)

    def pulled(self, floating, whole, cotangent):
        """The gradients by the vjp in question."""
        arguments = Arguments(floating, whole)
        returned = self.vjp(*arguments.filled(floating))
        if not (isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])):
            raise TypeError(
                f"{self.name}(vjp): expected (output, pullback) from vjp, got {describe_tree(returned)}. Return the "
                "function's output and a function (cotangent) -> (a gradient for each argument)."
            )
        output, pullback = returned
        try:
            gradients = pullback(_to(output, cotangent))
        except TypeError as error:
            check_arguments(
                f"{self.name}(vjp): its pullback", pullback, (cotangent,), error, "(cotangent)",
                "Return (output, pullback) with pullback(cotangent) -> (a gradient for each argument); residuals are "
                "variables of the function around it.",
            )  # fmt: skip
            raise
        return _floating_gradients(self.name, gradients, floating, whole)

    def report_other_function(self, function) -> GradientReport | None:
        """Return the report of a reference whose values aren't the function's; ``None`` where they are.

        The values may differ by the rounding of the coarsest numbers to which either rounds.
        """

        def program_of(called):
            return trace(lambda at: called(*self.arguments.filled(at)), self.arguments.floating)

        programs = program_of(function), program_of(self.function)
        dtypes = {dtype for program in programs if program is not None for dtype in rounding_dtypes(program.jaxpr)}
        coarsest = max((float(jnp.finfo(dtype).eps) for dtype in dtypes), default=0.0)
        outputs = jax.tree_util.tree_leaves_with_path(function(*self.arguments.whole))
        for (path, ours), theirs in zip(outputs, jax.tree.leaves(self.function(*self.arguments.whole)), strict=True):
            first, second = as_float64(ours), as_float64(theirs)
            gaps = distances(first, second) if first.shape == second.shape else np.array([np.inf])
            dtype = jnp.result_type(ours)
            spacing = max(float(jnp.finfo(dtype).eps), coarsest) if jnp.issubdtype(dtype, jnp.inexact) else 0.0
            if np.all(gaps <= spacing**0.5 * max_abs(second)) or np.array_equal(first, second, equal_nan=True):
                continue
            of_leaf = f" of {jax.tree_util.keystr(path)}" if path else ""
            if first.shape != second.shape:
                values = f"an output{of_leaf} of shape {first.shape}, the reference one of {second.shape}"
            else:
                worst = np.unravel_index(np.argmax(gaps), gaps.shape)
                values = f"{first[worst]:.6g} where the reference gives {second[worst]:.6g}, "
                values += f"at entry {tuple(map(int, worst))}{of_leaf}"
            reason = f"the reference is another function: the function gives {values}"
            return GradientReport(False, (), f"{reason[0].upper()}{reason[1:]}. {SURROGATE}", "undecided", reason)
        return None

    def properties(self, comparison: Comparison, both: Callable | None = None) -> Sequence[PropertyReport]:
        """Return the properties of a vjp; ``both`` returns its output and its gradients for a cotangent."""
        floating, whole, cotangent = comparison.call_arguments
        filled = Arguments(floating, whole).filled(floating)
        output, spacing = self.function(*filled), comparison.call_spacing
        other = _like(self.cotangents()[1], cotangent)

        def pull(dy):
            return self.pulled(floating, whole, dy) if both is None else both(floating, dy)[1]

        def output_of_vjp():
            return self.vjp(*filled)[0] if both is None else both(floating, cotangent)[0]

        return (
            agreement("in its output", output_of_vjp, output, spacing),
            linearity(pull, cotangent, other, spacing),
            _zero_for_zero(pull, cotangent),
        )

    def rule_properties(self, function, comparison: Comparison) -> Sequence[PropertyReport]:
        """Return the properties of a rule. It is compiled once, because JAX traces a rule in any case."""
        floating, whole, cotangent = comparison.call_arguments
        spacing, expected = comparison.call_spacing, comparison.gradients.by_hand

        def output_and_gradients(at, dy):
            return self.vjp(*Arguments(at, whole).filled(at))[0], self.pulled(at, whole, dy)

        both = jit_once(output_and_gradients)

        def forward(at):
            return function(*Arguments(at, whole).filled(at))

        batch = jax.tree.map(lambda leaf: _stack(leaf, 0.9 * np.asarray(leaf)), floating)
        each = [both(jax.tree.map(lambda leaf, n=n: leaf[n], batch), cotangent)[1] for n in range(2)]
        stacked = jax.tree.map(_stack, *each)
        return (
            *self.properties(comparison, both),
            agreement("under jit", lambda: both(floating, cotangent)[1], expected, spacing),
            not_checked("under vmap", lambda: jax.vmap(forward)(jax.tree.map(jnp.asarray, batch)))
            or agreement(
                "under vmap",
                lambda: jit_once(jax.vmap(lambda at, dy: self.pulled(at, whole, dy), (0, None)))(batch, cotangent),
                stacked,
                spacing,
            ),
            *_one_at_a_time(function, floating, whole, cotangent, expected, spacing),
            *_forward_mode(function, floating, whole, cotangent, expected, spacing),
        )


def _stack(first, second):
    """Return two arrays as one of NumPy, because JAX would compile a program for every shape."""
    return np.stack([np.asarray(first), np.asarray(second)]).astype(jnp.result_type(first))


def _one_at_a_time(function, floating, whole, cotangent, expected, spacing):
    """Each argument and each output alone: JAX passes zeros for the others."""
    leaves, structure = jax.tree.flatten(floating)

    def of_leaf(number):
        def projection(leaf):
            moved = jax.tree.unflatten(structure, [*leaves[:number], leaf, *leaves[number + 1 :]])
            return _projected(function(*Arguments(moved, whole).filled(moved)), cotangent)

        return jax.grad(projection)(leaves[number])

    if len(leaves) > 1:

        @jit_once
        def alone():
            return jax.tree.unflatten(structure, [of_leaf(number) for number in range(len(leaves))])

        yield agreement("for each argument alone", alone, expected, spacing)

    parts = jax.tree.leaves(cotangent)

    def of_output(number):
        def projection(floating):
            outputs = jax.tree.leaves(function(*Arguments(floating, whole).filled(floating)))
            return _projected(outputs[number], parts[number])

        return jax.grad(projection)(floating)

    used = [n for n, part in enumerate(parts) if jnp.issubdtype(part.dtype, jnp.inexact)]
    if len(used) > 1:

        @jit_once
        def summed():
            return jax.tree.map(lambda *parts: sum(parts), *map(of_output, used))

        yield agreement("for each output alone", summed, expected, spacing)


def _forward_mode(function, floating, whole, cotangent, expected, spacing):
    """For a rule that has a forward mode, Σ dy ẏ is Σ g ẋ."""
    random = np.random.default_rng(5)
    tangent = jax.tree.map(lambda leaf: jnp.asarray(random.standard_normal(leaf.shape), leaf.dtype), floating)

    def moves(at, tangent):
        return jax.jvp(lambda at: function(*Arguments(at, whole).filled(at)), (at,), (tangent,))[1]

    try:
        moved = jit_once(moves)(floating, tangent)
    except TypeError:  # a custom_vjp has no forward mode
        return
    wanted = sum((jnp.real(g * t).sum() for g, t in zip(*map(jax.tree.leaves, (expected, tangent)), strict=True)), 0.0)
    yield agreement("in forward mode", lambda: _projected(moved, cotangent), jnp.asarray(wanted), spacing)


def _zero_for_zero(pull, cotangent) -> PropertyReport:
    zeros = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)), cotangent)
    gradients = jax.tree.leaves(pull(zeros))
    wrong = any(np.asarray(leaf).any() for leaf in gradients)
    return PropertyReport("zero for a zero cotangent", not wrong, "it isn't zero there" if wrong else "")


def split_arguments(name: str, args: tuple) -> Arguments:
    """Return a call's arguments with their floating parts.

    Raises:
        TypeError: an argument is a tracer, or none is floating.
    """
    if not is_concrete(*(leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array))):
        raise TypeError(f"{name}(args): expected arrays, got tracers. Call it outside jit, vmap and grad.")
    apart = select_arguments(args)
    if not jax.tree.leaves(args):
        raise TypeError(
            f"{name}(args): expected at least one floating array to differentiate by, got {args}. "
            f"Pass them: {name}(…, x)."
        )
    only = len(args) == 1
    check_any_floating(f"{name}(args)", args[0] if only else args, apart.floating, "x" if only else "args")
    return apart


def select_arguments(args: tuple) -> Arguments:
    """Return arguments, which may be tracers, with their floating parts."""
    whole = jax.tree.map(lambda leaf: jnp.asarray(leaf) if _is_floating(leaf) else leaf, args)
    return Arguments(jax.tree.map(lambda leaf: leaf if _is_floating(leaf) else None, whole), whole)


def _is_floating(leaf) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def _floating_gradients(name, gradients, floating, whole):
    """A gradient for each floating part of the arguments, from one for each argument."""
    if not isinstance(gradients, tuple | list) or len(gradients) != len(whole):
        raise ValueError(
            f"{name}(vjp): expected a tuple of {len(whole)} gradients, one an argument, got "
            f"{describe_tree(gradients)}. Return (dx,) for a single argument, and None for one that isn't floating."
        )

    def kept(gradient, part, argument):
        if same_structure(gradient, argument):
            return jax.tree.map(lambda p, g: p if p is None else g, part, gradient, is_leaf=lambda leaf: leaf is None)
        return gradient if jax.tree.leaves(part) else part

    return tuple(kept(*parts) for parts in zip(gradients, floating, whole, strict=True))


def _projected(output, cotangent):
    """Return Σ y dy; of known values by NumPy, because JAX would compile a program for every shape."""
    outputs, cotangents = jax.tree.leaves(output), jax.tree.leaves(cotangent)
    pairs = list(zip(outputs, cotangents, strict=True))
    if is_concrete(*outputs, *cotangents):
        known = [(y, dy) for y, dy in pairs if jnp.issubdtype(jnp.result_type(dy), jnp.inexact)]
        total = sum((np.real(as_float64(y) * as_float64(dy)).sum() for y, dy in known), start=np.float64(0.0))
        return total.astype(jnp.finfo(jnp.result_type(*(leaf for pair in known for leaf in pair))).dtype)
    return sum(
        (jnp.real(y * dy).sum() for y, dy in pairs if jnp.issubdtype(jnp.result_type(dy), jnp.inexact)),
        start=jnp.zeros(()),
    )  # fmt: skip


def _drawn(shapes, random: np.random.Generator):
    """Normal numbers for each floating output, zeros (which no gradient sees) for the others."""

    def draw(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return np.zeros(leaf.shape, leaf.dtype)
        drawn = random.standard_normal(leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            drawn = drawn + 1j * random.standard_normal(leaf.shape)
        return jax.device_put(np.asarray(drawn).astype(leaf.dtype))

    return jax.tree.map(draw, shapes)


def _like(tree, like):
    return jax.tree.map(lambda leaf, wanted: cast_array(leaf, wanted.dtype), tree, like)


def _to(output, cotangent):
    """The cotangent in the form that JAX expects: in the output's dtypes, and float0 for what isn't floating."""

    def fitting(y, dy):
        dtype = jnp.result_type(y)
        return dy.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else np.zeros(np.shape(y), jax.dtypes.float0)

    return jax.tree.map(fitting, output, cotangent)
