"""What can be promised of links, and what is only probable."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.placement.fragmentation import fragmentation, growth, placeable
from policies.placement.links import link_domain, link_promise
from policies.placement.settings import DEFAULT_MIX
from policies.placement.supply import Evidence, Links, NodeFacts
from tests.policies.placement.seen import A100_PCIE, H100, L4, V100, node


def pairs(free: int, gpus: int = 8) -> NodeFacts:
    return node(A100_PCIE, gpus, held=gpus - free)


@pytest.mark.parametrize(
    ("facts", "size", "promise"),
    [
        (node(H100, 8, held=6), 2, Evidence.GUARANTEED),
        (node(H100, 8), 8, Evidence.GUARANTEED),
        (node(L4, 4), 1, Evidence.GUARANTEED),
        (node(L4, 4), 2, None),
        (node(V100, 8), 2, Evidence.UNKNOWN),
        (node(V100, 8), 8, None),
        (node(V100, 4), 4, Evidence.GUARANTEED),
        (node("unheard-of", 8), 2, Evidence.UNKNOWN),
        # Four pairs: of five free GPUs two are one of a pair; of four each may be of another.
        (pairs(5), 2, Evidence.LIKELY),
        (pairs(4), 2, Evidence.UNKNOWN),
        (pairs(8), 4, None),
        (node("NVIDIA-H100-NVL", 2), 2, Evidence.GUARANTEED),
    ],
)
def test_the_promise_is_no_more_than_is_known(facts: NodeFacts, size: int, promise: Evidence | None) -> None:
    assert link_promise(facts, size=size) is promise


def of_pairs(labelled: int, offered: int, held: int = 0) -> NodeFacts:
    return node("NVIDIA-H100-NVL", offered, held, labels={"nvidia.com/gpu.count": str(labelled)})


def test_healthy_gpus_of_broken_pairs_may_each_be_of_another() -> None:
    assert link_promise(of_pairs(4, 4, held=2), size=2) is Evidence.UNKNOWN
    assert link_promise(of_pairs(4, 2), size=2) is Evidence.UNKNOWN  # all of them, and perhaps one of each pair
    assert link_promise(of_pairs(8, 4, held=1), size=2) is Evidence.UNKNOWN
    assert link_promise(of_pairs(8, 7, held=2), size=2) is Evidence.LIKELY


def test_what_an_agent_tells_to_be_free_and_is_unhealthy_promises_nothing() -> None:
    told = NodeFacts(gpus=2, free_gpus=2, labelled_gpus=4, links=Links.GROUPS, group_gpus=2, free_in_groups=(2, 2))
    assert link_promise(told, size=2) is Evidence.UNKNOWN


def test_the_domain_of_a_cube_is_known_where_its_pairs_are_not() -> None:
    assert link_domain(node(V100, 8)) == 4
    assert link_domain(node("unheard-of", 8)) is None


@given(st.sampled_from([2, 4]), st.integers(1, 4), st.data())
def test_the_pigeonhole_promises_a_linked_set_exactly_where_every_choice_of_free_gpus_has_one(
    group: int, groups: int, data: st.DataObject
) -> None:
    gpus = group * groups
    free = data.draw(st.integers(0, gpus))
    size = data.draw(st.integers(2, group))
    sets = data.draw(st.integers(1, 2))
    offered = data.draw(st.integers(free, gpus))
    facts = NodeFacts(gpus=offered, free_gpus=free, labelled_gpus=gpus, links=Links.GROUPS, group_gpus=group)
    always = all(
        sum(sum(gpu // group == number for gpu in chosen) // size for number in range(groups)) >= sets
        for chosen in combinations(range(gpus), free)
    )
    promise = link_promise(facts, size=size, sets=sets)
    if size * sets == gpus == offered:
        assert promise is Evidence.GUARANTEED
    else:
        assert promise is (Evidence.LIKELY if always else Evidence.UNKNOWN)


def test_an_agent_that_tells_what_is_free_raises_the_promise_or_lowers_it() -> None:
    def told(*free: int) -> NodeFacts:
        return NodeFacts(gpus=8, free_gpus=sum(free), links=Links.GROUPS, group_gpus=4, free_in_groups=free)

    assert link_promise(told(2, 0), size=2) is Evidence.GUARANTEED  # nothing else is left to the kubelet
    assert link_promise(told(2, 1), size=2) is Evidence.LIKELY
    assert link_promise(told(1, 1), size=2) is Evidence.UNKNOWN
    # All that are free are given, and which of them are one engine's is still open.
    assert link_promise(told(2, 2), size=2, sets=2) is Evidence.LIKELY


FACTS = st.builds(
    lambda links, group, gpus, held: NodeFacts(
        gpus=gpus, free_gpus=max(0, gpus - held), links=links, group_gpus=1 if links is Links.NONE else group
    ),
    st.sampled_from(list(Links)),
    st.sampled_from([2, 4]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 8),
)
RANK = [None, Evidence.UNKNOWN, Evidence.LIKELY, Evidence.GUARANTEED]


@given(FACTS, st.integers(1, 8))
def test_more_free_gpus_never_weaken_a_promise(facts: NodeFacts, size: int) -> None:
    if facts.free_gpus < facts.gpus:
        more = replace(facts, free_gpus=facts.free_gpus + 1)
        assert RANK.index(link_promise(more, size=size)) >= RANK.index(link_promise(facts, size=size))


def test_fragmentation_is_what_a_pod_of_the_mix_could_not_use() -> None:
    mesh = node(H100, 8)
    assert fragmentation(mesh, 8, DEFAULT_MIX) == 0
    # Of seven free GPUs one is over in twos, three in fours, and all for a pod of eight.
    assert fragmentation(mesh, 7, DEFAULT_MIX) == pytest.approx(0.20 * 1 + 0.15 * 3 + 0.10 * 7)
    assert fragmentation(node(L4, 4), 4, DEFAULT_MIX) == pytest.approx(0.45 * 4)


def test_what_is_over_of_whole_groups_holds_linked_sets_too() -> None:
    quads = NodeFacts(gpus=8, free_gpus=6, links=Links.GROUPS, group_gpus=4)
    assert placeable(quads, 6, 4) == 1
    assert placeable(quads, 6, 2) == 3  # two in the whole quad, and one in what is over
    assert placeable(quads, 3, 4) == 0


def test_a_pod_of_one_grows_it_on_a_whole_board_and_shrinks_it_on_a_broken_one() -> None:
    assert growth(node(H100, 8), 1, DEFAULT_MIX) > 1
    assert growth(node(H100, 8, held=7), 1, DEFAULT_MIX) < 0
    assert growth(node(L4, 4), 1, DEFAULT_MIX) < 0


@given(FACTS, st.integers(0, 8), st.integers(1, 8))
def test_no_more_is_placeable_than_is_free_and_nothing_unlinked(facts: NodeFacts, free: int, size: int) -> None:
    free = min(free, facts.gpus)
    assert 0 <= size * placeable(facts, free, size) <= free
    if size > 1 and facts.links is Links.NONE:
        assert placeable(facts, free, size) == 0
    assert 0 <= fragmentation(facts, free, DEFAULT_MIX) <= free
