"""Imports of optional dependencies."""

import importlib
from typing import Any


def import_optional(module: str, call: str, extra: str) -> Any:
    """Import a module of an optional dependency, or raise an error that says how to install it.

    Example:
        >>> import_optional("json", "example", "training").loads("1")
        1
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ModuleNotFoundError(
            f"{call}: expected {error.name}, which isn't installed. Install it: pip install 'funcnn[{extra}]'.",
            name=error.name,
        ) from error
