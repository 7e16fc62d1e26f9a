"""Eight days of load and the history that they leave behind: what a target remembers when its memory is full."""

from __future__ import annotations

from math import pi, sin
from typing import Final

from policies.scaling.demand import LoadBin
from policies.scaling.settings import ScalingPolicy
from tests.policies.scaling.story import OUTPUT, PROMPT, Story

DAY_SECONDS: Final = 86_400.0
REQUESTS_A_POD: Final = 1.6
"""A second, in the mean over a day: three quarters of what the story's pods bear."""


def load_at(time: float, pods: int) -> float:
    """Requests/s: a day's wave, and beside it one that no season explains."""
    day = 1.0 + 0.25 * sin(2 * pi * time / DAY_SECONDS)
    return pods * REQUESTS_A_POD * day * (1.0 + 0.05 * sin(time / 211.0))


def eight_days(until: float, origin: float, pods: int) -> list[LoadBin]:
    """The load of the past as a metrics store yields it: minutes for the last day, five minutes before."""
    bins = []
    for width, start, end in ((300.0, 8 * DAY_SECONDS, DAY_SECONDS), (60.0, DAY_SECONDS, 0.0)):
        for number in range(round((start - end) / width)):
            at = until - start + number * width
            rate = load_at(at + width / 2 - origin, pods)
            bins.append(LoadBin(at, width, rate, rate * PROMPT, rate * OUTPUT))
    return bins


def full_story(pods: int, policy: ScalingPolicy) -> Story:
    """A story of so many pods whose history is full: eight days read back, then an hour lived."""
    story = Story(lambda time: load_at(time, pods), policy, start=pods)
    story.history = story.history.refilled(eight_days(story.epoch, story.epoch, pods), policy)
    return story.tell(policy.ticks_keep_seconds + 4 * policy.tick_seconds)
