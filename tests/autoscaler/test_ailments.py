"""What a doctor makes of what Kubernetes shows: each ailment in a sentence with its remedy, and nothing of the well."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from autoscaler.ailments import engine_of, gpus_of, of_followers, of_lease, of_probes, of_quotas, of_scrapes
from cluster.findings import Finding, Findings, Level
from tests.manifests.examples import engines

NOW = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
METRIC = "preheat_replicas_published"


def template(**changes: Any) -> dict[str, Any]:
    """The pod of the first example, with its container changed; None takes a field away."""
    found: dict[str, Any] = copy.deepcopy(next(made for path, _, made in engines() if path.stem == "8b-a10"))
    container = found["spec"]["containers"][0]
    for key, value in changes.items():
        if value is None:
            del container[key]
        else:
            container[key] = value
    return found


def ill(found: Any) -> list[str]:
    return [line.sentence for line in found if line.level is not Level.OK]


@pytest.mark.parametrize("shipped", [made for _, _, made in engines()])
def test_nothing_is_amiss_with_the_probes_of_an_example(shipped: Any) -> None:
    container = engine_of(shipped)
    assert container is not None
    assert of_probes("x", container).level is Level.OK


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"readinessProbe": None}, "no readinessProbe"),
        ({"startupProbe": None}, "no startupProbe"),
        ({"livenessProbe": {"initialDelaySeconds": 600}}, "a probe waits 600 s however fast the start was"),
    ],
)
def test_a_pod_that_starts_badly_is_told(changes: Any, said: str) -> None:
    container = engine_of(template(**changes))
    assert container is not None
    found = of_probes("x", container)
    assert found.level is not Level.OK
    assert said in found.sentence
    assert ": " in found.sentence


def test_the_container_that_serves_is_found_among_others() -> None:
    sidecar, engine = {"name": "proxy"}, {"name": "x", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    assert engine_of({"spec": {"containers": [sidecar, engine]}}) == engine
    assert engine_of({"spec": {"containers": [sidecar, {"image": "vllm/vllm-openai"}]}}) == {
        "image": "vllm/vllm-openai"
    }
    assert engine_of({"spec": {}}) is None
    assert gpus_of(engine) == 2


def quota(hard: int, used: int) -> dict[str, Any]:
    return {
        "metadata": {"name": "gpus"},
        "status": {"hard": {"requests.nvidia.com/gpu": str(hard)}, "used": {"requests.nvidia.com/gpu": str(used)}},
    }


def test_a_quota_below_the_ceiling_is_told_with_what_to_lower_it_to() -> None:
    small = of_quotas("x", [quota(6, 4)], replicas=2, gpus_a_replica=2, most=5)
    assert small is not None
    assert small.sentence.startswith("quota 'gpus' has 2 of 6 requests.nvidia.com/gpu left, room for 3 replicas")
    assert small.sentence.endswith("lower maxReplicas to 3")
    large = of_quotas("x", [quota(12, 4)], replicas=2, gpus_a_replica=2, most=5)
    assert large is not None
    assert large.level is Level.OK
    assert of_quotas("x", [], replicas=2, gpus_a_replica=2, most=5) is None


@pytest.mark.parametrize(
    ("seconds_ago", "level", "said"),
    [
        (2.0, Level.OK, "preheat-1 leads"),
        (60.0, Level.FAIL, "preheat-1 led last, 60 s ago"),
        (-60.0, Level.WARN, "set both clocks by NTP"),
    ],
)
def test_a_lease_tells_who_leads(seconds_ago: float, level: Level, said: str) -> None:
    renewed = datetime.fromtimestamp(NOW - seconds_ago, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    lease = {"spec": {"holderIdentity": "preheat-1", "renewTime": renewed, "leaseDurationSeconds": 8}}
    found = of_lease("leader", lease, NOW)
    assert (found.level, said in found.sentence) == (level, True)


def test_a_lease_that_nobody_holds_is_told() -> None:
    for lease in (None, {"spec": {"holderIdentity": ""}}, {}):
        assert "nobody leads" in of_lease("leader", lease, NOW).sentence


def test_a_lease_that_was_never_renewed_is_told() -> None:
    found = of_lease("leader", {"spec": {"holderIdentity": "preheat-1"}}, NOW)
    assert (found.level, "never renewed it" in found.sentence) == (Level.WARN, True)


def follower(metric: str = METRIC, **rules: Any) -> dict[str, Any]:
    source = {"metric": {"name": metric}, "target": {"type": "AverageValue", "averageValue": "1"}}
    behavior = {"scaleUp": rules, "scaleDown": rules}
    spec = {"metrics": [{"type": "External", "external": source}], "behavior": behavior}
    return {"metadata": {"name": "follows"}, "spec": spec}


def test_an_hpa_that_swallows_steps_is_told() -> None:
    assert ill(of_followers("x", [follower(tolerance="0")], METRIC)) == []
    (swallows,) = ill(of_followers("x", [follower()], METRIC))
    assert "from ten replicas up it takes no single step" in swallows
    assert "mode: Active" in swallows
    (nobody,) = ill(of_followers("x", [follower("cpu")], METRIC))
    assert f"nobody follows: apply an HPA on {METRIC}" in nobody
    of_keda = follower("s0-external", tolerance="0")
    of_keda["metadata"]["ownerReferences"] = [{"kind": "ScaledObject", "name": "x"}]
    assert ill(of_followers("x", [of_keda], METRIC)) == []
    assert ill(of_followers("x", [of_keda], METRIC, fewest=0)) == []
    (stays,) = ill(of_followers("x", [follower(tolerance="0")], METRIC, fewest=0))
    assert "goes no lower than 1: to zero an HPA follows only with Kubernetes' gate HPAScaleToZero" in stays


def test_findings_are_told_in_lines_and_as_json() -> None:
    findings = Findings()
    findings.ok("", "well")
    findings.warn("a/b", "so so: mend it")
    assert findings.text() == "ok    well\nwarn  a/b: so so: mend it"
    assert not findings.failed
    findings.fail("c", "broken: mend it")
    assert findings.as_json()["failed"] is True
    assert findings.lines[-1] == Finding(Level.FAIL, "c", "broken: mend it")
    assert findings.as_json()["findings"][1] == {"level": "warn", "about": "a/b", "sentence": "so so: mend it"}


@pytest.mark.parametrize(
    ("seconds", "level", "said"),
    [
        (14.2, Level.OK, "at least every 15 s"),
        (60, Level.WARN, "every 60 s and decided upon every 15 s: scrape them every 15 s"),
        (180, Level.FAIL, "more than 150 s is no measure, so nothing is scaled: scrape them every 15 s"),
    ],
)
def test_scrapes_that_are_too_few_are_told(seconds: float, level: Level, said: str) -> None:
    found = of_scrapes("x", seconds, tick_seconds=15, longest_seconds=150)
    assert found.level is level
    assert said in found.sentence
