"""Is this optimizer that optimizer? Either may be anybody's."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from funcnn._checks import describe
from funcnn.gradcheck.check import floating_tree
from funcnn.gradcheck.precision import enable_x64, lenient, widened
from funcnn.gradcheck.report import PropertyReport
from funcnn.optimizercheck import display
from funcnn.optimizercheck.asking import LOWER, Asked, Party, in_float64, in_lower, problem_for, reference_on_rounded
from funcnn.optimizercheck.comparison import share_of
from funcnn.optimizercheck.diagnosis import Finding, diagnose
from funcnn.optimizercheck.identification import Observed, identified, moments
from funcnn.optimizercheck.recipes import Recipe, described
from funcnn.optimizercheck.report import OptimizerReport
from funcnn.optimizercheck.runs import reason


def check_optimizer(candidate: Any, reference: Any, params: PyTree) -> OptimizerReport:
    """Compare an optimizer with another that is trusted, step by step, and say what it does otherwise.

    Both get the same gradients: constant, alternating, random, sparse, zero, tiny, huge, growing, shrinking. The
    parameters are the caller's, numbers in the place of zeros, so that weight decay shows; beside them stands a scalar
    in nested containers, where both optimizers take any tree. Leaves of large trees are stood in for by their first
    rows and columns. The updates are compared in float64 whatever JAX is set to; where they agree, in float32 and
    bfloat16 too, where updates and state have to keep their dtypes. The caller's configuration is the same afterwards.

    Where they differ the reference is taken apart: its state and its answers to plain gradients give a textbook recipe,
    which counts if its simulation gives the reference's updates everywhere. The cause is the change of one line with
    which the simulation gives the candidate's; one that doesn't is never named.

    Args:
        candidate: the optimizer in question: ``init(params)`` and ``update(gradients, state, params)``, as optax has
            them; or a function of the learning rate that returns one. Where JAX can't trace it, it runs in Python.
        reference: what it should do, in the same form: ``optax.adam(1e-3)``, or ``optax.adam`` itself. Functions are
            asked about a changing rate too: dropped halfway, with the state kept, and under a schedule.
        params: any pytree of real floating arrays.

    Returns:
        A report with a row for each sequence, the first step and leaf that differ, and the cause.

    Raises:
        TypeError: an optimizer has no init or update, one is a function of the learning rate and the other isn't, or a
            parameter isn't floating.
        ValueError: an optimizer raises, returns another tree than the parameters', or there are no parameters.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> def momentum(learning_rate):
        ...     def update(gradients, velocity, params=None):
        ...         velocity = jax.tree.map(lambda v, g: 0.9 * v + 0.1 * g, velocity, gradients)
        ...         return jax.tree.map(lambda v: -learning_rate * v, velocity), velocity
        ...     return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)
        >>> report = check_optimizer(momentum(0.1), optax.sgd(0.1, momentum=0.9), {"w": jnp.ones(3)})
        >>> report.ok, report.cause
        (False, 'dampening')
        >>> print(report.detail)  # doctest: +NORMALIZE_WHITESPACE
        v ← μ v + (1−μ) g, where the reference has v ← μ v + g;
        or, which comes to the same here, every update is 0.1 times the reference's

    Source:
        The recipes: Polyak 1964; Nesterov 1983; Duchi et al. 2011 (Adagrad); Hinton 2012 (RMSprop); Kingma and Ba 2015
        (Adam, Adamax); Dozat 2016 (NAdam); Loshchilov and Hutter 2019 (AdamW); Chen et al. 2023 (Lion).
    """
    began = time.perf_counter()
    params = floating_tree("check_optimizer(params)", params)
    _check_params(params)
    has_rate = _is_function_of_rate(candidate, reference)
    first, second = (
        Party(word, _maker(one, f"check_optimizer({word})", has_rate))
        for word, one in {"candidate": candidate, "reference": reference}.items()
    )
    parties = first, second
    with lenient():
        with enable_x64(True):
            problem, properties = problem_for(parties, widened(params))
            asked, found = in_float64(parties, problem, has_rate)
            rows = asked.rows()
            # What is another optimizer in float64 is none the wiser for being asked in fewer digits.
            dtypes = LOWER if all(row.ok for row in rows) else ()
            rounded = [reference_on_rounded(parties[1], problem, dtype) for dtype in dtypes]
        properties += found
        if not dtypes:
            properties.append(PropertyReport("float32 and bfloat16", True, "not asked, for the two differ in float64"))
        for dtype, updates in zip(dtypes, rounded, strict=True):
            row, found = in_lower(parties, problem, dtype, asked, updates)
            rows, properties = (*rows, row), properties + found
    return _reported(asked, rows, tuple(properties), began)


def _check_params(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"check_optimizer(params): expected real floating parameters, got {describe(leaf)} at "
                f"{jax.tree_util.keystr(path) or 'the root'}. Check the optimizer on real ones."
            )
    if not sum(leaf.size for _, leaf in leaves):
        raise ValueError(
            "check_optimizer(params): expected at least one number, got a tree without any. "
            "Pass parameters such as the optimizer is to train."
        )


def _is_function_of_rate(candidate, reference) -> bool:
    """Whether both are functions of the learning rate; refuse anything but two of a kind."""
    kinds = []
    for word, one in {"candidate": candidate, "reference": reference}.items():
        name = f"check_optimizer({word})"
        is_built = not isinstance(one, type) and all(callable(getattr(one, part, None)) for part in ("init", "update"))
        if not is_built and not callable(one):
            raise TypeError(
                f"{name}: expected an optimizer with init and update, or a function of the learning rate, got {one!r}. "
                "Pack the two functions in optax.GradientTransformation(init, update)."
            )
        kinds.append(not is_built)
    if kinds[0] != kinds[1]:
        forms = ["a function of the learning rate" if kind else "a built optimizer" for kind in kinds]
        raise TypeError(
            f"check_optimizer: expected two of a kind, got {forms[0]} as candidate and {forms[1]} as reference. "
            "Build both, as in optax.adam(1e-3), or neither, as in optax.adam."
        )
    return kinds[0]


def _maker(one, name, has_rate) -> Callable[[Any], Any]:
    """A function of the learning rate, also of an optimizer that is built already."""
    if not has_rate:
        return lambda learning_rate: one

    built: dict = {}

    def make(learning_rate):
        key = id(learning_rate) if callable(learning_rate) else learning_rate
        if key not in built:
            try:
                made = one(learning_rate)
            except Exception as error:  # whatever the caller's function raises
                raise ValueError(
                    f"{name}: expected an optimizer of the learning rate, but it raised {reason(error)}."
                ) from error
            if not all(callable(getattr(made, part, None)) for part in ("init", "update")):
                raise TypeError(
                    f"{name}: expected a function of the learning rate that returns an optimizer with init and update, "
                    f"got {made!r}. Pack the two functions in optax.GradientTransformation(init, update)."
                )
            built[key] = made
        return built[key]

    return make


def _reported(asked: Asked, rows, properties, began) -> OptimizerReport:
    wrong = [row for row in rows if not row.ok]
    ok = not wrong and all(item.ok for item in properties)
    finding: Finding | None = None
    recipe: Recipe | None = None
    if not all(row.ok for row in rows[: len(asked.problem.names)]):
        recipe = _recipe(asked)
        finding = diagnose(recipe, asked.problem, asked.candidate, asked.reference, asked.spacing)
    elif not ok:
        broken = [item for item in properties if not item.ok]
        detail = (
            broken[0].detail
            if broken
            else f"right in float64, but digits are lost in {wrong[0].name.rsplit(' ', 1)[-1]}"
        )
        finding = Finding("dtype" if broken else "unstable", detail)
    origin = share_of(asked.spacing)[1]
    tolerance = (
        f"{origin} of the entry's largest update so far, 16 ε of the leaf's and 2 ε of its largest parameter; "
        "in float32 and bfloat16 √ε, and 16 × what the reference loses there"
    )
    return OptimizerReport(
        ok, rows, finding.cause if finding else None, finding.detail if finding else "",
        _paragraph(rows, finding, recipe), properties, tolerance, time.perf_counter() - began,
    )  # fmt: skip


def _recipe(asked: Asked) -> Recipe | None:
    reference = asked.runs[0][1]
    entries = asked.reference.shape[-1]
    before, after = (moments(states, entries, axes) for states, axes in ((reference.initial, 1), (reference.states, 2)))
    return identified(Observed(asked.problem, asked.reference, asked.groups, before, after, reference.spacing))


def _paragraph(rows, finding, recipe) -> str:
    if finding is None:
        return f"The candidate takes the reference's steps: all of {len(rows)} rows agree."
    wrong = [row for row in rows if not row.ok]
    lines = []
    if wrong:
        first, (candidate, reference) = wrong[0], display.pair(wrong[0])
        where = f"{first.path or 'the root'}{list(first.entry) if first.entry else ''}"
        lines.append(
            f"The candidate differs in {len(wrong)} of {len(rows)} rows, first in {first.name!r} at step {first.step}: "
            f"{where} moves by {candidate} where the reference moves by {reference}."
        )
    lines.append(f"{finding.cause}: {finding.detail}.")
    if recipe is not None:
        lines.append(f"The reference is {described(recipe)}: its simulation gives every update.")
    return "\n".join(lines)
