"""Causes ``transposed``, ``kernel_flipped``, ``shifted``, ``conjugate``, ``swapped`` and ``mask`` of a triangle."""

import itertools

import numpy as np

from funcnn.gradcheck.explanation.leaf import Diagnosis, WrongLeaf
from funcnn.gradcheck.explanation.numbers import best_factor, format_factor, is_close


def detect_transposed(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``transposed`` if the leaf is autodiff's gradient with its axes in another order, times a constant."""
    leaf = wrong.normalized
    for order in itertools.permutations(range(leaf.by_hand.ndim)):
        transposed = leaf.reference.transpose(order)
        if order == tuple(range(leaf.by_hand.ndim)) or transposed.shape != leaf.by_hand.shape:
            continue
        factor = best_factor(leaf.by_hand, transposed)
        if factor and is_close(leaf.by_hand, factor * transposed, leaf.tolerance * max(1.0, abs(factor))):
            slack = max(4 * leaf.tolerance, 1e-12)
            times = "" if abs(factor - 1) <= slack else f", times {format_factor(factor, slack)}"
            axes = "rows and columns exchanged" if leaf.by_hand.ndim == 2 else f"its axes in the order {order}"
            return "transposed", f"autodiff's gradient with {axes}{times}"
    return None


def detect_reshaped(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``transposed`` if the leaf is autodiff's gradient transposed, and then reshaped to the right shape."""
    leaf = wrong.leaf
    if leaf.by_hand.ndim != 2 or 1 in leaf.by_hand.shape:
        return None
    if is_close(leaf.by_hand, leaf.reference.T.reshape(leaf.by_hand.shape), leaf.tolerance):
        return "transposed", "autodiff's gradient transposed, and then reshaped to the shape of the parameter"
    return None


def detect_symmetrized(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``mask`` if autodiff's gradient is that of one triangle, and the leaf has it in both."""
    leaf = wrong.leaf
    if leaf.by_hand.ndim != 2 or leaf.by_hand.shape[0] != leaf.by_hand.shape[1] or leaf.by_hand.shape[0] < 2:
        return None
    both = leaf.reference + leaf.reference.T
    spread = {"halved in both": both / 2, "whole in both": both - np.diag(np.diag(leaf.reference))}
    for name, part in (("lower", np.tril(leaf.reference)), ("upper", np.triu(leaf.reference))):
        for text, symmetric in spread.items():
            if np.array_equal(part, leaf.reference) and is_close(leaf.by_hand, symmetric, leaf.tolerance):
                return "mask", f"autodiff's gradient {text} triangles, of which the loss reads the {name} one alone"
    return None


def detect_moved(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``kernel_flipped`` or ``shifted`` if the leaf is autodiff's with axes reversed or moved by one."""
    leaf = wrong.leaf
    axes = [axis for axis in range(leaf.by_hand.ndim) if leaf.by_hand.shape[axis] > 1]
    for count in range(1, min(len(axes), 3) + 1):
        for some in itertools.combinations(axes, count):
            if is_close(leaf.by_hand, np.flip(leaf.reference, some), leaf.tolerance):
                return "kernel_flipped", f"autodiff's gradient reversed along axis {', '.join(map(str, some))}"
    for axis in axes:
        for step in (1, -1):
            if leaf.by_hand.shape[axis] > 2 and is_close(
                leaf.by_hand, np.roll(leaf.reference, step, axis), leaf.tolerance
            ):
                return "shifted", f"autodiff's gradient moved by {step} along axis {axis}"
    return None


def detect_conjugate(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``conjugate`` if the leaf is the conjugate of autodiff's gradient, or its real part."""
    leaf = wrong.leaf
    if not np.iscomplexobj(leaf.reference):
        return None
    for text, other in {
        "the conjugate of autodiff's gradient": leaf.reference.conj(),
        "minus the conjugate of autodiff's gradient": -leaf.reference.conj(),
        "the real part of autodiff's gradient": leaf.reference.real,
        "the imaginary part of autodiff's gradient": 1j * leaf.reference.imag,
    }.items():
        if is_close(leaf.by_hand, other, leaf.tolerance):
            return "conjugate", f"{text}; JAX's gradient of a real loss is ∂/∂re − i ∂/∂im"
    return None


def detect_accumulated(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``accumulated`` if the leaf is the sum of its gradient and that of another leaf."""
    leaf = wrong.leaf
    for other in wrong.other_leaves():
        if other.reference.shape != leaf.by_hand.shape or leaf.by_hand.size < 2 or not other.reference.any():
            continue
        if is_close(leaf.by_hand, leaf.reference + other.reference, leaf.tolerance + other.tolerance):
            return "accumulated", f"the gradient of {other.path or 'the root'} is added: do both have one array?"
    return None


def detect_swapped(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``swapped`` if the leaf is autodiff's gradient of another leaf."""
    leaf = wrong.leaf
    for other in wrong.other_leaves():
        if other.reference.shape != leaf.by_hand.shape or leaf.by_hand.size == 0:
            continue
        tolerance = max(leaf.tolerance, other.tolerance)
        is_others = is_close(leaf.by_hand, other.reference, tolerance)
        if is_others and not is_close(other.reference, leaf.reference, tolerance):
            return "swapped", f"the gradient of {other.path or 'the root'}: were the two exchanged?"
    return None
