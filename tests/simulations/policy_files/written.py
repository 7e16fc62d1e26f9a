"""Objects as people write them, for tests: YAML into policies, and policies told what to see."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.files import ConfigError
from policies.scaling.observation import Observation
from simulations.policy_files.files import NamedPolicy, policies_of
from simulations.policy_files.metric_names import Api, Definitions
from tests.simulations.peers.seen import replicas

WAITING = "vllm:num_requests_waiting"


class Said:
    """Definitions of names, as a `--metrics` file has them."""

    def __init__(self, queries: Mapping[str, str]) -> None:
        self.queries = queries

    def query(self, name: str, api: Api) -> str | None:
        return self.queries.get(name)


def policies(folder: Path, text: str, *, metrics: Definitions | None = None, **settings: Any) -> list[NamedPolicy]:
    file = folder / "object.yaml"
    file.write_text(textwrap.dedent(text))
    return list(policies_of(file, max_replicas=50, metrics=metrics, **settings))


def refusals(folder: Path, text: str, **settings: Any) -> list[str]:
    """What is said of a file that is not taken, without its path."""
    with pytest.raises(ConfigError) as told:
        policies(folder, text, **settings)
    for problem in told.value.problems:
        assert problem.startswith(f"{folder}/object.yaml")
        assert "\n" not in problem
    return [problem.removeprefix(f"{folder}/object.yaml: ") for problem in told.value.problems]


def hpa(metrics: str = "", *, least: int = 1, most: int = 50, behavior: str = "") -> str:
    """An HPA; `metrics` and `behavior` in YAML's flow style."""
    lines = [
        "apiVersion: autoscaling/v2",
        "kind: HorizontalPodAutoscaler",
        "metadata: {name: mine}",
        "spec:",
        "  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: vllm}",
        f"  minReplicas: {least}",
        f"  maxReplicas: {most}",
        *([f"  metrics: {metrics}"] if metrics else []),
        *([f"  behavior: {behavior}"] if behavior else []),
    ]
    return "\n".join(lines)


def pods_metric(name: str = "vllm_num_requests_waiting", target: str = "10") -> str:
    wanted = f"{{type: AverageValue, averageValue: {target}}}"
    return f"[{{type: Pods, pods: {{metric: {{name: '{name}'}}, target: {wanted}}}}}]"


def external(name: str = WAITING, *, average: str = "", value: str = "") -> str:
    target = f"type: AverageValue, averageValue: {average}" if average else f"type: Value, value: {value}"
    return f"[{{type: External, external: {{metric: {{name: '{name}'}}, target: {{{target}}}}}}}]"


def trigger(query: str = f"sum({WAITING})", threshold: str = "5", *, metadata: str = "", more: str = "") -> str:
    """A prometheus trigger in flow style; `metadata` and `more` are further fields, each begun by a comma."""
    quoted = query.replace("'", "''")
    return f"{{type: prometheus, metadata: {{query: '{quoted}', threshold: '{threshold}'{metadata}}}{more}}}"


def scaled_object(*triggers: str, spec: str = "", annotations: str = "{}") -> str:
    """A ScaledObject; `spec` holds further fields, one a line."""
    lines = [
        "apiVersion: keda.sh/v1alpha1",
        "kind: ScaledObject",
        f"metadata: {{name: mine, annotations: {annotations}}}",
        "spec:",
        "  scaleTargetRef: {name: vllm}",
        *(f"  {line}" for line in textwrap.dedent(spec).strip().splitlines()),
        f"  triggers: [{', '.join(triggers or (trigger(),))}]",
    ]
    return "\n".join(lines)


def asked(named: NamedPolicy, *looks: Observation) -> list[int]:
    return replicas(named.policy, looks)
