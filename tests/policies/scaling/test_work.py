from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.capacity import Mix, StepTime
from policies.scaling.series import Series
from policies.scaling.work import Work

A40 = StepTime(fixed=0.0245, decode=0.00012, context=0.81e-6, prefill=97e-6)
CHAT = Mix(prompt_tokens=1155, output_tokens=211, resident_tokens=1260)
WORK = Work.of(A40, CHAT, mix_seconds=600.0)

Row = tuple[float, float, float, float, float, float]


def requests(*rows: Row) -> list[float]:
    return list(WORK.requests(np.array(rows)))


def row(arrivals: float, prompts: float, answers: float, *, saturated: float = 0.0) -> Row:
    """A minute in which so many arrived, and so many requests' prompts were read and answers generated."""
    return 60.0, arrivals, prompts * CHAT.prompt_tokens, answers * CHAT.output_tokens, saturated, prompts


def test_requests_of_the_mix_are_as_many_as_were_worked_on() -> None:
    assert requests(row(90, 90, 90)) == pytest.approx([90])


def test_a_burst_that_is_answered_later_is_load_when_it_is_answered() -> None:
    # Of the burst's work the prompts are 0.32: the rest comes with the answers.
    first, second = requests(row(100, 100, 0), row(0, 0, 100))
    assert first == pytest.approx(100 * CHAT.prompt_tokens * A40.prefill / A40.request_seconds(CHAT))
    assert first + second == pytest.approx(100)


def test_prompts_three_times_as_long_are_more_load_though_as_many_arrive() -> None:
    (longer,) = requests((60.0, 90, 3 * 90 * CHAT.prompt_tokens, 90 * CHAT.output_tokens, 0.0, 90))
    assert longer == pytest.approx(90 * (1 + 2 * CHAT.prompt_tokens * A40.prefill / A40.request_seconds(CHAT)))


def test_where_all_pods_are_full_what_arrives_counts() -> None:
    assert requests(row(200, 90, 90, saturated=60.0)) == pytest.approx([200])


def test_a_backlog_that_is_worked_off_is_no_load() -> None:
    assert requests(row(60, 90, 90, saturated=60.0)) == pytest.approx([60])


def test_where_one_pod_in_three_is_full_a_third_of_what_is_not_done_counts() -> None:
    assert requests(row(120, 90, 90, saturated=20.0)) == pytest.approx([100])


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 60))
def test_the_load_lies_between_what_was_done_and_what_came(
    arrivals: float, prompts: float, answers: float, saturated: float
) -> None:
    (done,), (load,) = (
        requests(row(arrivals, prompts, answers)),
        requests(row(arrivals, prompts, answers, saturated=saturated)),
    )
    assert min(done, arrivals) - 1e-6 <= load <= max(done, arrivals) + 1e-6


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 90))
def test_one_row_is_reckoned_as_many_are(arrivals: float, prompts: float, answers: float, saturated: float) -> None:
    one = row(arrivals, prompts, answers, saturated=saturated)
    assert requests(one) == [pytest.approx(WORK.requests_of(one))]


def test_a_bin_seen_for_less_than_half_is_unknown() -> None:
    series = Series(60.0, 10).add(0.0, 60.0, row(90, 90, 90)).add(60.0, 80.0, (20.0, *row(9, 9, 9)[1:]))
    rates = WORK.rates(series)
    assert rates[0] == pytest.approx(1.5)
    assert np.isnan(rates[1])


def minutes(*rows: Row) -> Series:
    series = Series(60.0, len(rows))
    for minute, each in enumerate(rows):
        series = series.add(60.0 * minute, 60.0 * (minute + 1), each)
    return series


def long_ones(arrivals: float, done: float, *, saturated: float = 0.0) -> Row:
    """A minute of prompts four times as long."""
    return 60.0, arrivals, 4 * done * CHAT.prompt_tokens, done * CHAT.output_tokens, saturated, done


LONG = Mix(
    prompt_tokens=4 * CHAT.prompt_tokens,
    output_tokens=CHAT.output_tokens,
    resident_tokens=CHAT.resident_tokens * (4 * CHAT.prompt_tokens + 105.5) / (CHAT.prompt_tokens + 105.5),
)


def test_an_hour_of_long_prompts_is_remembered_as_heavy_as_it_was() -> None:
    busy = 6_000.0  # a minute, so that what they weigh beside the present mix is next to nothing
    weight = A40.request_seconds(LONG) / A40.request_seconds(CHAT)
    past = minutes(*[row(busy, busy, busy)] * 20, *[long_ones(busy, busy)] * 20, *[row(busy, busy, busy)] * 20)
    rates = WORK.rates(past)
    assert rates[19] == pytest.approx(busy / 60)
    assert rates[39] == pytest.approx(weight * busy / 60, rel=0.01)
    assert rates[59] == pytest.approx(busy / 60)
    # As one who is in the midst of it reckons, it is the other way about.
    then = Work.of(A40, LONG, mix_seconds=600.0).rates(past)
    assert then[39] == pytest.approx(busy / 60)
    assert then[59] == pytest.approx(busy / 60 / weight, rel=0.01)


def test_of_long_prompts_that_were_too_many_what_arrived_counts_as_heavy_as_they_were() -> None:
    busy = 6_000.0
    past = minutes(*[long_ones(busy, busy)] * 10, long_ones(2 * busy, busy, saturated=60.0))
    calm, full = WORK.rates(past)[-2:]
    assert full == pytest.approx(2 * calm, rel=0.01)


def test_a_few_requests_tell_little_of_the_prompts_of_then() -> None:
    few = WORK.rates(minutes(*[long_ones(1, 1)] * 10))[-1]
    done = WORK.requests(np.array([long_ones(1, 1)]))[0] / 60
    heavy = A40.request_seconds(LONG) / A40.request_seconds(CHAT) / 60
    assert done < few < done + 0.2 * (heavy - done)


def test_work_that_costs_nothing_is_counted_by_its_answers() -> None:
    free = Work.of(StepTime(fixed=0.02, decode=0.0, context=0.0, prefill=0.0), CHAT, mix_seconds=600.0)
    assert free.requests(np.array([row(90, 90, 90)])) == pytest.approx([90])
