"""A node's labels, annotations and counts in the terms of placement: what its GPUs are, and how far that is known.

This module alone knows what GPU Feature Discovery, the device plugin and the clouds call these things.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from policies.gpu_memory import GIB
from policies.placement.demand import GPU_RESOURCE, MIG_PREFIX
from policies.placement.device_annotations import shares_by_hami, told_links
from policies.placement.numbers import whole
from policies.placement.products import MIB, Product, ProductTable
from policies.placement.supply import Evidence, Links, NodeFacts, SeenNode, Sharing, Slices

PRODUCT: Final = "nvidia.com/gpu.product"
MEMORY: Final = "nvidia.com/gpu.memory"
COUNT: Final = "nvidia.com/gpu.count"
REPLICAS: Final = "nvidia.com/gpu.replicas"
SHARING: Final = "nvidia.com/gpu.sharing-strategy"
SHARES: Final = ".shared"
"""What the device plugin may append to a resource whose devices it offers several times."""
CLIQUE: Final = "nvidia.com/gpu.clique"
INSTANCE_TYPES: Final = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
CLOUD_NAMES: Final = (
    "cloud.google.com/gke-accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "eks.amazonaws.com/instance-gpu-name",
)
CLOUD_COUNTS: Final = (
    "cloud.google.com/gke-accelerator-count",
    "karpenter.k8s.aws/instance-gpu-count",
    "eks.amazonaws.com/instance-gpu-count",
)
GKE_PARTITION: Final = "cloud.google.com/gke-gpu-partition-size"
"""A MIG profile, such as `1g.5gb`: every `nvidia.com/gpu` of the node is such a slice."""
GKE_SHARING: Final = "cloud.google.com/gke-gpu-sharing-strategy"
GKE_CLIENTS: Final = "cloud.google.com/gke-max-shared-clients-per-gpu"

LINKS_ANNOTATION: Final = "preheat.dev/links"
"""On a node, by whoever knows it: `full mesh`, `groups:2`, `cube`, `none` or `unknown`."""
MEMORY_ANNOTATION: Final = "preheat.dev/memory-per-gpu-gib"

READ_LABELS: Final = (
    *(PRODUCT, MEMORY, COUNT, REPLICAS, SHARING, CLIQUE),
    *(*INSTANCE_TYPES, *CLOUD_NAMES, *CLOUD_COUNTS),
    *(GKE_PARTITION, GKE_SHARING, GKE_CLIENTS),
)
"""All labels that are read of a node, besides `nvidia.com/mig-*`: a cache needs to keep no others."""


@dataclass(slots=True)
class _Notes:
    """Where each fact came from, and what could not be read, while a node is looked at."""

    sources: dict[str, tuple[str, Evidence]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def read_node(node: SeenNode, products: ProductTable) -> NodeFacts:
    """What the node has. Never raises: what is wrong with a label or an annotation is remarked, and unknown."""
    notes = _Notes()
    labels = node.labels
    gpus, free = _counts(node, GPU_RESOURCE, notes)
    name = _bare_product(labels.get(PRODUCT, ""))
    row, found_by = _row(labels, name, products)
    if name:
        notes.sources["product"] = (f"label {PRODUCT}", Evidence.GUARANTEED)
    elif row is not None:
        notes.sources["product"] = (found_by, Evidence.LIKELY)
    replicas = max(_whole(labels, label, notes) or 1 for label in (REPLICAS, GKE_CLIENTS))
    sharing = _sharing(node, replicas)
    labelled = _whole(labels, COUNT, notes)
    if labelled is None:
        labelled = next((n for label in CLOUD_COUNTS if (n := _whole(labels, label, notes)) is not None), None)
    devices = gpus // replicas if sharing in (Sharing.TIME_SLICING, Sharing.MPS) else gpus
    exceeds = labelled is not None and 0 < labelled < devices
    mixed = exceeds and labels.get(COUNT) is not None
    if exceeds and not mixed and sharing is Sharing.NONE:
        sharing = Sharing.UNKNOWN
        notes.remarks.append(f"{devices} GPUs are offered and the cloud counts {labelled}: they are shared or sliced")
    elif mixed:
        notes.remarks.append(
            f"{devices} GPUs are offered and {labelled} of the labelled product: the others are another"
        )
    elif labelled is not None and sharing is Sharing.NONE and labelled > devices > 0:
        notes.remarks.append(
            f"{labelled} GPUs are labelled and {devices} offered: the others are unhealthy or withheld"
        )
    present = max(labelled or 0, devices)
    links, group, in_groups = _links(node, row, present, notes)
    if mixed or sharing is Sharing.UNKNOWN:
        links, group, in_groups = Links.UNKNOWN, None, None
    return NodeFacts(
        gpus=gpus,
        free_gpus=free,
        labelled_gpus=labelled,
        product=name or (row.match.pattern if row else ""),
        memory_bytes_per_gpu=_memory(node, row, notes),
        links=links,
        group_gpus=group,
        free_in_groups=in_groups,
        sharing=sharing,
        mixed_products=mixed,
        slices=_slices(node, sharing, notes),
        clique=labels.get(CLIQUE, ""),
        cordoned=node.cordoned,
        sources=notes.sources,
        remarks=tuple(notes.remarks),
    )


def _counts(node: SeenNode, resource: str, notes: _Notes) -> tuple[int, int]:
    """Allocatable, and free of it."""
    offered, held = node.allocatable.get(resource, 0), node.held.get(resource, 0)
    if offered < 0 or held < 0:
        notes.remarks.append(f"{resource}: {offered} allocatable and {held} held cannot be, and count as 0")
    elif held > offered:
        notes.remarks.append(f"{resource}: {held} are held and {offered} allocatable: none counts as free")
    offered, held = max(0, offered), max(0, held)
    return offered, max(0, offered - held)


def _bare_product(label: str) -> str:
    """Without what sharing and MIG append: `-SHARED`, `-MIG-1g.5gb`."""
    return re.sub(r"(-SHARED|-MIG-.*)$", "", label)


def _row(labels: Mapping[str, str], product: str, products: ProductTable) -> tuple[Product | None, str]:
    """The table's row of the node's GPUs, and what it was found by."""
    if product:
        return products.find(product), f"label {PRODUCT}"
    for label in INSTANCE_TYPES:
        if label in labels and (row := products.of_instance(labels[label])):
            return row, f"label {label}"
    for label in CLOUD_NAMES:
        if label in labels and (row := products.of_cloud(labels[label])):
            return row, f"label {label}"
    return None, ""


def _sharing(node: SeenNode, replicas: int) -> Sharing:
    """Slices that are shared in their turn count as shared: their neighbours take of the same memory."""
    labels = node.labels
    by_gke = labels.get(GKE_SHARING, "")
    if replicas > 1 or by_gke or labels.get(PRODUCT, "").endswith("-SHARED"):
        return Sharing.MPS if "mps" in (by_gke.lower(), labels.get(SHARING)) else Sharing.TIME_SLICING
    if _sliced_by(labels):
        return Sharing.MIG
    return Sharing.TIME_SLICING if shares_by_hami(node.annotations) else Sharing.NONE


def _sliced_by(labels: Mapping[str, str]) -> str:
    """The label that says of all GPUs that they are slices; "" where none does."""
    if "-MIG-" in labels.get(PRODUCT, ""):
        return PRODUCT
    return GKE_PARTITION if GKE_PARTITION in labels else ""


def _memory(node: SeenNode, row: Product | None, notes: _Notes) -> int | None:
    stated = node.annotations.get(MEMORY_ANNOTATION)
    if stated is not None:
        try:
            gib = float(stated)
        except ValueError:
            gib = 0.0
        if 0 < gib < 1e6:
            notes.sources["memory_bytes_per_gpu"] = (f"annotation {MEMORY_ANNOTATION}", Evidence.GUARANTEED)
            return int(gib * GIB)
        notes.remarks.append(f"annotation {MEMORY_ANNOTATION} is {stated!r}, which is no number of GiB")
    if _sliced_by(node.labels) == GKE_PARTITION:
        return _partition(node.labels[GKE_PARTITION], notes)
    mib = _whole(node.labels, MEMORY, notes)
    if mib:
        notes.sources["memory_bytes_per_gpu"] = (f"label {MEMORY}", Evidence.GUARANTEED)
        return mib * MIB
    if row is not None and row.memory_bytes is not None:
        notes.sources["memory_bytes_per_gpu"] = (row.source, Evidence.LIKELY)
        return row.memory_bytes
    return None


def _partition(profile: str, notes: _Notes) -> int | None:
    """The memory that a MIG profile is named after: 1g.5gb is 4.75 GiB in truth, and 4.66 by its name."""
    named = re.fullmatch(r"[1-9]g\.([1-9]\d{0,2})gb(\+.*)?", profile)
    if named is None:
        notes.remarks.append(f"label {GKE_PARTITION} is {profile!r}, which is no MIG profile such as 1g.5gb")
        return None
    notes.sources["memory_bytes_per_gpu"] = (f"label {GKE_PARTITION}", Evidence.LIKELY)
    return int(named[1]) * 10**9


def _links(
    node: SeenNode, row: Product | None, gpus: int, notes: _Notes
) -> tuple[Links, int | None, tuple[int, ...] | None]:
    """Class, size of a group, and free GPUs of each group where that is told."""
    stated = node.annotations.get(LINKS_ANNOTATION)
    if stated is not None:
        read = _stated_links(stated, gpus)
        if read is not None:
            notes.sources["links"] = (f"annotation {LINKS_ANNOTATION}", Evidence.GUARANTEED)
            return *read, None
        notes.remarks.append(
            f"annotation {LINKS_ANNOTATION} is {stated!r}: choose full mesh, groups:N, cube, none or unknown"
        )
    told, remarks = told_links(node.annotations)
    notes.remarks.extend(remarks)
    if told is not None:
        notes.sources["links"] = (told.where, Evidence.GUARANTEED)
        sizes = tuple(sorted((len(group - (node.held_devices or frozenset())) for group in told.groups), reverse=True))
        known = node.held_devices is not None
        return told.links, max(len(group) for group in told.groups), sizes if known else None
    sliced_by = _sliced_by(node.labels)
    if sliced_by:
        notes.sources["links"] = (f"label {sliced_by}", Evidence.GUARANTEED)
        return Links.NONE, 1, None
    if row is None:
        return Links.UNKNOWN, None, None
    links, group = row.linked(gpus)
    if row.why and links is Links.UNKNOWN:
        notes.remarks.append(f"its GPUs are {row.why}: annotation {LINKS_ANNOTATION} can tell")
    notes.sources["links"] = (row.source, Evidence.UNKNOWN if links is Links.UNKNOWN else Evidence.LIKELY)
    return links, group, None


def _stated_links(text: str, gpus: int) -> tuple[Links, int | None] | None:
    groups = re.fullmatch(r"\s*groups\s*:\s*([1-9]\d{0,3})\s*", text)
    if groups:
        size = int(groups[1])
        return (Links.FULL_MESH, gpus) if size >= gpus > 0 else (Links.GROUPS, size)
    match text.strip():
        case "full mesh":
            return Links.FULL_MESH, max(1, gpus)
        case "none":
            return Links.NONE, 1
        case "cube":
            return Links.CUBE, None
        case "unknown":
            return Links.UNKNOWN, None
        case _:
            return None


def _slices(node: SeenNode, sharing: Sharing, notes: _Notes) -> tuple[Slices, ...]:
    """MIG devices of the mixed strategy, and shares under names of their own."""
    found = []
    for resource in sorted(node.allocatable):
        if resource == GPU_RESOURCE or not resource.startswith("nvidia.com/"):
            continue
        offered, free = _counts(node, resource, notes)
        if resource.startswith(MIG_PREFIX):
            label = resource.removesuffix(SHARES)
            shared = (_whole(node.labels, f"{label}.replicas", notes) or 1) > 1
        else:
            label, shared = GPU_RESOURCE, sharing not in (Sharing.NONE, Sharing.MIG)
        mib = _whole(node.labels, f"{label}.memory", notes)
        shared = shared or resource.endswith(SHARES)
        found.append(Slices(resource, offered, free, mib * MIB if mib else None, shared))
    return tuple(found)


def _whole(labels: Mapping[str, str], name: str, notes: _Notes) -> int | None:
    text = labels.get(name)
    if text is None:
        return None
    number = whole(text)
    if number is None:
        notes.remarks.append(f"label {name} is {text!r}, which is no whole number")
    return number
