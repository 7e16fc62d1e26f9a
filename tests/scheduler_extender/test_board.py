"""The board's tables are in step with the nodes, however many kinds of them there have been."""

from __future__ import annotations

from policies.placement.demand import PodDemand
from policies.placement.policy import judge
from policies.placement.settings import DEFAULT_SETTINGS
from policies.placement.supply import NodeFacts
from scheduler_extender.board import CLASSES_PER_NODE, Board

MANY = 64 + CLASSES_PER_NODE
"""Kinds that one node may have been of before all are counted anew."""
ASKING = PodDemand(gpus=4)


def of_kind(number: int) -> NodeFacts:
    """A node with so many free GPUs; every fifth has too few for `ASKING`."""
    return NodeFacts(gpus=1000, free_gpus=number % 5 and 4 + number)


def test_kinds_that_no_node_is_of_any_more_are_forgotten() -> None:
    board = Board(DEFAULT_SETTINGS)
    for number in range(3 * MANY):
        board.put("node", of_kind(number))
        assert max(board.nodes.values()) <= MANY


def test_a_table_that_was_asked_for_before_kinds_are_counted_anew_tells_of_the_new_ones() -> None:
    board = Board(DEFAULT_SETTINGS)
    for number in range(3 * MANY):
        board.put("node", of_kind(number))
        assert bool(board.table(ASKING).passing) == judge(ASKING, of_kind(number)).fits, number


def test_a_watched_demand_hears_of_the_nodes_that_come_after_kinds_are_counted_anew() -> None:
    admitted: list[PodDemand] = []
    board = Board(DEFAULT_SETTINGS, admitted=admitted.append)
    board.watch([ASKING])
    turns = 0
    for number in range(3 * MANY):
        board.put("node", of_kind(number))
        turns += judge(ASKING, of_kind(number)).fits and (number == 0 or not judge(ASKING, of_kind(number - 1)).fits)
        assert len(admitted) == turns, number
