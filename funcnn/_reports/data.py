"""Reports as plain data and as JSON."""

import json
import math
from typing import Any

import numpy as np


def to_data(value: Any) -> Any:
    """Return NamedTuples as dictionaries, and tuples and arrays as lists, at every depth.

    Complex numbers, NaN and infinities become strings, because JSON has no numbers for them.
    """
    if hasattr(value, "_asdict"):
        return {name: to_data(field) for name, field in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [to_data(item) for item in value]
    if hasattr(value, "dtype"):
        return to_data(np.asarray(value).tolist())
    if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value


def to_json(value: Any, **options: Any) -> str:
    """Return ``to_data(value)`` as JSON; ``options`` are those of ``json.dumps``."""
    return json.dumps(to_data(value), allow_nan=False, **options)
