"""GPU-hours that no policy can go below: the work of the requests that must attain, at the best a replica can do.

A step of n decoding sequences, K tokens of context, p prompt tokens and X token pairs takes at least
a + b·n + c·K + d·p + e·X. Summed over the steps of a fleet, b, c, d and e fall to the requests whatever the policy.
So does a, shared as widely as can be: at most `max_num_seqs` sequences decode in a step, with at most
`max_num_batched_tokens` tokens, prompts included; their contexts fit into the KV cache together; and a request that
keeps its TPOT objective τ meets steps of a + b·n ≤ τ on average, hence b·D/(τ - a) steps at least for D tokens.
Whichever of the four asks for most holds. Of the dense layers' roofline (w^q + (k·t)^q)^(1/q) over t tokens either w,
or k·t, or both times 2^(1/q - 1), is a part that is always there. Where a rollout brings another engine, each
coefficient is that of whichever engine has the less, and each limit that of whichever has the more.

Of the requests scored, the dearest that the attainment lets go are left out. Cold starts, drains, a load that
comes in waves, whole numbers of replicas and the TTFT objective are not in it, so nothing can reach it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simulations.laboratory.outcome import LowerBound
from simulations.laboratory.scenario import Scenario
from simulations.model.engine import Engine, StepTime

Floats = NDArray[np.float64]


def lower_bound(scenario: Scenario) -> LowerBound:
    """The greater of the work's bound and of what `min_replicas` hold while requests arrive."""
    trace, engine, objectives = scenario.trace, scenario.engine, scenario.objectives
    scored = trace.arrived_at_seconds >= scenario.score_from_seconds
    prompt = trace.prompt_tokens[scored].astype(np.float64)
    output = trace.output_tokens[scored].astype(np.float64)
    must = math.ceil(objectives.attainment * len(prompt) - 1e-9)
    seconds = 0.0
    for step in _least_parts(scenario.engines):
        if scenario.conditions.prefix_cache:
            # Any prompt may be found in the cache: only its tokens' generation is certain.
            step = replace(step, d=0.0, e=0.0)
        for cost in _costs_ms(step, scenario, prompt, output):
            least = np.partition(cost, must - 1)[:must]
            seconds = max(seconds, math.fsum(least.tolist()) / 1000)
    work = seconds / 3600 * engine.gpus
    span = (trace.end_seconds - scenario.score_from_seconds) / 3600 * scenario.min_replicas * engine.gpus
    if span > work:
        said = f"{scenario.min_replicas} replicas, the fewest allowed to any, from the first scored request to the last"
        return LowerBound(span, said)
    said = f"the work of the {must:,} cheapest of {len(prompt):,} requests on replicas that never idle, boot or drain"
    return LowerBound(work, said)


def _linear_parts(s: StepTime) -> Iterator[StepTime]:
    """Linear step times that the engine's is never below."""
    shared = 2 ** (1 / s.q - 1)
    for weights, tokens in ((s.w, 0.0), (0.0, s.k), (shared * s.w, shared * s.k)):
        yield StepTime(s.a + weights, s.b + tokens, s.c, s.d + tokens, s.e)


def _least_parts(engines: Sequence[Engine]) -> Iterator[StepTime]:
    """Linear step times that none of the engines' is ever below."""
    for parts in zip(*(_linear_parts(engine.step_ms) for engine in engines), strict=True):
        yield StepTime(*(min(getattr(part, one) for part in parts) for one in ("a", "b", "c", "d", "e")))


def _costs_ms(step: StepTime, scenario: Scenario, prompt: Floats, output: Floats) -> Iterator[Floats]:
    """Of each request, by each way to share a step's fixed cost."""
    engine = scenario.engine
    max_num_seqs = max(each.max_num_seqs for each in scenario.engines)
    max_num_batched_tokens = max(each.max_num_batched_tokens for each in scenario.engines)
    # The first token comes with the prompt; each further one is a step in which the sequence decodes.
    decoded = output - 1
    # At the n-th of them the context is the prompt and n tokens.
    context = decoded * (prompt + 1) + decoded * (decoded - 1) / 2
    own = step.d * prompt + step.e * prompt * prompt / 2 + step.b * decoded + step.c * context
    yield own + step.a * decoded / max_num_seqs
    yield own + step.a * (prompt + decoded) / max_num_batched_tokens
    yield own + step.a * context / (engine.kv_blocks * engine.block_size)
    spare_ms = 1000 * scenario.objectives.tpot_seconds - step.a
    if spare_ms > 0:
        yield own + step.a * step.b * decoded / spare_ms
