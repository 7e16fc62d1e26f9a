"""The `--metrics` file: what the names in an HPA mean, as Prometheus Adapter rules or as plain `name: query` pairs.

Of the rules `rules:` and `externalRules:` are read, each with `seriesQuery`, `name.matches`, `name.as` and
`metricsQuery`; a ConfigMap that holds them under `config.yaml` is read too. Label templates become nothing, for a
replay has one target only, and `<<.GroupBy>>` becomes `pod` or `namespace`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.files import ConfigError, documents
from simulations.policy_files.metric_names import Api, MetricError
from simulations.policy_files.promql import PromQLError, parse
from simulations.policy_files.scrapes import SOURCES

REMEDY = 'write Prometheus Adapter rules, or names with their queries, as in waiting: "avg(vllm:num_requests_waiting)"'


class _Name(BaseModel):
    model_config = ConfigDict(extra="forbid")
    matches: str = ""
    as_: Annotated[str, Field(alias="as")] = ""


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid")
    series_query: Annotated[str, Field(alias="seriesQuery")]
    series_filters: Annotated[list[dict[str, str]], Field(alias="seriesFilters")] = []
    resources: Any = None
    name: _Name = _Name()
    metrics_query: Annotated[str, Field(alias="metricsQuery")] = ""

    def names(self) -> Iterator[tuple[str, str]]:
        """What it calls each series that it finds: the metric's name and the series."""
        wanted = re.match(r"\s*([a-zA-Z_:][\w:]*)?", self.series_query)
        exact = wanted[1] if wanted else None
        by_name = re.search(r'__name__\s*=~\s*"([^"]*)"', self.series_query)
        pattern = re.compile(exact if exact else by_name[1].replace("\\\\", "\\") if by_name else ".*")
        for series in dict.fromkeys([*([exact] if exact else []), *SOURCES]):
            if not pattern.fullmatch(series) or not all(self._passes(each, series) for each in self.series_filters):
                continue
            match = re.search(self.name.matches, series) if self.name.matches else None
            if self.name.matches and match is None:
                continue
            yield self._renamed(series, match), series

    @staticmethod
    def _passes(filter_: Mapping[str, str], series: str) -> bool:
        is_, not_ = filter_.get("is"), filter_.get("isNot")
        return (is_ is None or re.search(is_, series) is not None) and (not_ is None or not re.search(not_, series))

    def _renamed(self, series: str, match: re.Match[str] | None) -> str:
        if match is None:
            return self.name.as_ or series
        # The adapter's default: the one group that the pattern has, or the whole name.
        template = self.name.as_ or ("$1" if match.re.groups == 1 else "$0")
        return re.sub(r"\$\{?(\d+)\}?", lambda found: match[int(found[1])] or "", template)

    def query(self, series: str, api: Api) -> str:
        group = "pod" if api == "pods" else "namespace"
        template = self.metrics_query or "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)"
        filled = re.sub(r"<<\s*\.Series\s*>>", series, template)
        filled = re.sub(r"<<\s*\.GroupBy\s*>>", group, filled)
        filled = re.sub(r",?\s*<<\s*\.LabelMatchers\s*>>\s*,?", "", filled)
        left = re.search(r"<<[^>]*>>", filled)
        if left:
            raise MetricError(f"{left[0]} is no part of a rule that is replayed: use .Series, .LabelMatchers, .GroupBy")
        return filled


@dataclass(frozen=True, slots=True)
class MetricsFile:
    """What a file says of names."""

    queries: Mapping[tuple[str, Api], str]

    def query(self, name: str, api: Api) -> str | None:
        # A rule of one API answers the other where that has none of its own: a query is a query.
        return self.queries.get((name, api)) or self.queries.get((name, "external" if api == "pods" else "pods"))


def read_metrics(path: Path) -> MetricsFile:
    """The definitions of a file; a ConfigError says what is wrong with it, one sentence each."""
    problems: list[str] = []
    queries: dict[tuple[str, Api], str] = {}
    for _, document in documents(path, REMEDY):
        if not isinstance(document, Mapping):
            problems.append(f"{path}: holds no fields: {REMEDY}")
            continue
        try:
            queries.update(_of(document))
        except (MetricError, PromQLError, ValidationError, re.error, yaml.YAMLError) as error:
            problems += [f"{path}: {sentence}" for sentence in _sentences(error)]
    if problems:
        raise ConfigError(tuple(problems))
    return MetricsFile(queries)


def _sentences(error: Exception) -> list[str]:
    if not isinstance(error, ValidationError):
        return [f"{error}: {REMEDY}" if isinstance(error, (re.error, yaml.YAMLError)) else str(error)]
    return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}: {REMEDY}" for each in error.errors()]


def _of(document: Mapping[str, Any]) -> dict[tuple[str, Api], str]:
    if document.get("kind") == "ConfigMap":
        data = document.get("data")
        text = data.get("config.yaml") if isinstance(data, Mapping) else None
        inner = yaml.safe_load(text) if isinstance(text, str) else None
        if not isinstance(inner, Mapping):
            raise MetricError("data.config.yaml of the ConfigMap holds no rules: write them under it")
        document = inner
    rules = document.get("rules")
    if isinstance(rules, Mapping):  # the chart's values have them one level lower
        document, rules = {"rules": rules.get("custom", []), "externalRules": rules.get("external", [])}, None
    if not {"rules", "externalRules"} & set(document):
        return _pairs(document)
    found: dict[tuple[str, Api], str] = {}
    for key, api in (("rules", "pods"), ("externalRules", "external")):
        found.update(_ruled(key, document.get(key) or [], "pods" if api == "pods" else "external"))
    return found


def _ruled(key: str, rules: Any, api: Api) -> dict[tuple[str, Api], str]:
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise MetricError(f"{key} is no list: write one rule an entry")
    found: dict[tuple[str, Api], str] = {}
    for number, rule in enumerate(rules, 1):
        try:
            read = _Rule.model_validate(rule)
            for name, series in read.names():
                found.setdefault((name, api), read.query(series, api))
        except MetricError as error:
            raise MetricError(f"{key}, rule {number}: {error}") from None
    return found


def _pairs(document: Mapping[str, Any]) -> dict[tuple[str, Api], str]:
    found: dict[tuple[str, Api], str] = {}
    for name, query in document.items():
        if not isinstance(query, str):
            raise MetricError(f"{name} is {query!r}: write its query in PromQL")
        try:
            parse(query)
        except PromQLError as error:
            raise MetricError(f"{name}: {error}") from None
        found[str(name), "pods"] = found[str(name), "external"] = query
    return found
