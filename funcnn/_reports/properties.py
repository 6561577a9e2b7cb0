"""Properties: what a check finds beside the values that it compares."""

from typing import NamedTuple


class PropertyReport(NamedTuple):
    """Whether a gradient or an optimizer has a property, such as the same result twice or under ``jit``."""

    name: str
    ok: bool
    detail: str
