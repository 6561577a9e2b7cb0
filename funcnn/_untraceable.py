"""Code that needs the values of traced arrays: JAX's errors about it, with the caller's line and what to do."""

import contextlib
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import jax

LIBRARIES = (
    Path(__file__).parent,
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")),
)
_KINDS: tuple[tuple[type[Exception], str, str], ...] = (
    (jax.errors.TracerArrayConversionError, "calls NumPy", "It has to use jax.numpy: write jnp in the place of np."),
    (
        jax.errors.TracerBoolConversionError,
        "branches on a value",
        "Write jnp.where(condition, a, b) in the place of if, jnp.logical_and in the place of and.",
    ),
    (
        jax.errors.TracerIntegerConversionError,
        "uses a value as a Python integer",
        "Keep it an array: leave out int(), and index arrays of jax.numpy, not lists.",
    ),
    (
        jax.errors.NonConcreteBooleanIndexError,
        "selects by a mask, which has a size that depends on values",
        "Write jnp.where(mask, a, 0) in the place of a[mask].",
    ),
    (
        jax.errors.ConcretizationTypeError,
        "needs the value of an array, as a Python number or as a size",
        "Leave out float(), int() and .item(); give jnp.nonzero, jnp.unique and jnp.arange a size that is no array.",
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
    own = [frame for frame in frames if not any(folder in Path(frame.filename).parents for folder in LIBRARIES)]
    return f" at {own[-1].filename}:{own[-1].lineno}, in {own[-1].name}" if own else ""
