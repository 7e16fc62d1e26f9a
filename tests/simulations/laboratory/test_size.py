"""The fewest replicas: found, no more than needed, and as sure as the trace makes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cluster.files import ConfigError
from simulations.laboratory.oracle import serve
from simulations.laboratory.size import size
from simulations.replay import attainment
from simulations.traces import Trace
from tests.simulations.scenes import TRACE, scenario

SCENE = replace(scenario(), start_replicas=None)


def fixed(replicas: int) -> float:
    fleet, _ = serve(SCENE, np.full(60, replicas))
    return attainment(fleet.servers, SCENE.objectives)


def test_the_fixed_number_attains_and_one_less_does_not() -> None:
    found = size(SCENE)
    number = found.fixed.replicas
    assert fixed(number) >= 0.99 > fixed(number - 1)
    assert found.fixed_attainment == fixed(number)
    assert found.fixed.low <= number <= found.fixed.high


def test_each_hour_has_what_its_own_requests_need() -> None:
    """An hour as the trace has it, an hour of a quarter of it, an hour of half."""
    parts = [(0, 1), (3600, 4), (7200, 2)]
    arrived = np.concatenate([TRACE.arrived_at_seconds[::every] + start for start, every in parts])
    prompts = np.concatenate([TRACE.prompt_tokens[::every] for _, every in parts])
    outputs = np.concatenate([TRACE.output_tokens[::every] for _, every in parts])
    scene = replace(SCENE, trace=Trace.of("three hours", arrived, prompts, outputs))
    found = size(scene)
    assert [each.hour for each in found.hours] == [0, 1, 2]
    needed = [each.fewest.replicas for each in found.hours]
    assert needed[0] == found.fixed.replicas > needed[2] > needed[1]
    assert min(each.slo_attainment for each in found.hours) >= 0.99
    assert found.hourly_gpu_hours < found.fixed_gpu_hours
    for each in found.hours:
        assert each.fewest.low <= each.fewest.replicas <= each.fewest.high
        assert each.requests_per_second == pytest.approx(len(TRACE.arrived_at_seconds[:: parts[each.hour][1]]) / 3600)


def test_too_few_allowed_is_said_with_what_they_reach() -> None:
    with pytest.raises(ConfigError, match=r"^2 replicas at all times reach \d+\.\d+%, not 99 %: raise --max$"):
        size(replace(SCENE, max_replicas=2))
