"""The report of a replay, as far as a parser sees: its chapters, its figures, and that it trusts no name."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.scaling.decision import Came, Forecast
from simulations.laboratory.static_line import static_line
from simulations.replay import Timeline
from simulations.report.comparison_page import comparison_page
from simulations.report.coverage import Forecasts
from simulations.report.figures import cold_start_verdict, frontier, verdict
from simulations.report.series import ALL_COLUMNS, MOST_COLUMNS, columns
from tests.simulations.report.compared import HOSTILE, POLICIES, SCENE, compared, page, statics
from tests.simulations.report.structure import Structure

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def report() -> Structure:
    return Structure(page())


def chart(report: Structure, at: str) -> dict[str, Any]:
    return next(each for each in report.charts if each["at"] == at)


def test_the_page_is_whole_and_fetches_and_runs_nothing_of_others(report: Structure) -> None:
    assert report.problems == []
    assert report.tags["script"] == 2  # the data and our own
    assert report.tags["img"] == report.tags["iframe"] == report.tags["link"] - 1 == 0
    assert "prefers-color-scheme: dark" in report.styles


def test_names_that_users_gave_are_shown_as_they_are(report: Structure) -> None:
    assert report.text.count(HOSTILE) >= 9  # title, note, command, and the policy's name in six places

    assert f"keda {HOSTILE}" in [dot["name"] for dot in chart(report, "frontier-chart")["dots"]]
    assert f"preheat replay '{HOSTILE}'" in report.text
    assert f"A note of {HOSTILE}." in report.text


def test_every_chapter_is_there_and_those_of_another_cold_start_only_where_it_was_asked_for(report: Structure) -> None:
    chapters = [
        "Cost over promise kept",
        "A cold start of 240 s, cut to 30 s",
        "What each policy reached, and what it cost",
        "The load, and what was foreseen of it",
        "Replicas",
        "Latency against the objective",
        "The error budget, and when it was spent",
        "The worst ten minutes",
        "Every change, and why",
        "To get these figures again",
    ]
    assert report.headings == chapters
    assert len(report.links) == len(chapters)
    alone = Structure(comparison_page(compared()))
    assert alone.problems == []
    assert alone.headings == [each for each in chapters if not each.startswith("A cold start")]


def test_the_frontier_has_a_dot_for_each_policy_and_marks_bound_and_objective(report: Structure) -> None:
    drawn = chart(report, "frontier-chart")
    found = compared()
    big = [dot for dot in drawn["dots"] if dot["shape"] != "small"]
    assert [(dot["x"], dot["y"]) for dot in big] == [
        (each.slo_attainment.mean, each.gpu_hours.mean) for each in found.outcomes
    ]
    assert [dot["shape"] for dot in big] == ["circle"] * 5 + ["diamond"]
    assert drawn["floor"]["y"] == found.lower_bound.gpu_hours
    assert drawn["objective"] == 0.99
    assert len(drawn["links"][0]["points"]) == len([each for each in statics() if each.slo_attainment >= 0.5])


def test_fixed_fleets_hold_more_and_miss_less_the_larger_they_are() -> None:
    line = statics()
    assert [each.replicas for each in line] == list(range(line[0].replicas, line[-1].replicas + 1))
    hours = [each.gpu_hours for each in line]
    assert hours == sorted(hours)
    reached = [each.slo_attainment >= 0.99 for each in line]
    assert reached == sorted(reached)
    assert True in reached
    two = next(each for each in line if each.replicas == 2)
    asked = next(each for each in compared().outcomes if each.name == "static:2")
    assert two.slo_attainment == asked.slo_attainment.mean
    assert math.isclose(two.gpu_hours, asked.gpu_hours.mean, rel_tol=1e-9)


def test_fixed_fleets_stay_within_the_bounds_where_none_suffices() -> None:
    assert [each.replicas for each in static_line(replace(SCENE, max_replicas=1))] == [1]


def test_the_table_tells_dollars_and_without_a_price_what_it_costs_in_time(report: Structure) -> None:
    found = compared()
    first = found.outcomes[0]
    per_thousand = 1000 * first.gpu_hours.mean * 2.5 / first.figures[0].requests
    assert f"${per_thousand:,.3f}" in report.text
    assert f"${first.gpu_hours.mean * 2.5:,.2f}" in report.text
    free = Structure(comparison_page(replace(found, gpu_hour_price=None)))
    assert "$" not in free.text.replace(HOSTILE, "")
    assert f"{60000 * first.gpu_hours.mean / first.figures[0].requests:.1f}" in free.text


def test_replicas_are_drawn_at_every_tick_of_a_short_trace(report: Structure) -> None:
    for number, outcome in enumerate(compared().outcomes):
        drawn = chart(report, f"replicas-{number}")
        by_name = {series["short"] or series["name"]: series for series in drawn["series"]}
        assert by_name["ready"]["y"] == outcome.replay.timeline.ready.tolist()
        assert by_name["created"]["y"] == outcome.replay.timeline.created.tolist()
        assert drawn["said"]["sentences"] == [each.sentence for each in outcome.replay.decisions]
        assert max(by_name["load, in replicas"]["y"]) > 1


def test_forecasts_are_drawn_of_the_policy_that_has_them(report: Structure) -> None:
    drawn = chart(report, "load-chart")
    band, arriving, load = drawn["series"]
    assert drawn["title"] == "preheat"
    assert band["name"] == "foreseen a lead time before: expected to 90\u00a0% quantile"
    assert len(band["y"]) > 20
    assert sum(arriving["y"]) * arriving["x"]["step"] == pytest.approx(compared().scenario.trace.requests)
    told = [each.came for each in compared().outcomes[0].replay.decisions]
    assert told[0] is None  # of the first seconds there is no mean over minutes
    begun = next(at for at, each in enumerate(told) if each is not None)
    assert load["y"] == [None if each is None else pytest.approx(each.load, abs=1e-4) for each in told[begun:]]
    assert load["x"][0] == pytest.approx(next(each.time for each in told if each is not None))


def test_each_policy_that_foresees_has_its_load_and_its_share_and_without_any_there_are_arrivals_alone() -> None:
    found = compared()
    ours = found.outcomes[0]
    both = Structure(comparison_page(replace(found, outcomes=(*found.outcomes, replace(ours, name="other.yaml")))))
    assert both.problems == []
    loads = [each for each in both.charts if each["at"].startswith("load-chart")]
    assert [(each["title"], len(each["series"])) for each in loads] == [("preheat", 3), ("other.yaml", 3)]
    assert loads[0]["series"][0]["color"] != loads[1]["series"][0]["color"]
    coverage = chart(both, "coverage-chart")
    assert coverage["choosable"]
    assert [each["name"] for each in coverage["series"]] == ["preheat", "other.yaml", "planned for: 90\u00a0%"]
    assert both.text.count("the load that came was at most what had been planned for") == 2

    decisions = tuple(replace(each, forecast=None) for each in ours.replay.decisions)
    without = replace(ours, replay=replace(ours.replay, decisions=decisions))
    for outcomes in (found.outcomes[1:3], (without,)):
        blind = Structure(comparison_page(replace(found, outcomes=outcomes)))
        assert blind.problems == []
        assert "The load" in blind.headings
        assert [each["name"] for each in chart(blind, "load-chart")["series"]] == ["requests arriving"]
        assert "coverage-chart" not in blind.ids
        assert "requests of the mix" not in blind.text


def test_what_was_foreseen_by_a_policy_that_tells_no_load_is_held_to_nothing() -> None:
    found = compared()
    ours = found.outcomes[0]
    silent = replace(ours.replay, decisions=tuple(replace(each, came=None) for each in ours.replay.decisions))
    told = Structure(comparison_page(replace(found, outcomes=(replace(ours, replay=silent),))))
    assert told.problems == []
    assert [each["short"] for each in chart(told, "load-chart")["series"]] == ["foreseen", "arriving"]
    assert "coverage-chart" not in told.ids
    assert "requests of the mix" not in told.text


def test_coverage_is_drawn_level_over_ten_minutes_beside_the_share_that_was_planned_for(report: Structure) -> None:
    drawn = chart(report, "coverage-chart")
    share, meant = drawn["series"]
    end = max(each.replay.end_seconds for each in compared().outcomes)
    assert share["x"] == [0.0, 600.0, 600.0, 1200.0]
    assert meant["x"] == [0.0, end]
    assert meant["y"] == [0.9, 0.9]
    found = Forecasts.of(compared().outcomes[0].replay)
    assert found is not None
    early, late = (found.is_covered[found.time < 600], found.is_covered[found.time >= 600])
    assert share["y"] == pytest.approx([early.mean(), early.mean(), late.mean(), late.mean()], abs=1e-4)
    assert drawn["said"]["sentences"] == [f"preheat: {part.sum()} of {len(part)}." for part in (early, late)]
    assert not drawn["choosable"]


def test_the_budget_is_drawn_of_every_policy_and_ends_where_the_attainment_says(report: Structure) -> None:
    found = compared()
    drawn = chart(report, "budget-chart")
    lines = drawn["series"]
    assert [each["y"] for each in drawn["marks"]] == [1.0]
    assert len(lines) == len(found.outcomes)
    for line, outcome in zip(lines, found.outcomes, strict=True):
        spent = (1 - outcome.slo_attainment.mean) / 0.01
        assert line["y"][-1] == pytest.approx(spent, abs=1e-3)
        assert line["x"][0] == SCENE.score_from_seconds
        assert line["shown"]
        assert line["name"] == (f"{outcome.name}, up to {spent:,.0%}" if spent > 2 else outcome.name)
    assert max(line["y"][-1] for line in lines) > drawn["top"] == 2.0
    assert f"Promised to 99 % of {found.outcomes[0].figures[0].requests:,} requests from 01:00 on" in report.text
    assert "Of seed" not in report.text


def test_a_budget_that_lasts_is_drawn_up_to_all_of_it() -> None:
    found = compared()
    kept = next(each for each in found.outcomes if each.name == "static:8")
    told = Structure(comparison_page(replace(found, outcomes=(kept,))))
    drawn = chart(told, "budget-chart")
    assert drawn["top"] == 1.1
    assert not drawn["choosable"]


def test_where_nothing_is_scored_there_is_no_budget() -> None:
    found = compared()
    late = replace(found.outcomes[0].replay, score_from_seconds=1e6, requests=0)
    told = Structure(comparison_page(replace(found, outcomes=(replace(found.outcomes[0], replay=late),))))
    assert told.problems == []
    assert "budget-chart" not in told.ids


def test_misses_over_time_add_up_to_the_attainment(report: Structure) -> None:
    found = compared()
    drawn = chart(report, "missed-chart")
    arrived = found.scenario.trace.arrived_at_seconds
    counts = np.bincount((arrived // 60).astype(int), minlength=len(drawn["series"][0]["y"]))
    for series, outcome in zip(drawn["series"], found.outcomes, strict=True):
        missed = float((np.array(series["y"], dtype=float) * counts)[1:].sum())
        assert missed / counts[1:].sum() == pytest.approx(1 - outcome.slo_attainment.mean, abs=1e-3)


def test_the_verdict_names_who_keeps_the_promise_by_cost_and_nobody_where_nobody_does() -> None:
    found = compared()
    keeping = [each for each in found.rivals if each.reaches(0.99)]
    said = verdict(found)
    assert said.startswith(f"{len(keeping)} of {len(POLICIES) - 1} ")
    cheapest = min(keeping, key=lambda each: each.gpu_hours.mean)
    assert said.index(cheapest.name) == min(said.index(each.name) for each in keeping)
    failing = replace(found, outcomes=tuple(each for each in found.outcomes if not each.reaches(0.99)))
    assert verdict(failing).startswith(f"None of the {len(failing.outcomes)} policies keeps the promise")


def test_a_shorter_cold_start_is_told_by_what_the_promise_then_costs(report: Structure) -> None:
    slow, quick = compared(), compared(30.0)
    said = " ".join(cold_start_verdict(slow, quick))
    assert said in " ".join(report.text.split("\n")) or all(
        line in report.text for line in cold_start_verdict(slow, quick)
    )
    drawn = chart(report, "cold-start-chart")
    assert [dot["shape"] for dot in drawn["dots"]].count("ring") == len(POLICIES)
    ours = [link for link in drawn["links"] if link["color"] == "var(--p0)"]
    assert ours[0]["points"] == [
        [each.outcomes[0].slo_attainment.mean, each.outcomes[0].gpu_hours.mean] for each in (slow, quick)
    ]


def test_all_that_reproduces_it_is_told(report: Structure) -> None:
    found = compared()
    assert f"Preheat {found.version}, seed 0." in report.text
    for outcome in found.outcomes:
        assert outcome.inputs_hash[:16] in report.text
        assert outcome.figures[0].decision_hash[:16] in report.text
        assert outcome.label in report.text


def test_columns_are_shared_out_among_all_policies() -> None:
    assert columns(1) == MOST_COLUMNS
    assert all(columns(number) * number <= ALL_COLUMNS for number in range(1, 60))


def test_a_week_of_decisions_is_a_light_page() -> None:
    """Of 40,320 ticks, each with a sentence of its own, and half a million requests, under six policies."""
    found = compared()
    base = found.outcomes[2].replay
    ticks, copies = 40_320, 100
    many = np.resize(np.arange(len(base.decisions)), ticks)
    decisions = tuple(
        replace(
            base.decisions[at],
            time=15.0 * tick,
            sentence=f"{base.decisions[at].sentence} at tick {tick}",
            forecast=Forecast(15.0 * tick + 197.3, "trend", 4 + at / 7, 5 + at / 7, 0.9),
            came=Came(15.0 * tick, 4 + at / 3),
        )
        for tick, at in enumerate(many.tolist())
    )
    timeline = base.timeline
    long = replace(
        base,
        decisions=decisions,
        timeline=Timeline(
            np.arange(ticks, dtype=np.float64) * 15.0,
            timeline.created[many],
            timeline.ready[many],
            timeline.draining[many],
            timeline.waiting[many],
            timeline.running[many],
        ),
        arrived_at_seconds=np.sort(np.tile(base.arrived_at_seconds, copies) * 15.0 * ticks / 900),
        ttft=np.tile(base.ttft, copies),
        tpot=np.tile(base.tpot, copies),
        attained=np.tile(base.attained, copies),
        end_seconds=15.0 * ticks,
    )
    week = replace(found, outcomes=tuple(replace(each, replay=long) for each in found.outcomes))
    made = comparison_page(week)
    assert len(made.encode()) < 3 * MEGABYTE
    report = Structure(made)
    assert report.problems == []
    assert len(chart(report, "replicas-0")["said"]["sentences"]) == columns(6)
    assert len(chart(report, "ttft-chart")["series"][0]["y"]) == ticks // 20
    assert len(chart(report, "load-chart-5")["series"][0]["y"]) <= columns(6)
    assert len(chart(report, "coverage-chart")["series"][0]["y"]) == 2 * 168
    assert len(chart(report, "budget-chart")["series"][0]["y"]) <= 362
    assert "greatest of them; --decisions writes all" in report.text
    assert "A point stands for" in report.text


def test_intervals_of_several_seeds_are_drawn() -> None:
    found = compared()
    first = found.outcomes[0]
    other = replace(first.figures[0], seed=1, slo_attainment=0.5, gpu_hours=first.figures[0].gpu_hours + 1)
    several = replace(found, seeds=(0, 1), outcomes=(replace(first, figures=(first.figures[0], other)),))
    dot = frontier(several, ()).dots[0]
    assert dot.x_interval is not None
    assert 0 <= dot.x_interval[0] < dot.x < dot.x_interval[1] <= 1
    told = Structure(comparison_page(several))
    assert told.problems == []
    assert "2; charts show seed 0" in told.text
    assert "Of seed 0 alone, as all charts." in told.text
