"""A resource of the cluster has no file read but those that were mounted for it, whoever may write it."""

from __future__ import annotations

from pathlib import Path

from autoscaler.doctor import Asked, examine
from policies.scaling.resource import API_VERSION, KIND
from tests.autoscaler.worlds import resource
from tests.stand_ins.autoscalers import Following
from tests.stand_ins.fixtures import api
from tests.stand_ins.floors import FloorsStandIn
from tests.stand_ins.kubernetes import Kind, KubernetesStandIn
from tests.stand_ins.prometheus import StandInPrometheus

__all__ = ["api"]


async def test_no_turn_begins_of_a_resource_that_names_another_file(tmp_path: Path) -> None:
    mounted = tmp_path / "credentials"
    mounted.mkdir()
    (mounted / "token").write_text("for this Prometheus")
    (tmp_path / "token").write_text("the autoscaler's own")
    prometheus = {"url": "http://127.0.0.1:9"}
    async with Following(FloorsStandIn(), mounted) as following:
        await following.apply(prometheus=prometheus | {"bearerTokenFile": str(tmp_path / "token")})
        assert following.begun == []
        ((reason, sentence),) = following.said
        assert reason == "InvalidSpec"
        assert sentence == (
            f"spec.prometheus.bearerTokenFile: {tmp_path / 'token'}: is not below {mounted}, and no other file is read "
            f"for a resource: mount what this Prometheus asks for below {mounted}"
        )
        await following.apply(prometheus=prometheus | {"bearerTokenFile": str(mounted / "token")})
        assert len(following.begun) == 1


async def test_nor_does_the_doctor_send_a_file_of_whoever_runs_it(tmp_path: Path, api: KubernetesStandIn) -> None:
    (tmp_path / "token").write_text("the operator's own")
    api.kinds.append(Kind(API_VERSION, KIND, "vllmautoscalers", has_scale=False))
    with StandInPrometheus() as server:
        prometheus = {"url": server.url, "bearerTokenFile": str(tmp_path / "token")}
        api.put(resource(prometheus=prometheus).model_dump(mode="json", by_alias=True, exclude_unset=True))
        found = await examine(Asked(kubeconfig=api.kubeconfig(tmp_path / "kubeconfig")))
        assert "token: is not below /etc/preheat/credentials, and no other file is read" in found.text()
        assert not server.asked
