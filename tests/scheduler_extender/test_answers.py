"""What is said of nodes: where GPUs are linked, free and large enough, and the same however it is asked."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.placement.policy import judge, scores
from scheduler_extender import wire
from scheduler_extender.service import Extender
from tests.scheduler_extender.worlds import A100_PAIRS, L40S, Json, knowing, names_question, node, nodes_question, pod

LINKED, UNLINKED, PAIRS = node("linked"), node("unlinked", 8, L40S), node("pairs", 8, A100_PAIRS)
BIG = ["--model=meta-llama/Llama-3.1-70B-Instruct", "--tensor-parallel-size=2", "--max-model-len=8192"]


def answered(parts: wire.Reply) -> Any:
    return orjson.loads(b"".join(parts))


def filtered(extender: Extender, asking: Json, *names: str) -> Json:
    question = wire.question(wire.fields_of(orjson.dumps(names_question(asking, *names))))
    answer: Json = answered(extender.answers.filter(question))
    return answer


def filtered_whole(extender: Extender, asking: Json, *nodes: Json) -> Json:
    body = orjson.dumps(nodes_question(asking, *nodes))
    extender.answers.settle()
    answer: Json = answered(extender.answers.filter_nodes(body, wire.question_in(body)))
    return answer


def scored(extender: Extender, asking: Json, *names: str) -> dict[str, int]:
    question = wire.question(wire.fields_of(orjson.dumps(names_question(asking, *names))))
    return {each["Host"]: each["Score"] for each in answered(extender.answers.prioritize(question))}


def scored_whole(extender: Extender, asking: Json, *nodes: Json) -> dict[str, int]:
    question = wire.question_in(orjson.dumps(nodes_question(asking, *nodes)))
    return {each["Host"]: each["Score"] for each in answered(extender.answers.prioritize_nodes(question))}


def offered(extender: Extender, asking: Json, victims: Json) -> list[str]:
    meta = {name: {"Pods": [{"UID": uid} for uid in uids], "NumPDBViolations": 1} for name, uids in victims.items()}
    question = wire.preempt_question({"pod": asking, "nodenametometavictims": meta})
    return list(answered(extender.answers.preempt(question))["NodeNameToMetaVictims"])


def test_tensor_parallelism_passes_where_gpus_are_linked_and_nowhere_else() -> None:
    answer = filtered(knowing(LINKED, UNLINKED), pod("asking", 4), "linked", "unlinked")
    assert answer["NodeNames"] == ["linked"]
    assert answer["FailedAndUnresolvableNodes"] == {"unlinked": "GPUs are not NVLink-connected"}
    assert answer["FailedNodes"] == {}


def test_a_model_that_does_not_fit_is_refused_and_one_that_is_larger_than_the_pair_too() -> None:
    extender = knowing(LINKED, PAIRS)
    too_small = pod("asking", 1, args=["--model=meta-llama/Llama-3.1-70B-Instruct"])
    assert set(filtered(extender, too_small, "linked")["FailedAndUnresolvableNodes"].values()) == {
        "model does not fit GPU memory"
    }
    answer = filtered(extender, pod("asking", 4), "linked", "pairs")
    assert answer["FailedAndUnresolvableNodes"] == {"pairs": "tensor parallel size exceeds the NVLink domain"}


def test_a_pod_without_gpus_passes_everywhere_even_before_anything_is_known() -> None:
    extender = knowing()
    extender.answers.whole, extender.answers.has_source = False, True
    asking = pod("asking", 0, args=[])
    assert filtered(extender, asking, "who", "knows")["NodeNames"] == ["who", "knows"]
    assert scored(extender, asking, "who", "knows") == {"who": 0, "knows": 0}
    assert filtered_whole(extender, asking, LINKED)["Nodes"]["items"] == [LINKED]
    assert offered(extender, asking, {"who": ["a"]}) == ["who"]


def test_nothing_is_judged_before_all_is_known() -> None:
    extender = knowing(LINKED)
    extender.answers.whole = False
    for ask in (filtered, scored):
        with pytest.raises(wire.NoAnswerError, match="does not know all nodes and pods yet"):
            ask(extender, pod("asking"), "linked")
    with pytest.raises(wire.NoAnswerError):
        offered(extender, pod("asking"), {"linked": ["a"]})


def test_whole_nodes_are_not_judged_either_while_pods_on_them_may_not_be_known_yet() -> None:
    extender = knowing(LINKED)
    extender.answers.whole, extender.answers.has_source = False, True
    for judge_whole in (filtered_whole, scored_whole):
        with pytest.raises(wire.NoAnswerError, match="does not know all nodes and pods yet") as refused:
            judge_whole(extender, pod("asking"), LINKED)
        assert (refused.value.kind, refused.value.names) == ("not-ready", ("linked",))


def test_without_a_source_whole_nodes_are_judged_by_the_question_alone() -> None:
    extender = knowing()
    extender.answers.whole = False
    assert filtered_whole(extender, pod("asking", 4), LINKED)["Nodes"]["items"] == [LINKED]
    assert scored_whole(extender, pod("asking", 4), LINKED) == {"linked": 10}


def test_gpus_that_bound_pods_hold_are_not_free_until_they_end() -> None:
    extender = knowing(LINKED, pod("one", 6, on="linked"), pod("done", 8, on="linked", phase="Succeeded"))
    assert filtered(extender, pod("asking", 4), "linked")["FailedNodes"] == {"linked": "too few free GPUs"}
    extender.facts.put_pod("inference/one", extender.facts.read_pod(pod("one", 6, on="linked", phase="Failed")))
    assert filtered(extender, pod("asking", 4), "linked")["NodeNames"] == ["linked"]


def test_a_whole_node_is_judged_as_shown_less_what_is_known_to_be_held_on_it() -> None:
    """A node of the same name that is another one (an autoscaler's thought) is nobody's yet."""
    extender = knowing(LINKED, pod("one", 6, on="linked"))
    thought = node("linked")
    thought["metadata"]["uid"] = "of an autoscaler's template"
    assert filtered_whole(extender, pod("asking", 4), LINKED)["FailedNodes"] == {"linked": "too few free GPUs"}
    assert filtered_whole(extender, pod("asking", 4), thought)["Nodes"]["items"] == [thought]


def test_nothing_is_remembered_of_a_question() -> None:
    extender = knowing(LINKED, UNLINKED)
    first = filtered(extender, pod("asking", 8), "linked", "unlinked")
    assert filtered(extender, pod("another", 8), "linked", "unlinked") == first
    filtered_whole(extender, pod("asking", 8), node("new"))
    assert filtered(extender, pod("asking", 8), "new")["FailedNodes"] == {"new": "node is not known to the extender"}


def test_preemption_is_offered_only_where_the_pod_would_pass_afterwards() -> None:
    holders = [pod(f"{on}-{number}", 4, on=on) for on in ("linked", "unlinked") for number in (0, 1)]
    extender = knowing(LINKED, UNLINKED, *holders)
    one_each = {on: [f"pod/{on}-0"] for on in ("linked", "unlinked", "unknown")}
    assert offered(extender, pod("asking", 4), one_each) == ["linked"]
    assert offered(extender, pod("asking", 8), one_each) == []
    assert offered(extender, pod("asking", 8), {"linked": ["pod/linked-0", "pod/linked-1"]}) == ["linked"]
    assert offered(extender, pod("asking", 4), {"linked": ["somebody else"]}) == []
    assert offered(extender, pod("asking", 4), {"linked": []}) == []


def test_nodes_are_ranked_as_the_policy_ranks_them() -> None:
    extender = knowing(LINKED, PAIRS, pod("holder", 4, on="linked"))
    asking = pod("asking", 2, args=BIG)
    demand = extender.facts.demands.of(asking)
    extender.answers.settle()
    known = [extender.facts.known(name) for name in ("linked", "pairs")]
    expected = scores([judge(demand, facts) for facts in known if facts is not None])
    assert max(expected) == 10
    linked, pairs = expected
    assert scored(extender, asking, "linked", "pairs", "unknown") == {"linked": linked, "pairs": pairs, "unknown": 0}


def test_a_demand_seen_before_is_judged_on_nodes_as_they_are_now() -> None:
    extender = knowing(LINKED)
    assert filtered(extender, pod("asking", 8), "linked")["NodeNames"] == ["linked"]
    extender.facts.put_pod("inference/new", extender.facts.read_pod(pod("new", 1, on="linked")))
    assert filtered(extender, pod("asking", 8), "linked")["NodeNames"] == []
    extender.facts.put_node("linked", None)
    assert filtered(extender, pod("asking", 8), "linked")["FailedNodes"] == {
        "linked": "node is not known to the extender"
    }


# -- whatever the cluster ---------------------------------------------------------------------------------------

clusters = st.lists(
    st.tuples(st.sampled_from([None, L40S, A100_PAIRS, {}]), st.integers(1, 8), st.integers(0, 8)),
    min_size=1,
    max_size=6,
)
askers = st.builds(pod, st.just("asking"), st.sampled_from([1, 2, 4, 8]))


def built(shapes: list[tuple[Json | None, int, int]]) -> list[Json]:
    things: list[Json] = []
    for number, (labels, gpus, held) in enumerate(shapes):
        things.append(node(f"node-{number}", gpus, labels))
        if held:
            things.append(pod(f"holder-{number}", min(held, gpus), on=f"node-{number}"))
    return things


@settings(max_examples=40)
@given(clusters, askers, st.randoms())
def test_verdicts_do_not_depend_on_the_order_of_nodes(shapes: Any, asking: Json, chance: Any) -> None:
    names = [f"node-{number}" for number in range(len(shapes))]
    things, mixed = built(shapes), list(names)
    first = filtered(knowing(*things), asking, *names)
    ranked = scored(knowing(*things), asking, *names)
    chance.shuffle(mixed)
    chance.shuffle(things)
    second = filtered(knowing(*things), asking, *mixed)
    assert sorted(first.pop("NodeNames")) == sorted(second.pop("NodeNames"))
    assert first == second
    assert scored(knowing(*things), asking, *mixed) == ranked


@settings(max_examples=40)
@given(clusters, askers)
def test_more_free_gpus_never_turn_a_pass_into_a_refusal(shapes: Any, asking: Json) -> None:
    names = [f"node-{number}" for number in range(len(shapes))]
    passed = set(filtered(knowing(*built(shapes)), asking, *names)["NodeNames"])
    freer = [(labels, gpus, max(0, held - 1)) for labels, gpus, held in shapes]
    assert passed <= set(filtered(knowing(*built(freer)), asking, *names)["NodeNames"])


@settings(max_examples=40)
@given(clusters, askers)
def test_preempt_offers_no_node_that_filter_would_then_refuse(shapes: Any, asking: Json) -> None:
    names = [f"node-{number}" for number in range(len(shapes))]
    victims = {f"node-{number}": [f"pod/holder-{number}"] for number in range(len(shapes))}
    kept = offered(knowing(*built(shapes)), asking, victims)
    empty = [(labels, gpus, 0) for labels, gpus, _ in shapes]
    assert kept == filtered(knowing(*built(empty)), asking, *names)["NodeNames"]


@settings(max_examples=40)
@given(clusters, clusters, askers)
def test_a_board_kept_in_step_says_what_a_new_one_says(before: Any, after: Any, asking: Json) -> None:
    """And whole nodes are told the same as their names."""
    extender = knowing(*built(before))
    names = [f"node-{number}" for number in range(max(len(before), len(after)))]
    filtered(extender, asking, *names)
    scored(extender, asking, *names)
    for key in list(extender.facts.pods):
        extender.facts.put_pod(key, None)
    for name in list(extender.facts.nodes):
        extender.facts.put_node(name, None)
    for thing in built(after):
        if thing["kind"] == "Node":
            extender.facts.put_node(thing["metadata"]["name"], extender.facts.read_node(thing))
        else:
            extender.facts.put_pod(thing["metadata"]["name"], extender.facts.read_pod(thing))
    new = knowing(*built(after))
    assert filtered(extender, asking, *names) == filtered(new, asking, *names)
    assert scored(extender, asking, *names) == scored(new, asking, *names)
    nodes = [thing for thing in built(after) if thing["kind"] == "Node"]
    whole, named = filtered_whole(new, asking, *nodes), filtered(new, asking, *names[: len(after)])
    assert [each["metadata"]["name"] for each in whole["Nodes"]["items"]] == named["NodeNames"]
    assert whole["FailedNodes"] == named["FailedNodes"]
    assert whole["FailedAndUnresolvableNodes"] == named["FailedAndUnresolvableNodes"]
