"""Asks a real Prometheus for what our evaluation of PromQL is held against, and keeps series and answers.

    python -m tests.simulations.policy_files.record_promql

The pages that it scrapes carry their own times, an hour ago, 15 s apart: three pods, one late, one gone before the
end, one that counts anew, with gaps and NaN.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.parts.processes import wait_until
from tests.parts.prometheus import HOST, Prometheus, Target

FILE = Path(__file__).parents[2] / "data" / "promql" / "answers.json"
SCRAPES, STEP_SECONDS = 40, 15.0
EDGES = ("0.1", "0.5", "1.0", "5.0", "+Inf")
PODS = ("a", "b", "c")
W, R, S = "vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:request_success_total"
K, B = "vllm:kv_cache_usage_perc", "vllm:time_to_first_token_seconds_bucket"
QUERIES = (
    W,
    f'{B}{{le="1.0"}}',
    f'{B}{{le=~"0.*|1.0"}} + 1',
    f'{B}{{le!~"0.*", le!="+Inf"}}',
    f'{S}{{finished_reason=""}}',
    f"sum({W})",
    f"avg({W})",
    f"max({K})",
    f"min by (pod) ({K})",
    f"count({W})",
    f"sum without (pod, instance, job) ({W})",
    f"sum({W}) / count({W})",
    f"sum by (pod) ({W}) / sum by (pod) ({R})",
    f"{W} / on (pod) {R}",
    f"{W} / ignoring (instance) {R}",
    f"{W} > 3",
    f"3 < {W}",
    f"{W} > bool 3",
    f"{W} >= {R}",
    f"{W} and {R} > 5",
    f"{W} unless {R} > 5",
    f"sum({W} > 1000) or vector(0)",
    f"{W} or {R}",
    f"rate({S}[1m])",
    f"rate({S}[5m])",
    f"sum(rate({S}[2m]))",
    f"irate({S}[2m])",
    f"increase({S}[90s])",
    f"delta({W}[2m])",
    f"rate({S}[15s])",
    f"rate({S}[20m])",
    f"avg_over_time({W}[2m])",
    f"max_over_time({K}[2m])",
    f"min_over_time({K}[1m30s])",
    f"sum_over_time({W}[1m])",
    f"count_over_time({W}[10m])",
    f"last_over_time({W}[10m])",
    f"histogram_quantile(0.95, sum by (le) (rate({B}[2m])))",
    f"histogram_quantile(0.5, sum by (le, pod) (rate({B}[5m])))",
    f"histogram_quantile(0.99, {B})",
    f"histogram_quantile(0, sum by (le) ({B}))",
    f"histogram_quantile(1, sum by (le) ({B}))",
    f"histogram_quantile(1.5, sum by (le) ({B}))",
    f'histogram_quantile(0.9, sum by (le) ({B}{{le!="+Inf"}}))',
    f"ceil({W} / 3)",
    f"floor({W} / 3)",
    f"round({W} / 4)",
    f"abs({W} - 5)",
    f"sqrt({W}) + exp({K}) - ln({R} + 1)",
    f"clamp_min({W}, 4)",
    f"clamp_max({W}, 4)",
    f"clamp({W}, 2, 6)",
    f"-{W} ^ 2",
    f"2 ^ 3 ^ 2 + 0 * sum({W})",
    f"10 - 4 - 3 * 2 + 0 * sum({W})",
    f"sum({W}) % 7",
    f"-sum({W}) % 7",
    f"sum({W}) / 0",
    f"-sum({W}) / 0",
    f"0 * sum({W}) / 0",
    f"vector(3) + sum({W})",
    f"scalar(sum({W})) * {K}",
    f"scalar({W}) + 1",
    f"sum({W}) == sum({W})",
    f"100 * avg({K}) > 50",
    f"sum(rate({S}[2m])) / sum(rate({S}[2m])) * 100",
    f"max({W}) - min({W}) + (sum({W}) / count({W})) * 2",
    f"0x10 + 1e1 + .5 + 0 * sum({W})",
    f"{W} / on () {R}",
)


class Pages:
    """What each pod shows at its n-th scrape, and how often it was scraped."""

    def __init__(self, base: float) -> None:
        self.base = base
        self.scraped = dict.fromkeys(PODS, 0)
        chance = random.Random(7)
        self.pages = {pod: list(self._of(place, chance)) for place, pod in enumerate(PODS)}

    def _of(self, place: int, chance: random.Random) -> Any:
        finished, buckets = 0.0, [0.0] * len(EDGES)
        for step in range(SCRAPES):
            at = self.base + STEP_SECONDS * step + 2 * place
            if (place == 1 and step > 24) or (place == 2 and step < 20) or chance.random() < 0.08:
                yield ""
                continue
            if place == 0 and step == 30:
                finished, buckets = 0.0, [0.0] * len(EDGES)
            for _ in range(chance.randrange(0, 6)):
                finished += 1
                bucket = chance.randrange(len(EDGES))
                buckets = [count + (which >= bucket) for which, count in enumerate(buckets)]
            use = "NaN" if chance.random() < 0.05 else f"{chance.random():.3f}"
            lines = [f"{W} {chance.randrange(0, 12)}", f"{R} {chance.randrange(0, 20)}", f"{K} {use}"]
            lines += [f'{S}{{finished_reason="stop"}} {finished}']
            lines += [f'{B}{{le="{edge}"}} {count}' for edge, count in zip(EDGES, buckets, strict=True)]
            yield "".join(f"{line} {round(at * 1000)}\n" for line in lines)

    def next(self, pod: str) -> str:
        self.scraped[pod] += 1
        place = self.scraped[pod] - 1
        return self.pages[pod][place] if place < SCRAPES else ""


def record() -> dict[str, Any]:
    base = float(round(time.time()) - 3600)
    pages = Pages(base)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.next(self.path.strip("/")).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        prometheus = Prometheus(Path(folder), scrape_seconds=0.1)
        prometheus.start()
        try:
            address = f"{HOST}:{server.server_port}"
            prometheus.watch([Target(address, f"/{pod}", {"pod": pod, "instance": pod}) for pod in PODS])
            wait_until(lambda: min(pages.scraped.values()) > SCRAPES or None, within=60, what="all pages scraped")
            return _asked(prometheus, base)
        finally:
            prometheus.stop()
            server.shutdown()


def _asked(prometheus: Prometheus, base: float) -> dict[str, Any]:
    end = base + STEP_SECONDS * SCRAPES
    series = []
    for name in (W, R, S, K, B):
        answer = prometheus._get("/api/v1/query", query=f"{name}[15m]", time=str(end)).json()["data"]["result"]
        series += [
            {
                "name": entry["metric"].pop("__name__"),
                "labels": entry["metric"],
                "points": [[at - base, value] for at, value in entry["values"]],
            }
            for entry in answer
        ]
    answers = []
    for query in QUERIES:
        for at in (60.0, 307.5, 390.0, 450.0, 485.0, 590.0):
            answer = prometheus._get("/api/v1/query", query=query, time=str(base + at)).json()
            result = None
            if answer["status"] == "success" and answer["data"]["resultType"] == "scalar":
                result = [[{}, answer["data"]["result"][1]]]
            elif answer["status"] == "success":
                for entry in answer["data"]["result"]:
                    entry["metric"].pop("__name__", None)
                result = [[entry["metric"], entry["value"][1]] for entry in answer["data"]["result"]]
            answers.append({"query": query, "time": at, "answer": result})
    version = prometheus._get("/api/v1/status/buildinfo").json()["data"]["version"]
    return {"prometheus": version, "series": series, "answers": answers}


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record(), separators=(",", ":"))
    FILE.write_text(text.replace('},{"query"', '},\n{"query"').replace('},{"name"', '},\n{"name"') + "\n")
