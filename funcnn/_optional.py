"""Libraries that only some calls need."""

import importlib
from typing import Any


def needed(module: str, call: str, extra: str) -> Any:
    """A module of an optional dependency, or an error that says how to install it.

    Example:
        >>> needed("json", "example", "training").loads("1")
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
