"""How many pods a node takes is what the judgement says of one after another."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.placement.demand import NvLink, PodDemand
from policies.placement.places import free, places
from policies.placement.policy import judge
from policies.placement.settings import PlacementSettings
from policies.placement.supply import Links, NodeFacts, Slices

MIG = "nvidia.com/mig-3g.40gb"


@given(st.integers(1, 8), st.integers(0, 16), st.booleans())
def test_of_gpus_alone_it_is_a_division(asked: int, free_gpus: int, cordoned: bool) -> None:
    node = NodeFacts(gpus=16, free_gpus=free_gpus, cordoned=cordoned)
    assert places(PodDemand(gpus=asked), node) == (0 if cordoned else free_gpus // asked)


@given(st.sampled_from([1, 2, 4, 8]), st.lists(st.integers(0, 4), min_size=1, max_size=4), st.sampled_from(NvLink))
def test_it_is_none_where_the_verdict_refuses_and_never_more_than_the_gpus(
    asked: int, groups: list[int], nvlink: NvLink
) -> None:
    node = NodeFacts(
        gpus=4 * len(groups),
        free_gpus=sum(groups),
        links=Links.GROUPS,
        group_gpus=4,
        free_in_groups=tuple(sorted(groups, reverse=True)),
    )
    demand = PodDemand(gpus=asked, tensor_parallel=asked, nvlink=nvlink)
    found = places(demand, node)
    assert (found > 0) == judge(demand, node).fits
    assert found * asked <= sum(groups)


def test_linked_sets_are_taken_where_they_leave_most() -> None:
    node = NodeFacts(gpus=8, free_gpus=6, links=Links.GROUPS, group_gpus=4, free_in_groups=(4, 2))
    demand = PodDemand(gpus=2, tensor_parallel=2, nvlink=NvLink.REQUIRE)
    assert places(demand, node) == 3


def test_a_gpu_beside_the_linked_ones_is_taken_of_the_groups_too() -> None:
    """A pair and one more, twice: of (4, 2, 0) the first leaves (3, 0, 0), the second none."""
    node = NodeFacts(gpus=12, free_gpus=6, links=Links.GROUPS, group_gpus=4, free_in_groups=(4, 2, 0))
    demand = PodDemand(gpus=3, tensor_parallel=2, nvlink=NvLink.REQUIRE)
    assert places(demand, node, PlacementSettings(unknown_link="refuse")) == 2


def test_slices_are_counted_by_their_own_name() -> None:
    node = NodeFacts(
        gpus=0, free_gpus=0, slices=(Slices(MIG, 4, 3, None), Slices("nvidia.com/mig-1g.10gb", 7, 7, None))
    )
    demand = PodDemand(gpus=1, resource=MIG)
    assert (places(demand, node), free(demand, node)) == (3, 3)
    assert places(replace(demand, resource="nvidia.com/mig-7g.80gb"), node) == 0


def test_a_pod_without_gpus_has_no_number_of_places() -> None:
    with pytest.raises(ValueError, match="no number of places"):
        places(PodDemand(gpus=0), NodeFacts(gpus=8, free_gpus=8))
