"""Eight days of load read back for 100 targets of 3 pods, from the first question to the histories that hold it.

The code is the autoscaler's own, down to the sockets. Prometheus is another process that knows its answers beforehand:
what a real server takes to evaluate eight days is not in it and depends on its samples. The bound is the same bodies,
fetched by bare aiohttp and parsed by orjson, four at once as we ask for them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp
import orjson

from autoscaler.program import collect_rarely
from benchmarks.parts import canned_prometheus
from benchmarks.parts.canned_prometheus import PODS_A_TARGET
from benchmarks.parts.measuring import Row, held_bytes, seconds, show, show_machine, size, timed_async, times, within
from cluster.prometheus import Prometheus
from cluster.prometheus_history import HistoryTarget
from policies.scaling.history import History
from policies.scaling.resource import Prometheus as Settings
from policies.scaling.resource import PrometheusLabels
from tests.policies.scaling.story import policy

TARGETS: Final = 100
UNTIL: Final = 1_700_000_000.0
MOST_SECONDS: Final = 10.0


async def main() -> None:
    """Print one table."""
    show_machine()
    collect_rarely()
    with canned_prometheus.running(TARGETS, UNTIL) as url:
        prometheus = Prometheus(Settings(url=url))
        await refilled(prometheus)  # the answers are made when they are asked for the first time
        before = prometheus.connection.requests_made
        histories, took = await timed_async(refilled(prometheus))
        requests = prometheus.connection.requests_made - before
        async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(60)) as session:
            async with session.get("/ranges") as response:
                forms: list[dict[str, Any]] = orjson.loads(await response.read())
            fetched, bare = await timed_async(fetch_and_parse(session, forms))
        prometheus.close()
    parsing = f"fetch + orjson {seconds(bare.wall_seconds)}"
    bins = sum(len(series.sums) for history in histories for series in (history.fine, history.coarse) if series)
    show(
        f"a start with eight days of {TARGETS} targets of {PODS_A_TARGET} pods: {bins} bins in {requests} requests",
        [
            Row(
                "wall time",
                seconds(took.wall_seconds),
                parsing,
                times(took.wall_seconds, bare.wall_seconds),
                within(f"<= {MOST_SECONDS:.0f} s", took.wall_seconds <= MOST_SECONDS),
            ),
            Row(
                "processor time",
                seconds(took.cpu_seconds),
                f"fetch + orjson {seconds(bare.cpu_seconds)}",
                times(took.cpu_seconds, bare.cpu_seconds),
            ),
            Row("answers", size(fetched)),
            Row("histories", size(sum(held_bytes(history) for history in histories))),
        ],
    )


async def refilled(prometheus: Prometheus) -> list[History]:
    """What a hundred targets remember after their start."""
    asked = {}
    for number in range(TARGETS):
        namespace, name = canned_prometheus.target_name(number)
        asked[f"{namespace}/{name}"] = HistoryTarget(
            namespace, f"{name}-[a-z0-9]+-[a-z0-9]{{5}}", None, PrometheusLabels()
        )
    pasts = await prometheus.load_history(asked, UNTIL)
    judged = policy()
    return [History().refilled(past.bins, judged) for past in pasts.values()]


async def fetch_and_parse(session: aiohttp.ClientSession, forms: list[dict[str, Any]]) -> int:
    """How many bytes came."""
    places = asyncio.Semaphore(4)

    async def ask(form: dict[str, Any]) -> int:
        async with places, session.post("/api/v1/query_range", data=form) as response:
            body = await response.read()
            orjson.loads(body)
            return len(body)

    return sum(await asyncio.gather(*map(ask, forms)))


if __name__ == "__main__":
    asyncio.run(main())
