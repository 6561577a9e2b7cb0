"""Memoised constructors: equal calls return the same functions, so that ``jax.jit`` finds what it compiled before."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Built = TypeVar("Built")

REMEMBERED_CALLS = 4096


def _check_names(name: str, signature: inspect.Signature, given: Mapping[str, Any]) -> None:
    """Raise where an argument has a name that the function doesn't take, with the name that was probably meant."""
    names = list(signature.parameters)
    for word in given:
        if word not in names and all(known.kind is not known.VAR_KEYWORD for known in signature.parameters.values()):
            initials = [known for known in names if word == "".join(part[:1] for part in known.split("_"))]
            meant = initials or difflib.get_close_matches(word, names, n=1)
            advice = f"Did you mean {meant[0]}?" if meant else "Use one of these names."
            raise TypeError(f"{name}: expected arguments named {', '.join(names)}, got {word!r}. {advice}")


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
        _check_names(constructor.__name__, signature, kwargs)
        try:
            call = signature.bind(*args, **kwargs)
            call.apply_defaults()
            hash((call.args, tuple(call.kwargs.items())))
        except TypeError:
            return constructor(*args, **kwargs)
        return remembered(*call.args, **call.kwargs)

    return construct
