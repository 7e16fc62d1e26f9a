"""What a node has: GPUs, their memory, how they are linked, and how far each of these is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Evidence(StrEnum):
    """How far something is known. Also the promise of links: surely, probably, nobody can say."""

    GUARANTEED = "guaranteed"
    LIKELY = "likely"
    UNKNOWN = "unknown"


class Links(StrEnum):
    """How a node's GPUs are linked with each other."""

    FULL_MESH = "full mesh"
    GROUPS = "groups"
    """Bridged pairs, quads: linked within a group, not between groups."""
    CUBE = "cube"
    """V100's hypercube: some pairs are linked, and which are is not seen from labels."""
    NONE = "none"
    UNKNOWN = "unknown"


class Sharing(StrEnum):
    """How several pods come to share a device."""

    NONE = "none"
    TIME_SLICING = "time-slicing"
    MPS = "mps"
    MIG = "mig"
    UNKNOWN = "unknown"
    """More are offered than there are, and nobody says how."""


@dataclass(frozen=True, slots=True)
class SeenNode:
    """A node, cut down to what `read_node` reads."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    allocatable: Mapping[str, int] = field(default_factory=dict)
    """GPUs and slices, by resource."""
    held: Mapping[str, int] = field(default_factory=dict)
    """The same, requested by pods that are bound and have not ended."""
    held_devices: frozenset[int] | None = None
    """Minor numbers of the GPUs that pods hold; None: nobody says, as is usual."""
    cordoned: bool = False


@dataclass(frozen=True, slots=True)
class Slices:
    """Devices of another resource than whole GPUs (MIG, renamed shares)."""

    resource: str
    allocatable: int
    free: int
    memory_bytes: int | None
    shared: bool = False
    """Each is offered several times, and how much of its memory a pod gets nobody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node has. It has no name: nodes alike are equal, and are judged once. Unknown is None."""

    gpus: int
    """Allocatable."""
    free_gpus: int
    """Allocatable less what pods hold; never below 0."""
    labelled_gpus: int | None = None
    """What the labels count: more than `gpus` means that some are unhealthy."""
    product: str = ""
    """As GPU Feature Discovery writes it; "" unknown."""
    memory_bytes_per_gpu: int | None = None
    links: Links = Links.UNKNOWN
    group_gpus: int | None = None
    """GPUs in a linked group: all of a full mesh, 2 of bridged pairs, 4 at best in a cube, 1 without links."""
    free_in_groups: tuple[int, ...] | None = None
    """Free GPUs of each linked group, largest first, where an agent tells; None: only the count is known."""
    sharing: Sharing = Sharing.NONE
    mixed_products: bool = False
    slices: tuple[Slices, ...] = ()
    clique: str = ""
    """Of a multi-node NVLink domain (NVL72)."""
    cordoned: bool = False
    sources: Mapping[str, tuple[str, Evidence]] = field(default_factory=dict, compare=False)
    """By field: where it was read, and how far that is to be believed."""
    remarks: tuple[str, ...] = field(default=(), compare=False)
    """What could not be read, and why, a sentence each."""
