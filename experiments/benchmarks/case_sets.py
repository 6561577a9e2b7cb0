"""The sets of cases on which gradient checkers are compared, each imported where it is used."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.catalogue.case import Case

SetName: TypeAlias = Literal["catalogue", "blind", "blind_second", "blind_third", "blind_fourth", "published"]


class CaseSet(NamedTuple):
    """A set of planted bugs and right gradients.

    Fields:
        load: the import of its cases.
        origin: how the cases were written, for the README.
    """

    load: Callable[[], tuple[Case, ...]]
    origin: str


def load_catalogue() -> tuple[Case, ...]:
    """Return the cases of the catalogue."""
    from experiments.benchmarks.catalogue import CASES

    return CASES


def load_blind() -> tuple[Case, ...]:
    """Return the cases that were written without knowledge of the checker."""
    from experiments.benchmarks.blind import CASES

    return tuple(CASES)


def load_blind_second() -> tuple[Case, ...]:
    """Return the cases of the second set that was written without knowledge of the checker."""
    from experiments.benchmarks.blind_second import CASES

    return CASES


def load_blind_third() -> tuple[Case, ...]:
    """Return the cases of the third set that was written without knowledge of the checker."""
    from experiments.benchmarks.blind_third import CASES

    return CASES


def load_blind_fourth() -> tuple[Case, ...]:
    """Return the cases of the fourth set that was written without knowledge of the checker."""
    from experiments.benchmarks.blind_fourth import CASES

    return CASES


def load_published() -> tuple[Case, ...]:
    """Return the published mistakes, and after them the right twin of each."""
    from experiments.benchmarks.published import REPORTS

    wrong = tuple(as_case(report.case) for report in REPORTS)
    return (*wrong, *map(right_twin, wrong))


SETS: dict[str, CaseSet] = {
    "catalogue": CaseSet(load_catalogue, "written beside the checker by its authors: no part of it is blind"),
    "blind": CaseSet(load_blind, "written without knowledge of the checker and of the catalogue"),
    "blind_second": CaseSet(
        load_blind_second, "written without knowledge of the checker and of the other sets, causes included"
    ),
    "blind_third": CaseSet(
        load_blind_third, "written without knowledge of the checker and of the other sets, causes included"
    ),
    "blind_fourth": CaseSet(
        load_blind_fourth, "written without knowledge of the checker and of the other sets, causes included"
    ),
    "published": CaseSet(load_published, "wrong gradients from public trackers, rebuilt, each with its right twin"),
}


def as_case(case: Any) -> Case:
    """Return a case as it is, and a rule of any output as a case.

    The loss of a rule is the sum of its output times a fixed random cotangent, and its gradient is the rule's for this
    cotangent.
    """
    if isinstance(case, Case):
        return case

    def cotangent(output):
        return jnp.asarray(np.random.default_rng(7).normal(size=jnp.shape(output)), jnp.result_type(output))

    def loss_fn(params, *args):
        output = case.function(params, *args)
        return jnp.real(jnp.sum(cotangent(output) * output))

    def gradient(rule):
        def grad_fn(params, *args):
            return rule(params, cotangent(jax.eval_shape(case.function, params, *args)), *args)

        return grad_fn

    return Case(
        case.name, case.theme, loss_fn, gradient(case.vjp), case.make, frozenset(case.causes), case.leaf,
        case.dtypes, gradient(case.right), case.autodiff_differs,
    )  # fmt: skip


def right_twin(case: Case) -> Case:
    """Return the case without its bug."""
    if case.right is None:
        raise ValueError(f"{case.name}: expected a right gradient beside the wrong one. Set the field right.")
    return case._replace(name=f"{case.name}_right", grad_fn=case.right, causes=frozenset(), leaf=None, right=None)
