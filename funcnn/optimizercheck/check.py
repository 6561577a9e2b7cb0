"""Is this optimizer that optimizer? Either may be anybody's."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._checks import describe
from funcnn.gradcheck.check import floating_tree
from funcnn.gradcheck.precision import enable_x64, lenient, widened
from funcnn.gradcheck.report import PropertyReport
from funcnn.optimizercheck import display
from funcnn.optimizercheck.comparison import compared, gaps, share_of, tolerances
from funcnn.optimizercheck.diagnosis import Finding, diagnose
from funcnn.optimizercheck.identification import Observed, identified, moments
from funcnn.optimizercheck.recipes import Recipe, described
from funcnn.optimizercheck.report import OptimizerReport, SequenceReport
from funcnn.optimizercheck.runs import Phases, Run, phases_of, reason, run, takes
from funcnn.optimizercheck.sequences import STEPS, Problem, awkward, flattened

_RATE, _DROPPED = 0.05, 0.005
_CHANGING = ("random", "alternating")
_LOWER = (jnp.float32, jnp.bfloat16)
_NAMES = "check_optimizer(candidate)", "check_optimizer(reference)"


class Asked(NamedTuple):
    """Both optimizers on some sequences.

    ``groups`` numbers the learning rates; ``runs`` are the candidate's and the reference's, one for each part.
    """

    problem: Problem
    candidate: np.ndarray
    reference: np.ndarray
    groups: np.ndarray
    runs: tuple[tuple[Run, Run], ...]

    @property
    def spacing(self) -> float:
        """ε of the coarsest floats inside either."""
        return max(one.spacing for pair in self.runs for one in pair)


def check_optimizer(candidate: Any, reference: Any, params: PyTree) -> OptimizerReport:
    """Compare an optimizer with another that is trusted, step by step, and say what it does otherwise.

    Both get the same gradients: constant, alternating, random, sparse, zero, tiny, huge, growing, shrinking. The
    parameters are the caller's, none of them zero, so that weight decay shows; beside them stand a scalar and a nested
    tree, where both optimizers take any tree. Leaves of large trees are stood in for by their first rows and columns.
    The updates are compared in float64 whatever JAX is set to, then in float32 and in bfloat16, where updates and state
    have to keep their dtypes. The caller's configuration is the same afterwards.

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
    with lenient():
        with enable_x64(True):
            wide = widened(params)
            makers = tuple(
                _maker(one, name, has_rate) for one, name in zip((candidate, reference), _NAMES, strict=True)
            )
            beside, refused = _takes_any_tree(makers, wide)
            problem = awkward(wide, beside=beside)
            asked, properties = _in_float64(makers, problem, has_rate)
            rows = _rows(asked)
            # What is another optimizer in float64 is none the wiser for being asked in fewer digits.
            dtypes = _LOWER if all(row.ok for row in rows) else ()
            wide_updates = [_updates(makers[1], _NAMES[1], problem.rounded(dtype), jnp.float64) for dtype in dtypes]
        lower = [_in_lower(makers, problem, *given) for given in zip(dtypes, wide_updates, strict=True)]
    properties = [*([refused] if refused else []), *properties, *(prop for _, found in lower for prop in found)]
    return _reported(asked, (*rows, *(row for row, _ in lower)), tuple(properties), began)


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
    for one, name in zip((candidate, reference), _NAMES, strict=True):
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


def _takes_any_tree(makers, params) -> tuple[bool, PropertyReport | None]:
    """Whether both take a scalar and a nested tree beside the parameters; if not, who and why."""
    problem = awkward(params, beside=True)
    tree = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), problem.trees(jnp.float64)[0])
    for make, word in zip(makers, ("candidate", "reference"), strict=True):
        why = takes(make(_RATE), tree)
        if why:
            detail = f"not asked, for the {word} takes no tree but yours ({why})"
            return False, PropertyReport("a scalar and a nested tree beside yours", True, detail)
    return True, None


def _schedule(count):
    return 0.1 / (1 + 0.25 * count)


def _in_float64(makers, problem, has_rate) -> tuple[Asked, list[PropertyReport]]:
    """Every sequence, and where the learning rate can be chosen, some while it changes."""
    parts, properties = [_part(makers, problem, lambda make, name: phases_of(name, make(_RATE), STEPS))], []
    if has_rate:
        changing = problem.chosen(_CHANGING)
        half = STEPS // 2
        dropped = changing._replace(names=tuple(f"{name}, the rate dropped" for name in _CHANGING))
        parts.append(
            _part(
                makers,
                dropped,
                lambda make, name: (
                    *phases_of(name, make(_RATE), half),
                    *phases_of(name, make(_DROPPED), STEPS - half),
                ),
            )
        )
        scheduled = changing._replace(names=tuple(f"{name}, under a schedule" for name in _CHANGING))
        tree = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), changing.trees(jnp.float64)[0])
        refusals = [_refusal(make, tree) for make in makers]
        if not any(refusals):
            parts.append(_part(makers, scheduled, lambda make, name: phases_of(name, make(_schedule), STEPS)))
        else:
            word = "candidate" if refusals[0] else "reference"
            detail = (
                f"not asked, for the {word} takes none ({refusals[0] or refusals[1]}); the rate was dropped halfway"
            )
            properties.append(PropertyReport("a schedule of the learning rate", True, detail))
    else:
        detail = "not asked, for both were built already; pass optax.adam, not optax.adam(1e-3), to have that too"
        properties.append(PropertyReport("a changing learning rate", True, detail))
    properties += _kept(parts, "float64")
    if parts[0].runs[0][0].why_python:
        detail = f"step by step in Python, for {parts[0].runs[0][0].why_python}"
        properties.append(PropertyReport("how the candidate ran", True, detail))
    return _together(parts), properties


def _refusal(make, tree) -> str:
    try:
        return takes(make(_schedule), tree)
    except ValueError as error:
        return reason(error)


def _part(makers, problem, phases: Callable[[Any, str], Phases]) -> Asked:
    params, gradients = problem.trees(jnp.float64)
    runs = tuple(
        run(name, phases(make, name), params, gradients, with_states=number == 1)
        for number, (make, name) in enumerate(zip(makers, _NAMES, strict=True))
    )
    candidate, reference = (flattened(one.updates) for one in runs)
    return Asked(problem, candidate, reference, np.zeros(len(candidate), int), ((runs[0], runs[1]),))


def _together(parts) -> Asked:
    problem = parts[0].problem._replace(
        names=tuple(name for part in parts for name in part.problem.names),
        params=np.concatenate([part.problem.params for part in parts]),
        gradients=np.concatenate([part.problem.gradients for part in parts]),
    )
    candidate = np.concatenate([part.candidate for part in parts])
    reference = np.concatenate([part.reference for part in parts])
    groups = np.concatenate([np.full(len(part.candidate), number) for number, part in enumerate(parts)])
    return Asked(problem, candidate, reference, groups, tuple(pair for part in parts for pair in part.runs))


def _rows(asked: Asked) -> tuple[SequenceReport, ...]:
    allowed = tolerances(asked.reference, asked.problem, asked.spacing)
    return compared(asked.candidate, asked.reference, allowed, asked.problem)


def _kept(parts, dtype) -> list[PropertyReport]:
    """What the candidate's updates and state don't keep, where the reference's do."""
    mine = dict.fromkeys(change for part in parts for change in part.runs[0][0].changes)
    theirs = {change for part in parts for change in part.runs[0][1].changes}
    changes = [change for change in mine if change not in theirs]
    return [PropertyReport(f"dtypes of updates and state, in {dtype}", not changes, "; ".join(changes))]


def _run(make, name, problem, dtype, *, with_states=False) -> Run:
    return run(name, phases_of(name, make(_RATE), STEPS), *problem.trees(dtype), with_states=with_states)


def _updates(make, name, problem, dtype) -> np.ndarray:
    return flattened(_run(make, name, problem, dtype, with_states=True).updates)  # with them, it is compiled already


def _in_lower(makers, problem, dtype, wide: np.ndarray) -> tuple[SequenceReport, list[PropertyReport]]:
    """One row for a lower dtype: its worst sequence. ``wide`` are the reference's updates on the same in float64."""
    name = jnp.dtype(dtype).name
    rounded = problem.rounded(dtype)
    params, gradients = problem.trees(dtype)
    runs = [
        run(word, phases_of(word, make(_RATE), STEPS), params, gradients)
        for make, word in zip(makers, _NAMES, strict=True)
    ]
    candidate, reference = (flattened(one.updates) for one in runs)
    spacing = float(jnp.finfo(dtype).eps)
    with np.errstate(all="ignore"):
        lost = gaps(reference, wide)
        allowed = tolerances(reference, rounded, spacing, lost)
    # Where the reference's own digits are gone, a candidate that has a number is no worse.
    allowed = np.where(np.isfinite(reference), allowed, np.inf)
    part = Asked(rounded, candidate, reference, np.zeros(len(candidate), int), ((runs[0], runs[1]),))
    rows = compared(candidate, reference, allowed, rounded)
    worst = next(
        (row for row in rows if not row.ok),
        max(rows, key=lambda row: row.difference / row.tolerance if row.tolerance else 0.0),
    )
    which = worst.name if not worst.ok else f"all {len(rows)}"
    return worst._replace(name=f"{which}, in {name}"), _kept([part], name)


def _reported(asked: Asked, rows, properties, began) -> OptimizerReport:
    wrong = [row for row in rows if not row.ok]
    ok = not wrong and all(item.ok for item in properties)
    in_float64 = rows[: len(asked.problem.names)]
    finding: Finding | None = None
    recipe: Recipe | None = None
    if not all(row.ok for row in in_float64):
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
