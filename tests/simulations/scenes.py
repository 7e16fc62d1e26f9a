"""A quarter of an hour of the shipped trace on A40s, as many tests replay it."""

from __future__ import annotations

from dataclasses import replace

from policies.scaling.resource import Objectives
from simulations.laboratory.scenario import Scenario
from simulations.model.cold_start import ColdStart, Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import shipped_engine
from simulations.traces import Trace, shipped_trace

ENGINE = shipped_engine("llama2-7b_a40_tp1")
TRACE = shipped_trace().until(900)
OBJECTIVES = Objectives(ttft_seconds=3, tpot_seconds=0.1)


def scenario(trace: Trace = TRACE, *, cold_start: ColdStart | None = None, most: int = 9, **others: object) -> Scenario:
    made = Scenario(trace, ENGINE, OBJECTIVES, Conditions(cold_start or Constant(60)), most, start_replicas=3)
    return replace(made, **others)  # type: ignore[arg-type]
