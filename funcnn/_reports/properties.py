"""Properties: what a check finds beside the values that it compares."""

from typing import NamedTuple


class PropertyReport(NamedTuple):
    """Whether a gradient or an optimizer has a property, such as the same result twice or under ``jit``.

    Fields:
        name: the property.
        ok: whether it holds; ``None`` if it was not checked, which counts neither for nor against.
        detail: what differs, or why it was not checked.
    """

    name: str
    ok: bool | None
    detail: str
