from __future__ import annotations

import numpy as np

from benchmarks.parts.kinds import KINDS


def test_a_draw_is_the_same_each_time_and_another_is_another() -> None:
    sparse = KINDS[0]
    one, again, other = sparse.trace(1), sparse.trace(1), sparse.trace(2)
    assert np.array_equal(one.arrived_at_seconds, again.arrived_at_seconds)
    assert np.array_equal(one.prompt_tokens, again.prompt_tokens)
    assert not np.array_equal(one.arrived_at_seconds[:100], other.arrived_at_seconds[:100])


def test_every_kind_has_a_name_of_its_own_for_its_draws_and_its_folder() -> None:
    assert len({kind.what for kind in KINDS}) == len(KINDS)
