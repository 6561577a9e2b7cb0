"""Checks of trees: structure, shapes and dtypes, in errors that name the place of the first difference."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from funcnn._checks import describe

MAX_ENTRIES = 8
"""The most entries of a tree that an error message lists."""


def describe_tree(tree: PyTree) -> str:
    """Describe a tree for an error message by the paths and shapes of its leaves.

    Example:
        >>> describe_tree({"w": jnp.zeros((3, 5)), "b": jnp.zeros(5)})
        "['b'] (5,), ['w'] (3, 5)"
    """
    return _listing(_entries(tree)) or "nothing"


def _entries(tree: PyTree) -> dict[str, str]:
    """Return the shapes of a tree's leaves by path; the type's name for what has no shape."""
    return {
        jax.tree_util.keystr(path): str(tuple(leaf.shape)) if hasattr(leaf, "shape") else type(leaf).__name__
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _listing(entries: dict[str, str]) -> str:
    shown = [f"{path} {shape}" if path else _alone(shape) for path, shape in entries.items()]
    left_out = len(shown) - MAX_ENTRIES
    return ", ".join([*shown[:MAX_ENTRIES], *([f"and {left_out} more"] if left_out > 0 else [])])


def _alone(shape: str) -> str:
    """Return words for a tree of one leaf, by its shape or the name of its type."""
    return f"one array {shape}" if shape[:1] == "(" else f"one {shape}"


def same_structure(tree: PyTree, reference: PyTree) -> bool:
    """Whether two trees have the same containers."""
    structure: Any = jax.tree.structure(tree)
    return structure == jax.tree.structure(reference)


_SAME_CONTAINERS = "Give one entry for every parameter, in the same containers."


def check_same_structure(
    name: str, tree: PyTree, reference: PyTree, reference_name: str, advice: str = _SAME_CONTAINERS
) -> None:
    """Raise where the containers of a tree differ from the reference's."""
    if not same_structure(tree, reference):
        for field in ("params", "state"):
            if hasattr(tree, field) and same_structure(getattr(tree, field), reference):
                advice = f"Pass its {field}: {type(tree).__name__.lower()}.{field}."
                break
        raise ValueError(
            f"{name}: expected the tree structure of {reference_name}, {describe_tree(reference)}; "
            f"got {_structure_difference(tree, reference)}. {advice}"
        )


def _structure_difference(tree: PyTree, reference: PyTree) -> str:
    """Describe how the containers of a tree differ: entries that are missing or too many, or another container."""
    ours, expected = _entries(tree), _entries(reference)
    missing = {path: shape for path, shape in expected.items() if path not in ours}
    extra = {path: shape for path, shape in ours.items() if path not in expected}
    if not missing and not extra:
        return _container_difference(tree, reference, "")
    if not expected or not ours or (len(missing), len(extra)) == (len(expected), len(ours)):
        return _listing(ours) or ("None" if tree is None else f"a {type(tree).__name__} without arrays")
    parts = [f"no {' and no '.join(list(missing)[:MAX_ENTRIES])}"] if missing else []
    parts += [f"{_listing(extra)}, which isn't there"] if extra else []
    return ", and ".join(parts)


def _container_difference(tree: PyTree, reference: PyTree, path: str) -> str:
    """Describe the first container that differs, of two trees with the same paths."""
    if type(tree) is not type(reference):
        at = f" at {path}" if path else ""
        return f"a {type(tree).__name__}{at} in the place of a {type(reference).__name__}"
    children, others = (
        jax.tree_util.tree_leaves_with_path(whole, is_leaf=lambda node, whole=whole: node is not whole)
        for whole in (tree, reference)
    )
    for (key, child), (_, other) in zip(children, others, strict=False):
        if child is not tree and not same_structure(child, other):
            return _container_difference(child, other, path + jax.tree_util.keystr(key))
    return f"another {type(tree).__name__}{f' at {path}' if path else ''}, with other settings or fields"


def check_same_tree(name: str, tree: PyTree, reference: PyTree, reference_name: str, *, dtypes: bool = True) -> None:
    """Raise where structure, shapes or, with ``dtypes``, dtypes of a tree differ from the reference's."""
    check_same_structure(name, tree, reference, reference_name)
    wanted = jax.tree_util.tree_leaves_with_path(reference)
    for leaf, (path, like) in zip(jax.tree.leaves(tree), wanted, strict=True):
        if jnp.shape(leaf) != like.shape or (dtypes and jnp.result_type(leaf) != like.dtype):
            raise ValueError(
                f"{name}: expected {describe(like)} at {jax.tree_util.keystr(path) or 'the root'}, "
                f"like {reference_name}, got {describe(leaf)}. Give an array of this shape{' and dtype' * dtypes}."
            )
