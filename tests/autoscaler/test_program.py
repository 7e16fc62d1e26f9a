"""The whole program between both stand-ins, and what `preheat check` finds there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from autoscaler.check import Report, check
from autoscaler.explain import explain
from autoscaler.journal import newest_entry
from autoscaler.loop import Outcome
from autoscaler.program import Options, serve
from cluster.pages import listen
from policies.scaling.resource import VLLMAutoscaler
from tests.autoscaler.stack import Engine, Stack
from tests.autoscaler.worlds import resource
from tests.stand_ins import certificates
from tests.stand_ins.kubernetes import KubernetesStandIn
from tests.stand_ins.prometheus import Faults, StandInPod, StandInPrometheus
from tests.stand_ins.waiting import until

NAMES = ("vllm-llama", "vllm-qwen")


@pytest.fixture
async def api() -> AsyncIterator[KubernetesStandIn]:
    stand_in = KubernetesStandIn()
    await stand_in.start()
    for name in NAMES:
        stand_in.deploy(name, 2)
    yield stand_in
    await stand_in.stop()


@pytest.fixture
def engines() -> dict[str, Engine]:
    return {f"{name}-6b7c8d9f4-b000{number}": Engine() for name in NAMES for number in range(2)}


@pytest.fixture
def prometheus(engines: dict[str, Engine]) -> Iterator[StandInPrometheus]:
    pods = [
        StandInPod("inference", name, f"10.1.0.{n}", engine.page) for n, (name, engine) in enumerate(engines.items())
    ]
    with StandInPrometheus(pods) as server:
        yield server


def stated(name: str, url: str, **prometheus: Any) -> VLLMAutoscaler:
    return resource(name, prometheus={"url": url, "timeoutSeconds": 10, **prometheus})


async def page(port: int, path: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return await answer.text()


async def test_two_targets_of_one_prometheus_from_start_to_sigterm(
    api: KubernetesStandIn,
    prometheus: StandInPrometheus,
    engines: dict[str, Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports: list[int] = []

    async def listen_and_tell(*arguments: Any) -> Any:
        runner, port = await listen(*arguments)
        ports.append(port)
        return runner, port

    monkeypatch.setattr("autoscaler.program.listen", listen_and_tell)
    journal = tmp_path / "journal"
    options = Options(
        resources=tuple(stated(name, prometheus.url) for name in ("llama", "qwen")),
        kubeconfig=api.kubeconfig(tmp_path / "kubeconfig"),
        port=0,
        tick_seconds=0.3,
        journal=journal,
    )
    for name, engine in engines.items():
        engine.rate, engine.served_a_page = 1.0, 2.0
        if "llama" in name:
            engine.shown["num_requests_waiting"] = "90000"
    # The past cannot be read: that is told, and the turns begin without it.
    prometheus.faults = Faults(status=503, only_queries_with="label_replace")
    running = asyncio.create_task(serve(options))
    await until(lambda: bool(api.events) or running.done(), seconds=60)
    text = await page(ports[0], "/metrics")
    ready = await page(ports[0], "/readyz")
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 30)

    scaled = api.objects["deployments", "inference", "vllm-llama"]["spec"]["replicas"]
    assert scaled > 2
    assert api.objects["deployments", "inference", "vllm-qwen"]["spec"]["replicas"] == 2
    assert ready == "ok\n"
    assert re.search(r'preheat_scale_writes_total\{name="llama",namespace="inference",result="rescaled"\} \d', text)
    assert 'preheat_errors_total{kind="refill",name="qwen",namespace="inference"} 1.0' in text
    assert 'preheat_replicas_ready{name="qwen",namespace="inference"} 2.0' in text
    assert f'preheat_prometheus_requests_total{{server="{prometheus.url}"}}' in text
    assert re.search(r"preheat_kubernetes_requests_total [1-9]", text)
    event = next(event for event in api.events.values() if event["reason"] == "Rescaled")
    assert event["involvedObject"]["name"] == "vllm-llama"
    entry = newest_entry(journal, "inference/qwen")
    assert entry is not None
    assert entry.outcome is Outcome.UNCHANGED
    assert event["message"] in "\n".join(path.read_text() for path in journal.iterdir())
    assert "inference/llama at" in explain(journal, "llama", None)


async def test_both_targets_are_read_in_one_round_of_queries(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        target = await stack.target()
        await stack.turns(target, 1)
        asked = len(stack.prometheus.asked)
        await stack.turns(target, 1)
        alone = len(stack.prometheus.asked) - asked
        others = stack.more_targets(target, times=9)
        asked = len(stack.prometheus.asked)
        stack.pass_time(60)
        await asyncio.gather(*(stack.service.turn(each) for each in (target, *others)))
        assert len(stack.prometheus.asked) - asked == alone
        assert all(each.history.last is not None and each.history.last.ready_pods for each in others)


async def test_a_restart_reads_the_past_back_and_does_not_shrink_at_once(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        target = await stack.target(replicas=3)
        for _ in range(30):  # half an hour that only Prometheus sees
            stack.pass_time(60)
            stack.prometheus.scrape()
        assert target.refill is not None
        target.past = await target.refill()
        assert len(target.past) >= 4
        rates = [bin.arrivals_per_second for bin in target.past]
        assert all(rate == pytest.approx(stack.rate, rel=0.1) for rate in rates[1:-1])
        await stack.turns(target, 1)
        assert stack.replicas == 3
        assert target.history.coarse is not None


async def test_a_certificate_that_nobody_trusts_is_told_until_the_right_authority_is_mounted(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text(certificates.ELSEWHERE)
    async with Stack(tmp_path, tls=certificates.server_side(tmp_path), caFile=str(authority)) as stack:
        target = await stack.target()
        await stack.turns(target, 2)
        (event,) = stack.events
        assert event.reason == "HeldMetricsIncomplete"
        assert "certificate" in event.message
        assert target.figures.counts["preheat_errors_total", "prometheus"] == 2
        authority.write_text(certificates.HERE)
        await stack.turns(target, 1)
        assert target.figures.counts["preheat_turns_total", "unchanged"] == 1


@pytest.fixture
def kubeconfig(api: KubernetesStandIn, tmp_path: Path) -> str:
    return api.kubeconfig(tmp_path / "kubeconfig")


async def checked(tmp_path: Path, kubeconfig: str, *resources: VLLMAutoscaler) -> Report:
    file = tmp_path / "targets.yaml"
    dumped = [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in resources]
    file.write_text(yaml.safe_dump_all(dumped))
    return await check(file, kubeconfig, None)


async def test_check_finds_nothing_wrong_and_says_what_it_saw(
    tmp_path: Path, kubeconfig: str, prometheus: StandInPrometheus
) -> None:
    prometheus.scrape()
    report = await checked(tmp_path, kubeconfig, stated("llama", prometheus.url), stated("qwen", prometheus.url))
    assert report.problems == []
    notes = "\n".join(report.notes)
    assert "inference/llama: Deployment 'vllm-llama' asks for 2 replicas, 2 pods are ready" in notes
    assert "is Kubernetes v1.36" in notes
    assert "spec.objectives.ttftSeconds 2.5 is an edge of vLLM's buckets: attainment is measured exactly" in notes


async def test_check_names_the_edges_around_an_objective_that_lies_between_them(
    tmp_path: Path, kubeconfig: str, prometheus: StandInPrometheus
) -> None:
    prometheus.scrape()
    between = resource("llama", prometheus={"url": prometheus.url}, objectives={"ttftSeconds": 2, "tpotSeconds": 0.2})
    notes = (await checked(tmp_path, kubeconfig, between)).notes
    assert (
        "inference/llama: spec.objectives.ttftSeconds 2 lies between vLLM's bucket edges 1 and 2.5: attainment is "
        "then an interval; name one of them for an exact share"
    ) in notes
    assert any("tpotSeconds 0.2 lies above vLLM's last bucket edge, 0.075" in note for note in notes)


async def test_check_tells_everything_that_is_wrong_at_once(
    api: KubernetesStandIn, tmp_path: Path, kubeconfig: str, prometheus: StandInPrometheus
) -> None:
    prometheus.pods = [
        StandInPod(
            "inference", "a", "10.9.9.9", "# TYPE my_vllm_num_requests_running gauge\nmy_vllm_num_requests_running 1\n"
        )
    ]
    prometheus.scrape()
    api.denied |= {"patch deployments/scale", "create events"}
    absent = resource("lama", prometheus={"url": prometheus.url})
    scaleless = resource(
        "daemon",
        prometheus={"url": prometheus.url, "arrivals": "router_requests_total"},
        scaleTargetRef={"kind": "DaemonSet", "name": "d"},
    )
    problems = (await checked(tmp_path, kubeconfig, stated("llama", prometheus.url), absent, scaleless)).problems
    told = "\n".join(problems)
    assert f"Prometheus at {prometheus.url} has no series of vLLM; what it has that looks alike: my_vllm" in told
    assert "inference/llama: the right to patch deployments/scale in namespace 'inference' is missing" in told
    assert 'add to its Role {apiGroups: ["apps"], resources: ["deployments/scale"], verbs: ["patch"]}' in told
    assert "inference/llama: the right to create events in namespace 'inference' is missing" in told
    assert "inference/lama: Deployment 'vllm-lama' in namespace 'inference' does not exist" in told
    assert "inference/daemon: kind 'DaemonSet'" in told
    assert not any("\n" in problem for problem in problems)


async def test_check_tells_of_pods_that_prometheus_does_not_show(
    tmp_path: Path, kubeconfig: str, prometheus: StandInPrometheus
) -> None:
    prometheus.pods = prometheus.pods[1:2]  # of vllm-llama one, of vllm-qwen none
    prometheus.scrape()
    report = await checked(tmp_path, kubeconfig, stated("llama", prometheus.url), stated("qwen", prometheus.url))
    (problem,) = report.problems
    assert problem.startswith(
        "inference/qwen: of 2 ready pods 2 have no whole sample in Prometheus (vllm-qwen-6b7c8d9f4-b0000): let it"
    )
    assert any(note.startswith("inference/llama: of 2 ready pods 1 have no whole sample") for note in report.notes)


async def test_check_tells_of_a_routers_counter_that_is_summed(
    tmp_path: Path, kubeconfig: str, prometheus: StandInPrometheus
) -> None:
    counter = "# TYPE routed counter\nrouted_total 7\n"
    prometheus.pods += [StandInPod("edge", f"router-{n}", f"10.1.0.{n}", counter) for n in range(2)]
    prometheus.scrape()
    apart = stated("llama", prometheus.url, arrivals="sum by (pod) (routed_total)")
    summed = stated("qwen", prometheus.url, arrivals="sum by (namespace) (routed_total)")
    report = await checked(tmp_path, kubeconfig, apart, summed)
    assert report.problems == []
    (told,) = (note for note in report.notes if "prometheus.arrivals" in note)
    assert told == (
        "inference/qwen: spec.prometheus.arrivals (sum by (namespace) (routed_total)) has no label that tells "
        "routers apart, and one that is not scraped for once cannot be told from one that began anew: do not sum it"
    )


async def test_check_asks_a_router_for_the_counter_that_is_named(
    tmp_path: Path, kubeconfig: str, prometheus: StandInPrometheus
) -> None:
    prometheus.scrape()
    named = stated("llama", prometheus.url, arrivals="router_requests_total")
    wrong = stated("qwen", prometheus.url, arrivals="sum(")
    problems = (await checked(tmp_path, kubeconfig, named, wrong)).problems
    assert problems[0] == (
        "inference/llama: spec.prometheus.arrivals (router_requests_total) has no value now: name a counter of the "
        "router that this Prometheus scrapes"
    )
    assert problems[1].startswith("inference/qwen: spec.prometheus.arrivals (sum() cannot be read: Prometheus at")
    assert len(problems) == 2
