"""Numbers as text."""

from typing import Any


def format_size(value: float) -> str:
    """Return a difference or a tolerance with two digits."""
    return "0" if value == 0 else f"{value:.1e}"


def format_pair(first: Any, second: Any, same: bool) -> tuple[str, str]:
    """Return two numbers with as many digits as show their difference, four digits if they count as the ``same``.

    Example:
        >>> format_pair(1.0, 1.00000001, False)
        ('1', '1.00000001')
        >>> format_pair(-0.0, 0.0, True)
        ('0', '0')
    """
    for digits in range(4, 18):
        pair = f"{first:z.{digits}g}", f"{second:z.{digits}g}"
        if same or first == second or pair[0] != pair[1]:
            break
    return pair


def format_seconds(seconds: float) -> str:
    """Return a duration with its unit."""
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"
