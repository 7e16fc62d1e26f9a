"""The write: a number of replicas through `scale`, void if somebody else was there first.

A JSON patch that tests the number before it replaces it, and not a resourceVersion, since every pod that turns
ready changes the version and none of them changes what was decided from.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from cluster.api import JSON_PATCH, PASSING, Api, Pace, StatusError, UnansweredError, meaning
from cluster.errors import NotObservedError, OvertakenError, RefusedError, TargetNotFoundError
from cluster.objects import Scale, scale_of

ATTEMPTS = 4
FIELD_MANAGER = "preheat"
NO_REPLICAS_FIELD = "the spec replicas field"
"""What the API server complains of (500) when a custom resource leaves out the field its scale points to."""


async def read_scale(api: Api, path: str, subject: str) -> Scale:
    """The scale as it is now."""
    try:
        return scale_of(await api.call("GET", path))
    except StatusError as error:
        if NO_REPLICAS_FIELD in str(error):
            raise RefusedError(
                f"{subject} does not say how many replicas it has, so its scale cannot be used: "
                "set its replicas once by hand"
            ) from error
        if error.status == 404:
            raise TargetNotFoundError(f"{subject} does not exist: create it, or correct spec.scaleTargetRef") from error
        raise meaning(error, subject) from error


async def write_scale(api: Api, path: str, subject: str, *, expected: int, replicas: int, pace: Pace) -> Scale:
    """Ask for `replicas` if `expected` is still what is asked for.

    OvertakenError if it is not; RefusedError if asking again is no use; NotObservedError if the server did not
    take it within all attempts.
    """
    deadline = time.monotonic() + pace.write_seconds
    may_have_worked = False
    pause = pace.write_pause_seconds
    for attempt in range(1, ATTEMPTS + 1):
        wait = pause
        try:
            seconds = min(pace.request_seconds, deadline - time.monotonic())
            return scale_of(
                await api.call(
                    "PATCH",
                    path,
                    query=[("fieldManager", FIELD_MANAGER)],
                    body=_patch(expected, replicas),
                    content_type=JSON_PATCH,
                    seconds=seconds,
                    leader_only=True,
                )
            )
        except UnansweredError as error:
            may_have_worked = True
            failure: NotObservedError | RefusedError = error
        except StatusError as error:
            if error.status == 422:
                return await _after_a_void_patch(
                    api, path, subject, error, expected=expected, replicas=replicas, excused=may_have_worked
                )
            if error.status == 404:
                raise TargetNotFoundError(
                    f"{subject} does not exist: create it, or correct spec.scaleTargetRef"
                ) from error
            failure = meaning(error, subject)
            if error.status not in PASSING:
                raise failure from error
            # A gateway that timed out says nothing of what went on behind it.
            may_have_worked = may_have_worked or error.status in (500, 502, 503, 504)
            wait = max(pause, error.retry_after_seconds or 0.0)
        if attempt == ATTEMPTS or time.monotonic() + wait >= deadline:
            raise NotObservedError(
                f"{subject} could not be scaled to {replicas} in {attempt} "
                f"{'attempt' if attempt == 1 else 'attempts'}: {failure}"
            ) from failure
        await asyncio.sleep(wait)
        pause *= 2
    raise AssertionError("the last attempt returns or raises")


def _patch(expected: int, replicas: int) -> list[dict[str, Any]]:
    # The API server leaves a zero out of the document, and what is not there equals null and can be added only.
    return [
        {"op": "test", "path": "/spec/replicas", "value": expected or None},
        {"op": "replace" if expected else "add", "path": "/spec/replicas", "value": replicas},
    ]


async def _after_a_void_patch(
    api: Api, path: str, subject: str, error: StatusError, *, expected: int, replicas: int, excused: bool
) -> Scale:
    """Why the patch did nothing, from what the scale now says: 422 is a failed test and a refused number alike."""
    try:
        scale = await read_scale(api, path, subject)
    except NotObservedError:
        if error.explained:
            raise RefusedError(f"{subject} refuses {replicas} replicas: {error}") from error
        raise OvertakenError(f"{subject} no longer asks for {expected} replicas; by whom is not known") from error
    if scale.desired == replicas and excused:
        return scale  # an earlier attempt whose answer was lost
    if scale.desired != expected:
        raise OvertakenError(
            f"{subject} was set to {scale.desired} by somebody else, not the {expected} the decision was made "
            "from; that is respected for this tick"
        ) from error
    if error.explained:
        raise RefusedError(f"{subject} refuses {replicas} replicas: {error}") from error
    raise NotObservedError(f"{subject} changed while it was scaled: {error}") from error
