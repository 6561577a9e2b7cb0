"""Equal calls, same functions: what keeps ``jax.jit``'s cache warm when a model is built anew."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Built = TypeVar("Built")

REMEMBERED_CALLS = 4096


def memoised(constructor: Callable[Arguments, Built]) -> Callable[Arguments, Built]:
    """Make ``constructor`` return the same object for equal arguments, however they are spelled.

    ``functools.lru_cache`` alone takes ``linear(2, 3)`` and ``linear(2, out_features=3)`` for different calls, and
    refuses arguments without a hash (an array or a tracer as a learning rate); here those are simply built anew.

    Example:
        >>> @memoised
        ... def pair(first, second=2):
        ...     return object()
        >>> pair(1) is pair(1, second=2)
        True
        >>> pair([1]) is pair([1])
        False
    """
    signature = inspect.signature(constructor)
    remembered = functools.lru_cache(maxsize=REMEMBERED_CALLS, typed=True)(constructor)

    @functools.wraps(constructor)
    def construct(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Built:
        try:
            call = signature.bind(*args, **kwargs)
            call.apply_defaults()
            hash((call.args, tuple(call.kwargs.items())))
        except TypeError:
            return constructor(*args, **kwargs)
        return remembered(*call.args, **call.kwargs)

    return construct
