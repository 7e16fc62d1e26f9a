"""How large a number is believed that anybody may write into a pod.

Beyond it stands a mistake or malice: Python reads no whole number of more than 4,300 digits, and no float holds one of
more than 308.
"""

from __future__ import annotations

from typing import Final

DIGITS: Final = 12
END: Final = 10**DIGITS
"""Above every count, length in tokens and size of a GPU in bytes."""


def whole(text: str) -> int | None:
    """A whole number in plain digits; None: it is none, or too large."""
    return int(text) if text.isdecimal() and len(text) <= DIGITS else None
