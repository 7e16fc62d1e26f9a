"""The stage of the tests beside this one: the real parts work together, and the simulated vLLM is seen through them."""

from __future__ import annotations

import pytest

from tests.parts.control_plane import ControlPlane
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus
from tests.real.simulated_pods import SimulatedPods
from tests.real.workloads import Workload

pytestmark = pytest.mark.cluster


def test_a_load_on_real_pods_reads_in_prometheus_as_it_was(
    control_plane: ControlPlane, prometheus: Prometheus, namespace: str
) -> None:
    target = Workload(control_plane, namespace)
    target.create(2)
    with SimulatedPods(control_plane, prometheus, namespace) as pods:
        wait_until(lambda: target.ready == 2, within=60, what="two ready pods")
        prometheus.wait_value("count(vllm:num_requests_running)", 2)
        pods.bear(4.0)
        prometheus.wait_value("sum(vllm:request_success_total)", 20, within=60)
        pods.bear(0.0)
        wait_until(lambda: pods.truth.finished == pods.truth.arrived, within=30, what="all of them answered")
        prometheus.wait_value("sum(vllm:request_success_total)", pods.truth.finished)
        assert prometheus.value("sum(vllm:time_to_first_token_seconds_count)") == pods.truth.arrived
        assert prometheus.value("sum(vllm:prompt_tokens_total)") == pods.truth.arrived * pods.speed.prompt_tokens
        assert prometheus.value("sum(vllm:generation_tokens_total)") == pods.truth.finished * pods.speed.output_tokens
        assert prometheus.value("max(vllm:num_requests_running + vllm:num_requests_waiting)") == 0
        assert prometheus.value("count(count by (namespace, pod) (up == 1))") == 2


def test_more_than_a_server_bears_waits(control_plane: ControlPlane, prometheus: Prometheus, namespace: str) -> None:
    target = Workload(control_plane, namespace)
    target.create(1)
    with SimulatedPods(control_plane, prometheus, namespace) as pods:
        wait_until(lambda: target.ready == 1, within=60, what="a ready pod")
        pods.bear(6.0)
        prometheus.wait_value("sum(vllm:num_requests_waiting)", 10, within=60)
        prometheus.wait_value("max(vllm:kv_cache_usage_perc)", 0.9, within=10)
