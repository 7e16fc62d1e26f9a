"""What a doctor makes of what Kubernetes shows: each ailment in a sentence with its remedy, and nothing of the well."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from autoscaler.ailments import Drain, drain_of, gpus_of, of_followers, of_lease, of_quotas, of_template
from cluster.findings import Finding, Findings, Level
from tests.manifests.examples import engines

NOW = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
METRIC = "preheat_replicas_published"


def template(**changes: Any) -> dict[str, Any]:
    """The pod of the first example, with its container changed; None takes a field away."""
    found: dict[str, Any] = copy.deepcopy(next(made for path, _, made in engines() if path.stem == "8b-a10"))
    container = found["spec"]["containers"][0]
    for key, value in changes.items():
        if key == "grace":
            found["spec"]["terminationGracePeriodSeconds"] = value
        elif value is None:
            del container[key]
        else:
            container[key] = value
    return found


def ill(found: Any) -> list[str]:
    return [line.sentence for line in found if line.level is not Level.OK]


@pytest.mark.parametrize("shipped", [made for _, _, made in engines()])
def test_nothing_is_amiss_with_an_example(shipped: Any) -> None:
    assert ill(of_template("x", shipped, 60.0)) == []


@pytest.mark.parametrize(
    ("made", "longest", "said"),
    [
        (template(readinessProbe=None), None, "no readinessProbe"),
        (template(startupProbe=None), None, "no startupProbe"),
        (template(livenessProbe={"initialDelaySeconds": 600}), None, "a probe waits 600 s however fast the start was"),
        (template(lifecycle=None), None, "no preStop hook"),
        (template(args=["--model=x"]), None, "without --shutdown-timeout"),
        (template(grace=60), None, "is 60, and preStop and --shutdown-timeout take 135: write 155 or more"),
        (template(), 200.0, "one request in a hundred takes longer than 200 s"),
    ],
)
def test_a_pod_that_starts_or_ends_badly_is_told(made: Any, longest: float | None, said: str) -> None:
    (sentence,) = ill(of_template("x", made, longest))
    assert said in sentence
    assert ": " in sentence


def test_a_drain_is_read_as_it_is_written() -> None:
    assert drain_of(template()) == Drain(150.0, True, 15.0, 120.0)
    by_shell = template(
        lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "sleep 20"]}}},
        command=["vllm", "serve"],
        args=["--shutdown-timeout", "30"],
    )
    assert drain_of(by_shell) == Drain(150.0, True, 20.0, 30.0)
    assert drain_of({"spec": {"containers": [{"image": "vllm"}]}}) == Drain(30.0, False, None, None)
    assert ill(of_template("x", {"spec": {}}, None)) == []


def quota(hard: int, used: int) -> dict[str, Any]:
    return {
        "metadata": {"name": "gpus"},
        "status": {"hard": {"requests.nvidia.com/gpu": str(hard)}, "used": {"requests.nvidia.com/gpu": str(used)}},
    }


def test_a_quota_below_the_ceiling_is_told_with_what_to_lower_it_by() -> None:
    assert gpus_of({"resources": {"limits": {"nvidia.com/gpu": "2"}}}) == 2
    (sentence,) = ill(of_quotas("x", [quota(4, 2)], 2, 3))
    assert sentence.startswith("ResourceQuota gpus leaves 2 GPUs, and 6 more belong to maxReplicas")
    assert sentence.endswith("lower maxReplicas by 2")
    assert (
        ill(of_quotas("x", [quota(8, 2), {"metadata": {"name": "cpu"}, "status": {"hard": {"cpu": "1"}}}], 2, 3)) == []
    )


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
    assert f"no HPA of it reads {METRIC}" in nobody


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
