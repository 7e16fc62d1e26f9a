"""What the suffixes multiply a number with where Kubernetes writes amounts: 2k, 1Gi."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_DECIMAL: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
FACTORS: Final[Mapping[str, int]] = {**_DECIMAL, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
"""The whole ones."""
