"""The judgement of a pod and a node: what is refused, in which words, and what is preferred."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.placement.annotations import PREFIX
from policies.placement.demand import GPU_RESOURCE, NvLink, PodDemand
from policies.placement.nodes import read_node
from policies.placement.policy import DEFAULT_SETTINGS, PlacementSettings, judge, scores
from policies.placement.products import shipped_products
from policies.placement.reading import LWS_SIZE
from policies.placement.supply import Evidence, Links, NodeFacts, SeenNode, Sharing, Slices
from policies.placement.verdict import MemoryFit, Reason
from tests.policies.placement.seen import A100_PCIE, H100, L4, V100, demand, node

LLAMA_8B, LLAMA_70B = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"
STRICT = PlacementSettings(unknown_link="refuse", unknown_model="refuse")


def serving(model: str = LLAMA_8B, tensor: int = 1, gpus: int | None = None, **annotations: str) -> PodDemand:
    stated = {PREFIX + name.replace("_", "-"): value for name, value in annotations.items()}
    return demand(model, "-tp", str(tensor), "--max-model-len", "8192", gpus=gpus or tensor, annotations=stated)


def test_a_pod_without_gpus_passes_everywhere() -> None:
    for facts in (node(H100), node(L4, 4, held=4), NodeFacts(gpus=0, free_gpus=0)):
        assert judge(PodDemand(gpus=0), facts).fits


@pytest.mark.parametrize(
    ("asked", "facts", "reason"),
    [
        (serving(), node(H100, 8, held=8), Reason.TOO_FEW_FREE),
        (serving(tensor=4), node(H100, 2), Reason.TOO_FEW),
        (serving(), NodeFacts(gpus=0, free_gpus=0), Reason.TOO_FEW),
        (serving(tensor=4), node(L4, 4), Reason.NOT_LINKED),
        (serving(LLAMA_70B, 4), node(A100_PCIE, 4), Reason.DOMAIN_TOO_SMALL),
        (serving(tensor=8), node(V100, 8), Reason.DOMAIN_TOO_SMALL),
        (serving(LLAMA_70B), node(H100, 8), Reason.MEMORY),
        (serving(tensor=4, gpus=2), node(H100, 8), Reason.TOO_FEW_ASKED),
        (serving("Qwen/Qwen2.5-7B-Instruct", 8), node(H100, 8), Reason.HEADS),
        (serving("Qwen/Qwen2.5-7B-Instruct", 7), node(H100, 8), Reason.HEADS),
        (serving(tensor=2), node(H100, 8, labels={"nvidia.com/gpu.replicas": "2"}), Reason.SHARED),
        (serving(tensor=2), node(H100, 8, labels={"nvidia.com/gpu.count": "4"}), Reason.MIXED),
        (serving(), node(H100, 8, cordoned=True), Reason.CORDONED),
    ],
)
def test_each_refusal_has_its_words(asked: PodDemand, facts: NodeFacts, reason: Reason) -> None:
    verdict = judge(asked, facts)
    assert verdict.reason is reason
    assert (verdict.score, verdict.preference) == (0, 0.0)
    assert verdict.resolvable == (reason is Reason.TOO_FEW_FREE)


@pytest.mark.parametrize(
    ("asked", "facts", "reason", "resolvable"),
    [
        (serving(tensor=2), node("unheard-of", 8), Reason.LINKS_UNKNOWN, False),
        (serving(tensor=2), node(V100, 8), Reason.LINKS_UNKNOWN, False),
        (serving(LLAMA_8B, 2), node(A100_PCIE, 8, held=4), Reason.LINKED_MAY_BE_TAKEN, True),
        (serving("acme/secret"), node(H100, 8), Reason.MEMORY_UNKNOWN, False),
    ],
)
def test_what_is_unknown_passes_at_the_lowest_score_or_is_refused_as_is_set(
    asked: PodDemand, facts: NodeFacts, reason: Reason, resolvable: bool
) -> None:
    lenient = judge(asked, facts)
    assert lenient.fits
    assert lenient.score == 0
    strict = judge(asked, facts, STRICT)
    assert strict.reason is reason
    assert strict.resolvable is resolvable


def test_what_would_be_wrong_with_an_empty_node_is_said_before_what_others_hold() -> None:
    """Else somebody would be evicted for nothing."""
    verdict = judge(serving(LLAMA_70B, 4), node(L4, 4, held=4))
    assert verdict.reason is Reason.NOT_LINKED
    assert not verdict.resolvable


def test_reasons_are_few_short_and_without_numbers() -> None:
    assert len(Reason) <= 14
    for reason in Reason:
        assert len(reason) < 60
        assert not any(mark.isdigit() for mark in reason)


@pytest.mark.parametrize(
    ("nvlink", "passes", "score_above_0"),
    [(NvLink.REQUIRE, False, False), (NvLink.PREFER, True, False), (NvLink.IGNORE, True, True)],
)
def test_unlinked_gpus_are_refused_or_the_last_choice_or_not_looked_at(
    nvlink: NvLink, passes: bool, score_above_0: bool
) -> None:
    asked = replace(serving(tensor=2), nvlink=nvlink)
    verdict = judge(asked, node(L4, 4))
    assert (verdict.fits, verdict.preference > 0) == (passes, score_above_0)
    by_setting = judge(serving(tensor=2), node(L4, 4), PlacementSettings(nvlink=nvlink))
    assert by_setting.fits is passes


def test_a_pod_of_a_group_needs_its_part_only() -> None:
    args = ("meta-llama/Llama-3.1-405B-Instruct-FP8", "-tp", "8", "-pp", "2", "--max-model-len", "8192")
    asked = demand(*args, gpus=8, annotations={LWS_SIZE: "2"})
    assert judge(asked, node(H100, 8)).fits
    alone = demand(*args, gpus=8)
    assert judge(alone, node(H100, 8)).reason is Reason.TOO_FEW_ASKED
    of_ray = demand(*args, "--distributed-executor-backend", "ray", gpus=8)
    assert any("is unknown" in note for note in judge(of_ray, node(H100, 8)).notes)


def test_ranks_that_share_a_prompt_need_gpus_of_their_own() -> None:
    args = (LLAMA_8B, "-tp", "2", "-pcp", "2", "--max-model-len", "8192")
    assert judge(demand(*args, gpus=2), node(H100, 8)).reason is Reason.TOO_FEW_ASKED
    assert judge(demand(*args, gpus=4), node(H100, 8)).fits


@pytest.mark.parametrize(
    ("args", "env"),
    [
        ((LLAMA_8B, "-dp", "8"), {"VLLM_DP_RANK": None}),
        ((LLAMA_8B, "-dp", "8", "-dpl", "$(LOCAL)"), {}),
        (("Qwen/Qwen3-235B-A22B-FP8", "--max-model-len", "8192"), {"VLLM_DP_SIZE": None}),
        ((LLAMA_70B, "--config", "/etc/vllm.yaml", "-tp", "1", "-pp", "1"), {}),
        ((LLAMA_70B, "--config", "/etc/vllm.yaml", "-dp", "8"), {}),
        ((LLAMA_70B, "-q", "$(HOW)", "--max-model-len", "8192"), {}),
    ],
)
def test_nobody_is_refused_by_a_default_in_place_of_what_is_not_seen(
    args: tuple[str, ...], env: dict[str, str | None]
) -> None:
    verdict = judge(demand(*args, env=env), node(H100, 8))
    assert verdict.fits
    seen = [arg for arg in args if arg not in ("--config", "/etc/vllm.yaml", "-dpl", "$(LOCAL)", "-q", "$(HOW)")]
    assert not judge(demand(*seen), node(H100, 8)).fits


def test_more_gpus_than_it_runs_on_pass_and_are_said() -> None:
    verdict = judge(serving(tensor=2, gpus=4), node(H100, 8))
    assert verdict.fits
    assert "it asks for 4 GPUs and runs on 2" in verdict.notes


def test_several_engines_in_a_pod_need_a_linked_set_each() -> None:
    asked = demand(LLAMA_8B, "-tp", "2", "-dp", "2", "--max-model-len", "8192", gpus=4)
    assert judge(asked, node(A100_PCIE, 8, held=3)).links is Evidence.UNKNOWN
    assert judge(asked, node(A100_PCIE, 8, held=1)).links is Evidence.LIKELY


def test_what_runs_slower_than_it_might_is_said() -> None:
    three = demand("meta-llama/Llama-3.2-3B-Instruct", "-tp", "3", "--max-model-len", "8192", gpus=3)
    assert judge(three, node(H100, 8)).reason is Reason.HEADS  # 8 KV heads do not go into 3 either
    latent = demand("deepseek-ai/DeepSeek-V3", "-tp", "8", "--max-model-len", "8192", gpus=8)
    assert any("latent cache is whole" in note for note in judge(latent, node("NVIDIA-H200", 8)).notes)


def test_a_slice_is_counted_and_measured_as_a_device_of_its_own() -> None:
    slices = (Slices("nvidia.com/mig-3g.40gb", 4, 2, 40 << 30),)
    facts = replace(node("NVIDIA-A100-SXM4-80GB", 8), slices=slices)
    asked = replace(serving(), resource="nvidia.com/mig-3g.40gb")
    verdict = judge(asked, facts)
    assert verdict.fits
    assert verdict.has_bytes_per_gpu is not None
    assert verdict.has_bytes_per_gpu < 40 << 30
    assert judge(replace(asked, gpus=3), facts).reason is Reason.TOO_FEW_FREE
    assert judge(replace(asked, gpus=2, tensor_parallel=2), facts).reason is Reason.SHARED
    assert judge(asked, node(H100)).reason is Reason.TOO_FEW


def test_a_shared_device_promises_no_memory_and_still_refuses_what_it_cannot_hold() -> None:
    shared = node(L4, 4, labels={"nvidia.com/gpu.replicas": "4"})
    assert shared.sharing is Sharing.TIME_SLICING
    assert judge(serving(), shared).memory is MemoryFit.UNKNOWN
    assert judge(serving(LLAMA_70B), shared).reason is Reason.MEMORY


@pytest.mark.parametrize(
    "labels",
    [
        {"cloud.google.com/gke-gpu-partition-size": "7g.80gb"},
        {"cloud.google.com/gke-gpu-sharing-strategy": "time-sharing"},
        {"cloud.google.com/gke-max-shared-clients-per-gpu": "4"},
        {},
    ],
)
def test_tensor_parallelism_finds_no_gpus_in_a_clouds_shares_of_one(labels: dict[str, str]) -> None:
    one = {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "cloud.google.com/gke-accelerator-count": "1"}
    shares = read_node(SeenNode(labels={**one, **labels}, allocatable={"nvidia.com/gpu": 4}), shipped_products())
    assert judge(serving(tensor=4), shares).reason is Reason.SHARED


def test_gpus_shared_in_a_way_nobody_tells_promise_no_memory() -> None:
    labels = {"karpenter.k8s.aws/instance-gpu-name": "l4", "karpenter.k8s.aws/instance-gpu-count": "1"}
    shares = read_node(SeenNode(labels=labels, allocatable={"nvidia.com/gpu": 4}), shipped_products())
    assert judge(serving(), shares).memory is MemoryFit.UNKNOWN
    assert judge(serving(LLAMA_70B), shares).reason is Reason.MEMORY


def test_shares_under_a_name_of_their_own_promise_no_memory_either() -> None:
    labels = {"nvidia.com/gpu.product": L4, "nvidia.com/gpu.memory": "23034", "nvidia.com/gpu.replicas": "4"}
    shared = read_node(SeenNode(labels=labels, allocatable={"nvidia.com/gpu.shared": 4}), shipped_products())
    verdict = judge(replace(serving(), resource="nvidia.com/gpu.shared"), shared)
    assert (verdict.fits, verdict.memory) == (True, MemoryFit.UNKNOWN)


@pytest.mark.parametrize(
    ("resource", "replicas", "memory"),
    [
        ("nvidia.com/mig-2g.20gb", {}, MemoryFit.TIGHT),
        ("nvidia.com/mig-2g.20gb", {"nvidia.com/mig-2g.20gb.replicas": "1"}, MemoryFit.TIGHT),
        ("nvidia.com/mig-2g.20gb", {"nvidia.com/mig-2g.20gb.replicas": "4"}, MemoryFit.UNKNOWN),
        ("nvidia.com/mig-2g.20gb.shared", {"nvidia.com/mig-2g.20gb.replicas": "4"}, MemoryFit.UNKNOWN),
        ("nvidia.com/mig-2g.20gb.shared", {}, MemoryFit.UNKNOWN),
    ],
)
def test_slices_that_are_shared_promise_no_memory_and_still_refuse_what_they_cannot_hold(
    resource: str, replicas: dict[str, str], memory: MemoryFit
) -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/mig-2g.20gb.memory": "19968", **replicas}
    facts = read_node(SeenNode(labels=labels, allocatable={resource: 12}), shipped_products())
    verdict = judge(replace(serving(), resource=resource), facts)
    assert (verdict.fits, verdict.memory) == (True, memory)
    assert judge(replace(serving(LLAMA_70B), resource=resource), facts).reason is Reason.MEMORY


def test_a_daemons_pod_passes_a_cordoned_node() -> None:
    assert judge(replace(serving(), tolerates_cordon=True), node(H100, 8, cordoned=True)).fits


def best(asked: PodDemand, *nodes: NodeFacts, settings: PlacementSettings = DEFAULT_SETTINGS) -> int:
    given_scores = scores([judge(asked, facts, settings) for facts in nodes])
    assert given_scores.count(max(given_scores)) == 1
    return given_scores.index(max(given_scores))


def test_a_pod_of_one_goes_where_it_breaks_nothing_up() -> None:
    assert best(serving(), node(H100, 8), node(H100, 8, held=7), node(H100, 8, held=4)) == 1
    assert best(serving(), node(H100, 8), node(L4, 4)) == 1


def test_a_pod_of_two_leaves_whole_boards_to_pods_of_eight() -> None:
    assert best(serving(LLAMA_8B, 2), node(H100, 8), node(H100, 8, held=4), node(H100, 8, held=6)) == 2


def test_of_nodes_broken_up_alike_the_snuggest_memory_is_taken() -> None:
    assert best(serving(), node("NVIDIA-L40S", 4, labels={"nvidia.com/gpu.memory": "46068"}), node(L4, 4)) == 1
    assert best(serving(LLAMA_70B, 4), node("NVIDIA-H200", 8), node(H100, 8)) == 1


def test_a_sure_link_is_better_than_a_probable_one() -> None:
    assert best(serving(LLAMA_8B, 2), node(A100_PCIE, 4, held=1), node("NVIDIA-H100-NVL", 2)) == 1


def test_the_tutorials_rule_prefers_empty_linked_nodes() -> None:
    tutorial = PlacementSettings(score="tutorial")
    assert best(serving(), node(H100, 8), node(H100, 8, held=7), node(L4, 4), settings=tutorial) == 0


def test_scores_are_ranks_of_the_nodes_in_question() -> None:
    nodes = [node(H100, 8), node(H100, 8, held=7), node(L4, 4, held=4), node("unheard-of", 1), node(H100, 8)]
    given_scores = scores([judge(serving(), facts) for facts in nodes])
    assert given_scores[1] == 10
    assert given_scores[0] == given_scores[4]
    assert given_scores[2] == 0
    assert scores([]) == []


NODES = st.builds(
    node,
    st.sampled_from([H100, A100_PCIE, L4, V100, "NVIDIA-H100-NVL", "NVIDIA-H200", "unheard-of"]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 9),
    annotations=st.sampled_from([{}, {"preheat.dev/links": "groups:2"}, {"preheat.dev/links": "none"}]),
)
DEMANDS = st.builds(
    serving,
    st.sampled_from([LLAMA_8B, LLAMA_70B, "acme/secret", "Qwen/Qwen2.5-7B-Instruct", "deepseek-ai/DeepSeek-V3"]),
    st.sampled_from([1, 2, 3, 4, 8]),
    st.sampled_from([None, 1, 2, 4, 8]),
)
SETTINGS = st.builds(
    PlacementSettings,
    nvlink=st.sampled_from(list(NvLink)),
    unknown_link=st.sampled_from(["pass", "refuse"]),
    unknown_model=st.sampled_from(["pass", "refuse"]),
    score=st.sampled_from(["shape", "tutorial"]),
)


@given(DEMANDS, NODES, SETTINGS)
def test_a_verdict_is_whole_whatever_is_asked(asked: PodDemand, facts: NodeFacts, settings: PlacementSettings) -> None:
    verdict = judge(asked, facts, settings)
    assert 0 <= verdict.score <= 10
    assert 0 <= verdict.preference <= 1
    assert verdict == judge(asked, facts, settings)
    if not verdict.fits:
        assert verdict.score == 0
    if verdict.fits and asked.gpus:
        assert asked.gpus <= facts.free_gpus


@given(DEMANDS, NODES, SETTINGS)
def test_adding_free_gpus_never_turns_a_pass_into_a_refusal(
    asked: PodDemand, facts: NodeFacts, settings: PlacementSettings
) -> None:
    if facts.free_gpus < facts.gpus and judge(asked, facts, settings).fits:
        assert judge(asked, replace(facts, free_gpus=facts.free_gpus + 1), settings).fits


@given(DEMANDS, NODES, SETTINGS)
def test_what_is_unresolvable_is_refused_of_an_empty_node_too(
    asked: PodDemand, facts: NodeFacts, settings: PlacementSettings
) -> None:
    verdict = judge(asked, facts, settings)
    if not verdict.fits and not verdict.resolvable:
        assert judge(asked, replace(facts, free_gpus=facts.gpus), settings).reason is verdict.reason


@given(DEMANDS, NODES, SETTINGS)
def test_what_is_resolvable_would_pass_on_an_empty_node(
    asked: PodDemand, facts: NodeFacts, settings: PlacementSettings
) -> None:
    verdict = judge(asked, facts, settings)
    if verdict.reason is Reason.TOO_FEW_FREE:
        empty = judge(asked, replace(facts, free_gpus=facts.gpus), settings)
        assert empty.fits or empty.reason is Reason.LINKED_MAY_BE_TAKEN


@given(st.lists(NODES, min_size=1, max_size=6), DEMANDS, st.randoms(use_true_random=False))
def test_verdicts_and_scores_do_not_depend_on_the_order_of_nodes(
    nodes: list[NodeFacts], asked: PodDemand, chance: object
) -> None:
    straight = scores([judge(asked, facts) for facts in nodes])
    reverse = scores([judge(asked, facts) for facts in reversed(nodes)])
    assert straight == reverse[::-1]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(1, 8), st.permutations(range(4)))
def test_which_group_is_first_does_not_matter(free: list[int], size: int, order: list[int]) -> None:
    sizes = tuple(free + [0] * (4 - len(free)))
    base = NodeFacts(gpus=16, free_gpus=sum(sizes), links=Links.GROUPS, group_gpus=4, memory_bytes_per_gpu=80 << 30)
    asked = replace(serving(LLAMA_8B, 1), gpus=size, tensor_parallel=size, resource=GPU_RESOURCE)
    one = judge(asked, replace(base, free_in_groups=sizes))
    other = judge(asked, replace(base, free_in_groups=tuple(sizes[i] for i in order)))
    assert one == other
