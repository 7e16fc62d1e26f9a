"""What a cluster or a file shows is taken in while it runs, and pods that would now be admitted are touched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cluster.errors import RefusedError
from cluster.gpu_objects import TOUCHED
from cluster.pages import listen
from cluster.placement import PlacementCluster
from scheduler_extender.config import load
from scheduler_extender.service import Extender
from scheduler_extender.telemetry import Telemetry
from scheduler_extender.wire import NoAnswerError
from tests.scheduler_extender.test_answers import filtered, filtered_whole
from tests.scheduler_extender.worlds import L40S, Json, inventory, node, pod, written
from tests.stand_ins.fixtures import api, few_authorities
from tests.stand_ins.kubernetes import QUICK, Fault, KubernetesStandIn
from tests.stand_ins.waiting import until

__all__ = ["api", "few_authorities"]

Make = Callable[..., Any]


@asynccontextmanager
async def watching(api: KubernetesStandIn, folder: Path, config: Path | None = None) -> AsyncIterator[Extender]:
    cluster = await PlacementCluster.connect(api.kubeconfig(folder / "kubeconfig"), pace=QUICK)
    extender = Extender(load(config), Telemetry("test"), config=config, cluster=cluster, files_seconds=0.02)
    running = asyncio.create_task(extender.run())
    try:
        yield extender
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await cluster.close()


@asynccontextmanager
async def reading(path: Path, config: Path | None = None) -> AsyncIterator[Extender]:
    extender = Extender(load(config), Telemetry("test"), config=config, inventory_file=path, files_seconds=0.02)
    running = asyncio.create_task(extender.run())
    try:
        yield extender
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def touched(api: KubernetesStandIn, name: str) -> str:
    return str(api.objects["pods", "inference", name]["metadata"]["annotations"].get(TOUCHED, ""))


def touches(api: KubernetesStandIn, name: str = "") -> int:
    return api.number_of("PATCH", f"/pods/{name}")


def rewrite(path: Path, content: bytes | str) -> None:
    """In one step, as a careful writer does."""
    new = path.with_suffix(".new")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(new, path)


async def test_it_is_ready_once_nodes_and_pods_are_known(api: KubernetesStandIn, tmp_path: Path) -> None:
    api.put(node("gpu-a"), pod("holder", 6, on="gpu-a"))
    fault = Fault(503, times=10**6, path="/api/v1/pods")
    api.faults.append(fault)
    async with watching(api, tmp_path) as extender:
        await until(lambda: "gpu-a" in extender.facts.nodes)
        assert not extender.answers.whole
        with pytest.raises(NoAnswerError, match="does not know all nodes and pods yet"):
            filtered_whole(extender, pod("asking"), node("gpu-a"))
        fault.times = 0
        await until(lambda: extender.answers.whole)
        assert filtered(extender, pod("asking"), "gpu-a")["FailedNodes"] == {"gpu-a": "too few free GPUs"}
        assert filtered_whole(extender, pod("asking"), node("gpu-a"))["Nodes"]["items"] == []


async def test_changes_are_taken_in_also_over_an_expired_watch(api: KubernetesStandIn, tmp_path: Path) -> None:
    holder = pod("holder", 6, on="gpu-a")
    api.put(node("gpu-a"), holder)
    async with watching(api, tmp_path) as extender:
        await until(lambda: extender.answers.whole)
        await until(lambda: api.open_watches == 2)
        api.silent = True
        api.remove(holder)
        api.put(node("gpu-b", 8, L40S))
        api.forget_history()
        api.silent = False
        api.cut_watches()
        await until(lambda: "gpu-b" in extender.facts.nodes and not extender.facts.pods)
        answer = filtered(extender, pod("asking"), "gpu-a", "gpu-b")
        assert answer["NodeNames"] == ["gpu-a"]
        assert answer["FailedAndUnresolvableNodes"] == {"gpu-b": "GPUs are not NVLink-connected"}


async def test_objects_that_cannot_be_read_stop_nothing(api: KubernetesStandIn, tmp_path: Path) -> None:
    odd = node("odd")
    odd["status"]["allocatable"]["nvidia.com/gpu"] = "many"
    api.put(odd, node("gpu-a"))
    async with watching(api, tmp_path) as extender:
        await until(lambda: extender.answers.whole)
        answer = filtered(extender, pod("asking"), "odd", "gpu-a")
        assert answer["NodeNames"] == ["gpu-a"]
        assert answer["FailedNodes"] == {"odd": "node is not known to the extender"}


async def test_an_object_that_cannot_be_read_counts_once_until_it_is_mended_or_gone(
    api: KubernetesStandIn, tmp_path: Path
) -> None:
    odd, other = node("odd"), pod("other")
    odd["status"]["allocatable"]["nvidia.com/gpu"] = "many"
    other["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "many"
    api.put(odd, other)
    async with watching(api, tmp_path) as extender:

        def unreadable() -> float:
            return next(value for name, _, value in extender._numbers() if name == "objects_unreadable")

        await until(lambda: extender.answers.whole and api.open_watches == 2)
        assert unreadable() == 2
        for number in range(3):
            odd["metadata"]["labels"]["seen"] = str(number)
            api.put(odd)
        api.put(node("gpu-a"))
        await until(lambda: "gpu-a" in extender.facts.nodes)
        assert unreadable() == 2
        api.put(node("odd"))
        await until(lambda: "odd" in extender.facts.nodes)
        assert unreadable() == 1
        api.remove(other)
        await until(lambda: unreadable() == 0)


async def test_a_pod_that_cannot_be_read_counts_until_the_inventory_is_without_it(tmp_path: Path) -> None:
    other = pod("other")
    other["spec"]["containers"][0]["args"] = [3]
    path = written(tmp_path, node("gpu-a"), other)
    async with reading(path) as extender:
        assert extender.facts.unreadable == {"inference/other"}
        rewrite(path, inventory(node("gpu-a")))
        await until(lambda: not extender.facts.unreadable)


async def test_any_pod_of_the_cluster_is_explained_as_it_is_now(api: KubernetesStandIn, tmp_path: Path) -> None:
    api.put(node("gpu-a"), node("gpu-b", 8, L40S), pod("waits", 2), pod("plain", 0))
    async with watching(api, tmp_path) as extender, aiohttp.ClientSession() as session:
        await until(lambda: extender.answers.whole)
        runner, port = await listen(extender.pages().application(), "127.0.0.1", 0)

        async def explained(name: str) -> tuple[int, Json]:
            url = f"http://127.0.0.1:{port}/explain?pod=inference/{name}"
            async with session.get(url) as answer:
                return answer.status, await answer.json()

        try:
            status, told = await explained("waits")
            assert status == 200
            assert [(each["node"], each["passes"]) for each in told["nodes"]] == [("gpu-a", True), ("gpu-b", False)]
            assert "GiB a GPU, has" in told["nodes"][0]["memorySaid"]
            assert [each["passes"] for each in (await explained("plain"))[1]["nodes"]] == [True, True]
            status, told = await explained("nobody")
            assert status == 404
            assert 'pods "nobody" not found' in told["error"]
        finally:
            await runner.cleanup()


@pytest.mark.parametrize(
    "named",
    [
        *("", "inference", "inference/", "/waits", "inference/waits/log", "inference/?watch=1"),
        *("inference/waits?watch=1", "../nodes", "inference/..", "inference/%2e%2e", "Inference/waits"),
        *("inference/-", "a.b/waits", "inference/a..b", "inference/waits\n"),
        *("inference/" + "a" * 254, "a" * 64 + "/waits"),
    ],
)
async def test_what_can_be_no_pods_name_is_refused_and_never_asked_for(
    named: str, api: KubernetesStandIn, tmp_path: Path
) -> None:
    async with watching(api, tmp_path) as extender, aiohttp.ClientSession() as session:
        await until(lambda: extender.answers.whole and api.open_watches == 2)
        runner, port = await listen(extender.pages().application(), "127.0.0.1", 0)
        try:
            async with session.get(f"http://127.0.0.1:{port}/explain", params={"pod": named}) as answer:
                assert answer.status == 400
                assert "/explain?pod=NAMESPACE/NAME" in (await answer.json())["error"]
            assert {path for _, path in api.requests} == {"/api/v1/nodes", "/api/v1/pods"}
        finally:
            await runner.cleanup()


async def test_whatever_a_pod_is_called_it_is_asked_for_by_that_name(api: KubernetesStandIn, tmp_path: Path) -> None:
    async with watching(api, tmp_path) as extender:
        assert extender._cluster is not None
        with pytest.raises(RefusedError):
            await extender._cluster.pod("inference", "?watch=1")
        assert ("GET", "/api/v1/namespaces/inference/pods/?watch=1") in api.requests


async def test_a_pod_is_touched_when_a_node_comes_to_pass_for_it(api: KubernetesStandIn, tmp_path: Path) -> None:
    holder = pod("holder", 8, on="gpu-a")
    api.put(node("gpu-a"), holder, pod("waits", rejected=True), pod("too-large", 16, rejected=True), pod("new"))
    async with watching(api, tmp_path) as extender:
        await until(lambda: extender.answers.whole and bool(extender.board._watched))
        assert touches(api) == 0
        api.remove(holder)
        await until(lambda: bool(touched(api, "waits")))
        written_at = datetime.fromisoformat(touched(api, "waits"))
        assert abs((datetime.now(UTC) - written_at).total_seconds()) < 60
        assert touched(api, "too-large") == touched(api, "new") == ""


async def test_a_pod_is_touched_once_in_ten_seconds_and_not_forgotten(api: KubernetesStandIn, tmp_path: Path) -> None:
    config = tmp_path / "extender.yaml"
    config.write_text("touch: {seconds: 1}")
    holder = pod("holder", 8, on="gpu-a")
    api.put(node("gpu-a"), holder, pod("waits", rejected=True))
    async with watching(api, tmp_path, config) as extender:
        await until(lambda: extender.answers.whole and bool(extender.board._watched))
        times: list[str] = []
        for _ in range(2):
            api.remove(holder)
            await until(lambda: touched(api, "waits") not in ("", *times))
            times.append(touched(api, "waits"))
            api.put(holder)
            await until(lambda: filtered(extender, pod("asking"), "gpu-a")["NodeNames"] == [])
        first, second = map(datetime.fromisoformat, times)
        assert (second - first).total_seconds() >= 1.0
        assert touches(api) == 2


async def test_a_pod_rejected_before_a_new_node_was_known_here_is_touched_when_that_is_seen(
    api: KubernetesStandIn, tmp_path: Path
) -> None:
    async with watching(api, tmp_path) as extender:
        await until(lambda: extender.answers.whole)
        api.put(node("gpu-a"))
        await until(lambda: "gpu-a" in extender.facts.nodes)
        api.put(pod("waits"))
        await until(lambda: bool(extender.facts.waiting))
        assert touches(api) == 0
        api.put(pod("waits", rejected=True))
        await until(lambda: bool(touched(api, "waits")))


async def test_of_two_replicas_one_touches(api: KubernetesStandIn, tmp_path: Path) -> None:
    holder = pod("holder", 8, on="gpu-a")
    api.put(node("gpu-a"), holder, pod("waits", rejected=True))
    async with watching(api, tmp_path) as one, watching(api, tmp_path) as two:
        await until(lambda: all(each.answers.whole and bool(each.board._watched) for each in (one, two)))
        api.remove(holder)
        await until(lambda: bool(touched(api, "waits")))
        await until(lambda: not any(each.toucher and each.toucher._due for each in (one, two)))
        only = [thing for _, change, _, thing in api._history if TOUCHED in thing["metadata"].get("annotations", {})]
        assert len(only) == 1


async def test_without_the_right_to_patch_pods_it_goes_on(api: KubernetesStandIn, tmp_path: Path) -> None:
    api.denied.add("patch pods")
    holder = pod("holder", 8, on="gpu-a")
    api.put(node("gpu-a"), holder, pod("waits", rejected=True))
    async with watching(api, tmp_path) as extender:
        await until(lambda: extender.answers.whole and bool(extender.board._watched))
        api.remove(holder)
        await until(lambda: b'pods_touched_total{result="refused"} 1.0' in extender.telemetry.text())
        assert filtered(extender, pod("asking"), "gpu-a")["NodeNames"] == ["gpu-a"]


async def test_an_edited_table_turns_verdicts_and_touches_who_waits(api: KubernetesStandIn, tmp_path: Path) -> None:
    products, config = tmp_path / "products.yaml", tmp_path / "extender.yaml"
    products.write_text("products: []")
    config.write_text("productsFile: products.yaml")
    api.put(node("gpu-a", 8, L40S), pod("waits", rejected=True))
    async with watching(api, tmp_path, config) as extender:
        await until(lambda: extender.answers.whole and bool(extender.board._watched))
        rewrite(products, "products:\n- {match: NVIDIA-L40S, links: rope, group: 8}\n")
        await until(lambda: b'reloads_total{file="config",result="refused"} 1.0' in extender.telemetry.text())
        assert filtered(extender, pod("asking"), "gpu-a")["NodeNames"] == []
        rewrite(products, "products:\n- {match: NVIDIA-L40S, links: full mesh, group: 8}\n")
        await until(lambda: filtered(extender, pod("asking"), "gpu-a")["NodeNames"] == ["gpu-a"])
        await until(lambda: bool(touched(api, "waits")))


async def test_edited_settings_turn_verdicts_too(api: KubernetesStandIn, tmp_path: Path) -> None:
    config = tmp_path / "extender.yaml"
    config.write_text("placement: {nvlink: require}")
    api.put(node("gpu-a", 8, L40S), pod("waits", rejected=True))
    async with watching(api, tmp_path, config) as extender:
        await until(lambda: extender.answers.whole and bool(extender.board._watched))
        rewrite(config, "placement: {nvlink: prefer}")
        await until(lambda: bool(touched(api, "waits")))
        assert filtered(extender, pod("asking"), "gpu-a")["NodeNames"] == ["gpu-a"]


async def test_an_inventory_is_read_again_when_it_changes_and_the_last_good_one_holds(tmp_path: Path) -> None:
    path = written(tmp_path, node("gpu-a"))
    async with reading(path) as extender:
        asking = pod("asking", 8)
        assert filtered(extender, asking, "gpu-a")["NodeNames"] == ["gpu-a"]
        rewrite(path, "half written")
        await until(lambda: b'reloads_total{file="inventory",result="refused"} 1.0' in extender.telemetry.text())
        assert filtered(extender, asking, "gpu-a")["NodeNames"] == ["gpu-a"]
        path.unlink()
        await until(lambda: b'reloads_total{file="inventory",result="refused"} 2.0' in extender.telemetry.text())
        rewrite(path, inventory(node("gpu-a"), node("gpu-b"), pod("holder", 1, on="gpu-a")))
        await until(lambda: filtered(extender, asking, "gpu-a", "gpu-b")["NodeNames"] == ["gpu-b"])


async def test_beside_an_inventory_a_cluster_is_for_touching_alone(api: KubernetesStandIn, tmp_path: Path) -> None:
    """What the file says of a pod may be old; the pod is touched all the same."""
    waits = pod("waits", rejected=True)
    api.put(waits)
    old = {**waits, "metadata": {**waits["metadata"], "resourceVersion": "1"}}
    path = written(tmp_path, node("gpu-a"), pod("holder", 8, on="gpu-a"), old)
    cluster = await PlacementCluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=QUICK)
    extender = Extender(load(None), Telemetry("test"), inventory_file=path, cluster=cluster, files_seconds=0.02)
    running = asyncio.create_task(extender.run())
    try:
        await until(lambda: bool(extender.board._watched))
        rewrite(path, inventory(node("gpu-a"), old))
        await until(lambda: bool(touched(api, "waits")))
        assert api.open_watches == 0
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await cluster.close()


async def test_the_mix_is_learnt_from_the_clusters_own_pods(tmp_path: Path) -> None:
    things: list[Json] = [node(f"gpu-{number}") for number in range(40)]
    things += [pod(f"p-{number}", 8, on=f"gpu-{number}") for number in range(30)]
    things += [pod(f"q-{number}", 2, on=f"gpu-{number + 30}") for number in range(10)]
    async with reading(written(tmp_path, *things)) as extender:
        await until(lambda: extender.board.settings.mix == ((1, 0.0), (2, 0.25), (4, 0.0), (8, 0.75)))
    config = tmp_path / "extender.yaml"
    config.write_text("learnMix: false")
    async with reading(written(tmp_path, *things), config) as other:
        other._learn_mix()
        assert dict(other.board.settings.mix)[1] == 0.55
