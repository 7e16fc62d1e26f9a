"""The metrics say what happened, the document says what they mean, and neither knows one that the other does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from autoscaler.loop import Outcome, Turn
from autoscaler.telemetry import BY_NAME, METRICS, Figures, ForecastScore, Telemetry
from policies.scaling.decision import Binding, Came, Decision, Forecast
from policies.scaling.observation import Observation, SampleState
from tests.autoscaler.worlds import EMPTY, START, World, with_states
from tests.checkout import ROOT

TICK_SECONDS = 15.0


def decision(time: float = START, **changes: object) -> Decision:
    made = Decision(
        time, 5, 7, 3, Binding.FORECAST, "goes from 3 to 5", 90.0, demand=4.0, capacity=1.5, coming=1, clips=("a", "b")
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the names are the fields'


def read(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels' values in the order of the table, as a scrape reads it."""
    families = text_string_to_metric_families(telemetry.text().decode())
    samples = [sample for family in families for sample in family.samples if sample.name in BY_NAME]
    return {(s.name, *(s.labels[label] for label in BY_NAME[s.name].labels)): s.value for s in samples}


def told(*turns: Turn) -> dict[tuple[str, ...], float]:
    telemetry, figures = Telemetry("1.2.3"), Figures("inference", "llama")
    telemetry.targets.append(figures)
    for turn in turns:
        figures.follow(turn, START + 1, TICK_SECONDS)
    return read(telemetry)


async def seen(*states: SampleState) -> Observation:
    world = World(replicas=3)
    world.bend = with_states(*states)
    return await world.observe(None)


def test_document_and_code_name_the_same_metrics() -> None:
    rows = re.findall(
        r"^\| `(preheat_\w+)` \| (\w+) \| (.+?) \| (.+) \|$", (ROOT / "docs/metrics.md").read_text(), re.M
    )
    documented = {(name, kind, tuple(re.findall(r"`(\w+)`", labels)), meaning) for name, kind, labels, meaning in rows}
    assert documented == {(m.name, m.kind, m.labels, m.meaning) for m in METRICS}
    assert len(rows) == len(METRICS)


def test_document_and_code_name_the_same_label_values() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    for value in (*Binding, *Outcome, *SampleState):
        assert f"`{value}`" in page


async def test_a_turn_is_told_whole() -> None:
    page = told(Turn(EMPTY, Outcome.RESCALED, await seen(SampleState.STALE, SampleState.IDLE), decision()))
    target = ("inference", "llama")
    expected = {
        ("preheat_replicas_desired", *target): 3,
        ("preheat_replicas_wanted", *target): 7,
        ("preheat_replicas_decided", *target): 5,
        ("preheat_replicas_ready", *target): 3,
        ("preheat_replicas_coming", *target): 1,
        ("preheat_horizon_seconds", *target): 90,
        ("preheat_demand_requests_per_second", *target): 4,
        ("preheat_capacity_requests_per_second", *target): 1.5,
        ("preheat_samples", *target, "stale"): 1,
        ("preheat_samples", *target, "idle"): 1,
        ("preheat_samples", *target, "fresh"): 1,
        ("preheat_samples", *target, "absent"): 0,
        ("preheat_sample_age_seconds", *target): 1,
        ("preheat_decisions_total", *target, "forecast"): 1,
        ("preheat_clips_total", *target): 2,
        ("preheat_turns_total", *target, "rescaled"): 1,
        ("preheat_errors_total", *target, "incomplete"): 1,
        ("preheat_scale_writes_total", *target, "rescaled"): 1,
        ("preheat_last_turn_timestamp_seconds", *target): START + 1,
        ("preheat_shadow", *target): 0,
        ("preheat_build_info", "1.2.3"): 1,
    }
    assert {key: page.get(key) for key in expected} == expected


async def test_what_is_not_seen_keeps_no_number_from_before_and_counters_stay() -> None:
    page = told(
        Turn(EMPTY, Outcome.UNCHANGED, await seen(), decision()),
        Turn(EMPTY, Outcome.BLIND, problem="down", kind="prometheus"),
    )
    names = {key[0] for key in page}
    assert not names & {"preheat_replicas_ready", "preheat_replicas_decided", "preheat_demand_requests_per_second"}
    assert page["preheat_errors_total", "inference", "llama", "prometheus"] == 1
    assert page["preheat_turns_total", "inference", "llama", "unchanged"] == 1
    assert page["preheat_last_observed_timestamp_seconds", "inference", "llama"] == START + 15


async def test_a_rise_in_the_dark_is_a_write_and_no_look() -> None:
    raised = Turn(EMPTY, Outcome.RAISED, await seen(), decision(), problem="down", kind="prometheus")
    page = told(raised)
    assert page["preheat_scale_writes_total", "inference", "llama", "raised"] == 1
    assert page["preheat_errors_total", "inference", "llama", "prometheus"] == 1
    assert ("preheat_last_observed_timestamp_seconds", "inference", "llama") not in page


async def test_every_metric_of_the_table_is_on_the_page_as_declared() -> None:
    telemetry, figures = Telemetry("0"), Figures("inference", "llama")
    telemetry.targets.append(figures)
    figures.follow(Turn(EMPTY, Outcome.RESCALED, await seen(), decision()), START, TICK_SECONDS)
    telemetry.latenesses.add(0.3)
    families = {f.name: f for f in text_string_to_metric_families(telemetry.text().decode())}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name]
        assert family.type == metric.kind
        for sample in family.samples:
            assert set(metric.labels) == sample.labels.keys() - {"le"}
    buckets = {s.labels["le"]: s.value for s in families["preheat_tick_lateness_seconds"].samples if "le" in s.labels}
    assert (buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (0, 1, 1)


def forecast(time: float, expected: float = 10.0, upper: float = 12.0) -> Forecast:
    return Forecast(time, "trend", expected, upper, 0.95)


def saw_come(time: float, load: float) -> Decision:
    """A look of a minute and a half later, when the mean around that time is known."""
    return decision(time + 90.0, came=Came(time, load), demand=99.0)


def test_forecasts_are_scored_against_what_came_around_their_time() -> None:
    score = ForecastScore()
    assert (score.error_ratio, score.coverage_ratio, score.compared) == (None, None, 0)
    score.follow(decision(0.0, forecast=forecast(30.0)), 30.0)
    score.follow(decision(15.0, forecast=forecast(45.0)), 30.0)
    score.follow(decision(60.0, demand=8.0), 30.0)
    assert score.compared == 0  # their time has come, but not yet what came around it
    score.follow(saw_come(30.0, 8.0), 30.0)
    assert (score.error_ratio, score.coverage_ratio) == (2 / 8, 1.0)
    score.follow(saw_come(45.0, 16.0), 30.0)
    assert (score.error_ratio, score.coverage_ratio, score.compared) == ((2 + 6) / (8 + 16), 0.5, 2)


def test_a_score_may_be_asked_while_a_turn_adds_to_it() -> None:
    """A scrape is told in a thread: here each comparison, as it is read, lets a turn add another."""
    score = ForecastScore()

    class Comparison(tuple[float, float, bool]):
        def __iter__(self) -> Iterator[float]:
            score._compared.append((1.0, 10.0, True))
            return super().__iter__()

    score._compared.extend([Comparison((2.0, 8.0, False)), Comparison((0.0, 8.0, True))])
    assert (score.error_ratio, score.coverage_ratio) == (2 / 16, (0 + 1 + 4) / 6)


def test_forecasts_of_times_that_nobody_saw_are_not_scored() -> None:
    score = ForecastScore()
    score.follow(decision(0.0, forecast=forecast(30.0)), 30.0)
    score.follow(decision(15.0, forecast=forecast(100.0)), 30.0)
    score.follow(saw_come(90.0, 8.0), 30.0)  # 60 s after the first was due
    score.follow(decision(195.0, demand=8.0, came=None), 30.0)  # the second is due, what came is not known
    assert score.compared == 0


def test_shadow_mode_counts_replica_hours_saved_and_lost_and_no_other_mode_does() -> None:
    telemetry = Telemetry("1.2.3")
    telemetry.targets += [Figures("inference", "shadowed", shadow=True), Figures("inference", "scaled")]
    for figures in telemetry.targets:
        figures.follow(Turn(EMPTY, Outcome.SHADOWED, None, decision()), START, TICK_SECONDS)
    found = {key[1:]: value for key, value in read(telemetry).items() if key[0] == "preheat_shadow_replica_hours_total"}
    lost = 2 * TICK_SECONDS / 3600
    assert found == {("inference", "shadowed", "saved"): 0.0, ("inference", "shadowed", "lost"): lost}
