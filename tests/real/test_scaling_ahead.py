"""One story on real parts, from the rise of a load to its end, and everything that Preheat says about it."""

from __future__ import annotations

import pytest

from tests.parts.processes import wait_until
from tests.real.rising_load import FLOOR, KINDS, PEAK, PEAK_RATE, Story

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

TTFT_OBJECTIVE_SECONDS = 1.0


@pytest.fixture(params=KINDS)
def story(stories: dict[str, Story], request: pytest.FixtureRequest) -> Story:
    return stories[request.param]


def test_it_scales_before_the_queue_forms(story: Story) -> None:
    rises = [turn["decision"] for turn in story.changes if turn["decision"]["replicas"] > turn["decision"]["desired"]]
    assert max(decision["replicas"] for decision in rises) >= PEAK
    late = [waited for _, waited in story.truth.waits if waited > TTFT_OBJECTIVE_SECONDS]
    assert len(story.truth.waits) > 300
    assert len(late) <= 0.01 * len(story.truth.waits), f"{len(late)} requests waited, one of them {max(late):.1f} s"


def test_it_shrinks_when_the_load_is_over_and_drops_nothing(story: Story) -> None:
    assert story.target.desired == FLOOR
    wait_until(lambda: story.target.ready == FLOOR, within=30, what="the others gone")
    falls = [turn["decision"] for turn in story.changes if turn["decision"]["replicas"] < turn["decision"]["desired"]]
    assert falls
    assert story.truth.finished >= story.truth.arrived - 20  # those still on their way when it was read


def test_every_change_is_an_event_with_the_decisions_own_sentence(story: Story) -> None:
    told = [event["message"] for event in story.events if event["reason"] == "Rescaled"]
    assert told == [turn["decision"]["sentence"] for turn in story.changes]


def test_its_metrics_agree_with_what_happened(story: Story) -> None:
    assert story.metric("preheat_scale_writes_total", result="rescaled") == len(story.changes)
    assert story.metric("preheat_replicas_desired") == story.target.desired
    assert story.metric("preheat_replicas_ready") == story.target.ready
    turns = story.metric("preheat_turns_total")
    assert turns is not None
    assert turns >= len(story.turns)


def test_explain_tells_a_change_as_the_journal_has_it(stories: dict[str, Story]) -> None:
    story = stories["deployment"]
    for change in (story.changes[0], story.changes[-1]):
        told = story.autoscaler.explain(story.target.key, at=change["time"])
        decision = change["decision"]
        assert decision["sentence"] in told
        assert f"{decision['desired']} → {decision['replicas']}" in told
        assert "written to scale" in told


def test_what_it_saw_arrive_is_what_was_sent(story: Story) -> None:
    demands = [turn["decision"]["demand"] for turn in story.turns if turn["decision"]]
    assert 0.7 * PEAK_RATE < max(demand for demand in demands if demand is not None) < 1.3 * PEAK_RATE


def test_shadow_mode_decides_and_writes_nothing(stories: dict[str, Story]) -> None:
    story = stories["shadow"]
    assert any(turn["outcome"] == "shadowed" for turn in story.turns)
    assert not story.changes
    assert story.events == []
    made = story.target.api.get(story.target.path)["metadata"]
    assert made["generation"] == 1
    assert "preheat" not in {field["manager"] for field in made["managedFields"]}
    assert story.metric("preheat_shadow") == 1


def test_all_the_while_it_is_healthy_and_errs_nowhere(stories: dict[str, Story]) -> None:
    autoscaler = stories["deployment"].autoscaler
    assert autoscaler.page("/healthz").text == "ok\n"
    assert autoscaler.page("/readyz").text == "ok\n"
    for story in stories.values():
        assert [turn["problem"] for turn in story.turns if turn["problem"]] == []
        # What it may meet is a pod that is ready a moment before its first sample.
        assert story.metric("preheat_errors_total") == story.metric("preheat_errors_total", kind="incomplete")
    assert not autoscaler.metric("preheat_events_dropped_total")
    assert not autoscaler.metric("preheat_journal_dropped_total")
