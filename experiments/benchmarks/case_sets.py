"""The sets of cases on which gradient checkers are compared, each imported where it is used."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.catalogue.case import Case

SetName: TypeAlias = Literal[
    "catalogue",
    "blind",
    "blind_second",
    "blind_third",
    "blind_fourth",
    "blind_fifth",
    "blind_sixth",
    "blind_seventh",
    "blind_eighth",
    "published",
]


class CaseSet(NamedTuple):
    """A set of planted bugs and right gradients.

    Fields:
        load: the import of its cases.
        origin: how the cases were written, for the README.
    """

    load: Callable[[], tuple[Case, ...]]
    origin: str


def load(package: str) -> tuple[Case, ...]:
    """Return the cases of a package beside this module."""
    return tuple(importlib.import_module(f"experiments.benchmarks.{package}").CASES)


def load_published() -> tuple[Case, ...]:
    """Return the published mistakes, and after them the right twin of each."""
    from experiments.benchmarks.published import REPORTS

    wrong = tuple(as_case(report.case) for report in REPORTS)
    return (*wrong, *map(right_twin, wrong))


UNSEEN = "written without knowledge of the checker and of the other sets, causes included"
SETS: dict[str, CaseSet] = {
    "catalogue": CaseSet(
        partial(load, "catalogue"), "written beside the checker by its authors: no part of it is blind"
    ),
    "blind": CaseSet(partial(load, "blind"), "written without knowledge of the checker and of the catalogue"),
    **{
        name: CaseSet(partial(load, name), UNSEEN)
        for name in (
            "blind_second",
            "blind_third",
            "blind_fourth",
            "blind_fifth",
            "blind_sixth",
            "blind_seventh",
            "blind_eighth",
        )
    },
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
