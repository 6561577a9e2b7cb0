"""The caller's functions as functions of the floating parameters, and their results as trees of such."""

import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._checks import describe, is_concrete, numeric_array
from funcnn._tree_checks import check_same_structure, same_structure
from funcnn.gradcheck.engine.forms import form_of
from funcnn.gradcheck.engine.taps import split_taps
from funcnn.gradcheck.engine.tensors import as_array, as_tensor, is_tensor, with_arrays
from funcnn.gradcheck.report import Uncompared


def floating_functions(
    name: str, loss_fn: Callable[..., Any], grad_fn: Callable[..., PyTree], arguments: tuple
) -> tuple[Callable[..., Any], Callable[..., tuple[PyTree, dict[str, Any]]], tuple]:
    """Return both functions and their arguments, the parameters without the leaves that can't be differentiated.

    Integers, strings, functions and other such leaves are passed to the caller's functions untouched, and so are the
    variables of Flax's modules that aren't parameters, such as the statistics of its batch norm. Arrays keep their
    kind: NumPy's stay NumPy's, and PyTorch's tensors are NumPy's for the check and tensors for the caller.

    Args:
        name: the public function, for error messages.
        loss_fn, grad_fn: functions of ``arguments``.
        arguments: the parameters, any tree with at least one floating leaf, and the further arguments.

    Returns:
        The loss, the gradient with a dictionary of taps' gradients, and the arguments: the floating parameters with
        ``None`` in the places of the other leaves, and the others with arrays in the places of tensors.
    """
    params, *others = arguments
    loss_fn, grad_fn = with_arrays(loss_fn, tuple(others)), with_arrays(grad_fn, tuple(others))
    floating = jax.tree.map(lambda leaf: _floating_array(name, leaf), params, is_leaf=_is_flax_state)

    def fill(new):
        return jax.tree.map(_restore, new, params, is_leaf=lambda leaf: leaf is None)

    def loss(new, *rest):
        return as_array(loss_fn(fill(new), *rest))

    def gradient(new, *rest):
        return select_floating(name, grad_fn(fill(new), *rest), params, floating)

    return loss, gradient, (floating, *jax.tree.map(as_array, others))


def uncompared(tree: PyTree, is_compared: Callable[[Any], bool]) -> tuple[Uncompared, ...]:
    """Return the leaves of a tree that have no gradient, with the reasons."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_flax_state)
    return tuple(
        Uncompared(jax.tree_util.keystr(path), *_why_uncompared(leaf)) for path, leaf in leaves if not is_compared(leaf)
    )


def _why_uncompared(leaf) -> tuple[str, str]:
    """Return a leaf's dtype, or the name of its type, and why it has no gradient."""
    if _is_flax_state(leaf):
        return type(leaf).__name__, "no parameter of the module"
    leaf = as_array(leaf)
    dtype: Any = getattr(leaf, "dtype", None)
    kind = str(dtype) if isinstance(leaf, jax.Array | np.ndarray | np.generic) else type(leaf).__name__
    is_array = kind == str(dtype)
    if isinstance(leaf, bool) or (is_array and jnp.issubdtype(dtype, np.bool_)):
        return kind, "booleans have no gradient"
    if isinstance(leaf, int) or (is_array and jnp.issubdtype(dtype, jnp.integer)):
        return kind, "integers have no gradient"
    if is_array and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return kind, "random keys have no gradient"
    is_number = isinstance(leaf, float | complex) or (is_array and jnp.issubdtype(dtype, jnp.inexact))
    return kind, "no array: pass jnp.asarray of it" if is_number else "no array of numbers"


def select_floating(name: str, returned: Any, params: PyTree, floating: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """Return the gradients of the floating parameters, and the taps' gradients, of what a gradient function returned.

    Raises:
        ValueError: the gradient has another tree structure than the parameters.
    """
    form = form_of(name)
    gradients, taps = split_taps(returned, params)
    gradients = _without_none(gradients, params)
    if _is_of_flax(params) and not same_structure(gradients, params):
        gradients = _by_paths(gradients, floating, params) or gradients
    if same_structure(floating, params):
        _check_no_pair(form.function, gradients, params)
        check_same_structure(form.function, gradients, params, form.values, form.advice)
    else:
        gradients = _by_paths(gradients, floating, params) or gradients
        check_same_structure(form.function, gradients, floating, "the floating parameters", form.advice)
    return jax.tree.map(lambda leaf: _gradient_array(form.function, leaf), gradients), taps


def _without_none(gradients: PyTree, params: PyTree) -> PyTree:
    """Return gradients with zeros where PyTorch has ``None``, at parameters on which the loss does not depend."""
    leaves, structure = jax.tree.flatten(gradients, is_leaf=lambda leaf: leaf is None)
    likes = jax.tree.leaves(params)
    if len(leaves) != len(likes) or not any(map(is_tensor, likes)):
        return gradients
    filled = [
        np.zeros_like(as_array(like)) if leaf is None and is_tensor(like) and like.is_floating_point() else leaf
        for leaf, like in zip(leaves, likes, strict=True)
    ]
    return jax.tree.unflatten(structure, filled)


def _by_paths(gradients, floating, params) -> PyTree | None:
    """Return gradients in the containers of the floating parameters; ``None`` if their paths are others.

    Entries for parameters that can't be differentiated are left out. Of Flax's modules the paths are compared by the
    names in them, because ``nnx.grad`` returns a ``State`` of a module's gradients.
    """
    is_of_flax = _is_of_flax(params)

    def path_of(path):
        if not is_of_flax:
            return jax.tree_util.keystr(path)
        names = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]
        return "/".join(names[:-1] if names and names[-1] == "value" else names)

    def paths_of(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: leaf is None)
        return {path_of(path): leaf for path, leaf in leaves}

    wanted = paths_of(floating)
    given = {path: leaf for path, leaf in paths_of(gradients).items() if leaf is not None}
    paths = {path for path, leaf in wanted.items() if leaf is not None}
    if not paths <= set(given) <= set(wanted):
        return None
    return jax.tree.unflatten(jax.tree.structure(floating), [given[path] for path in wanted if path in paths])


def _is_of_flax(tree) -> bool:
    """Whether a tree has containers of Flax, such as its modules and ``nnx.State``."""

    def is_container(node):
        return type(node).__module__.partition(".")[0] == "flax"

    return any(map(is_container, jax.tree.leaves(tree, is_leaf=is_container)))


def _is_flax_state(node) -> bool:
    """Whether a node is a variable of a Flax module that isn't a parameter."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(node, nnx.Variable) and not isinstance(node, nnx.Param)


def _check_no_pair(name, gradients, params):
    """Raise where a gradient function returned ``(loss, gradients)``, as ``jax.value_and_grad`` does."""
    if not isinstance(gradients, tuple) or len(gradients) != 2 or same_structure(gradients, params):
        return
    for number, word in ((1, "(loss, gradients)"), (0, "(gradients, loss)")):
        if same_structure(gradients[number], params) and np.shape(jax.tree.leaves(gradients[1 - number])[0:1]) == (1,):
            raise ValueError(
                f"{name}: expected the gradients alone, got a pair that looks like {word}. "
                f"Pass lambda *args: grad_fn(*args)[{number}]."
            )


def _floating_array(name, leaf):
    if _is_flax_state(leaf):
        return None
    leaf = as_array(leaf)
    if isinstance(leaf, jax.Array):
        if not is_concrete(leaf):
            raise TypeError(f"{name}(params): expected arrays, got tracers. Call it outside jit, vmap and grad.")
        return leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else None
    if isinstance(leaf, float | complex) and not isinstance(leaf, np.generic):
        return jnp.asarray(leaf)
    if isinstance(leaf, np.ndarray | np.generic) and jnp.issubdtype(leaf.dtype, jnp.inexact):
        numeric_array(f"{name}(params)", leaf)
        return np.asarray(leaf)
    return None


def uncompared_parameters(name: str, params: PyTree) -> tuple[Uncompared, ...]:
    """Return the parameters that ``floating_functions`` passes untouched."""
    return uncompared(params, lambda leaf: _floating_array(name, leaf) is not None)


def check_any_floating(name: str, params: PyTree, floating: PyTree, variable: str = "params") -> None:
    """Raise where no leaf of the parameters can be differentiated."""
    if jax.tree.leaves(params) and not jax.tree.leaves(floating):
        path, leaf = jax.tree_util.tree_leaves_with_path(params)[0]
        raise TypeError(
            f"{name}: expected at least one floating array, got {_describe_leaf(leaf)} at "
            f"{jax.tree_util.keystr(path) or 'the root'}. {_floating_advice(params, variable)}"
        )


def _floating_advice(params: PyTree, variable: str) -> str:
    """Return how to make floating arrays of parameters."""
    leaves = jax.tree.leaves(params)
    if hasattr(leaves[0], "named_parameters"):  # a module of PyTorch
        return "Pass dict(module.named_parameters()), and call the module by torch.func.functional_call."
    if not all(isinstance(leaf, int | float | jax.Array | np.ndarray | np.generic) for leaf in leaves):
        return "Give it arrays of floating numbers."
    if leaves[0] is params:
        return f"Pass floating arrays, such as jnp.asarray({variable}, float)."
    return f"Make them floating: {variable} = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), {variable})."


def _describe_leaf(leaf) -> str:
    is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic)
    return describe(leaf) if is_array else f"{leaf!r:.60} of type {type(leaf).__name__}"


def _restore(new, leaf):
    """Return what the caller's function gets in the place of its own leaf."""
    if new is None:
        return leaf
    return as_tensor(new, leaf) if is_tensor(leaf) else new


def _gradient_array(name, leaf):
    if is_tensor(leaf):
        return np.conj(as_array(leaf))  # By PyTorch's convention a complex gradient is the conjugate of JAX's.
    if not isinstance(leaf, jax.Array):
        numeric_array(name, leaf)
    return leaf


def describe_error(error: Exception, width: int) -> str:
    """Return an error's type and the first line of its message, cut between two words where it is longer."""
    return textwrap.shorten(f"{type(error).__name__}: {error}".splitlines()[0], width, placeholder=" …")


def check_arguments(
    name: str, function: Callable[..., Any], arguments: tuple, error: Exception, signature: str, advice: str
) -> None:
    """Raise a TypeError where a function raised because it takes other arguments than were passed."""
    try:
        taken = inspect.signature(function)
    except (TypeError, ValueError):  # functions written in C may have none
        return
    try:
        taken.bind(*arguments)
    except TypeError as unfit:
        raise TypeError(
            f"{name}: expected a function that takes {signature}, {len(arguments)} in all, got one of {taken}: "
            f"{unfit}. {advice}"
        ) from error
