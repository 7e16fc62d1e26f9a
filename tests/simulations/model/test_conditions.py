"""What conditions a fleet refuses, and what a cold start draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from simulations.model.cold_start import Changing, ColdStartError, Constant, Jittered, Sampled, WarmAndColdNodes
from simulations.model.conditions import Conditions, ConditionsError, Rollout, Scraping, Shortage
from simulations.model.engine import Engine, StepTime

NOW = Constant(0)
ENGINE = Engine("plain", StepTime(10, 0, 0, 0, 0), kv_tokens=100_000)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Constant(-1), "the cold start is -1: give seconds, at least 0"),
        (lambda: Constant(math.nan), "the cold start is nan"),
        (lambda: Jittered(30, 31), r"jitter \(31 s\) must not exceed the cold start \(30 s\)"),
        (lambda: Sampled(()), "no measured cold start"),
        (lambda: Sampled((3, math.inf)), "a measured cold start is inf"),
        (lambda: Changing(NOW, NOW, -1), "the time from which cold starts change is -1: give seconds"),
        (lambda: WarmAndColdNodes(NOW, NOW, -1), "warm_nodes is -1"),
        (lambda: WarmAndColdNodes(NOW, NOW, 1, math.nan), "kept for nan s"),
    ],
)
def test_a_cold_start_that_cannot_be_is_refused_by_the_setting(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ColdStartError, match=said):
        make()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Scraping(-1), "scrape interval is -1: it must be at least 0"),
        (lambda: Scraping(math.nan), "scrape interval is nan"),
        (lambda: Scraping(missed_share=1), "give a share from 0 to less than 1"),
        (lambda: Scraping(600), r"stale after 300 s, which must not be less than the scrape interval \(600 s\)"),
        (lambda: Conditions(NOW, replica_slots=0), "replica_slots is 0: give at least 1"),
        (lambda: Conditions(NOW, grace_seconds=-1), "the grace is -1"),
        (lambda: Conditions(NOW, client_timeout_seconds=0), "the client timeout is 0"),
        (lambda: Conditions(NOW, client_retries=2), "client_retries needs client_timeout_seconds"),
        (
            lambda: Conditions(NOW, client_timeout_seconds=864_000, client_retries=5),
            "a client waits for 5.184e[+]06 s, the timeout times its attempts: .* at most 4320000 s, or none",
        ),
        (lambda: Conditions(NOW, seed=-1), "seed is -1"),
        (lambda: Conditions(NOW, seed=2**63), "seed is 9223372036854775808: it must be at most 9223372036854775807"),
        (lambda: Rollout(math.inf, ENGINE), "the rollout's time is inf: it must be at least 0"),
        (lambda: Shortage(-1, 60), "the shortage's time is -1: it must be at least 0"),
        (lambda: Shortage(0, math.inf), "the shortage's length is inf: it must be at least 0"),
        (lambda: Rollout(0, ENGINE, max_surge=0), "the rollout's max_surge is 0: it must be at least 1"),
    ],
)
def test_conditions_that_cannot_be_are_refused_by_the_setting(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConditionsError, match=said):
        make()


def test_draws_stay_where_they_belong_and_differ() -> None:
    rng = np.random.default_rng(3)
    jittered = [Jittered(100, 20).draw(rng, 0.0) for _ in range(200)]
    assert 80 <= min(jittered) < 85
    assert 115 < max(jittered) <= 120
    sampled = Sampled((10, 20, 70))
    assert {sampled.draw(rng, 0.0) for _ in range(100)} == {10, 20, 70}
    assert Constant(5).draw(rng, 0.0) == 5
