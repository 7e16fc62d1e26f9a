"""Labels, annotations and counts become what a node has."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.gpu_memory import GIB
from policies.placement.device_annotations import (
    HAMI_REGISTER,
    HAMI_SCORES,
    KOORDINATOR_PARTITIONS,
    held_by_koordinator,
)
from policies.placement.nodes import LINKS_ANNOTATION, MEMORY_ANNOTATION, READ_LABELS, read_node
from policies.placement.products import MIB, shipped_products
from policies.placement.supply import Evidence, Links, NodeFacts, SeenNode, Sharing
from tests.policies.placement.seen import A100_PCIE, H100, L4, node

PRODUCTS = shipped_products()


def test_a_labelled_node_is_known_by_its_labels() -> None:
    facts = node(H100, 8, held=3)
    assert (facts.gpus, facts.free_gpus, facts.labelled_gpus) == (8, 5, 8)
    assert (facts.product, facts.memory_bytes_per_gpu) == (H100, 81559 * MIB)
    assert (facts.links, facts.group_gpus) == (Links.FULL_MESH, 8)
    assert facts.sources["product"] == ("label nvidia.com/gpu.product", Evidence.GUARANTEED)
    assert facts.sources["links"] == ("the shipped table", Evidence.LIKELY)
    assert facts.remarks == ()


def test_nodes_alike_are_equal_whatever_they_are_called() -> None:
    one = node(H100, labels={"kubernetes.io/hostname": "a"})
    other = node(H100, labels={"kubernetes.io/hostname": "b"})
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("labels", "product", "memory_mib"),
    [
        ({"node.kubernetes.io/instance-type": "p5.48xlarge"}, H100, 81559),
        ({"beta.kubernetes.io/instance-type": "g6.12xlarge"}, L4, 23034),
        (
            {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "cloud.google.com/gke-accelerator-count": "8"},
            H100,
            81559,
        ),
        ({"karpenter.k8s.aws/instance-gpu-name": "h100"}, H100, 81559),
        ({"eks.amazonaws.com/instance-gpu-name": "l4"}, L4, 23034),
    ],
)
def test_a_cloud_tells_what_discovery_does_not(labels: dict[str, str], product: str, memory_mib: int) -> None:
    facts = read_node(SeenNode(labels=labels, allocatable={"nvidia.com/gpu": 4}), PRODUCTS)
    assert facts.product == product
    assert facts.memory_bytes_per_gpu == memory_mib * MIB
    assert facts.sources["product"][1] is Evidence.LIKELY
    assert set(labels) <= set(READ_LABELS)


def test_without_labels_everything_but_the_count_is_unknown() -> None:
    facts = read_node(SeenNode(allocatable={"nvidia.com/gpu": 4}), PRODUCTS)
    assert (facts.gpus, facts.product, facts.memory_bytes_per_gpu) == (4, "", None)
    assert (facts.links, facts.group_gpus) == (Links.UNKNOWN, None)


@pytest.mark.parametrize(
    ("labels", "sharing"),
    [
        ({"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.product": "NVIDIA-L4-SHARED"}, Sharing.TIME_SLICING),
        ({"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.sharing-strategy": "mps"}, Sharing.MPS),
        ({"nvidia.com/gpu.replicas": "1", "nvidia.com/gpu.sharing-strategy": "none"}, Sharing.NONE),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb"}, Sharing.MIG),
        (
            {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb-SHARED", "nvidia.com/gpu.replicas": "2"},
            Sharing.TIME_SLICING,
        ),
    ],
)
def test_sharing_is_seen_and_its_product_still_known(labels: dict[str, str], sharing: Sharing) -> None:
    facts = node(L4, 4, labels=labels)
    assert facts.sharing is sharing
    assert facts.product in (L4, "NVIDIA-A100-SXM4-80GB")
    assert facts.links is not Links.UNKNOWN


def on_gke(gpus: int, **labels: str) -> NodeFacts:
    """A node with one A100 of 40 GB as GKE labels it, without GPU Feature Discovery."""
    told = {"gke_accelerator": "nvidia-tesla-a100", "gke_accelerator_count": "1", **labels}
    named = {f"cloud.google.com/{name.replace('_', '-')}": value for name, value in told.items()}
    assert set(named) <= set(READ_LABELS)
    return read_node(SeenNode(labels=named, allocatable={"nvidia.com/gpu": gpus}), PRODUCTS)


def test_a_partition_of_gke_is_a_slice_with_a_slices_memory_and_without_links() -> None:
    facts = on_gke(7, gke_gpu_partition_size="1g.5gb")
    assert (facts.sharing, facts.links, facts.group_gpus) == (Sharing.MIG, Links.NONE, 1)
    assert facts.memory_bytes_per_gpu == 5 * 10**9
    assert facts.sources["memory_bytes_per_gpu"] == (
        "label cloud.google.com/gke-gpu-partition-size",
        Evidence.LIKELY,
    )
    assert facts.remarks == ()


def test_a_partition_that_cannot_be_read_has_unknown_memory_and_not_the_whole_gpus() -> None:
    facts = on_gke(7, gke_gpu_partition_size="small")
    assert (facts.sharing, facts.memory_bytes_per_gpu) == (Sharing.MIG, None)
    assert "no MIG profile" in facts.remarks[0]


def test_discovery_that_sees_the_slice_wins_over_the_name_of_gkes_partition() -> None:
    labels = {"nvidia.com/gpu.memory": "4864", "cloud.google.com/gke-gpu-partition-size": "1g.5gb"}
    facts = node("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 7, labels=labels)
    assert facts.memory_bytes_per_gpu == 4864 * MIB


@pytest.mark.parametrize(
    ("strategy", "sharing"),
    [
        ("time-sharing", Sharing.TIME_SLICING),
        ("TIME_SHARING", Sharing.TIME_SLICING),
        ("mps", Sharing.MPS),
        ("MPS", Sharing.MPS),
    ],
)
@pytest.mark.parametrize("partition", [{}, {"gke_gpu_partition_size": "7g.40gb"}])
def test_gpus_that_gke_shares_are_shared_slices_or_not(
    strategy: str, sharing: Sharing, partition: dict[str, str]
) -> None:
    facts = on_gke(4, gke_gpu_sharing_strategy=strategy, gke_max_shared_clients_per_gpu="4", **partition)
    assert facts.sharing is sharing
    assert facts.remarks == ()


def test_more_gpus_than_a_cloud_counts_are_shared_and_nobody_says_how() -> None:
    facts = on_gke(4)
    assert (facts.sharing, facts.links, facts.group_gpus) == (Sharing.UNKNOWN, Links.UNKNOWN, None)
    assert "4 GPUs are offered and the cloud counts 1" in facts.remarks[0]
    assert on_gke(1).sharing is Sharing.NONE


def test_slices_of_the_mixed_strategy_are_devices_of_their_own() -> None:
    seen = SeenNode(
        labels={"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/mig-3g.40gb.memory": "40192"},
        allocatable={"nvidia.com/gpu": 4, "nvidia.com/mig-3g.40gb": 8},
        held={"nvidia.com/mig-3g.40gb": 3},
    )
    (slices,) = read_node(seen, PRODUCTS).slices
    assert (slices.resource, slices.allocatable, slices.free) == ("nvidia.com/mig-3g.40gb", 8, 5)
    assert slices.memory_bytes == 40192 * MIB


def test_more_gpus_than_are_labelled_are_of_several_models() -> None:
    """Discovery labels one model only, while the device plugin counts them all."""
    facts = node(H100, 8, labels={"nvidia.com/gpu.count": "4"})
    assert facts.mixed_products
    assert facts.links is Links.UNKNOWN
    assert "the others are another" in facts.remarks[0]


def test_fewer_gpus_than_are_labelled_are_told_of_and_the_board_stays_what_it_is() -> None:
    facts = node(A100_PCIE, 3, labels={"nvidia.com/gpu.count": "4"})
    assert not facts.mixed_products
    assert (facts.links, facts.group_gpus) == (Links.GROUPS, 2)
    assert "unhealthy or withheld" in facts.remarks[0]


@pytest.mark.parametrize(
    ("stated", "links", "group"),
    [
        ("full mesh", Links.FULL_MESH, 8),
        ("groups:2", Links.GROUPS, 2),
        ("groups: 8", Links.FULL_MESH, 8),
        ("cube", Links.CUBE, None),
        ("none", Links.NONE, 1),
        ("unknown", Links.UNKNOWN, None),
    ],
)
def test_an_annotation_wins_over_the_table(stated: str, links: Links, group: int | None) -> None:
    facts = node(H100, 8, annotations={LINKS_ANNOTATION: stated})
    assert (facts.links, facts.group_gpus) == (links, group)
    assert facts.sources["links"] == (f"annotation {LINKS_ANNOTATION}", Evidence.GUARANTEED)


def test_the_memory_that_an_annotation_states_wins_over_labels_and_the_table() -> None:
    facts = node(H100, 8, annotations={MEMORY_ANNOTATION: "93.5"})
    assert facts.memory_bytes_per_gpu == 93.5 * GIB
    assert facts.sources["memory_bytes_per_gpu"] == (f"annotation {MEMORY_ANNOTATION}", Evidence.GUARANTEED)


def test_an_annotation_that_cannot_be_is_remarked_and_the_table_stays_in_force() -> None:
    facts = node(H100, 8, annotations={LINKS_ANNOTATION: "ring", MEMORY_ANNOTATION: "-3"})
    assert facts.links is Links.FULL_MESH
    assert facts.memory_bytes_per_gpu == 81559 * MIB
    assert len(facts.remarks) == 2


def test_counts_that_cannot_be_are_nothing_and_are_told() -> None:
    impossible = read_node(SeenNode(allocatable={"nvidia.com/gpu": -4}), PRODUCTS)
    assert (impossible.gpus, impossible.free_gpus) == (0, 0)
    assert "cannot be" in impossible.remarks[0]
    overheld = read_node(SeenNode(allocatable={"nvidia.com/gpu": 4}, held={"nvidia.com/gpu": 6}), PRODUCTS)
    assert overheld.free_gpus == 0
    assert "none counts as free" in overheld.remarks[0]


def hami(*scores: tuple[int, int, int], gpus: int = 4) -> dict[str, str]:
    """Pair scores as HAMi's device plugin writes them."""
    table: dict[int, dict[str, int]] = {i: {f"GPU-{j}": 20 for j in range(gpus) if j != i} for i in range(gpus)}
    for one, other, score in scores:
        table[one][f"GPU-{other}"] = table[other][f"GPU-{one}"] = score
    return {HAMI_SCORES: json.dumps([{"uuid": f"GPU-{i}", "score": row} for i, row in table.items()])}


def test_hami_tells_of_bridged_pairs() -> None:
    facts = node("NVIDIA-RTX-A6000", 4, annotations=hami((0, 1, 400), (2, 3, 400)))
    assert (facts.links, facts.group_gpus) == (Links.GROUPS, 2)
    assert facts.sources["links"][1] is Evidence.GUARANTEED


def test_hami_seeing_no_link_says_nothing() -> None:
    """Before its pull request 2103 it saw none of the 28 pairs of eight H100 on an NVSwitch."""
    assert node(H100, 4, annotations=hami()).links is Links.FULL_MESH


def test_a_chain_of_links_is_no_group() -> None:
    assert node("NVIDIA-RTX-A6000", 3, annotations=hami((0, 1, 400), (1, 2, 400), gpus=3)).links is Links.UNKNOWN


@pytest.mark.parametrize(
    "register",
    [
        '[{"id":"GPU-1","count":10,"devmem":46068}]',
        "GPU-1,10,46068,100,NVIDIA-L40S,0,true:GPU-2,10,46068,100,NVIDIA-L40S,0,true:",
    ],
)
def test_gpus_that_hami_cuts_are_shared(register: str) -> None:
    assert node("NVIDIA-L40S", 4, annotations={HAMI_REGISTER: register}).sharing is Sharing.TIME_SLICING


PARTITIONS = {
    "1": [{"minors": [i], "gpuLinkType": "NVLink"} for i in range(4)],
    "2": [{"minors": [0, 1], "gpuLinkType": "NVLink"}, {"minors": [2, 3], "gpuLinkType": "NVLink"}],
    "4": [{"minors": [0, 1, 2, 3], "gpuLinkType": "PCIe"}],
}


def test_koordinator_tells_of_groups_and_of_what_is_free_in_each() -> None:
    held = held_by_koordinator('{"gpu":[{"minor":1},{"minor":2}]}')
    facts = node(
        "NVIDIA-RTX-A6000", 4, 2, annotations={KOORDINATOR_PARTITIONS: json.dumps(PARTITIONS)}, held_devices=held
    )
    assert (facts.links, facts.group_gpus, facts.free_in_groups) == (Links.GROUPS, 2, (1, 1))


@pytest.mark.parametrize("text", ["{", "[]", '{"gpu": 3}', '{"gpu":[{}]}', "null"])
def test_an_allocation_that_does_not_parse_holds_nothing(text: str) -> None:
    assert held_by_koordinator(text) == frozenset()


@given(
    st.dictionaries(st.sampled_from([*READ_LABELS, "nvidia.com/mig-1g.10gb.memory"]), st.text(max_size=8)),
    st.dictionaries(
        st.sampled_from([LINKS_ANNOTATION, MEMORY_ANNOTATION, HAMI_REGISTER, HAMI_SCORES, KOORDINATOR_PARTITIONS]),
        st.text(max_size=12) | st.sampled_from(['{"2":[{}]}', "[[]]", '[{"uuid":1,"score":{"x":1}}]', '{"a":1}']),
    ),
    st.dictionaries(st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.10gb"]), st.integers(-3, 20)),
    st.dictionaries(st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.10gb"]), st.integers(-3, 20)),
)
def test_whatever_a_node_carries_it_is_read(
    labels: dict[str, str], annotations: dict[str, str], allocatable: dict[str, int], held: dict[str, int]
) -> None:
    facts = read_node(SeenNode(labels, annotations, allocatable, held), PRODUCTS)
    assert 0 <= facts.free_gpus <= facts.gpus
