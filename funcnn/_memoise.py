"""Memoised constructors: equal calls return the same functions, so that ``jax.jit`` finds what it compiled before."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Built = TypeVar("Built")

REMEMBERED_CALLS = 4096


def memoised(constructor: Callable[Arguments, Built]) -> Callable[Arguments, Built]:
    """Make ``constructor`` return the same object for equal arguments, positional or by keyword.

    ``functools.lru_cache`` alone treats ``linear(2, 3)`` and ``linear(2, out_features=3)`` as different calls, and
    raises for arguments without a hash (an array or a tracer as a learning rate); here those are not memoised.

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
