"""Each example is complete: it drains, starts and spreads as vLLM must, its words are vLLM's, and it fits its GPUs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from policies.scaling.resource import KIND
from policies.scaling.resource_reading import read
from scheduler_extender.explain_pod import explain_pod
from tests.checkout import ROOT
from tests.manifests.examples import FILES, FOLDER, KUBELETS, documents, engines
from tests.scheduler_extender.worlds import node, written

OPTIONS = {
    option["name"] for option in json.loads((ROOT / "tests" / "data" / "vllm_options.json").read_text())["options"]
}
ENGINES = list(engines())
PRODUCT = "nvidia.com/gpu.product"

each_engine = pytest.mark.parametrize(
    ("path", "name", "template"), ENGINES, ids=[f"{path.stem}-{name}" for path, name, _ in ENGINES]
)


def options(template: Any) -> dict[str, str]:
    """vLLM's, by name."""
    (container,) = template["spec"]["containers"]
    return dict(argument.partition("=")[::2] for argument in container["args"])


def test_there_are_twelve_that_serve_and_what_goes_with_them() -> None:
    serving = {path.stem for path, _, _ in ENGINES} - {"tracing"}
    assert len(serving) == 12
    beside = {"tracing", "weights", "vpa-off", "device-plugin"}
    assert {path.stem for path in FILES} == serving | beside
    assert KUBELETS.exists()


@each_engine
def test_it_drains_before_it_is_killed(path: Path, name: str, template: Any) -> None:
    spec = template["spec"]
    (container,) = spec["containers"]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = int(options(template)["--shutdown-timeout"])
    assert before >= 10
    assert spec["terminationGracePeriodSeconds"] >= before + drain + 10
    if "spot" in name:
        assert spec["terminationGracePeriodSeconds"] <= 120


@each_engine
def test_it_is_given_time_to_load_and_is_judged_by_its_own_health(path: Path, name: str, template: Any) -> None:
    (container,) = template["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}
        assert "initialDelaySeconds" not in container[probe]
    startup = container["startupProbe"]
    cold = [each["spec"]["coldStartSeconds"] for each in documents(path) if each["kind"] == KIND]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 3 * max(cold, default=300)


@each_engine
def test_it_runs_as_nobody_with_memory_to_share_and_weights_on_a_volume(path: Path, name: str, template: Any) -> None:
    spec = template["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["HF_HOME"].startswith("/models/")
    assert "persistentVolumeClaim" in volumes[mounts["/models"]]


@each_engine
def test_every_word_is_an_option_of_vllm_and_the_gpus_are_those_it_uses(path: Path, name: str, template: Any) -> None:
    given = options(template)
    assert set(given) <= OPTIONS
    (container,) = template["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == given.get("--tensor-parallel-size", "1")
    assert any(each["key"] == "nvidia.com/gpu" for each in template["spec"]["tolerations"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_scaled_is_there_owns_its_number_and_keeps_a_budget(path: Path) -> None:
    found = documents(path)
    workloads = {each["metadata"]["name"]: each for each in found if each["kind"] in ("Deployment", "LeaderWorkerSet")}
    budgets = {each["metadata"]["name"] for each in found if each["kind"] == "PodDisruptionBudget"}
    for document in found:
        if document["kind"] == KIND:
            resource = read(document)
            workload = workloads[resource.spec.scale_target_ref.name]
            assert (workload["apiVersion"], workload["kind"]) == (
                resource.spec.scale_target_ref.api_version,
                resource.spec.scale_target_ref.kind,
            )
            assert "replicas" not in workload["spec"]
            assert workload["metadata"]["name"] in budgets
            rollout = workload["spec"].get("strategy") or workload["spec"]["rolloutStrategy"]
            limits = rollout.get("rollingUpdate") or rollout["rollingUpdateConfiguration"]
            assert limits == {"maxUnavailable": 0, "maxSurge": 1}


@each_engine
def test_it_fits_on_a_node_of_the_gpus_that_it_asks_for(tmp_path: Path, path: Path, name: str, template: Any) -> None:
    product = template["spec"]["nodeSelector"][PRODUCT]
    memory = {"NVIDIA-A10": 23028, "NVIDIA-A10G": 23028, "NVIDIA-L4": 23034}.get(product, 81559)
    inventory = written(tmp_path, node("one", 8, {PRODUCT: product, "nvidia.com/gpu.memory": str(memory)}))
    pod = tmp_path / "pod.yaml"
    pod.write_text(
        json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]})
    )
    told = asyncio.run(explain_pod(str(pod), inventory_file=inventory, config=None, kubeconfig=None, context=None))
    assert "1 of 1 nodes would take it" in told, told
    assert "unknown" not in told.splitlines()[0], told


def test_the_page_names_every_example() -> None:
    page = (FOLDER / "README.md").read_text()
    assert all(f"({path.name})" in page for path in (*FILES, KUBELETS))
