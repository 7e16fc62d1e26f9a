"""What servers counted, read for a trace: what may be asked, what comes back, and that a trace is made of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cluster import vllm_metrics
from cluster.errors import NotObservedError
from cluster.files import ConfigError
from cluster.prometheus_trace import STRETCH_SECONDS, Address, address, fetch, is_address
from policies.scaling.resource import PrometheusLabels
from simulations.traces.rebuilt import rebuilt
from tests.stand_ins.prometheus import StandInPrometheus
from tests.stand_ins.vllm_pages import page

NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC, a multiple of 300
HOUR = 3600.0
POD = "llama-7d9f8-bcdfg"


@pytest.fixture
def server() -> Iterator[StandInPrometheus]:
    with StandInPrometheus(clock=lambda: NOW) as server:
        yield server


def asked(server: StandInPrometheus, hours: float = 2.0, more: str = "") -> Address:
    start = NOW - hours * HOUR
    return address(f"prometheus:{server.url}?target=inference/llama&from={start:.0f}&to={NOW:.0f}{more}", NOW)


def served(
    server: StandInPrometheus,
    start: float,
    end: float,
    *,
    pod: str = POD,
    every: float = 15.0,
    histograms: bool = True,
    edges: tuple[str, ...] = ("100.0", "200.0", "500.0", "+Inf"),
    unseen: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Two requests a second: of four prompts one of up to 100 tokens, three of up to 200; outputs of up to 100."""
    labels = {"namespace": "inference", "pod": pod, "instance": f"{pod}:8000", "engine": "0", "model_name": "m"}
    buckets = {
        "request_prompt_tokens_bucket": [0.25, *[1.0] * (len(edges) - 1)],
        "request_generation_tokens_bucket": [1.0] * len(edges),
    }
    for number in range(int((end - start) / every)):
        time = start + number * every
        if unseen[0] < time < unseen[1]:
            continue
        done = 2.0 * number * every
        shown = {
            "num_requests_running": 3.0,
            "num_requests_waiting": 1.0,
            "time_to_first_token_seconds_count": done,
            "prompt_tokens_total": 130 * done,
            "generation_tokens_total": 40 * done,
        }
        for name, value in shown.items():
            server.store.add({"__name__": f"vllm:{name}", **labels}, value, time)
        for name, shares in buckets.items() if histograms else ():
            for edge, share in zip(edges, shares, strict=True):
                server.store.add({"__name__": f"vllm:{name}", **labels, "le": edge}, share * done, time)


async def test_arrivals_tokens_and_lengths_come_back_as_they_were_and_make_a_trace(server: StandInPrometheus) -> None:
    served(server, NOW - 3 * HOUR, NOW + 1)
    served(server, NOW - 3 * HOUR, NOW + 1, pod="llama-large-7d9f8-bcdfg")  # another deployment's
    traffic = await fetch(asked(server))
    assert (traffic.name, traffic.start, traffic.end) == ("inference/llama", NOW - 2 * HOUR, NOW)
    assert [each.start for each in traffic.bins] == [traffic.start + 60 * n for n in range(120)]
    assert all(each.arrivals_per_second == pytest.approx(2.0, rel=0.01) for each in traffic.bins)
    assert traffic.prompts is not None
    assert traffic.prompts.edges == (100.0, 200.0, 500.0, np.inf)
    assert traffic.prompts.counts.shape == (2 * HOUR / STRETCH_SECONDS, 4)
    assert traffic.prompts.counts == pytest.approx(np.tile([150.0, 450.0, 0.0, 0.0], (24, 1)), rel=0.01)
    trace = rebuilt(traffic)
    assert trace.requests == pytest.approx(2 * 2 * HOUR, rel=0.01)
    assert trace.prompt_tokens.sum() == pytest.approx(130 * trace.requests, rel=0.01)
    assert trace.output_tokens.sum() == pytest.approx(40 * trace.requests, rel=0.01)
    assert np.mean(trace.prompt_tokens <= 100) == pytest.approx(0.25, abs=0.001)
    (apart,) = trace.notes
    assert "drawn apart" in apart


async def test_days_are_asked_one_by_one_and_put_together(server: StandInPrometheus) -> None:
    served(server, NOW - 51 * HOUR, NOW - 20 * HOUR, every=150.0)
    traffic = await fetch(asked(server, hours=50.0))
    assert {each.seconds for each in traffic.bins} == {300.0}  # scrapes too rare for minutes
    assert sum(each.seconds for each in traffic.bins) == pytest.approx(30 * HOUR, rel=0.02)
    assert traffic.prompts is not None
    known = np.isfinite(traffic.prompts.counts[:, 0])
    assert len(known) == 50 * HOUR / STRETCH_SECONDS
    assert known[:358].all()
    assert not known[360:].any()


async def test_a_gap_is_in_no_bin_and_the_trace_says_so(server: StandInPrometheus) -> None:
    gap = (NOW - HOUR - 300, NOW - HOUR + 900)
    served(server, NOW - 3 * HOUR, NOW + 1, unseen=gap)
    traffic = await fetch(asked(server))
    assert not any(gap[0] + 60 < each.start < gap[1] - 60 for each in traffic.bins)
    assert any("nothing is known from 2027-01-15 06:5" in note for note in rebuilt(traffic).notes)


async def test_servers_without_histograms_are_read_for_the_rest(server: StandInPrometheus) -> None:
    served(server, NOW - 3 * HOUR, NOW + 1, histograms=False)
    traffic = await fetch(asked(server))
    assert (traffic.prompts, traffic.outputs) == (None, None)
    trace = rebuilt(traffic)
    assert set(trace.prompt_tokens.tolist()) <= {129, 130, 131}
    assert sum("lengths have no histogram there" in note for note in trace.notes) == 2


async def test_servers_with_other_edges_are_counted_together(server: StandInPrometheus) -> None:
    """A longer context has more edges; an older release spells them without the point."""
    served(server, NOW - 3 * HOUR, NOW + 1)
    served(
        server, NOW - 3 * HOUR, NOW + 1, pod="llama-7d9f8-bcdfh", edges=("100.0", "200.0", "500.0", "1000.0", "+Inf")
    )
    traffic = await fetch(asked(server))
    assert traffic.prompts is not None
    assert traffic.prompts.edges == (100.0, 200.0, 500.0, 1000.0, np.inf)
    assert traffic.prompts.counts.sum(axis=1) == pytest.approx([1200.0] * 24, rel=0.01)
    assert traffic.prompts.counts[:, :2].sum(axis=1) == pytest.approx([1200.0] * 24, rel=0.01)


async def test_the_pages_of_a_real_vllm_are_understood(server: StandInPrometheus) -> None:
    """Every series rises evenly from the page of a server just started to that of one with 489 requests done."""
    idle = {(name, frozenset(labels.items())): value for name, labels, value in vllm_metrics.page_series(page("idle"))}
    for name, labels, value in vllm_metrics.page_series(page("loaded")):
        first = idle.get((name, frozenset(labels.items())), 0.0)
        if "_created" not in name and "info" not in name and name.startswith("vllm:"):
            series = {"__name__": name, **labels, "namespace": "inference", "pod": POD, "instance": "10.0.0.1:8000"}
            for number in range(241):
                server.store.add(series, first + (value - first) * number / 240, NOW - HOUR + 15 * number)
    traffic = await fetch(asked(server, hours=1.0))
    trace = rebuilt(traffic)
    assert trace.requests == pytest.approx(489, rel=0.02)
    assert trace.prompt_tokens.sum() == pytest.approx(138_094, rel=0.02)
    assert trace.output_tokens.sum() == pytest.approx(34_277, rel=0.02)
    for lengths, at_most in (
        (trace.prompt_tokens, {100: 46, 200: 164, 500: 477}),
        (trace.output_tokens, {20: 9, 50: 88}),
    ):
        for edge, count in at_most.items():
            assert np.count_nonzero(lengths <= edge) == pytest.approx(count, abs=0.02 * count + 2)


async def test_a_server_that_does_not_answer_is_told_and_what_it_remarks_is_kept(server: StandInPrometheus) -> None:
    served(server, NOW - HOUR, NOW + 1)
    server.faults.warnings = ("a store did not answer",)
    assert (await fetch(asked(server))).problems == (f"Prometheus at {server.url} remarks: a store did not answer",)
    server.faults.status = 503
    with pytest.raises(NotObservedError, match="is not able to answer"):
        await fetch(asked(server))


def test_an_address_says_who_is_asked_for_what_and_when() -> None:
    assert is_address("prometheus:http://p:9090?x=y")
    assert not is_address("prometheus.csv")
    found = address("prometheus:https://p.example/prom/?target=a/b&from=2027-01-15T06:01:00%2B01:00&to=-30m", NOW)
    assert found.settings.url == "https://p.example/prom"
    assert (found.name, found.start, found.end) == ("a/b", NOW - 3 * HOUR, NOW - 1800)
    assert found.target.namespace == "a"
    assert address("prometheus:http://p?target=a/b&from=-2d", NOW).end == NOW
    more = '&arrivals=sum(r_total{a="b%26c"})&labels.pod=exported_pod&pods=b-.%2B&bearerTokenFile=/t&timeoutSeconds=30'
    other = address(f"prometheus:http://p?target=a/b&from=-6h{more}", NOW)
    assert other.target.arrivals == 'sum(r_total{a="b&c"})'
    assert other.target.labels == PrometheusLabels(pod="exported_pod")
    assert other.target.pod_pattern == "b-.+"
    assert (other.settings.bearer_token_file, other.settings.timeout_seconds) == ("/t", 30.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://p", ["target '' is not NAMESPACE/NAME", "from '' is no time"]),
        ("http://p?target=b&from=-1h", ["target 'b' is not NAMESPACE/NAME"]),
        ("http://p?target=a/b&from=yesterday", ["from 'yesterday' is no time"]),
        ("http://p?target=a/b&from=nan", ["from 'nan' is no time"]),
        ("http://p?target=a/b&from=-1h&to=-2h", ["from and to must be of the past, 5 minutes to 31 days apart"]),
        ("http://p?target=a/b&from=-40d", ["from and to must be of the past, 5 minutes to 31 days apart"]),
        ("ftp://p?target=a/b&from=-1h", ["url: 'ftp://p' is not a URL of a server"]),
        ("http://u:secret@p?target=a/b&from=-1h", ["url: credentials do not belong into a URL"]),
        ("http://p?target=a/b&from=-1h&form=x", ["form is no parameter of it"]),
        ("http://p?target=a/b&from=-1h&labels=x&labels.pod=y&labels.zone=z", ["labels.zone is no parameter of it"]),
        ("http://p?target=a/b&from=-1h&certFile=/c", ["its parameters: certFile and keyFile belong together"]),
    ],
)
def test_an_address_that_cannot_be_asked_is_refused_with_all_that_is_wrong(text: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        address(f"prometheus:{text}", NOW)
    assert len(refused.value.problems) == len(said)
    for problem, words in zip(refused.value.problems, said, strict=True):
        assert problem.startswith(f"a trace from Prometheus: {words}")
        assert "secret" not in problem
        assert problem.endswith("&to=2026-11-21T00:00:00Z")
