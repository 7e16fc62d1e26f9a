"""Golden decisions: what every policy asked at every tick of a short trace has not changed unnoticed."""

from __future__ import annotations

from tests.simulations.golden import POLICIES, decided, recorded


def test_every_policy_decides_as_recorded() -> None:
    assert set(recorded()) == set(POLICIES)
    assert decided() == recorded(), "decisions changed; if that is wanted: python -m tests.simulations.golden"
