"""Whether a pod that is taken away has time for what it still does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Ending:
    """What a pod's spec says of its end."""

    grace_seconds: float
    """From the wish to the kill, `preStop` included."""
    has_pre_stop: bool
    shutdown_timeout_seconds: float | None
    """What vLLM is told to wait for running requests; None where it is told nothing, and so aborts them at once."""


def warnings(ending: Ending, request_seconds: float | None) -> Iterator[str]:
    """What a shrink would cut off, one sentence each; `request_seconds` is what 99 of 100 requests stay below."""
    grace = f"terminationGracePeriodSeconds is {ending.grace_seconds:g}"
    if request_seconds is not None and ending.grace_seconds < request_seconds:
        yield (
            f"{grace}, and one request of a hundred takes longer than {request_seconds:.0f} s: a shrink cuts those "
            f"off; set it to {ceil(request_seconds / 10) * 10 + 30} or more"
        )
    if not ending.has_pre_stop:
        yield (
            "its container has no preStop, so what routers send before they hear of its end is refused: "
            "let it sleep for 10 to 15 s"
        )
    timeout = ending.shutdown_timeout_seconds
    if not timeout:
        yield (
            "vLLM is started without --shutdown-timeout, so it aborts what runs as soon as it is told to stop: "
            "give it the grace period less preStop"
        )
    elif timeout > ending.grace_seconds:
        yield f"{grace}, less than --shutdown-timeout {timeout:g}: the kill comes first; make it the longer of the two"
