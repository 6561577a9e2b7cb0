"""Code that needs the values of traced arrays: JAX's errors about it, with the caller's line and what to do."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

_LIBRARIES = tuple(Path(file).parent for file in (__file__, jax.__file__, np.__file__))
_KINDS: tuple[tuple[type[Exception], str, str], ...] = (
    (jax.errors.TracerArrayConversionError, "calls NumPy", "It has to use jax.numpy: write jnp in the place of np."),
    (
        jax.errors.TracerBoolConversionError,
        "branches on a value",
        "Write jnp.where(condition, a, b) in the place of if, jnp.logical_and in the place of and.",
    ),
    (
        jax.errors.ConcretizationTypeError,
        "makes a Python number of an array",
        "Keep it an array: leave out float(), int(), bool() and .item().",
    ),
)
"""The errors, what the code does, and what to do. An error comes before those of which it is a kind."""


@contextlib.contextmanager
def errors_of_tracing(name: str) -> Iterator[None]:
    """Raise a TypeError with advice where code raises that JAX can't trace.

    Args:
        name: the public function, for error messages.
    """
    try:
        yield
    except tuple(kind for kind, _, _ in _KINDS) as error:
        does, advice = next((does, advice) for kind, does, advice in _KINDS if isinstance(error, kind))
        raise TypeError(
            f"{name}: expected functions that JAX can trace, got one that {does}{place_of(error)}. {advice}"
        ) from error


def place_of(error: BaseException) -> str:
    """Return the innermost line that isn't a library's, as words; nothing where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(folder in Path(frame.filename).parents for folder in _LIBRARIES)]
    return f" at {own[-1].filename}:{own[-1].lineno}, in {own[-1].name}" if own else ""
