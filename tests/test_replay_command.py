"""`preheat replay`, `size` and `sweep` as a user runs them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import preheat
from simulations.traces import shipped_trace

WORLD = "--engine llama2-7b_a40_tp1 --slo-ttft 3 --slo-tpot 0.1 --cold-start 60 --max 9 --start 3".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    short = shipped_trace().until(200)
    path = tmp_path_factory.mktemp("traces") / "short.csv"
    columns = (short.arrived_at_seconds, short.prompt_tokens, short.output_tokens)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("arrived_at", "num_prefill_tokens", "num_decode_tokens"))
        writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
    return str(path)


def run(command: str, trace: str, *words: str, world: list[str] = WORLD) -> Result:
    return CliRunner().invoke(preheat.main, [command, trace, *world, *words])


def test_a_table_on_the_terminal_and_all_files(trace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["preheat", "replay", "here"])
    out, html, folder = tmp_path / "out.json", tmp_path / "out.html", tmp_path / "decisions"
    files = ("--json", str(out), "--html", str(html), "--decisions", str(folder), "--gpu-hour-price", "2")
    result = run("replay", trace, "--policy", "static:4", "--policy", "preheat", "--policy", "hpa", *files)
    assert result.exit_code == 0, result.output
    for shown in ("static:4", "preheat", "hpa", "GPU-hours", "dollars", "No policy can go below"):
        assert shown in result.output
    told = json.loads(out.read_text())
    assert [each["name"] for each in told["policies"]] == ["static:4", "preheat", "hpa"]
    assert told["command"] == "preheat replay here"
    assert sorted(path.name for path in folder.iterdir()) == ["hpa.csv", "preheat.csv", "static-4.csv"]
    assert html.read_text().startswith("<!")


def test_files_that_a_shell_wrote_out_are_policies_too(trace: str) -> None:
    result = run("replay", trace, "--policy", "static:4", "static:5")
    assert result.exit_code == 0, result.output
    assert "static:5" in result.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--policy hpaa", "policy 'hpaa' is not known: did you mean hpa?"),
        ("--policy hpa --min 10", "--max (9) is less than --min (10): raise --max or lower --min"),
        ("", "there is no policy to replay: give --policy NAME or FILE"),
        ("--policy hpa --jobs many", "--jobs is 'many': give a number of processes"),
        ("--policy hpa --json /nowhere/out.json", "/nowhere/out.json cannot be written: there is no folder /nowhere"),
        ("--policy hpa --gpu-hour-price -1", "--gpu-hour-price is -1: give a price of at least 0"),
        ("--policy hpa --prefix-cache", "trace short does not tell the blocks of its prompts"),
        ("--policy hpa --policy keda --prefix-cache --jobs 2", "trace short does not tell the blocks of its prompts"),
        ("--policy hpa --metrics nowhere.yaml", "nowhere.yaml: does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(trace: str, words: str, sentence: str) -> None:
    result = run("replay", trace, *words.split())
    assert result.exit_code == 2
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_trace_that_is_not_there_or_lacks_columns_is_told(tmp_path: Path) -> None:
    nowhere = run("replay", str(tmp_path / "none.csv"), "--policy", "hpa")
    assert (nowhere.exit_code, nowhere.stderr.count("\n")) == (2, 1)
    (tmp_path / "odd.csv").write_text("when,what\n1,2\n")
    odd = run("replay", str(tmp_path / "odd.csv"), "--policy", "hpa")
    assert odd.exit_code == 2
    assert "when, what" in odd.stderr
    asked = run("replay", "prometheus:http://127.0.0.1:1?target=nobody", "--policy", "hpa")
    assert asked.exit_code == 2
    assert "target 'nobody' is not NAMESPACE/NAME" in asked.stderr


def test_size_answers_twice(trace: str, tmp_path: Path) -> None:
    out = tmp_path / "size.json"
    result = run("size", trace, "--json", str(out))
    assert result.exit_code == 0, result.output
    assert "replicas at all times are the fewest that keep 99 %" in result.output
    told = json.loads(out.read_text())
    assert told["fixed"]["low"] <= told["fixed"]["replicas"] <= told["fixed"]["high"]
    assert [each["hour"] for each in told["hours"]] == [0]


def test_sweep_goes_on_where_it_was(trace: str, tmp_path: Path) -> None:
    world = [word for word in WORLD if word not in ("--cold-start", "60")]
    words = ("--policy", "static:4", "--out", str(tmp_path / "sweep"), "--cold-starts")
    first = run("sweep", trace, *words, "20", world=world)
    assert first.exit_code == 0, first.output
    second = run("sweep", trace, *words, "20,40", world=world)
    assert second.exit_code == 0, second.output
    assert "40 s" in second.output
    assert len((tmp_path / "sweep" / "points.jsonl").read_text().splitlines()) == 2
    wrong = run("sweep", trace, *words, "soon", world=world)
    assert (wrong.exit_code, wrong.stderr) == (2, "--cold-starts is 'soon': give seconds, as in 60,180,420\n")
