"""PyTorch's tensors: NumPy's arrays for a check, and tensors again for the caller's functions."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._checks import is_concrete


def is_tensor(leaf: Any) -> bool:
    """Whether a leaf is a tensor of PyTorch, which is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(leaf, torch.Tensor)


def as_array(leaf: Any) -> Any:
    """Return a tensor as an array of NumPy, bfloat16 in JAX's dtype; any other leaf as it is."""
    if not is_tensor(leaf):
        return leaf
    torch = sys.modules["torch"]
    plain = leaf.detach().cpu().resolve_conj().resolve_neg()
    if plain.dtype == torch.bfloat16:  # NumPy has none: the same bits as integers.
        return plain.contiguous().view(torch.int16).numpy().view(jnp.bfloat16)
    return plain.numpy()


def as_tensor(array: Any, like: Any) -> Any:
    """Return an array as a tensor on the device of another one, which requires a gradient where that one does.

    Raises:
        TypeError: the array is being traced by JAX.
    """
    if not is_concrete(array):
        raise TypeError("PyTorch's functions take tensors, and JAX traces its own arrays alone")
    torch, values = sys.modules["torch"], np.array(array)
    if values.dtype == jnp.bfloat16:
        tensor = torch.as_tensor(values.view(np.int16), device=like.device).view(torch.bfloat16)
    else:
        tensor = torch.as_tensor(values, device=like.device)
    is_differentiable = tensor.is_floating_point() or tensor.is_complex()
    return tensor.requires_grad_(like.requires_grad and is_differentiable)


def with_arrays(function: Callable[..., Any], arguments: tuple) -> Callable[..., Any]:
    """Return a function of ``(params, *arguments)`` that takes arrays in the places of the arguments' tensors."""
    if not any(map(is_tensor, jax.tree.leaves(arguments))):
        return function

    def call(params, *rest):
        tensors = jax.tree.map(lambda new, own: as_tensor(new, own) if is_tensor(own) else new, rest, arguments)
        return function(params, *tensors)

    return call
