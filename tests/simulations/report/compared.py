"""A comparison as `preheat replay` makes it, of a quarter of an hour, with names that an enemy would give."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from simulations.laboratory.candidates import candidates
from simulations.laboratory.comparison import compare
from simulations.laboratory.outcome import Comparison
from simulations.laboratory.static_line import StaticFleet, static_line
from simulations.model.cold_start import Constant
from simulations.report.comparison_page import comparison_page
from tests.simulations.scenes import TRACE, scenario

HOSTILE = '<img src=x onerror="document.title=1">&amp;${title}</script>'
POLICIES = ("preheat", "hpa:target=16", "keda", "static:2", "static:8", "oracle")
SCENE = scenario(replace(TRACE, name=HOSTILE), cold_start=Constant(240), start_replicas=5, score_from_seconds=60.0)


@cache
def compared(cold_start: float = 240.0) -> Comparison:
    scene = replace(SCENE, conditions=replace(SCENE.conditions, cold_start=Constant(cold_start)))
    found = compare(scene, candidates(POLICIES, scene), gpu_hour_price=2.5, command=f"preheat replay '{HOSTILE}'")
    hostile = [replace(each, name=f"keda {HOSTILE}") if each.name == "keda" else each for each in found.outcomes]
    return replace(found, outcomes=tuple(hostile), notes=(f"A note of {HOSTILE}.",))


@cache
def statics() -> tuple[StaticFleet, ...]:
    return static_line(SCENE)


@cache
def page() -> str:
    """With every chapter."""
    return comparison_page(compared(), statics(), compared(30.0))
