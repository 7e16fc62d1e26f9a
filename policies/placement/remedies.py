"""What would make a model fit a GPU that it does not fit, or fits with nothing to spare; in the user's own options."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from policies.gpu_memory import GIB, weight_bytes
from policies.placement.demand import PodDemand
from policies.placement.memory import memory_fit
from policies.placement.policy import divides_heads
from policies.placement.quantization import BITS, PLAIN_BITS
from policies.placement.settings import DEFAULT_SETTINGS, PlacementSettings
from policies.placement.verdict import MemoryFit, Verdict

LENGTHS: Final = (131072, 65536, 32768, 16384, 8192, 4096, 2048)
DEFAULT_UTILIZATION: Final = 0.9
SIZES: Final = (2, 4, 8)


def remedies(
    demand: PodDemand, memory_bytes: int | None, settings: PlacementSettings = DEFAULT_SETTINGS
) -> tuple[str, ...]:
    """Each change that would by itself make the verdict *fits*, the least first; empty where none does."""
    if memory_bytes is None or demand.shape is None or demand.memory_bytes_per_gpu is not None:
        return ()

    def fits(changed: PodDemand) -> bool:
        return memory_fit(changed, memory_bytes, settings)[0] is MemoryFit.FITS

    found = []
    shape = demand.shape
    usual = replace(demand, gpu_memory_utilization=DEFAULT_UTILIZATION)
    if (demand.gpu_memory_utilization or 0.0) > DEFAULT_UTILIZATION and fits(usual):
        found.append(f"--gpu-memory-utilization {DEFAULT_UTILIZATION}")
    if not demand.max_model_len_auto:
        longest = demand.max_model_len or shape.context_tokens or LENGTHS[0] + 1
        shorter = next((n for n in LENGTHS if n < longest and fits(replace(demand, max_model_len=n))), None)
        if shorter is not None:
            found.append(f"--max-model-len {shorter}")
    if demand.kv_element_bytes == 2.0 and fits(replace(demand, kv_element_bytes=1.0)):
        found.append("--kv-cache-dtype fp8")
    tensor = demand.tensor_parallel or 1
    for size in SIZES:
        if size > tensor and divides_heads(size, shape) and fits(replace(demand, tensor_parallel=size)):
            found.append(f"TP {size}")
            break
    if shape.weight_bits == PLAIN_BITS:
        for bits, name in ((BITS["fp8"], "an FP8 checkpoint"), (BITS["int4"], "a 4-bit checkpoint")):
            smaller = replace(shape, weight_bits=bits)
            if fits(replace(demand, shape=smaller, weights_bytes=weight_bytes(smaller))):
                found.append(name)
                break
    return tuple(found)


def memory_sentence(
    demand: PodDemand, verdict: Verdict, memory_bytes: int | None, settings: PlacementSettings = DEFAULT_SETTINGS
) -> str:
    """The numbers of a verdict and what would change it, as one sentence."""
    needs, has = verdict.needs_bytes_per_gpu, verdict.has_bytes_per_gpu
    if needs is None:
        return "what it needs of a GPU's memory is unknown"
    if has is None:
        return f"needs {needs / GIB:.1f} GiB a GPU, whose memory is unknown"
    said = f"needs {needs / GIB:.1f} GiB a GPU, has {has / GIB:.1f}: {verdict.memory.value}"
    if verdict.memory in (MemoryFit.TIGHT, MemoryFit.DOES_NOT_FIT):
        changes = remedies(demand, memory_bytes, settings)
        if changes:
            listed = changes[0] if len(changes) == 1 else f"{', '.join(changes[:-1])}, or {changes[-1]}"
            said += f"; fits with {listed}"
    return said
