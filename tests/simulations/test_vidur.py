"""Our fleet against runs of another simulator, microsoft/vidur: request by request with its own table of step times."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from simulations.model import kernel
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions, Router
from simulations.model.engine import Engine, StepTime
from simulations.model.servers import Servers
from tests.simulations import vidur

Seconds = NDArray[np.float64]


def simulated(
    run: vidur.Run, engine: Engine, *, replicas: int = 1, router: Router = "least-outstanding"
) -> tuple[Seconds, Seconds]:
    """Each request's time to the first token and to the end."""
    servers = Servers(run.trace, engine, Conditions(Constant(0), router=router))
    for _ in range(replicas):
        servers.start(0)
    servers.advance(10**5 * kernel.SECOND)
    assert servers.is_idle()
    end_to_end = servers.requests[:, kernel.LAST] - servers.requests[:, kernel.ARRIVAL]
    return servers.time_to_first_token_ps() / 1e12, end_to_end / 1e12


@pytest.mark.parametrize(
    ("name", "sequences", "replicas", "router"),
    [
        ("1r_sarathi512_cap128_qps4", 128, 1, "least-outstanding"),
        ("1r_sarathi512_cap128_qps6.45", 128, 1, "least-outstanding"),
        ("1r_sarathi512_cap256_qps8_overload", 256, 1, "least-outstanding"),
        ("4r_sarathi512_cap128_qps16_rr", 128, 4, "round-robin"),
    ],
)
def test_with_its_table_each_request_is_as_vidur_has_it(
    name: str, sequences: int, replicas: int, router: Router
) -> None:
    run = vidur.run(name)
    ttft, end_to_end = simulated(run, vidur.engine(sequences, exact=True), replicas=replicas, router=router)
    # Vidur's figures are told to the microsecond, 1e-4 of the shortest of them.
    assert np.abs(ttft / run.ttft - 1).max() <= 1e-4
    assert np.abs(end_to_end / run.end_to_end - 1).max() <= 1e-4


@pytest.mark.parametrize(
    ("name", "form", "step", "most"),
    [
        ("1r_sarathi512_cap128_qps4", "linear", vidur.LINEAR, 0.03),
        ("1r_sarathi512_cap128_qps4", "roofline", vidur.ROOFLINE, 0.03),
        # At 90 % of saturation the linear form has one of nine percentiles 10.4 % short: docs/simulation.md.
        ("1r_sarathi512_cap128_qps6.45", "linear", vidur.LINEAR, 0.105),
        ("1r_sarathi512_cap128_qps6.45", "roofline", vidur.ROOFLINE, 0.10),
    ],
)
def test_with_a_fitted_form_percentiles_stay_near(
    name: str, form: Literal["linear", "roofline"], step: StepTime, most: float
) -> None:
    run = vidur.run(name)
    ttft, end_to_end = simulated(run, vidur.engine(128, step=step))
    many = run.trace.output_tokens > 1
    tpot = (end_to_end - ttft)[many] / (run.trace.output_tokens[many] - 1)
    for ours, theirs in ((ttft, run.ttft), (end_to_end, run.end_to_end), (tpot, run.tpot[many])):
        errors = np.percentile(ours, [50, 90, 99]) / np.percentile(theirs, [50, 90, 99]) - 1
        assert np.abs(errors).max() <= most, (form, errors)
