"""Windows that slide over the axes between the batch and the channels: sizes, strides, padding, and their checks.

The words are those of ``jax.lax``: a window of ``k`` positions with dilation ``d`` spans ``d (k − 1) + 1`` positions,
its extent. Along an axis of ``n`` positions, padded by ``low`` and ``high``, a window with stride ``s`` has
``(low + n + high − extent) // s + 1`` places.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from jaxtyping import Array, Float

from funcnn._checks import check_features, feature_array, positive_integer

Sizes: TypeAlias = tuple[int, ...]
Pads: TypeAlias = tuple[tuple[int, int], ...]
Padding: TypeAlias = Literal["SAME", "VALID"] | Pads
"""``"SAME"``: as many places as the axis has positions, over the stride, rounded up; ``"VALID"``: no padding; or the
positions added in front of and behind each axis, ``((low, high), ...)``."""

Images: TypeAlias = Float[Array, "batch *positions channels"]

AXES = {1: "time", 2: "height, width"}


def checked_sizes(name: str, value: Any, axes: int) -> Sizes:
    """Return a size for each axis, from one integer for all of them or a sequence of one for each."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == axes:
        return tuple(positive_integer(name, size) for size in value)
    each = f"{axes} of them, one for each of {AXES[axes]}" if axes > 1 else "a tuple of one"
    return (positive_integer(name, value, f"a positive integer, or {each}"),) * axes


def checked_padding(name: str, value: Any, axes: int) -> Padding:
    """Return ``"SAME"``, ``"VALID"``, or a pair of counts for each axis; raise for anything else."""
    if isinstance(value, str) and value == "SAME":
        return "SAME"
    if isinstance(value, str) and value == "VALID":
        return "VALID"
    example = ", ".join(["(1, 1)"] * axes) + "," * (axes == 1)
    is_pairs = isinstance(value, Sequence) and len(value) == axes and all(map(_is_pair, value))
    if not is_pairs:
        raise ValueError(
            f"{name}: expected 'SAME', 'VALID', or a pair of counts of at least 0 for each of {AXES[axes]}, got "
            f"{value!r}. For one position on every side pass ({example})."
        )
    return tuple((int(low), int(high)) for low, high in value)


def _is_pair(value: Any) -> bool:
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    return is_sequence and all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in value)


def image_array(name: str, x: Any, axes: int) -> Array:
    """Return ``x`` as a floating array ``(batch, positions, channels)`` with a number of axes of positions."""
    converted = feature_array(name, x)
    if converted.ndim != axes + 2:
        advice = f"Give every sample the axes ({AXES[axes]}, channels), for example by x.reshape."
        if converted.ndim == axes + 1:
            advice = "For images of one channel pass x[..., None]; for a single sample pass x[None]."
        raise ValueError(
            f"{name}: expected x of shape (batch, {AXES[axes]}, channels), got {converted.shape}. {advice}"
        )
    return converted


def check_channels(name: str, x: Any, axes: int, channels: int, dtype: Any) -> Array:
    """Return ``x`` as an array ``(batch, positions, channels)`` in the parameters' dtype."""
    converted = image_array(name, x, axes)
    if converted.shape[-1] != channels:
        advice = f"Give it {channels} channels, or build the layer for the {converted.shape[-1]} that x has."
        if converted.shape[1] == channels:
            advice = "Channels are the last axis: pass jnp.moveaxis(x, 1, -1)."
        raise ValueError(
            f"{name}: expected x of shape (batch, {AXES[axes]}, {channels}), got {converted.shape}. {advice}"
        )
    return check_features(name, converted, channels, dtype)


def extents(window: Sizes, dilation: Sizes) -> Sizes:
    """Return how many positions a dilated window spans along each axis."""
    return tuple(space * (size - 1) + 1 for size, space in zip(window, dilation, strict=True))


def pads_of(padding: Padding, sizes: Sizes, window_extents: Sizes, stride: Sizes) -> Pads:
    """Return the positions to add in front of and behind each axis.

    Example:
        >>> pads_of("SAME", (5, 6), (3, 3), (2, 2))
        ((1, 1), (0, 1))
    """
    if padding == "VALID":
        return ((0, 0),) * len(sizes)
    if padding != "SAME":
        return padding
    # The last window starts at (places − 1) s, and an odd count has its larger half behind.
    totals = [
        max((-(-size // step) - 1) * step + extent - size, 0)
        for size, extent, step in zip(sizes, window_extents, stride, strict=True)
    ]
    return tuple((total // 2, total - total // 2) for total in totals)


def check_extents(name: str, sizes: Sizes, pads: Pads, window_extents: Sizes) -> None:
    """Raise where a window is larger than the padded image, so that it has no place there."""
    padded = tuple(low + size + high for size, (low, high) in zip(sizes, pads, strict=True))
    if any(size < extent for size, extent in zip(padded, window_extents, strict=True)):
        raise ValueError(
            f"{name}: expected an image of at least {_times(window_extents)} positions with its padding, the extent "
            f"of the window, got {_times(padded)}. Give larger images, a smaller window or more padding."
        )


def _times(sizes: Sizes) -> str:
    return " × ".join(map(str, sizes))
