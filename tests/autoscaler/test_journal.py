"""The journal keeps every decision with its inputs, within bounds, and gives back exactly what it was given."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.journal import Entry, Journal, decoded, encoded, newest_entry, targets
from autoscaler.loop import Outcome
from policies.scaling.decision import Binding, Decision, Forecast
from policies.scaling.observation import Distribution, Observation, Pod, PodSample, PodStage, SampleState

numbers = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | numbers
text = st.text(st.characters(codec="utf-8"), max_size=12)
counts = st.integers(0, 10_000)
distributions = st.builds(Distribution, numbers, numbers, numbers, numbers, numbers | st.just(inf), numbers)
samples = st.builds(
    PodSample,
    time=maybe,
    state=st.sampled_from(SampleState),
    requests_running=maybe,
    waiting_by_reason=st.lists(st.tuples(text, numbers), max_size=2).map(tuple),
    kv_cache_usage=maybe,
    prompt_tokens=maybe,
    ttft=st.none() | distributions,
    tpot=st.none() | distributions,
)
pods = st.builds(
    Pod,
    name=text,
    stage=st.sampled_from(PodStage),
    created_at=numbers,
    ready_at=maybe,
    uid=text,
    restarts=counts,
    sample=st.none() | samples,
)
observations = st.builds(
    Observation,
    time=numbers,
    desired=counts,
    pods=st.lists(pods, max_size=3).map(tuple),
    rolling=st.booleans(),
    arrivals_total=maybe,
    problems=st.lists(text, max_size=2).map(tuple),
)
decisions = st.builds(
    Decision,
    time=numbers,
    replicas=counts,
    wanted=counts,
    desired=counts,
    binding=st.sampled_from(Binding),
    sentence=text,
    horizon_seconds=numbers,
    forecast=st.none() | st.builds(Forecast, numbers, text, numbers, numbers, numbers),
    demand=maybe,
    capacity=maybe,
    clips=st.lists(text, max_size=2).map(tuple),
)
entries = st.builds(
    Entry,
    target=text,
    time=numbers,
    outcome=st.sampled_from(Outcome),
    problem=text,
    observation=st.none() | observations,
    decision=st.none() | decisions,
)


def entry(target: str = "inference/llama", time: float = 1.0, sentence: str = "stays") -> Entry:
    decision = Decision(time, 3, 3, 3, Binding.TPOT, sentence)
    return Entry(target, time, Outcome.UNCHANGED, "", Observation(time, 3, ()), decision)


@given(entries)
def test_what_is_written_is_read_back_the_same(written: Entry) -> None:
    line = encoded(written)
    assert line.count(b"\n") == 1
    assert decoded(line) == written


def test_entries_are_found_by_target_and_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for time in (1.0, 2.0, 4.0):
        journal.record(entry(time=time))
    journal.record(entry("inference/other", time=3.0))
    journal.close()
    assert newest_entry(tmp_path, "inference/llama") == entry(time=4.0)
    assert newest_entry(tmp_path, "inference/llama", 3.9) == entry(time=2.0)
    assert newest_entry(tmp_path, "inference/llama", 0.5) is None
    assert newest_entry(tmp_path, "inference/lla") is None
    assert targets(tmp_path) == ("inference/llama", "inference/other")


def test_files_are_bounded_in_size_and_number_and_the_newest_are_kept(tmp_path: Path) -> None:
    length = len(encoded(entry(time=10.0)))
    journal = Journal(tmp_path, file_bytes=3 * length, files=2)
    for time in range(10, 20):
        journal.record(entry(time=float(time)))
    journal.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    assert all(file.stat().st_size <= 3 * length for file in files)
    assert newest_entry(tmp_path, "inference/llama") == entry(time=19.0)
    assert newest_entry(tmp_path, "inference/llama", 16.0) == entry(time=16.0)
    assert newest_entry(tmp_path, "inference/llama", 12.0) is None
    assert journal.dropped == 0


def test_a_restart_goes_on_in_the_newest_file_after_a_torn_line(tmp_path: Path) -> None:
    for time in (1.0, 2.0):
        journal = Journal(tmp_path)
        journal.record(entry(time=time))
        journal.close()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + encoded(entry(time=3.0))[:-20])
    journal = Journal(tmp_path)
    journal.record(entry(time=4.0))
    journal.close()
    assert len(list(tmp_path.iterdir())) == 1
    assert newest_entry(tmp_path, "inference/llama", 3.5) == entry(time=2.0)
    assert newest_entry(tmp_path, "inference/llama") == entry(time=4.0)


def test_a_disk_that_fails_is_told_once_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Journal, line: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "_write", full)
    journal = Journal(tmp_path)
    with caplog.at_level(logging.ERROR):
        for time in (1.0, 2.0, 3.0):
            journal.record(entry(time=time))
        journal.close()
    assert journal.dropped == 3
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Journal(tmp_path / "file" / "journal")


def test_an_entry_differs_when_any_input_does() -> None:
    """What makes the comparison above worth something."""
    assert decoded(encoded(entry())) != replace(entry(), problem="x")
