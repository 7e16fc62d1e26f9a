"""What an operator may choose."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from policies.placement.demand import NvLink
from policies.placement.settings import DEFAULT_MIX, DEFAULT_SETTINGS, PlacementSettings


def test_settings_are_written_as_people_write_yaml() -> None:
    settings = PlacementSettings.model_validate(
        {"nvlink": "prefer", "unknownLink": "refuse", "score": "tutorial", "mix": {1: 0.5, 8: 0.5}, "overheadGib": 3}
    )
    assert settings.nvlink is NvLink.PREFER
    assert settings.mix == ((1, 0.5), (8, 0.5))
    assert settings.overhead_gib == 3


def test_settings_may_be_asked_for_a_verdict_of_before() -> None:
    assert hash(DEFAULT_SETTINGS) == hash(PlacementSettings(mix=DEFAULT_MIX))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nvLink": "prefer"}, "Extra inputs are not permitted"),
        ({"unknownLink": "maybe"}, "'pass' or 'refuse'"),
        ({"overheadGib": -1}, "greater than or equal to 0"),
        ({"mix": {1: 0.5}}, "the shares add up to 0.5"),
        ({"mix": {0: 1.0}}, "sizes of at least 1"),
        ({"mix": {}}, "sizes of at least 1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PlacementSettings.model_validate(settings)
