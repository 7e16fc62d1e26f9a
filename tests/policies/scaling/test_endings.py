"""What a shrink would cut off is told with the number that cures it."""

from __future__ import annotations

from policies.scaling.endings import Ending, warnings

SOUND = Ending(grace_seconds=120, has_pre_stop=True, shutdown_timeout_seconds=90)


def test_a_pod_that_ends_well_is_not_spoken_of() -> None:
    assert list(warnings(SOUND, 100.0)) == []
    assert list(warnings(SOUND, None)) == []


def test_a_grace_below_the_slowest_requests_is_told_with_one_that_is_enough() -> None:
    (told,) = warnings(SOUND, 131.0)
    assert told.startswith("terminationGracePeriodSeconds is 120, and one request of a hundred takes longer than 131 s")
    assert told.endswith("set it to 170 or more")


def test_without_pre_stop_and_shutdown_timeout_both_are_told() -> None:
    told = list(warnings(Ending(120, has_pre_stop=False, shutdown_timeout_seconds=None), 10.0))
    assert [each.split(",")[0] for each in told] == [
        "its container has no preStop",
        "vLLM is started without --shutdown-timeout",
    ]
    assert len(list(warnings(Ending(120, has_pre_stop=True, shutdown_timeout_seconds=0), 10.0))) == 1


def test_a_shutdown_timeout_beyond_the_grace_period_is_told() -> None:
    (told,) = warnings(Ending(60, has_pre_stop=True, shutdown_timeout_seconds=600), 10.0)
    assert told.startswith(
        "terminationGracePeriodSeconds is 60, less than --shutdown-timeout 600: the kill comes first"
    )
