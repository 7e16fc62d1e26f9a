"""The past that is read back: whose it is, how it is cut into bins, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.prometheus import Prometheus
from cluster.prometheus_history import HistoryTarget, Past, scraped_throughout
from policies.scaling.demand import LoadBin
from policies.scaling.resource import Prometheus as Settings
from policies.scaling.resource import PrometheusLabels
from tests.stand_ins.prometheus import StandInPrometheus

UNTIL = 1_800_000_000.0  # a multiple of 300
HOUR = 3600.0
DEPLOYMENT = "vllm-[a-z0-9]+-[a-z0-9]{5}"


class Past3Hours:
    """A server that scraped every 15 s and is asked for what it has."""

    def __init__(self, server: StandInPrometheus) -> None:
        self.server = server
        self.prometheus = Prometheus(Settings(url=server.url))

    def served(
        self,
        pod: str,
        start: float,
        end: float,
        *,
        per_second: float = 2.0,
        every: float = 15.0,
        prefix: str = "vllm:",
        labels: dict[str, str] | None = None,
        unseen: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """A pod's life: from its first scrape it takes requests of 100 prompt and 40 generated tokens."""
        labels = {"namespace": "inference", "pod": pod, "instance": f"{pod}:8000"} if labels is None else labels
        labels = {**labels, "engine": "0", "model_name": "m"}
        for number in range(int((end - start) / every)):
            time = start + number * every
            if unseen[0] < time < unseen[1]:
                continue
            done = number * every * per_second
            for name, value in (
                ("num_requests_running", 3.0),
                ("num_requests_waiting", 1.0),
                ("time_to_first_token_seconds_count", done),
                ("prompt_tokens_total", 100 * done),
                ("generation_tokens_total", 40 * done),
            ):
                self.server.store.add({"__name__": f"{prefix}{name}", **labels}, value, time)

    async def read(self, *, seconds: float = 3 * HOUR, **target: object) -> Past:
        asked = HistoryTarget(**{"namespace": "inference", "pod_pattern": DEPLOYMENT, **target})  # type: ignore[arg-type]
        return (await self.prometheus.load_history({"t": asked}, UNTIL, seconds=seconds))["t"]


@pytest.fixture
def past() -> Iterator[Past3Hours]:
    with StandInPrometheus(clock=lambda: UNTIL) as server:
        past = Past3Hours(server)
        yield past
        past.prometheus.close()


def hold_together(bins: tuple[LoadBin, ...]) -> None:
    assert all(one.start + one.seconds <= other.start for one, other in pairwise(bins))
    assert all(each.start % each.seconds == 0 for each in bins)


async def test_a_steady_load_comes_back_as_it_was(past: Past3Hours) -> None:
    past.served("vllm-7d9f8-abcde", UNTIL - 2 * HOUR, UNTIL + 1)
    bins = (await past.read()).bins
    hold_together(bins)
    assert sum(each.seconds for each in bins) == pytest.approx(2 * HOUR, rel=0.02)
    for each in bins:
        assert each.arrivals_per_second == pytest.approx(2.0, rel=0.01)
        assert each.prompt_tokens_per_second == pytest.approx(200.0, rel=0.01)
        assert each.generation_tokens_per_second == pytest.approx(80.0, rel=0.01)


async def test_the_last_day_comes_in_minutes_and_the_days_before_in_five(past: Past3Hours) -> None:
    past.served("vllm-7d9f8-abcde", UNTIL - 26 * HOUR, UNTIL - 22 * HOUR)
    bins = (await past.read(seconds=27 * HOUR)).bins
    hold_together(bins)
    edge = UNTIL - 24 * HOUR
    assert {each.seconds for each in bins if each.start < edge} == {300.0}
    assert {each.seconds for each in bins if each.start >= edge} == {60.0}


async def test_pods_that_are_gone_belong_to_the_target_by_their_name(past: Past3Hours) -> None:
    past.served("vllm-7d9f8-abcde", UNTIL - 2 * HOUR, UNTIL - HOUR)
    past.served("vllm-5c4b7-fghij", UNTIL - 2 * HOUR, UNTIL - HOUR)
    past.served("vllm-large-7d9f8-abcde", UNTIL - 2 * HOUR, UNTIL - HOUR, per_second=50)
    elsewhere = {"namespace": "other", "pod": "vllm-7d9f8-klmno"}
    past.served("", UNTIL - 2 * HOUR, UNTIL - HOUR, per_second=50, labels=elsewhere)
    bins = (await past.read()).bins
    middle = [each for each in bins if UNTIL - 1.8 * HOUR < each.start < UNTIL - 1.2 * HOUR]
    assert middle
    assert all(each.arrivals_per_second == pytest.approx(4.0, rel=0.01) for each in middle)


async def test_what_was_scraped_twice_counts_once(past: Past3Hours) -> None:
    for job in ("a", "b"):
        labels = {"namespace": "inference", "pod": "vllm-7d9f8-abcde", "instance": "10.0.0.1:8000", "job": job}
        past.served("vllm-7d9f8-abcde", UNTIL - HOUR, UNTIL, labels=labels)
    assert {round(each.arrivals_per_second, 1) for each in (await past.read()).bins} == {2.0}


@pytest.mark.parametrize(
    ("prefix", "labels", "named"),
    [
        ("vllm_", {"namespace": "inference", "pod": "vllm-7d9f8-abcde"}, PrometheusLabels()),
        (
            "vllm:",
            {"kubernetes_namespace": "inference", "kubernetes_pod_name": "vllm-7d9f8-abcde"},
            PrometheusLabels(),
        ),
        (
            "vllm:",
            {"exported_namespace": "inference", "exported_pod": "vllm-7d9f8-abcde", "pod": "exporter"},
            PrometheusLabels(namespace="exported_namespace", pod="exported_pod"),
        ),
    ],
)
async def test_other_names_and_labels_are_read_back_too(
    past: Past3Hours, prefix: str, labels: dict[str, str], named: PrometheusLabels
) -> None:
    past.served("", UNTIL - HOUR, UNTIL, prefix=prefix, labels=labels)
    bins = (await past.read(labels=named)).bins
    assert len(bins) > 50
    assert bins[-1].arrivals_per_second == pytest.approx(2.0, rel=0.01)


async def test_a_gap_is_left_out_with_the_bins_that_it_cuts(past: Past3Hours) -> None:
    gap = (UNTIL - HOUR - 149, UNTIL - HOUR + 250)  # two scrapes into a minute
    past.served("vllm-7d9f8-abcde", UNTIL - 2 * HOUR, UNTIL, unseen=gap)
    bins = (await past.read()).bins
    assert not any(each.start < gap[1] - 15 and gap[0] + 15 < each.start + each.seconds for each in bins)
    assert all(each.arrivals_per_second == pytest.approx(2.0, rel=0.01) for each in bins)
    assert any(each.start + each.seconds <= gap[0] for each in bins)
    assert any(each.start >= gap[1] for each in bins)


async def test_no_data_is_no_bins_and_never_zeros(past: Past3Hours) -> None:
    assert await past.read() == Past()


async def test_an_idle_hour_is_zeros_and_not_left_out(past: Past3Hours) -> None:
    past.served("vllm-7d9f8-abcde", UNTIL - HOUR, UNTIL, per_second=0.0)
    bins = (await past.read()).bins
    assert sum(each.seconds for each in bins) > 0.9 * HOUR
    assert {each.arrivals_per_second for each in bins} == {0.0}


async def test_a_restarted_process_does_not_read_as_less_than_nothing(past: Past3Hours) -> None:
    past.served("vllm-7d9f8-abcde", UNTIL - HOUR, UNTIL - HOUR / 2)
    past.served("vllm-7d9f8-abcde", UNTIL - HOUR / 2, UNTIL)
    rates = [each.arrivals_per_second for each in (await past.read()).bins]
    assert min(rates) > 1.0


async def test_scrapes_too_rare_for_minutes_come_back_in_five(past: Past3Hours) -> None:
    past.served("vllm-7d9f8-abcde", UNTIL - 2 * HOUR, UNTIL, every=60.0)
    bins = (await past.read()).bins
    assert {each.seconds for each in bins} == {300.0}
    assert all(each.arrivals_per_second == pytest.approx(2.0, rel=0.01) for each in bins)


async def test_a_routers_count_comes_before_vllms_where_there_is_one(past: Past3Hours) -> None:
    past.served("vllm-7d9f8-abcde", UNTIL - 2 * HOUR, UNTIL)
    for number in range(int(HOUR / 15)):
        past.server.store.add({"__name__": "routed_total"}, 5.0 * 15 * number, UNTIL - HOUR + 15 * number)
    bins = (await past.read(arrivals="routed_total # by the router")).bins
    before = [each for each in bins if each.start + each.seconds < UNTIL - HOUR]
    after = [each for each in bins if each.start > UNTIL - HOUR + 300]
    assert {round(each.arrivals_per_second) for each in before} == {2}
    # A look at the router's counter sees the scrape before it: bins differ by a scrape, their sum does not.
    assert sum(each.arrivals_per_second for each in after) / len(after) == pytest.approx(5.0, rel=0.05)
    assert {round(each.prompt_tokens_per_second) for each in after} == {200}


async def test_a_wrong_query_costs_one_target_its_routers_past_only(past: Past3Hours) -> None:
    past.served("vllm-7d9f8-abcde", UNTIL - HOUR, UNTIL)
    targets = {
        "well": HistoryTarget("inference", DEPLOYMENT),
        "wrong": HistoryTarget("inference", DEPLOYMENT, arrivals="sum(up"),
    }
    pasts = await past.prometheus.load_history(targets, UNTIL, seconds=HOUR)
    assert pasts["well"].bins == pasts["wrong"].bins != ()
    assert pasts["well"].problems == ()
    (problem,) = pasts["wrong"].problems
    assert problem.startswith("the past of prometheus.arrivals (sum(up) could not be read: ")


async def test_a_routers_counter_that_is_no_query_alone_is_joined_with_nobodys_past(past: Past3Hours) -> None:
    past.served("vllm-7d9f8-abcde", UNTIL - HOUR, UNTIL)
    closing = "up) or (up"
    targets = {
        "closing": HistoryTarget("inference", DEPLOYMENT, arrivals=closing),
        "other": HistoryTarget("inference", DEPLOYMENT),
    }
    pasts = await past.prometheus.load_history(targets, UNTIL, seconds=HOUR)
    assert [query for query in past.server.queries if closing in query] == [closing]
    (problem,) = pasts["closing"].problems
    assert problem.startswith(f"the past of prometheus.arrivals ({closing}) could not be read: ")
    assert pasts["closing"].bins == pasts["other"].bins
    assert pasts["other"].problems == ()


async def test_targets_come_back_each_with_its_own_past(past: Past3Hours) -> None:
    targets = {}
    for number in range(7):
        past.served(f"m{number}-7d9f8-abcde", UNTIL - HOUR / 2, UNTIL, per_second=number + 1.0)
        targets[f"t{number}"] = HistoryTarget("inference", f"m{number}-[a-z0-9]+-[a-z0-9]{{5}}")
    pasts = await past.prometheus.load_history(targets, UNTIL, seconds=HOUR)
    rates = {key: round(each.bins[-1].arrivals_per_second) for key, each in pasts.items()}
    assert rates == {f"t{number}": number + 1 for number in range(7)}


async def test_a_past_that_cannot_be_read_is_empty_and_said(past: Past3Hours) -> None:
    past.served("vllm-7d9f8-abcde", UNTIL - HOUR, UNTIL)
    past.server.faults.status = 503
    read = await past.read()
    assert read.bins == ()
    assert read.problems[0].startswith(f"its past could not be read back: Prometheus at {past.server.url} is not able")


async def test_a_remark_on_the_past_is_told(past: Past3Hours) -> None:
    past.server.faults.warnings = ("a store did not answer",)
    assert (await past.read()).problems == (
        f"Prometheus at {past.server.url} remarks on the past: a store did not answer",
    )


def test_a_few_thin_bins_at_either_end_do_not_pass_for_usual() -> None:
    scrapes = np.full(49, 20.0)
    scrapes[[0, -1]] = 5.0
    scrapes[1:40] = np.nan
    assert scraped_throughout(scrapes).tolist() == [False] * 40 + [True] * 8 + [False]


@given(st.integers(2, 60), st.integers(60, 200), st.data())
def test_only_bins_with_too_few_scrapes_are_left_out(usual: int, count: int, data: st.DataObject) -> None:
    scrapes = np.full(count, float(usual))
    thin = data.draw(st.sets(st.integers(0, count - 1), max_size=5))
    scrapes[list(thin)] = usual // 2
    scrapes[: count // 4] = np.nan
    whole = scraped_throughout(scrapes)
    for place in range(count):
        expected = place >= count // 4 and (place not in thin or (usual // 2 >= 2 and usual // 2 >= int(0.85 * usual)))
        assert whole[place] == expected


def test_a_changed_scrape_interval_is_no_gap() -> None:
    scrapes = np.array([20.0] * 200 + [5.0] * 200)
    whole = scraped_throughout(scrapes)
    assert whole[:200].all()
    assert whole[230:].all()
