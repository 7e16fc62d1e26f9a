"""The shipped extender with a real kube-scheduler: pods land where their GPUs are linked and their model fits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import new_namespace
from tests.parts.processes import free_ports, wait_until
from tests.real.placing import A100_PAIRS, B200, H100, L40S, Placing, Service, errors_in, placing_in

pytestmark = pytest.mark.cluster

LARGE = "meta-llama/Llama-3.1-70B-Instruct"


@pytest.fixture(scope="module")
def started(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placing]:
    with placing_in(control_plane, tmp_path_factory.mktemp("placing")) as running:
        yield running


@pytest.fixture(scope="module")
def scheduler(started: Placing) -> Iterator[str]:
    service = Service(started.ports)
    with started.scheduler(service.port) as name:
        yield name
    service.close()


@pytest.fixture
def placing(started: Placing) -> Iterator[Placing]:
    yield started
    started.remove_nodes()
    for process in started.extenders:
        assert errors_in(process.log) == []


def test_tensor_parallelism_lands_on_nvlink_and_never_on_pcie(placing: Placing, scheduler: str, namespace: str) -> None:
    for name, labels in (("linked", H100), ("unlinked-1", L40S), ("unlinked-2", L40S)):
        placing.add_node(name, labels)
    for number in range(3):
        placing.add_pod(namespace, f"tp4-{number}", scheduler, gpus=4)
    assert set(placing.wait_places(namespace, 2).values()) == {"linked"}
    (waits,) = set(placing.pods(namespace)) - set(placing.places(namespace))
    placing.wait_told(namespace, waits, "2 GPUs are not NVLink-connected")
    placing.add_pod(namespace, "one", scheduler, gpus=1)
    assert placing.wait_places(namespace, 3)["one"].startswith("unlinked")


def test_two_gpus_land_on_a_free_pair_and_a_large_model_finds_its_memory(
    placing: Placing, scheduler: str, namespace: str
) -> None:
    for name, labels in (("pairs", A100_PAIRS), ("unlinked", L40S)):
        placing.add_node(name, labels)
    placing.add_pod(namespace, "tp2", scheduler, gpus=2)
    assert placing.wait_places(namespace, 1) == {"tp2": "pairs"}
    placing.add_node("linked", H100)
    placing.add_pod(namespace, "tp4-of-70b", scheduler, gpus=4, model=LARGE)
    assert placing.wait_places(namespace, 2)["tp4-of-70b"] == "linked"


def test_a_model_too_large_waits_with_our_words_until_a_node_that_fits_it_appears(
    placing: Placing, scheduler: str, namespace: str
) -> None:
    placing.add_node("small", H100)
    placing.add_pod(namespace, "too-large", scheduler, gpus=1, model=LARGE)
    said = placing.wait_told(namespace, "too-large", "model does not fit GPU memory")
    assert said.startswith("Unschedulable: ")
    placing.add_node("large", B200)
    assert placing.wait_places(namespace, 1, within=30) == {"too-large": "large"}


def test_preemption_evicts_only_where_the_pod_then_passes(placing: Placing, scheduler: str, namespace: str) -> None:
    for name, value in (("placing-low", 10), ("placing-high", 1000)):
        placing.control_plane.kubectl("create", "priorityclass", name, f"--value={value}")
    for name, labels in (("linked", H100), ("unlinked", L40S)):
        placing.add_node(name, labels)
    for number in range(16):
        placing.add_pod(namespace, f"low-{number:02}", scheduler, gpus=1, priority="placing-low")
    before = placing.wait_places(namespace, 16)
    placing.add_pod(namespace, "high", scheduler, gpus=4, priority="placing-high")
    assert wait_until(lambda: placing.places(namespace).get("high"), within=30, what="the preemptor bound") == "linked"
    gone = set(before) - set(placing.pods(namespace))
    assert len(gone) == 4
    assert {before[name] for name in gone} == {"linked"}


def test_a_pod_whose_verdict_turns_without_an_event_is_tried_again(
    placing: Placing, scheduler: str, namespace: str
) -> None:
    """The settings of the extender are edited; nothing in the cluster moves."""
    before = (placing.folder / "extender.yaml").read_text()
    placing.add_node("unlinked", L40S)
    placing.add_pod(namespace, "tp2", scheduler, gpus=2)
    placing.wait_told(namespace, "tp2", "GPUs are not NVLink-connected")
    try:
        placing.configure(before.replace("nvlink: require", "nvlink: prefer"))
        assert placing.wait_places(namespace, 1, within=30) == {"tp2": "unlinked"}
    finally:
        placing.configure(before)


def test_whole_nodes_are_judged_like_names(placing: Placing, namespace: str) -> None:
    service = Service(placing.ports)
    for name, labels in (("linked", H100), ("unlinked", L40S)):
        placing.add_node(name, labels)
    with placing.scheduler(service.port, nodeCacheCapable=False) as whole:
        for number in range(2):
            placing.add_pod(namespace, f"tp4-{number}", whole, gpus=4)
        assert set(placing.wait_places(namespace, 2).values()) == {"linked"}
        placing.add_pod(namespace, "one-more", whole, gpus=4)
        placing.wait_told(namespace, "one-more", "1 GPUs are not NVLink-connected")
    service.close()


def test_without_an_extender_pods_wait_or_land_anywhere_as_ignorable_says(placing: Placing, namespace: str) -> None:
    (nobody,) = free_ports(1)
    placing.add_node("unlinked", L40S)
    with placing.scheduler(nobody, ignorable=False) as waiting, placing.scheduler(nobody, ignorable=True) as careless:
        placing.add_pod(namespace, "waits", waiting, gpus=4)
        placing.add_pod(namespace, "lands", careless, gpus=4)
        assert placing.wait_places(namespace, 1) == {"lands": "unlinked"}
        assert placing.wait_told(namespace, "waits", "connection refused").startswith("SchedulerError: ")


def test_two_hundred_pods_at_once_land_although_a_replica_is_killed(
    placing: Placing, scheduler: str, control_plane: ControlPlane
) -> None:
    """The last of this file: the first replica does not come back."""
    for number in range(30):
        placing.add_node(f"burst-{number:02}", H100 if number % 2 else L40S)
    with new_namespace(control_plane) as namespace:
        for number in range(200):
            placing.add_pod(namespace, f"burst-{number:03}", scheduler, gpus=4 if number < 10 else 1)
            if number == 60:
                asked = [placing.page(each, "/metrics") for each in range(2)]
                assert any('questions_total{verb="filter"}' in page for page in asked)
                placing.extenders[0].kill()
        places = placing.wait_places(namespace, 200, within=120)
        linked = {f"burst-{number:02}" for number in range(30) if number % 2}
        assert {places[f"burst-{number:03}"] for number in range(10)} <= linked
        assert max(map(list(places.values()).count, linked)) <= 8
