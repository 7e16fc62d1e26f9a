"""The shipped engines, and what an engine refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from simulations.model import kernel
from simulations.model.engine import (
    PICOSECONDS,
    Engine,
    EngineError,
    StepTables,
    StepTime,
    shipped_engine,
    shipped_engines,
)
from simulations.model.servers import Servers
from simulations.traces import Trace

PLAIN = Engine("plain", StepTime(10, 0.1, 1e-4, 0.05, 1e-6), kv_tokens=1600)


def test_nine_engines_are_shipped_each_with_its_source() -> None:
    assert len(shipped_engines()) == 9
    for name in shipped_engines():
        engine = shipped_engine(name)
        assert engine.name == name
        assert "vidur" in engine.source
        assert engine.vllm
        assert "median" in engine.error
        assert f"tp{engine.gpus}" in name


@pytest.mark.parametrize("name", shipped_engines())
def test_both_forms_tell_about_the_same_of_a_usual_step(name: str) -> None:
    linear, roofline = (shipped_engine(name, form=form) for form in ("linear", "roofline"))
    for decoding, prefill in ((1, 0), (32, 0), (128, 0), (32, 512), (64, 1900)):
        context = decoding * 1200
        times = []
        for engine in (linear, roofline):
            a, b, c, d, e = engine.coefficients_ps()
            dense = int(engine.dense_ps()[decoding + prefill])
            times.append(a + b * decoding + c * context + d * prefill + e * prefill**2 // 2 + dense)
        assert times[0] == pytest.approx(times[1], rel=0.25)


def test_coefficients_are_whole_picoseconds() -> None:
    assert PLAIN.coefficients_ps() == (10**10, 10**8, 10**5, 5 * 10**7, 1000)
    assert not PLAIN.dense_ps().any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kv_tokens": 0}, "kv_tokens is 0"),
        ({"kv_tokens": 15}, "holds not one block"),
        ({"block_size": 24}, "powers of two"),
        ({"max_num_batched_tokens": 100}, r"max_num_batched_tokens \(100\) is less than max_num_seqs \(256\)"),
        ({"step_ms": StepTime(0, 0, 0, 0, 0)}, "a step takes time"),
        ({"step_ms": StepTime(1, -1, 0, 0, 0)}, "step_ms.b is -1"),
        ({"step_ms": StepTime(1, 0, float("nan"), 0, 0)}, "step_ms.c is nan"),
    ],
)
def test_an_engine_that_cannot_be_is_refused_by_the_field(change: dict[str, object], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        replace(PLAIN, **change)  # type: ignore[arg-type]


def test_an_unknown_engine_is_told_the_known_ones() -> None:
    with pytest.raises(EngineError, match="'llama9' is not among those shipped: choose one of llama3-8b_a100_tp1"):
        shipped_engine("llama9")


def test_engines_and_traces_are_read_without_the_compiler() -> None:
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "from simulations.model.engine import shipped_engine\n"
        "from simulations.traces import shipped_trace\n"
        "print(shipped_engine('llama2-7b_a40_tp1').kv_tokens, shipped_trace().requests)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split() == ["53360", "19366"]


@pytest.mark.parametrize("form", ["linear", "roofline", "tables"])
def test_a_slowed_engine_takes_so_many_times_as_long(form: str) -> None:
    engine = shipped_engine("llama2-7b_a40_tp1", form="roofline" if form == "roofline" else "linear")
    if form == "tables":
        rng = np.random.default_rng(3)
        tables = StepTables(rng.random(2049), rng.random((256, 2)), rng.random((2048, 2)), 0.1)
        engine = replace(engine, tables=tables)
    took = []
    for each in (engine, engine.slowed(3)):
        servers = Servers(Trace.of("few", np.zeros(20), np.full(20, 700), np.full(20, 40)), each)
        servers.start(0)
        servers.advance(1000 * PICOSECONDS)
        took.append(servers.requests[:, kernel.LAST])
    assert took[1] == pytest.approx(3 * took[0], rel=1e-5)
