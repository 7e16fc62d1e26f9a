"""Which cluster, as whom, and what is said when neither can be told; and which rights are missing there."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from cluster.credentials import client_for
from cluster.errors import NotObservedError, RefusedError
from cluster.kubernetes import Cluster
from policies.scaling.resource import ScaleTargetRef
from tests.stand_ins.certificates import ELSEWHERE, HERE, server_side
from tests.stand_ins.kubernetes import QUICK, Fault, KubernetesStandIn
from tests.stand_ins.kubernetes_objects import NAMESPACE
from tests.stand_ins.waiting import until

REF = ScaleTargetRef(name="vllm-a")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's own environment says of clusters is forgotten."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


async def version(cluster: Cluster) -> str:
    try:
        return await cluster.version()
    finally:
        await cluster.close()


async def test_the_named_file_wins_over_the_environment(
    api: KubernetesStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    cluster = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=QUICK)
    assert await version(cluster) == "v1.36.3"
    assert api.tokens == ["Bearer a-token"]


async def test_the_environment_wins_over_the_pod(
    api: KubernetesStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", api.kubeconfig(tmp_path / "kubeconfig"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "nowhere.invalid")
    assert await version(await Cluster.connect(pace=QUICK)) == "v1.36.3"


async def test_no_cluster_at_all_is_told_with_the_three_ways() -> None:
    with pytest.raises(RefusedError) as refusal:
        await Cluster.connect()
    assert str(refusal.value) == (
        "no cluster is named: give --kubeconfig FILE, set KUBECONFIG, or run in a pod with a service account"
    )


async def test_a_file_that_is_not_there_is_told_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nowhere"
    with pytest.raises(RefusedError, match=f"^--kubeconfig {path} does not exist: give the path"):
        await Cluster.connect(str(path))
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(RefusedError, match=rf"^KUBECONFIG \({path}\) does not exist"):
        await Cluster.connect()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "- a list",
        "a: [broken",
        "just words",
        "apiVersion: v1\nkind: Config\n",
        "contexts: []\nclusters: []\nusers: []\ncurrent-context: none\n",
        "\x00\x01",
    ],
)
async def test_a_file_that_is_no_kubeconfig_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(RefusedError) as refusal:
        await Cluster.connect(str(path))
    assert str(refusal.value).startswith(f"--kubeconfig {path} is not a kubeconfig that can be used: ")
    assert "\n" not in str(refusal.value)


async def test_a_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"is not a kubeconfig that can be used: .*[Dd]irectory"):
        await Cluster.connect(str(tmp_path))


async def test_an_unknown_context_is_told_with_the_known_ones(api: KubernetesStandIn, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path / "kubeconfig")
    with pytest.raises(RefusedError, match=r"has no context 'theirs': write --context with one of ours$"):
        await Cluster.connect(path, "theirs")
    assert await version(await Cluster.connect(path, "ours", pace=QUICK)) == "v1.36.3"


async def test_the_certificate_of_the_server_is_verified(tmp_path: Path) -> None:
    api = KubernetesStandIn()
    await api.start(server_side(tmp_path))
    trusting = await Cluster.connect(api.kubeconfig(tmp_path / "good", ca=HERE), pace=QUICK)
    assert await version(trusting) == "v1.36.3"
    for path in (api.kubeconfig(tmp_path / "other", ca=ELSEWHERE), api.kubeconfig(tmp_path / "none")):
        doubting = await Cluster.connect(path, pace=QUICK)
        with pytest.raises(NotObservedError, match=r"not trusted \(.*\): name its authority in the kubeconfig$"):
            await version(doubting)
    await api.stop()


async def test_an_expired_certificate_of_the_server_is_told_in_a_sentence(tmp_path: Path) -> None:
    authority = trustme.CA()
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_after=datetime(2001, 1, 1, tzinfo=UTC)).configure_cert(shown)
    api = KubernetesStandIn()
    await api.start(shown)
    try:
        ca = authority.cert_pem.bytes().decode()
        cluster = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig", ca=ca), pace=QUICK)
        with pytest.raises(NotObservedError) as failure:
            await version(cluster)
    finally:
        await api.stop()
    assert str(failure.value).endswith(
        " shows a certificate that is not trusted (certificate has expired): renew it, or set the clocks right"
    )


async def test_a_certificate_that_is_none_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    api = KubernetesStandIn()
    api.scheme = "https"
    with pytest.raises(RefusedError, match=r"^the certificates for https://.* cannot be used: .*correct"):
        await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig", ca="not a certificate"))


async def test_a_token_file_is_read_again_when_it_is_rotated(api: KubernetesStandIn, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    client = await client_for(api.kubeconfig(tmp_path / "kubeconfig", tokenFile="token"), None, renew_seconds=0)
    cluster = Cluster(client, pace=QUICK)
    await cluster.version()
    (tmp_path / "token").write_text("second\n")
    assert await version(cluster) == "v1.36.3"
    assert api.tokens == ["Bearer first", "Bearer second"]


async def test_a_token_of_a_plugin_is_asked_for_again(api: KubernetesStandIn, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        "#!/bin/sh\n"
        f"echo x >> {tmp_path}/asked\n"
        'echo "{\\"kind\\": \\"ExecCredential\\", \\"apiVersion\\": \\"client.authentication.k8s.io/v1\\", '
        f'\\"status\\": {{\\"token\\": \\"token-$(wc -l < {tmp_path}/asked | tr -d " ")\\"}}}}"\n'
    )
    plugin.chmod(0o755)
    user = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    client = await client_for(api.kubeconfig(tmp_path / "kubeconfig", exec=user), None, renew_seconds=0)
    cluster = Cluster(client, pace=QUICK)
    await cluster.version()
    assert await version(cluster) == "v1.36.3"
    assert api.tokens == ["Bearer token-2", "Bearer token-3"]


async def test_in_a_pod_its_service_account_is_used_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = KubernetesStandIn()
    await api.start(server_side(tmp_path))
    host, _, port = api.url.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    ca.write_text(HERE)
    with pytest.raises(RefusedError, match=r"service account of this pod cannot be used: .*automount"):
        await client_for(None, None, token_file=str(token), ca_file=str(ca))
    token.write_text("first\n")
    with pytest.raises(RefusedError, match="--context chooses inside a kubeconfig"):
        await client_for(None, "ours", token_file=str(token), ca_file=str(ca))
    client = await client_for(None, None, token_file=str(token), ca_file=str(ca), renew_seconds=0)
    cluster = Cluster(client, pace=QUICK)
    token.write_text("second\n")
    assert await version(cluster) == "v1.36.3"
    assert api.tokens == ["Bearer second"]
    await api.stop()


async def test_a_server_that_is_not_there_is_told_by_its_address(api: KubernetesStandIn, tmp_path: Path) -> None:
    cluster = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=QUICK)
    await api.stop()
    with pytest.raises(NotObservedError, match=f"the API server at {api.url} could not be asked: "):
        await version(cluster)


async def test_an_answer_of_a_proxy_in_between_is_told_as_it_is(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.faults.append(Fault(502, message="<html>bad gateway</html>"))
    with pytest.raises(NotObservedError, match="HTTP 502: <html>bad gateway</html>"):
        await cluster.version()


async def test_with_all_rights_none_is_missing(api: KubernetesStandIn, cluster: Cluster) -> None:
    assert await cluster.missing_rights(REF, NAMESPACE) == ()
    # Nothing was tried out: asking about rights changes nothing.
    assert {method for method, path in api.requests if "selfsubject" not in path} == {"GET"}


async def test_each_missing_right_is_named_as_a_role_names_it(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.denied |= {"watch replicasets", "patch deployments/scale", "create events"}
    missing = await cluster.missing_rights(REF, NAMESPACE)
    assert [str(right) for right in missing] == [
        "watch replicasets",
        "patch deployments/scale",
        "create events",
    ]
    assert missing[1].rule == 'apiGroups: ["apps"], resources: ["deployments/scale"], verbs: ["patch"]'


async def test_a_shadow_needs_no_right_to_write(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.denied |= {"patch deployments/scale", "create events", "patch events"}
    assert await cluster.missing_rights(REF, NAMESPACE, writes=False) == ()


async def test_rights_that_cannot_be_asked_for_are_not_observed(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.faults.append(Fault(503, times=100, path="selfsubject"))
    with pytest.raises(NotObservedError, match="the rights in namespace 'inference'"):
        await cluster.missing_rights(REF, NAMESPACE)


async def test_a_target_needs_only_the_rights_that_are_said_to_be_needed(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    api.deploy()
    await cluster.target(REF, NAMESPACE)
    await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)
    await cluster.event(REF, NAMESPACE, "uid", "Scaled", "2 became 3")
    await until(lambda: len(api.events) == 1)
    used = {path.rsplit("/", 1)[1] for _, path in api.requests if "/namespaces/" in path}
    assert used == {"pods", "deployments", "replicasets", "scale", "events"}
