"""Reading PromQL, each refusal of it, and its arithmetic against Python's own over what a fleet shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.observation import Observation, PodStage, SampleState
from simulations.policy_files.evaluation import Vector, evaluate
from simulations.policy_files.promql import PromQLError, Selector, parse, selectors
from simulations.policy_files.scrapes import Needs, Scrapes
from tests.simulations.peers.seen import seen

WAITING = "vllm:num_requests_waiting"


@pytest.mark.parametrize(
    ("query", "place", "what", "remedy"),
    [
        ("", 1, "it ends", "complete it"),
        ("sum(", 5, "it ends", "complete it"),
        ("a +", 4, "it ends", "complete it"),
        ("a b", 3, "'b' follows a whole expression", "remove it or join it"),
        ("sum(a", 6, "the end stands where ')' belongs", "mend the query"),
        ("rate(a[$__rate_interval])", 8, "'$__rate_interval' is not part of PromQL", "write a duration such as 5m"),
        ("a § b", 3, "'§' is not part of PromQL", "remove or mend it"),
        ("rate(a[5x])", 8, "'5x' is not part of PromQL", "remove or mend it"),
        ("rate(a[m])", 8, "'m' is no duration", "write one such as 5m"),
        ("rate(a[0s])", 8, "a window is empty", "write one such as 5m"),
        ("a offset 5m", 3, "offset is outside the part of PromQL that is replayed", "ask for the value now"),
        ("a @ 5", 3, "@ is outside", "ask for the value now"),
        ("rate(a[5m] offset 1m)", 12, "offset is outside", "ask for the value now"),
        ("max_over_time(sum(a)[5m:])", 21, "a subquery is outside", "keep it by a recording rule"),
        ("max_over_time(a[5m:1m])", 19, "a subquery is outside", "keep it by a recording rule"),
        ("a * on (pod) group_left () b", 14, "group_left is outside", "aggregate both sides to the same labels"),
        ("topk(3, a)", 1, "topk() is outside", "it knows sum, avg, max, min, count, rate"),
        ("stddev by (pod) (a)", 1, "stddev is outside", "it knows the aggregations sum, avg, max, min, count"),
        ("predict_linear(a[5m], 60)", 1, "predict_linear() is outside", "it knows sum"),
        ("label_replace(a, 'x', '$1', 'y', '.*')", 1, "label_replace() is outside", "it knows sum"),
        ("round(a, 5)", 1, "round() to a step is outside", "round to whole numbers"),
        ("time()", 1, "time() is outside", "it knows sum"),
        ("rate(a)", 1, "rate is given vector", "it takes a range selector"),
        ("rate(sum(a))", 1, "rate is given vector", "it takes a range selector"),
        ("ceil(a[5m])", 1, "ceil is given range", "it takes an instant vector"),
        ("clamp(a, 1)", 1, "clamp is given vector, scalar", "it takes an instant vector and scalar and scalar"),
        ("vector()", 1, "vector is given nothing", "it takes scalar"),
        ("a[5m]", 1, "a range selector alone answers no number", "take rate(…) or avg_over_time(…) of it"),
        ("a[5m] + 1", 7, "'+' is given a range selector", "take rate(…) of it first"),
        ("-a[5m]", 1, "'-' is given a range selector", "take rate(…) of it first"),
        ("sum(a[5m])", 4, "sum is not given an instant vector", "give it one, such as rate(…[5m])"),
        ("sum(3)", 4, "sum is not given an instant vector", "give it one"),
        ("a or 0", 3, "'or' joins vectors, not numbers", "write vector(…) around it"),
        ("a + bool b", 3, "bool belongs to comparisons only", "remove it"),
        ("1 > 2", 3, "two numbers are compared without bool", "write > bool"),
        ("{pod='a'}", 1, "a selector names no series", "write the name before the braces"),
        ("{__name__=~'vllm.*'}", 1, "a name by a pattern is outside", "write the one name before the braces"),
        ("a{pod}", 6, "'}' compares no label", "write =, !=, =~ or !~"),
        ("a{pod=a}", 7, "'a' is not in quotes", 'write pod="…"'),
        ("a{5='a'}", 3, "'5' is no label", 'write label="value"'),
        ("a{pod=~'('}", 8, "'(' is no regular expression", "mend it"),
        ("sum by (5) (a)", 9, "'5' is no label", "list labels between commas"),
    ],
)
def test_what_cannot_be_replayed_is_named_with_its_place(query: str, place: int, what: str, remedy: str) -> None:
    with pytest.raises(PromQLError) as told:
        parse(query)
    said = str(told.value)
    assert said.startswith(f"query '{query}', character {place}: {what}")
    assert remedy in said
    assert "\n" not in said


def test_what_people_write_is_read() -> None:
    for query in (
        "sum(rate(vllm:request_success_total{namespace=\"llm\",job=~'vllm.*'}[2m])) # comment",
        "avg by (model_name,) (vllm:kv_cache_usage_perc{}) * 100",
        "SUM(a) BY (pod) OR vector(0)",
        "sum(a) by (pod) / ignoring(x) sum(b) by (pod)",
        '{__name__="vllm:num_requests_waiting", pod!=""}',
        '{"vllm:num_requests_waiting"}',
        "clamp_max(ceil(sum(a) / 1e1), 0x10)",
        "(a > 5) * 0 + 1",
        "rate(a[1h30m]) + rate(a[90]) - -3 + +Inf",
    ):
        parse(query)
    (selector,) = selectors(parse('rate(a{b="c\\"d", e=~`\\d+`}[1h30m])'))
    assert selector == Selector("a", (("b", "=", 'c"d'), ("e", "=~", "\\d+")), 5400.0, 6)


@given(st.text("ab(){}[]57ms+-*/^<>=~!\"'` ,.:@#$\\\n", max_size=30) | st.text(max_size=20))
def test_any_text_is_read_or_refused_in_one_line(query: str) -> None:
    assert "\n" not in refusal(query)


def test_a_bottomless_nesting_is_refused() -> None:
    with pytest.raises(PromQLError, match="nested too deeply"):
        parse("(" * 100_000 + "a")


def refusal(query: str) -> str:
    try:
        parse(query)
    except PromQLError as error:
        return str(error)
    return ""


def scraped(query: str, looks: Sequence[Observation]) -> Scrapes:
    needs, scrapes = Needs.of([parse(query)]), Scrapes()
    for look in looks:
        scrapes = needs.scraped(scrapes, look)
    return scrapes


def answer(query: str, *looks: Observation) -> float | Vector:
    return evaluate(parse(query), scraped(query, looks))


def number(query: str, *looks: Observation) -> float:
    found = answer(query, *looks)
    assert isinstance(found, dict), query
    assert list(found) == [()], query
    return found[()]


values = st.lists(st.integers(0, 500).map(float), min_size=1, max_size=9)


@given(values, st.floats(0.1, 50), st.floats(-20, 20))
def test_aggregations_and_arithmetic_are_pythons_own(waiting: list[float], by: float, plus: float) -> None:
    look = seen(0.0, [{"requests_waiting": each} for each in waiting])
    total = math.fsum(waiting)
    assert number(f"sum({WAITING})", look) == total
    assert number(f"sum({WAITING}) / count({WAITING})", look) == total / len(waiting)
    assert number(f"avg({WAITING})", look) == total / len(waiting)
    assert number(f"max({WAITING}) - min({WAITING})", look) == max(waiting) - min(waiting)
    assert number(f"sum({WAITING}) * {by!r} + ({plus!r})", look) == total * by + plus
    assert number(f"ceil(sum({WAITING}) / {by!r})", look) == math.ceil(total / by)
    assert number(f"count({WAITING} > {by!r}) or vector(0)", look) == sum(each > by for each in waiting)
    assert number(f"clamp_max(sum({WAITING}), {by!r})", look) == min(total, by)
    assert number(f"sum({WAITING} > bool {by!r})", look) == sum(each > by for each in waiting)


@given(st.lists(st.integers(0, 60), min_size=8, max_size=8), st.integers(3, 8))
def test_a_rate_over_evenly_scraped_windows_is_the_growth_in_them(steps: list[int], scrapes: int) -> None:
    totals = [1e6 + sum(steps[:place]) for place in range(len(steps) + 1)]
    looks = [seen(15.0 * place, [{"prompt_tokens": total}]) for place, total in enumerate(totals)]
    query = f"sum(rate(vllm:prompt_tokens_total[{15 * scrapes}s]))"
    # Left-open: the points lie 15 s apart from the first after the window's start up to its end.
    growth = totals[-1] - totals[-scrapes]
    sampled = 15.0 * (scrapes - 1)
    assert number(query, *looks) == pytest.approx(growth / sampled, rel=1e-12)


@given(st.lists(values, min_size=2, max_size=6))
def test_gauges_over_time_are_those_of_the_window(told: list[list[float]]) -> None:
    looks = [seen(15.0 * i, [{"requests_waiting": each[0]}]) for i, each in enumerate(told)]
    within = [each[0] for each in told][-4:]
    assert number(f"sum(avg_over_time({WAITING}[1m]))", *looks) == math.fsum(within) / len(within)
    assert number(f"sum(max_over_time({WAITING}[1m]))", *looks) == max(within)


def test_matchers_that_choose_the_target_are_taken_as_met_and_vllms_own_are_judged() -> None:
    look = seen(0.0, [{"requests_waiting": 3.0, "requests_finished": 7.0}] * 2)
    assert number(f'sum({WAITING}{{namespace="llm", model_name=~"x.*", pod!=""}})', look) == 6
    assert number('sum(vllm:request_success_total{finished_reason="stop"})', look) == 14
    assert number('sum(vllm:request_success_total{finished_reason!="stop"})', look) == 0
    assert answer('sum(vllm:request_success_total{finished_reason="other"})', look) == {}


def test_replicas_and_up_are_counted_as_the_api_server_and_prometheus_have_them() -> None:
    look = seen(0.0, [{"requests_waiting": 3.0}] * 2, silent=1, booting=1, desired=5)
    assert number("sum(up)", look) == 2
    assert [number(f"sum(kube_deployment_{name})", look) for name in ("spec_replicas", "status_replicas")] == [5, 4]
    assert number("sum(kube_deployment_status_replicas_ready)", look) == 3
    assert look.count(PodStage.READY) == 3


def test_what_is_gone_or_silent_shows_nothing_now_but_lives_on_in_windows() -> None:
    looks = [seen(15.0 * i, [{"requests_waiting": 4.0, "prompt_tokens": 100.0 * i}] * 2) for i in range(4)]
    looks.append(seen(60.0, [{"requests_waiting": 4.0, "prompt_tokens": 400.0}]))
    assert number(f"count({WAITING})", *looks) == 1
    assert number("count(rate(vllm:prompt_tokens_total[1m]))", *looks) == 2
    later = [*looks, seen(75.0, []), seen(400.0, [])]
    assert answer("sum(rate(vllm:prompt_tokens_total[1m]))", *later) == {}
    assert scraped("rate(vllm:prompt_tokens_total[1m])", later).past == {}


def test_the_same_scrape_seen_twice_counts_once() -> None:
    look = seen(15.0, [{"requests_waiting": 4.0}])
    again = Observation(30.0, 1, look.pods)
    assert number(f"sum(count_over_time({WAITING}[1m]))", look, again) == 1


def test_a_gauge_that_is_not_a_number_is_one_for_prometheus_too() -> None:
    look = seen(0.0, [{"requests_waiting": 3.0}, {"requests_running": 2.0}])
    pods = [replace(pod, sample=replace(pod.sample, state=SampleState.NOT_A_NUMBER)) for pod in look.pods if pod.sample]
    broken = Observation(0.0, 2, tuple(pods))
    assert math.isnan(number(f"sum({WAITING})", broken))
    assert number(f"max({WAITING})", broken) == 3
    assert number(f"sum({WAITING})", look) == 3
    assert answer("sum(vllm:prompt_tokens_total)", broken) == {}
