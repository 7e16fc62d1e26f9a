"""The whole autoscaler lets an idle target rest, and is not blind for ever once no pod tells it anything."""

from __future__ import annotations

from pathlib import Path

from tests.autoscaler.stack import TICK_SECONDS, Stack
from tests.stand_ins.prometheus import StandInPod

IDLE = 2 * TICK_SECONDS


async def test_it_rests_and_a_gateway_wakes_it_for_as_long_as_somebody_asks(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        target = await stack.target(2, minReplicas=0, idleSeconds=IDLE, wake={"query": "queued"})
        gateway = StandInPod("edge", "gateway", "10.1.0.1", "queued 0\n")

        async def turns(times: int) -> None:
            for _ in range(times):
                stack.prometheus.pods = [*(pod for pod in stack.prometheus.pods if pod is not gateway), gateway]
                await stack.turns(target, 1)

        await turns(3)
        assert stack.replicas > 0
        stack.rate = 0.0
        await turns(5)
        assert stack.replicas == 0
        assert target.history.last is not None
        assert target.history.last.problems == ()
        gateway.page = "queued 3\n"
        await turns(1)
        assert stack.replicas == 1
        await turns(4)
        assert stack.replicas == 1
        gateway.page = None
        await turns(4)
        assert stack.replicas == 1, "what is not known is not zero"
        gateway.page = "queued 0\n"
        await turns(5)
        assert stack.replicas == 0
        told = [event.message for event in stack.events if event.reason == "Rescaled"]
        assert "nothing was asked of it for 2 min" in told[-1]


async def test_at_zero_who_asks_by_name_is_heard_also_while_prometheus_is_away(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        target = await stack.target(1, minReplicas=0, idleSeconds=IDLE)
        stack.rate = 0.0
        await stack.turns(target, 6, until=lambda: stack.replicas == 0)
        assert stack.replicas == 0
        stack.prometheus.faults.status = 503
        await stack.turns(target, 2)
        assert stack.replicas == 0
        assert target.history.last is not None
        assert "HTTP 503" in target.history.last.problems[0]
        assert stack.events[-1].reason == "HeldMetricsIncomplete"
        target.asked_at = stack.now
        await stack.turns(target, 1)
        assert stack.replicas == 1
        before = target.history
        await stack.turns(target, 2 * round(IDLE / TICK_SECONDS))
        assert (stack.replicas, target.history) == (1, before), "with a pod to be measured it is blind without"
        stack.prometheus.faults.status = 200
        await stack.turns(target, 6, until=lambda: stack.replicas == 0)
        assert stack.replicas == 0


async def test_a_program_begun_anew_does_not_believe_in_idleness_that_it_has_not_watched(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        target = await stack.target(1, minReplicas=0, idleSeconds=IDLE)
        stack.rate = 0.0
        await stack.turns(target, 2)
        (anew,) = stack.more_targets(target, 1)
        await stack.turns(anew, 2)
        assert stack.replicas == 1
        assert anew.history.idleness.quiet_since is not None
        await stack.turns(anew, 4, until=lambda: stack.replicas == 0)
        assert stack.replicas == 0
        (at_zero,) = stack.more_targets(target, 1)
        await stack.turns(at_zero, 2)
        assert stack.replicas == 0
