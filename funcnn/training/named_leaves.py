"""The arrays of a run by name, and what is not an array in a form for JSON."""

import base64
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from funcnn.training.fingerprint import key_data


def named_leaves(prefix: str, tree: Any) -> dict[str, Array]:
    """Return the arrays of a tree by name: ``params.0.kernel``."""
    return {".".join([prefix, *map(_key_name, path)]): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def with_leaves(prefix: str, tree: Any, arrays: dict[str, Array]) -> Any:
    """Return the tree with its arrays replaced by those of the same names."""
    return jax.tree.unflatten(jax.tree.structure(tree), [arrays[name] for name in named_leaves(prefix, tree)])


def as_text(reader_state: Any) -> Any:
    """Return an iterator's state in a form for JSON: bytes in base 64, everything else unchanged."""
    return (
        {"base64": base64.b64encode(reader_state).decode()}
        if isinstance(reader_state, bytes)
        else {"json": reader_state}
    )


def from_text(text: Any) -> Any:
    """Return the iterator's state, the inverse of ``as_text``."""
    return base64.b64decode(text["base64"]) if "base64" in text else text["json"]


def _key_name(entry):
    return str(next(getattr(entry, field) for field in ("name", "key", "idx") if hasattr(entry, field)))


def as_expected(leaf, expected):
    if expected is not None and hasattr(expected, "key_impl"):
        return jax.random.wrap_key_data(leaf, impl=expected.key_impl)
    return leaf


class ExpectedKey(NamedTuple):
    """A typed random key in a checkpoint: its words, and the implementation of the key."""

    shape: tuple[int, ...]
    dtype: Any
    sharding: Any
    key_impl: Any


def expected_leaf(leaf: Array) -> Any:
    """Return the shape, dtype and sharding that a checkpoint has to hold for an array."""
    words = key_data(leaf)
    if words is not leaf:
        return ExpectedKey(words.shape, words.dtype, words.sharding, jax.random.key_impl(leaf))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
