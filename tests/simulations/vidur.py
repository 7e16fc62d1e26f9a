"""Runs of microsoft/vidur (7d47513), and the step times it used, as an engine; tests/data/vidur says whence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.model.engine import Engine, StepTables, StepTime
from simulations.traces.trace import Trace
from tests.checkout import ROOT

DATA = ROOT / "tests" / "data" / "vidur"
KV_TOKENS = 475_136
TABLES = ("dense", "kv_save", "attn_decode", "attn_prefill")
LINEAR = StepTime(10.4428, 0.0327404, 9.45356e-05, 0.0618761, 4.58044e-06)
ROOFLINE = StepTime(0.0, 0.0, 8.70698e-05, 0.0, 4.61229e-06, w=10.5776, k=0.0692966, q=1.26516)
"""Both fitted on Vidur's own batch times."""


@dataclass(frozen=True)
class Run:
    trace: Trace
    ttft: NDArray[np.float64]
    """Seconds, by request, as are those to the end of the answer."""
    end_to_end: NDArray[np.float64]

    @property
    def tpot(self) -> NDArray[np.float64]:
        return np.asarray((self.end_to_end - self.ttft) / np.maximum(self.trace.output_tokens - 1, 1))


def run(name: str) -> Run:
    rows = np.loadtxt(DATA / f"{name}.csv.gz", delimiter=",", skiprows=1)
    arrived, prompts, outputs, ttft, end_to_end = rows.T[:5]
    order = np.argsort(arrived, kind="stable")
    trace = Trace.of(name, arrived, prompts.astype(np.int64), outputs.astype(np.int64))
    return Run(trace, ttft[order], end_to_end[order])


def tables() -> StepTables:
    with np.load(DATA / "step_table_llama3-8b_a100_tp1.npz") as npz:
        layers = float(npz["layers"])
        # They were told with 7 decimals and are kept as 32-bit floats, which over 40,000 steps makes microseconds.
        dense, save, decode, prefill = (np.round(npz[f"{name}_ms_per_layer"].astype(float), 7) for name in TABLES)
        tokens = np.arange(1, 513)
        # The dense layers are profiled in eights, the KV cache's writing by the token.
        by_tokens = dense[(tokens + 7) // 8 * 8 - 1] + save[tokens - 1]
        return StepTables(
            dense_ms=np.concatenate(([0.0], by_tokens)) * layers,
            decode_ms=decode * layers,
            prefill_ms=prefill * layers,
            overhead=0.1,
        )


def engine(sequences: int, *, step: StepTime = LINEAR, exact: bool = False) -> Engine:
    return Engine(
        "vidur",
        step,
        KV_TOKENS,
        max_num_seqs=sequences,
        max_num_batched_tokens=512,
        tables=tables() if exact else None,
    )
