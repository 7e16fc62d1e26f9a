"""What a doctor finds, in the one form in which every `preheat doctor` tells it: ok, warn or fail, and a sentence."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """Well; works, but not as it should; does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    level: Level
    about: str
    """Which link of the chain, or which object."""
    sentence: str
    """What is so; beyond ok it ends with what to do."""

    def __str__(self) -> str:
        return f"{self.level:<4}  {self.about}: {self.sentence}" if self.about else f"{self.level:<4}  {self.sentence}"


@dataclass(slots=True)
class Findings:
    """In the order in which the links of the chain hang together."""

    lines: list[Finding] = field(default_factory=list)

    def ok(self, about: str, sentence: str) -> None:
        self.lines.append(Finding(Level.OK, about, sentence))

    def warn(self, about: str, sentence: str) -> None:
        self.lines.append(Finding(Level.WARN, about, sentence))

    def fail(self, about: str, sentence: str) -> None:
        self.lines.append(Finding(Level.FAIL, about, sentence))

    @property
    def failed(self) -> bool:
        return any(line.level is Level.FAIL for line in self.lines)

    def text(self) -> str:
        return "\n".join(map(str, self.lines))

    def as_json(self) -> dict[str, Any]:
        return {"failed": self.failed, "findings": [asdict(line) for line in self.lines]}
