"""Conversion between arrays and PyTorch's tensors, and between channels last and channels first."""

import jax
import numpy as np
import torch


def tensor(array, *, is_leaf: bool = False) -> torch.Tensor:
    """Return a copy of an array as a tensor; with ``is_leaf``, floating tensors require gradients."""
    made = torch.from_numpy(np.array(array))
    return made.requires_grad_(is_leaf and made.is_floating_point())


def tensors(tree, *, is_leaf: bool = False):
    """Return a tree of arrays as a tree of tensors."""
    return jax.tree.map(lambda leaf: tensor(leaf, is_leaf=is_leaf), tree)


def arrays(tree):
    """Return a tree of tensors as a tree of NumPy arrays."""
    return jax.tree.map(lambda leaf: leaf.detach().numpy().copy(), tree)


def gradients(value, tree, cotangent=None):
    """Return PyTorch's gradients of a tensor by the leaves of a tree, as arrays in the containers of the tree."""
    leaves, structure = jax.tree.flatten(tree)
    if not leaves:
        return tree
    return jax.tree.unflatten(structure, arrays(list(torch.autograd.grad(value, leaves, cotangent, retain_graph=True))))


def first(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor with the channels behind the batch axis, as PyTorch has them.

    It is contiguous: PyTorch 2.13 crashes in the backward pass of ``group_norm`` where x is a view of channels last and
    its gradient is not asked for.
    """
    return x.movedim(-1, 1).contiguous()


def last(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor with the channels as its last axis, as funcnn has them."""
    return x.movedim(1, -1)
