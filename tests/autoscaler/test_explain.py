"""`preheat explain` tells a decision's story from the journal, or says what to ask instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autoscaler.explain import explain
from autoscaler.journal import Entry, Journal
from autoscaler.loop import Outcome
from cluster.files import ConfigError
from policies.scaling.decision import Binding, Decision, Forecast
from policies.scaling.observation import Observation, Pod, PodSample, PodStage, SampleState

NOON = 1_795_262_400.0  # 2026-11-21T12:00:00Z

POD = Pod("vllm-a", PodStage.READY, NOON - 900)
SAMPLE = PodSample(NOON - 4, SampleState.FRESH, requests_running=12.0, requests_waiting=3.0, kv_cache_usage=0.5)
SEEN = Observation(
    NOON,
    2,
    (
        replace(POD, sample=SAMPLE),
        replace(POD, name="vllm-b", sample=PodSample(NOON - 99, SampleState.STALE)),
        replace(POD, name="vllm-c", stage=PodStage.STARTING),
    ),
    problems=("vllm-b shows nothing new",),
)
DECIDED = Decision(
    NOON,
    replicas=5,
    wanted=7,
    desired=2,
    binding=Binding.FORECAST,
    sentence="wants 7: 8.1–11 requests/s foreseen; goes from 2 to 5",
    horizon_seconds=138.0,
    forecast=Forecast(NOON + 138, "trend", 8.1, 11.0, 0.95),
    demand=4.2,
    capacity=1.6,
    ready=2,
    coming=1,
    clips=("one step up is 3",),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    journal = Journal(tmp_path)
    journal.record(Entry("inference/llama", NOON, Outcome.RESCALED, "", SEEN, DECIDED))
    journal.record(Entry("inference/llama", NOON + 15, Outcome.BLIND, "Prometheus at http://p refuses connections"))
    journal.record(Entry("inference/qwen", NOON, Outcome.UNCHANGED))
    journal.record(Entry("staging/qwen", NOON, Outcome.UNCHANGED))
    journal.close()
    return tmp_path


@pytest.mark.parametrize(
    "at", ["2026-11-21T12:00:10Z", "2026-11-21T12:00:10", "2026-11-21T13:00:10+01:00", "1795262410"]
)
def test_the_story_has_inputs_with_ages_forecast_binding_clips_and_sentence(folder: Path, at: str) -> None:
    assert explain(folder, "inference/llama", at).splitlines() == [
        "inference/llama at 2026-11-21T12:00:00Z: written to scale",
        "  wants 7: 8.1–11 requests/s foreseen; goes from 2 to 5",
        "",
        "decided   2 → 5 replicas; wanted 7",
        "bound by  forecast",
        "clipped   one step up is 3",
        "supply    2 ready, 1 coming",
        "demand    4.2 requests/s; one replica bears 1.6 requests/s",
        "horizon   138 s",
        "forecast  8.1 requests/s expected, 11 requests/s at the 95% quantile, for 2026-11-21T12:02:18Z, by trend",
        "",
        "seen      at 2026-11-21T12:00:00Z: desired 2; 1 starting, 2 ready",
        "unseen    vllm-b shows nothing new",
        "  vllm-a  ready  fresh, 4 s old  running 12, waiting 3, KV cache 0.5",
        "  vllm-b  ready  stale, 99 s old",
        "  vllm-c  starting",
    ]


def test_without_a_time_it_is_the_last_turn_also_one_that_saw_nothing(folder: Path) -> None:
    assert explain(folder, "llama", None).splitlines() == [
        "inference/llama at 2026-11-21T12:00:15Z: the target could not be seen, so nothing was decided",
        "  Prometheus at http://p refuses connections",
    ]


@pytest.mark.parametrize(
    ("name", "at", "sentence"),
    [
        ("llama", "2026-11-21T11:59:00Z", "llama: the journal in FOLDER has no decision at or before 2026-11-21T11"),
        ("inference/lama", None, "inference/lama: the journal knows no such target; it knows inference/llama,"),
        ("qwen", None, "qwen: is in several namespaces: write one of inference/qwen, staging/qwen"),
        ("llama", "noon", "--at noon: is no time: write 2026-11-21T10:55:00Z or unix seconds"),
        ("llama", "nan", "--at nan: is no time"),
    ],
)
def test_a_question_without_an_answer_is_told_what_to_ask(
    folder: Path, name: str, at: str | None, sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        explain(folder, name, at)
    assert refused.value.problems[0].startswith(sentence.replace("FOLDER", str(folder)))


def test_a_decision_that_another_release_wrote_otherwise_is_told(tmp_path: Path) -> None:
    (tmp_path / "decisions-2026-11-21.jsonl").write_text('{"target":"inference/llama","time":1,"outcome":"of-old"}\n')
    with pytest.raises(ConfigError, match="not as this release writes it"):
        explain(tmp_path, "inference/llama", None)


def test_a_folder_without_a_journal_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        explain(tmp_path / "none", "llama", None)
    with pytest.raises(ConfigError, match="holds no decision"):
        explain(tmp_path, "llama", None)
