"""What a name means where nobody says it, and where a `--metrics` file does."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.files import ConfigError
from simulations.policy_files.adapter import read_metrics
from simulations.policy_files.metric_names import Api, MetricError, NoDefinitions, of_metric, of_query
from simulations.policy_files.promql import PromQLError, parse
from tests.simulations.policy_files.written import Said

NOTHING = NoDefinitions()


@pytest.mark.parametrize(
    ("name", "query", "said"),
    [
        ("vllm:num_requests_waiting", "vllm:num_requests_waiting", ""),
        ("vllm_num_requests_waiting", "vllm_num_requests_waiting", ""),
        ("vllm_gpu_cache_usage_perc", "vllm_gpu_cache_usage_perc", ""),
        ("vllm_requests_running", "vllm:num_requests_running", "is not one of vLLM's names"),
        ("vllm_pending_requests", "vllm:num_requests_waiting", "is not one of vLLM's names"),
        ("waiting_requests", "vllm:num_requests_waiting", "is not one of vLLM's names"),
        ("gpu_cache_usage_ratio", "vllm:kv_cache_usage_perc", "is not one of vLLM's names"),
        (
            "request_latency_p99",
            "histogram_quantile(0.99, sum by (pod, le) (rate(vllm:e2e_request_latency_seconds_bucket[5m])))",
            "read as that quantile of vllm:e2e_request_latency_seconds",
        ),
        (
            "vllm_ttft_p95_ms",
            "1000 * histogram_quantile(0.95, sum by (pod, le) (rate(vllm:time_to_first_token_seconds_bucket[5m])))",
            "read as that quantile of vllm:time_to_first_token_seconds",
        ),
        (
            "vllm:time_to_first_token_seconds",
            "rate(vllm:time_to_first_token_seconds_sum[5m]) / rate(vllm:time_to_first_token_seconds_count[5m])",
            "read as the mean of vllm:time_to_first_token_seconds over 5 minutes",
        ),
        ("vllm:generation_tokens_total", "rate(vllm:generation_tokens_total[5m])", "only grows: read as its rate"),
        ("vllm:generation_tokens_per_second", "rate(vllm:generation_tokens_total[5m])", "is read as the rate of"),
    ],
)
def test_a_name_is_taken_for_what_it_most_plainly_means(name: str, query: str, said: str) -> None:
    meaning = of_metric(name, "pods", NOTHING)
    assert _without_places(meaning.tree) == _without_places(parse(query))
    assert bool(meaning.notes) == bool(said)
    assert said in " ".join(meaning.notes)


def _without_places(tree: object) -> str:
    import re

    return re.sub(r"place=\d+", "", repr(tree))


def test_for_an_external_metric_a_quantile_is_taken_over_all_pods() -> None:
    query = "histogram_quantile(0.9, sum by (le) (rate(vllm:request_queue_time_seconds_bucket[5m])))"
    assert _without_places(of_metric("queue_p90", "external", NOTHING).tree) == _without_places(parse(query))


def test_names_within_a_query_are_mended_and_said() -> None:
    meaning = of_query("sum(vllm_pending_requests) + max(request_latency_p99)", NOTHING)
    assert len(meaning.notes) == 2
    assert "vllm_pending_requests is not one of vLLM's names: read as vllm:num_requests_waiting" in meaning.notes
    bucket = of_query("histogram_quantile(0.9, sum by (le) (rate(vllm_ttft_seconds_bucket[2m])))", NOTHING)
    assert "read as vllm:time_to_first_token_seconds_bucket" in bucket.notes[0]
    own = of_query("sum(mine) / 2", Said({"mine": "vllm_queue_size > 1"}))
    assert _without_places(own.tree) == _without_places(parse("sum(vllm:num_requests_waiting > 1) / 2"))
    with pytest.raises(MetricError, match="character 10: cars is none of the series"):
        of_query("sum(rate(cars[5m]))", NOTHING)
    with pytest.raises(MetricError, match="write vllm:num_requests_waiting"):
        of_query("sum(vllm:num_request_waiting)", NOTHING)
    with pytest.raises(MetricError, match="loop is none of the series"):
        of_query("loop + 1", Said({"loop": "loop + 1"}))


def test_names_that_refer_to_each_other_in_a_circle_are_named() -> None:
    rules = Said({"a": "sum(b)", "b": "max(c)", "c": "sum(b) + 1"})
    for name in ("a", "b"):
        with pytest.raises(MetricError, match="metric b is told in a circle, by way of c: write one in vLLM's series"):
            of_metric(name, "external", rules)
    with pytest.raises(MetricError, match="metric a is told in a circle, by way of b: "):
        of_query("sum(a)", Said({"a": "sum(b)", "b": "sum(a)"}))
    twice = of_query("sum(a) + sum(b)", Said({"a": "b", "b": "vllm_queue_size"}))
    assert _without_places(twice.tree) == _without_places(
        parse("sum(vllm:num_requests_waiting) + sum(vllm:num_requests_waiting)")
    )


RULES = """
rules:
  - seriesQuery: 'vllm:num_requests_waiting{namespace!="",pod!=""}'
    resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
    name: {matches: "^vllm:(.*)$", as: "mine_$1"}
    metricsQuery: 'avg_over_time(<<.Series>>{<<.LabelMatchers>>}[1m])'
  - seriesQuery: '{__name__=~"^vllm:.*_tokens_total"}'
    seriesFilters: [{isNot: "prompt"}]
    name: {matches: "^vllm:(.*)_total$", as: "${1}_per_second"}
    metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>,engine="0"}[2m])) by (<<.GroupBy>>)'
externalRules:
  - seriesQuery: 'vllm:kv_cache_usage_perc'
    name: {as: cache}
    metricsQuery: 'max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
  - seriesQuery: 'vllm:num_requests_running'
"""
INDENTED = "".join(f"    {line}\n" for line in RULES.strip().splitlines())


@pytest.mark.parametrize(
    "text", [RULES, f"kind: ConfigMap\ndata:\n  config.yaml: |\n{INDENTED}"], ids=["rules", "ConfigMap"]
)
def test_prometheus_adapter_rules_say_what_names_mean(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    read = read_metrics(file)

    def query(name: str, api: Api) -> str | None:
        return read.query(name, api)

    assert query("mine_num_requests_waiting", "pods") == "avg_over_time(vllm:num_requests_waiting{}[1m])"
    expected = 'sum(rate(vllm:generation_tokens_total{engine="0"}[2m])) by (pod)'
    assert query("generation_tokens_per_second", "pods") == expected
    assert query("prompt_tokens_per_second", "pods") is None
    assert query("cache", "external") == "max(vllm:kv_cache_usage_perc{}) by (namespace)"
    assert query("vllm:num_requests_running", "external") == "sum(vllm:num_requests_running{}) by (namespace)"
    for name in ("mine_num_requests_waiting", "generation_tokens_per_second"):
        of_metric(name, "pods", read)


def test_the_charts_values_and_plain_pairs_are_read_too(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("rules:\n  custom:\n    - seriesQuery: 'vllm:num_requests_waiting'\n      name: {as: waiting}\n")
    assert read_metrics(file).query("waiting", "pods") == "sum(vllm:num_requests_waiting{}) by (pod)"
    file.write_text("waiting: avg(vllm:num_requests_waiting)\nbusy: sum(vllm:num_requests_running)\n")
    assert read_metrics(file).query("busy", "external") == "sum(vllm:num_requests_running)"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty: write Prometheus Adapter rules, or names with their queries"),
        ("- a", "holds no fields: write Prometheus Adapter rules"),
        ("waiting: 5", "waiting is 5: write its query in PromQL"),
        ("waiting: topk(1, a)", "waiting: query 'topk(1, a)', character 1: topk() is outside"),
        ("rules: 5", "rules is no list: write one rule an entry"),
        ("rules: [{}]", "seriesQuery: Field required: write Prometheus Adapter rules"),
        ("rules: [{seriesQuery: a, seriesquery: b}]", "seriesquery: Extra inputs are not permitted"),
        ("rules: [{seriesQuery: a, name: {matches: '('}}]", "unterminated subpattern"),
        ("rules: [{seriesQuery: a, metricsQuery: '<<.Foo>>'}]", "rules, rule 1: <<.Foo>> is no part of a rule that"),
        ("kind: ConfigMap", "data.config.yaml of the ConfigMap holds no rules: write them under it"),
    ],
)
def test_a_metrics_file_with_mistakes_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "metrics.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as told:
        read_metrics(file)
    assert len(told.value.problems) == 1
    assert told.value.problems[0].startswith(f"{file}: ")
    assert sentence in told.value.problems[0]


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist: check the path"):
        read_metrics(tmp_path / "none.yaml")
    assert issubclass(PromQLError, ValueError)
