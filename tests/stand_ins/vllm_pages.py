"""The recorded `/metrics` pages of vLLM 0.32.0, and what can be made of them: numbers, engines, other spellings."""

from __future__ import annotations

import gzip
import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "data" / "vllm_metrics"
RECORDED = {
    "idle": "vllm-0.32.0-idle.txt.gz",
    "some": "vllm-0.32.0.txt.gz",
    "loaded": "vllm-0.32.0-loaded.txt.gz",
}
"""Just started; after 24 requests; after 489 requests under load, all of them done."""


@cache
def page(name: str) -> str:
    with gzip.open(FOLDER / RECORDED[name], "rt", encoding="utf-8") as file:
        return file.read()


def showing(text: str, **numbers: float | str) -> str:
    """The page with other numbers: `num_requests_running=3` sets that series, whatever its prefix and labels."""
    for name, number in numbers.items():
        pattern = rf"^((?:vllm[:_])?{name}(?:\{{[^}}]*\}})?) .*$"
        text, changed = re.subn(pattern, rf"\g<1> {number}", text, flags=re.MULTILINE)
        assert changed, f"the page has no {name}"
    return text


def without(text: str, *names: str) -> str:
    """The page as an exporter leaves it that drops these families."""
    kept = (line for line in text.splitlines() if not re.match(rf"(?:# \w+ )?vllm[:_](?:{'|'.join(names)})", line))
    return "\n".join(kept) + "\n"


def with_underscores(text: str) -> str:
    """As exporters rename that know no colon."""
    return re.sub(r"\bvllm:", "vllm_", text)


def of_older_release(text: str) -> str:
    """As releases before V1 named KV use and the time between tokens; without what they did not have."""
    text = without(text, "request_time_per_output_token_seconds", "num_requests_waiting_by_reason")
    text = text.replace("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    text = text.replace('kv_cache_size_tokens="', 'not_known_then="')
    return text.replace("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")


def with_two_engines(text: str) -> str:
    """As two engines of one process show themselves: every series of the engine once more."""
    lines = []
    for line in text.splitlines():
        lines.append(line)
        if 'engine="0"' in line:
            lines.append(line.replace('engine="0"', 'engine="1"'))
    return "\n".join(lines) + "\n"
