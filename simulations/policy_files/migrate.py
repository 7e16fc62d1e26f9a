"""`preheat migrate`: an HPA or a ScaledObject made into a VLLMAutoscaler that says what each of its lines became.

The object is read as a replay reads it, metric by metric: one that cannot be replayed is left out and named. What
is wrong with the object stands above what it becomes, and so does the command that replays both side by side.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import yaml

from cluster.files import ConfigError
from cluster.vllm_metrics import DISTRIBUTIONS, REQUEST_TIMES
from policies.scaling.resource_reading import InvalidResourceError, read
from simulations.policy_files import migrate_text
from simulations.policy_files.fields import FieldsError, hint, without_empty
from simulations.policy_files.files import STARTS_AT, items, name_of
from simulations.policy_files.hpa_file import read_hpa
from simulations.policy_files.keda_law import PrometheusTrigger, WrittenKeda
from simulations.policy_files.measures import Measure
from simulations.policy_files.metric_names import Definitions, NoDefinitions
from simulations.policy_files.migrate_text import Fate, Floor, Migrated, Said
from simulations.policy_files.promql import Aggregate, Binary, Call, Expression, Number, selectors
from simulations.policy_files.rest import Rest, rest_of, whole
from simulations.policy_files.scaled_object import (
    DEFAULT_MAX_REPLICAS,
    NEVER_WAKES,
    ReadScaledObject,
    read_scaled_object,
)

R = TypeVar("R")

REMEDY = "write an HorizontalPodAutoscaler or a ScaledObject"
_KINDS = ["HorizontalPodAutoscaler", "ScaledObject"]
_OF_METRIC = re.compile(r"spec\.(?:metrics|triggers)\[(\d+)\]: (.*)", re.DOTALL)

TTFT_SECONDS, TPOT_SECONDS, ATTAINMENT = 2.5, 0.1, 0.99
"""Taken where the object promises nothing: edges of vLLM's buckets, so that attainment is measured exactly."""


def migrated(
    stated: Sequence[tuple[int, Any]], source: str, *, url: str | None = None, metrics: Definitions | None = None
) -> str:
    """The YAML of what every document of a file becomes; a ConfigError says all that is wrong with any of them.

    `source` is the file's name, "-" for standard input. `url` is that of Prometheus, where the object has none or
    another is meant; `metrics` says what metrics' names mean.
    """
    found = [each for number, document in stated for each in items(number, document)]
    texts: list[str] = []
    problems: list[str] = []
    for number, document in found:
        where = source if len(found) == 1 else f"{source}, document {number}"
        try:
            text = migrate_text.written(_of(without_empty(document), url, metrics or NoDefinitions()), source)
            read(yaml.safe_load(text))  # what the autoscaler would refuse is not handed out
            texts.append(text)
        except (FieldsError, InvalidResourceError) as error:
            problems += [f"{where}: {problem}" for problem in error.problems]
        except yaml.YAMLError as error:
            problems.append(f"{where}: cannot be written as YAML: {' '.join(str(error).split())}: take it out")
        except RecursionError:
            problems.append(f"{where}: contains itself through a YAML anchor: write it out without")
    if problems:
        raise ConfigError(tuple(dict.fromkeys(problems)))
    return "---\n".join(texts)


def _of(document: Any, url: str | None, metrics: Definitions) -> Migrated:
    if not isinstance(document, Mapping):
        raise FieldsError([f"holds no fields: {REMEDY}"])
    kind, version = str(document.get("kind", "")), str(document.get("apiVersion", ""))
    match kind:
        case "HorizontalPodAutoscaler":
            if version != "autoscaling/v2":
                remedy = (
                    f"kubectl get hpa.v2.autoscaling {name_of(document) or 'NAME'} -o yaml gives it as autoscaling/v2"
                )
                raise FieldsError([f"apiVersion is '{version}', which knows less than is migrated: {remedy}"])
            return _of_hpa(document, url, metrics)
        case "ScaledObject":
            if version != "keda.sh/v1alpha1":
                raise FieldsError([f"apiVersion is '{version}': write keda.sh/v1alpha1"])
            return _of_scaled_object(document, url, metrics)
        case "VLLMAutoscaler":
            raise FieldsError(["is a VLLMAutoscaler already: there is nothing to migrate"])
        case _:
            raise FieldsError([f"kind is '{kind}': {hint(kind, _KINDS) if kind else REMEDY}"])


# -- an HPA --------------------------------------------------------------------------------------------------------


def _of_hpa(document: Mapping[str, Any], url: str | None, metrics: Definitions) -> Migrated:
    owners = _mapping(document, "metadata").get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        if isinstance(owner, Mapping) and owner.get("kind") == "ScaledObject":
            raise FieldsError([f"KEDA made it and will make it again: migrate the ScaledObject {owner.get('name')}"])
    spec = _mapping(document, "spec")
    least = spec.get("minReplicas", 1)
    sound = {**document, "spec": {**spec, "minReplicas": 1} if least == 0 else spec}
    told = _Told()
    if not spec.get("metrics"):
        told.wrong.append("it names no metric, which means CPU at 80 %: that says nothing of how busy a GPU is")
        sound = _with(sound, "metrics", [_ANY_METRIC])
    one, kept = _readable(sound, "metrics", _ANY_METRIC, told, lambda thing: read_hpa(thing, metrics))
    measures = (one.meant or one.written).measures if kept else ()
    told.wrong += _named(one.notes, "an HPA finds no metric of that name unless an adapter makes it, and never scales")
    told.wrong += one.mistakes
    for number, measure in zip(kept, measures, strict=True):
        was = one.written.measures[kept.index(number)]
        kind = {"pods": "AverageValue over the pods", "average": "AverageValue", "value": "Value"}[was.kind]
        told.take(f"metrics[{number}] {was.name}, {kind} {was.target:g}", measure)
    fewest = Said(1, "it said nothing, which is 1") if "minReplicas" not in spec else Said(least, "as it was")
    if least == 0:
        fewest = Said(1, "was 0; at zero no pod tells of a request, so name in wake.query what does, and write 0 again")
    told.behave(_mapping(spec, "behavior"), "behavior")
    server = Said(url, "as you said") if url else _URL_UNKNOWN
    return told.migrated(document, fewest, Said(one.written.hpa.max_replicas, "as it was"), server)


_ANY_METRIC = {
    "type": "Pods",
    "pods": {
        "metric": {"name": "vllm:num_requests_waiting"},
        "target": {"type": "AverageValue", "averageValue": "1"},
    },
}
"""In place of those that cannot be read, so that the rest is."""
_URL_UNKNOWN = Said("http://prometheus.monitoring:9090", "fill in: an HPA does not say where Prometheus is")


# -- a ScaledObject ------------------------------------------------------------------------------------------------


def _of_scaled_object(document: Mapping[str, Any], url: str | None, metrics: Definitions) -> Migrated:
    spec = _mapping(document, "spec")
    told = _Told()

    def reading(thing: Mapping[str, Any]) -> ReadScaledObject:
        return read_scaled_object(thing, metrics, STARTS_AT, DEFAULT_MAX_REPLICAS)

    # Whether it is paused is no matter of what it would do.
    metadata = _mapping(document, "metadata")
    noted = _mapping(metadata, "annotations")
    paused = {key for key in noted if key.startswith("autoscaling.keda.sh/paused")}
    annotations = {key: value for key, value in noted.items() if key not in paused}
    thing = {**document, "metadata": {**metadata, "annotations": annotations}}
    if not spec.get("triggers"):
        told.wrong.append("it names no trigger, and KEDA refuses it: nothing scales the target")
        thing = _with(thing, "triggers", [_ANY_TRIGGER])
    one, kept = _readable(thing, "triggers", _ANY_TRIGGER, told, reading)
    law = one.meant if one.meant is not None else one.written
    triggers = law.scaled_object.triggers if kept and isinstance(law, WrittenKeda) else ()
    said = 'a query for it answers nothing, which KEDA takes for 0 unless ignoreNullValues is "false"'
    told.wrong += _named(one.notes, said)
    rest = rest_of(spec)
    told.wrong += [each for each in one.mistakes if not (rest and each.startswith(NEVER_WAKES))]
    told.rest = rest
    for number, trigger in zip(kept, triggers, strict=True):
        fields = spec["triggers"][number]
        name = f"triggers[{number}] {fields.get('type')}{f' {trigger.name}' if fields.get('name') else ''}"
        if isinstance(trigger, PrometheusTrigger):
            shown = " ".join(str(fields["metadata"]["query"]).split())
            kind = fields.get("metricType", "AverageValue")
            told.take(f"{name}, {shown}, {kind} {fields['metadata']['threshold']}", trigger.measure)
        else:
            told.schedule(name, fields["metadata"], trigger.replicas, one.max_replicas)
    wakes = {f"triggers[{number}]" for number in (rest.wakes if rest else ())}
    told.fates = [
        replace(fate, became=f"wake.query below; else {fate.became}") if fate.line in wakes else fate
        for fate in told.fates
    ]
    told.fates += _other_fields(spec, sorted(paused), rest)
    behavior = _mapping(_mapping(_mapping(spec, "advanced"), "horizontalPodAutoscalerConfig"), "behavior")
    told.behave(behavior, "advanced.horizontalPodAutoscalerConfig.behavior")
    most = Said(one.max_replicas, "as it was")
    if "maxReplicaCount" not in spec:
        most = Said(DEFAULT_MAX_REPLICAS, "KEDA's own, as it named none: lower it to what your GPUs hold")
    return told.migrated(document, _fewest(spec, rest), most, _server(spec, url, told))


_ANY_TRIGGER = {"type": "prometheus", "metadata": {"query": "sum(vllm:num_requests_waiting)", "threshold": "1"}}


def _fewest(spec: Mapping[str, Any], rest: Rest | None) -> Said:
    least = whole(spec, "minReplicaCount", 0)
    if rest:
        return Said(0, "it rests at 0, as it did")
    if least == 0:
        return Said(1, "rested at 0, and nothing in it could wake it: name in wake.query what does, and write 0 again")
    if "idleReplicaCount" in spec:
        return Said(least, "its minReplicaCount; idleReplicaCount, below it, has no equal here")
    return Said(least, "its minReplicaCount")


def _server(spec: Mapping[str, Any], url: str | None, told: _Told) -> Said:
    triggers = spec.get("triggers", [])
    known = [_mapping(each, "metadata") for each in triggers]
    servers = list(dict.fromkeys(str(each["serverAddress"]) for each in known if each.get("serverAddress")))
    for number, each in enumerate(triggers):
        if each.get("authenticationRef"):
            remedy = "mount its secret and name the file in prometheus.bearerTokenFile, basicAuth or certFile"
            told.fates.append(Fate(f"triggers[{number}].authenticationRef", remedy))
        if _mapping(each, "metadata").get("unsafeSsl") == "true":
            remedy = "name the authority in prometheus.caFile, or write insecureSkipVerify: true"
            told.fates.append(Fate(f"triggers[{number}].metadata.unsafeSsl", remedy))
        if _mapping(each, "metadata").get("customHeaders"):
            told.fates.append(Fate(f"triggers[{number}].metadata.customHeaders", "has no equal: none is sent"))
    if url:
        return Said(url, "as you said")
    if not servers:
        return Said(str(_URL_UNKNOWN.value), "fill in: no trigger says where Prometheus is")
    if len(servers) > 1:
        return Said(servers[0], f"the first of its {len(servers)} servers: take the one that scrapes the vLLM pods")
    return Said(servers[0], "its serverAddress")


def _other_fields(spec: Mapping[str, Any], paused: Sequence[str], rest: Rest | None) -> Iterator[Fate]:
    """What stands beside triggers and bounds."""
    fates = {
        "pollingInterval": "left out: `preheat autoscaler --tick` says how often is decided, 15 s by default",
        "cooldownPeriod": "idleSeconds below" if rest else "left out: it is the wait before rest at zero",
        "initialCooldownPeriod": "left out: it is the wait before the first rest at zero",
        "idleReplicaCount": "left out: nothing here rests below minReplicas",
        "fallback": "left out: what cannot be read is never taken for a number; the fleet is held meanwhile",
    }
    yield from (Fate(key, said) for key, said in fates.items() if key in spec)
    advanced = _mapping(spec, "advanced")
    if advanced.get("scalingModifiers"):
        yield Fate("advanced.scalingModifiers", "left out: one number of several is what Preheat makes by itself")
    if advanced.get("restoreToOriginalReplicaCount"):
        yield Fate("advanced.restoreToOriginalReplicaCount", "left out: a target keeps its replicas when Preheat goes")
    yield from (Fate(f"annotation {name}", "left out: mode Shadow below writes nothing either") for name in paused)


# -- what both have ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Told:
    """What is gathered of one object."""

    wrong: list[str] = field(default_factory=list)
    fates: list[Fate] = field(default_factory=list)
    replayable: bool = True
    ttft: Said | None = None
    tpot: Said | None = None
    attainment: Said | None = None
    window: Said | None = None
    floors: list[Floor] = field(default_factory=list)
    rest: Rest | None = None

    def schedule(self, name: str, metadata: Mapping[str, str], replicas: int, most: int) -> None:
        """A cron trigger; KEDA never goes beyond its maximum either."""
        start, end, zone = metadata["start"], metadata["end"], metadata["timezone"]
        self.floors.append(Floor(start, end, zone, min(replicas, most)))
        fate = "schedule below, with replicas that are ready when it begins"
        self.fates.append(Fate(f"{name}, {replicas} replicas from {start} to {end}", fate))

    def take(self, name: str, measure: Measure) -> None:
        """A metric or trigger that could be read."""
        found = _promise(measure)
        if found is None:
            self.fates.append(Fate(name, _why_not(measure)))
            return
        promise, quantile = found
        is_first_token = promise == "ttftSeconds"
        said = Said(_seconds(measure), f"its {measure.name}")
        if is_first_token:
            self.ttft = said
        else:
            self.tpot = said
        if self.attainment is None or quantile > float(self.attainment.value):
            self.attainment = Said(quantile, f"the quantile of its {measure.name}")
        self.fates.append(Fate(name, f"objectives.{promise} and objectives.attainment below"))

    def behave(self, behavior: Mapping[str, Any], path: str) -> None:
        """Windows are kept, for they mean the same here; what softens a late reaction is not."""
        for direction, ours in (("scaleUp", ""), ("scaleDown", "behavior.scaleDown.windowSeconds below")):
            rules = _mapping(behavior, direction)
            if "stabilizationWindowSeconds" in rules:
                seconds = rules["stabilizationWindowSeconds"]
                fate = ours or "left out: a wish for more is followed at once, for what is ordered serves late anyway"
                self.fates.append(Fate(f"{path}.{direction}.stabilizationWindowSeconds {seconds}", fate))
                if ours:
                    self.window = Said(float(seconds), "as it was; 900 by default")
            if rules.get("policies"):
                remedy = f"left out: behavior.{direction}.maxStep would limit one decision, every 15 s"
                self.fates.append(Fate(f"{path}.{direction}.policies", remedy))
            if rules.get("selectPolicy") == "Disabled":
                remedy = "left out: write minReplicas as high as the fleet shall stay" if ours else "left out"
                self.fates.append(Fate(f"{path}.{direction}.selectPolicy Disabled", remedy))
            if "tolerance" in rules:
                self.fates.append(Fate(f"{path}.{direction}.tolerance", "left out: whole replicas are decided on"))

    def migrated(self, document: Mapping[str, Any], fewest: Said, most: Said, server: Said) -> Migrated:
        metadata = _mapping(document, "metadata")
        unsaid = "it promises none: write your own"
        return Migrated(
            kind=str(document["kind"]),
            name=str(metadata.get("name", "")),
            namespace=str(metadata["namespace"]) if metadata.get("namespace") else None,
            target=_mapping(_mapping(document, "spec"), "scaleTargetRef"),
            fewest=fewest,
            most=most,
            ttft=self.ttft or Said(TTFT_SECONDS, unsaid),
            tpot=self.tpot or Said(TPOT_SECONDS, unsaid),
            attainment=self.attainment or Said(ATTAINMENT, "the share of requests that keep both"),
            server=server,
            window=self.window,
            idle=self.rest.idle if self.rest else None,
            wake=self.rest.query if self.rest else None,
            floors=tuple(self.floors),
            wrong=tuple(dict.fromkeys(self.wrong)),
            fates=tuple(self.fates),
            replayable=self.replayable,
        )


def _readable(
    document: Mapping[str, Any],
    key: str,
    any_one: Mapping[str, Any],
    told: _Told,
    reading: Callable[[Mapping[str, Any]], R],
) -> tuple[R, list[int]]:
    """The object read without the metrics that cannot be, and the numbers of those that could."""
    given = _mapping(document, "spec").get(key)
    if not isinstance(given, list):  # refused
        return reading(document), []
    kept = list(range(len(given)))
    if given == [any_one]:  # there was none
        told.replayable, kept = False, []
    while True:
        try:
            return reading(_with(document, key, [given[number] for number in kept] or [dict(any_one)])), kept
        except FieldsError as error:
            found = [_OF_METRIC.fullmatch(problem) for problem in error.problems]
            if not kept or not all(found):
                raise
            said = [(int(match[1]), match[2]) for match in found if match is not None]
            told.fates += [Fate(f"{key}[{kept[place]}]", f"left out: {why}") for place, why in said]
            told.replayable = False
            kept = [number for place, number in enumerate(kept) if place not in dict(said)]


def _with(document: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {**document, "spec": {**_mapping(document, "spec"), key: copy.deepcopy(value)}}


def _mapping(document: Any, key: str) -> Mapping[str, Any]:
    value = document.get(key) if isinstance(document, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _named(notes: Sequence[str], consequence: str) -> list[str]:
    """The notes, with what follows from a name that nothing has."""
    return [f"{note}; {consequence}" if "is not one of vLLM's names" in note else note for note in notes]


def _promise(measure: Measure) -> tuple[str, float] | None:
    """Which of our objectives a quantile of a latency is, and the quantile."""
    call = _quantile(measure.tree)
    if call is None or not isinstance(call.arguments[0], Number):
        return None
    series = {each.series for each in selectors(call)}
    quantile = call.arguments[0].value
    if not 0 < quantile < 1:
        return None
    for field_name, promise in (("ttft", "ttftSeconds"), ("tpot", "tpotSeconds")):
        if series and series <= {f"{name}_bucket" for name in DISTRIBUTIONS[field_name]}:
            return promise, quantile
    return None


def _quantile(tree: Expression) -> Call | None:
    match tree:
        case Call(function="histogram_quantile"):
            return tree
        case Aggregate() if tree.operator in ("max", "avg"):
            return _quantile(tree.inner)
        case Binary(operator="*" | "or"):
            return _quantile(tree.left) or _quantile(tree.right)
        case _:
            return None


def _seconds(measure: Measure) -> float:
    """The target in seconds, where the query makes milliseconds of them."""
    match measure.tree:
        case Binary("*", Number(factor), _) | Binary("*", _, Number(factor)) if factor > 0:
            return round(measure.target / factor, 6)
        case _:
            return measure.target


def _why_not(measure: Measure) -> str:
    series = {each.series for each in selectors(measure.tree)}
    if any(each.startswith(names) for each in series for names in REQUEST_TIMES.values()):
        return (
            "left out: the time of a whole answer grows with its length; what replicas can keep is "
            "objectives.ttftSeconds and tpotSeconds"
        )
    return "left out: it is read of every pod, and what a replica bears is learnt, so no target is needed"
