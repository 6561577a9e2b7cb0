"""Checks of a vjp of a function with any output, and of a rule registered by ``custom_vjp`` or ``custom_jvp``."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from funcnn._checks import check_callable, is_concrete
from funcnn._numerics.program import trace
from funcnn._numerics.rewriting import rewrite
from funcnn._tree_checks import check_same_structure
from funcnn.gradcheck.engine.functions import check_arguments
from funcnn.gradcheck.engine.precision import Comparison
from funcnn.gradcheck.engine.properties import Property, check_also
from funcnn.gradcheck.engine.pullbacks import Question, select_arguments, split_arguments
from funcnn.gradcheck.engine.rules import has_rules
from funcnn.gradcheck.engine.surrogates import suggest_surrogate
from funcnn.gradcheck.report import GradientReport


def check_vjp(
    function: Callable[..., PyTree],
    vjp: Callable[..., tuple],
    *args: Any,
    key: PRNGKeyArray | None = None,
    also: Sequence[Property] = (),
) -> GradientReport:
    """Compare a vjp written by hand with ``jax.vjp``, for a random cotangent, as ``check_gradients`` does.

    For functions whose output is an array or a tree of arrays. With the output y and a cotangent dy, the gradients are
    those of Σ y dy.

    Args:
        function: ``(*args) -> output``.
        vjp: ``(*args) -> (output, pullback)`` with ``pullback(cotangent) -> (a gradient for each argument)``, as
            ``jax.vjp`` returns them; ``None`` for an argument that isn't floating.
        args: trees of arrays. Those that aren't floating are passed untouched; the report names them.
        key: random key for the cotangents; ``None`` for ``jax.random.key(0)``.
        also: as for ``check_gradients``.

    Returns:
        A report with a row for each floating argument; its ``properties`` say whether the output is the function's and
        whether the pullback is linear.

    Raises:
        TypeError: no argument is floating, or vjp doesn't return a pair.
        ValueError: the gradients have another tree structure than the arguments.

    Example:
        >>> import jax.numpy as jnp
        >>> def product(x, y):
        ...     return x * y
        >>> def product_vjp(x, y):
        ...     return x * y, lambda dz: (dz * y, dz * x)
        >>> check_vjp(product, product_vjp, jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])).ok
        True

    Source:
        Richardson 1927 for the slopes, Parker 1997 for the rounding.
    """
    check_callable("check_vjp(function)", function, "Pass (*args) -> output.")
    check_callable("check_vjp(vjp)", vjp, "Pass (*args) -> (output, pullback), as jax.vjp has it.")
    check_also("check_vjp", also)
    question = Question("check_vjp", function, vjp, split_arguments("check_vjp", args), key)
    try:
        return question.examined(also, question.properties)
    except TypeError as error:
        for name, called in (("function", function), ("vjp", vjp)):
            check_arguments(
                f"check_vjp({name})", called, args, error, "(*args)",
                "Pass check_vjp(function, vjp, *args), with vjp(*args) -> (output, pullback): was an argument "
                "forgotten, or a backward passed in the place of vjp?",
            )  # fmt: skip
        raise


def check_custom_vjp(
    function: Callable[..., PyTree],
    *args: Any,
    reference: Callable[..., PyTree] | None = None,
    key: PRNGKeyArray | None = None,
) -> GradientReport:
    """Judge the derivative rule that a function has by ``jax.custom_vjp`` or ``jax.custom_jvp``.

    "By hand" is the rule. It is compared with autodiff of ``reference``; without one, with autodiff of the function's
    own code, its rules taken out; and where that can't be differentiated (a kernel, a ``while_loop``), with slopes
    measured entry by entry. Measured slopes are the third witness as in ``check_gradients``.

    Beyond the values: the rule is linear in the cotangent; zero for a zero cotangent; right for each argument alone and
    each output alone, where JAX hands it symbolic zeros; the same under ``jit`` and ``vmap``; and, for a
    ``custom_jvp``, its forward mode agrees with its reverse mode.

    Args:
        function: ``(*args) -> output``, an array or a tree of arrays.
        args: trees of arrays. Those that aren't floating are passed untouched; the report names them.
        reference: a plain function of the same arguments and output.
        key: random key for the cotangents; ``None`` for ``jax.random.key(0)``.

    Returns:
        A report with a row for each floating argument, and ``properties``.

    Raises:
        TypeError: no argument is floating.
        ValueError: the function has no rule, or reference has an output of another structure.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.custom_vjp
        ... def cube(x):
        ...     return x**3
        >>> cube.defvjp(lambda x: (x**3, x), lambda x, dy: (3 * x * dy,))  # x and not x²
        >>> report = check_custom_vjp(cube, jnp.array([1.0, 2.0]))
        >>> report.ok, report.verdict
        (False, 'hand-written wrong')

    Source:
        JAX's documentation, "Custom derivative rules for JAX-transformable Python functions".
    """
    check_callable("check_custom_vjp(function)", function, "Pass the function that has the rule.")
    arguments = split_arguments("check_custom_vjp", args)
    if reference is not None:
        check_callable("check_custom_vjp(reference)", reference, "Pass a plain function of the same arguments.")
        outputs, expected = (jax.eval_shape(lambda f=f: f(*args)) for f in (function, reference))
        check_same_structure("check_custom_vjp(function)", outputs, expected, "the reference's output")

    def by_rule(*args):
        apart = select_arguments(args)
        output, pullback = jax.vjp(lambda floating: function(*apart.filled(floating)), apart.floating)
        return output, lambda cotangent: pullback(cotangent)[0]

    with _words_on_a_wrong_call(function, args):
        plain, no_autodiff = (reference, "") if reference is not None else _without_rules(function, arguments)
        question = Question("check_custom_vjp", plain, by_rule, arguments, key)
        if reference is not None and (other := question.report_other_function(function)) is not None:
            return other
        comparisons: list[Comparison] = []

        def properties(comparison):
            comparisons.append(comparison)
            return question.rule_properties(function, comparison)

        report = question.examined((), properties, no_autodiff)
        return suggest_surrogate(report, comparisons[-1]) if comparisons and reference is None else report


@contextlib.contextmanager
def _words_on_a_wrong_call(function, args) -> Iterator[None]:
    """Raise a TypeError that says how to register a rule, or to call the check, in the place of JAX's errors."""
    try:
        yield
    except TypeError as error:
        check_arguments(
            "check_custom_vjp(function)", function, args, error, "(*args)",
            "Pass check_custom_vjp(function, *args): was an argument forgotten?",
        )  # fmt: skip
        raise
    except AttributeError as error:
        for rule, call in (("defvjp", "function.defvjp(forward, backward)"), ("defjvp", "function.defjvp(rule)")):
            if f"using {rule}" in str(error):
                raise TypeError(
                    "check_custom_vjp(function): expected a function whose rule is registered, got one without: "
                    f"{error} Call {call} before the check."
                ) from error
        raise


def _without_rules(function, arguments) -> tuple[Callable, str]:
    """Return the function by its own code, what it registered for differentiation taken out.

    The second value says why autodiff must not be evaluated: in code that can't be traced the rule remains.

    Raises:
        ValueError: the function can be traced and calls no rule.
    """

    def plain(*args):
        apart = select_arguments(args)
        program = trace(lambda floating: function(*apart.filled(floating)), apart.floating)
        if program is None:
            return function(*args)
        return jax.tree.unflatten(program.structure, rewrite(program.jaxpr, jax.tree.leaves(apart.floating)))

    program = trace(lambda floating: function(*arguments.filled(floating)), arguments.floating)
    if program is None:
        return plain, "the function can't be traced without the rule in question"
    if not has_rules(program):
        raise ValueError(
            "check_custom_vjp(function): expected a function with a rule by jax.custom_vjp or jax.custom_jvp, got one "
            "that calls none. There is nothing to check: jax.grad differentiates its code. To compare it with another "
            "function, give that one as reference=; for a vjp written apart there is check_vjp."
        )
    return _compiled(plain, arguments), ""


def _compiled(function, arguments):
    """Return the function compiled for arguments of one kind; what isn't an array is held.

    Where a program calls it, it is traced as it is, so that each operation keeps the caller's line.
    """
    leaves, structure = jax.tree.flatten(arguments.whole)
    is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]

    @jax.jit
    def of_arrays(arrays):
        rest = iter(arrays)
        filled = [next(rest) if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]
        return function(*jax.tree.unflatten(structure, filled))

    def compiled(*args):
        arrays = [leaf for leaf, array in zip(jax.tree.leaves(args), is_array, strict=True) if array]
        return of_arrays(arrays) if is_concrete(*arrays) else function(*args)

    return compiled
