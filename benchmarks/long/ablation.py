"""What each ingredient of our policy is worth, and how much hangs on each constant: one alone is taken out, or set
otherwise, and the same days are replayed.

`make bench-ablation TRACES=DIR` writes both tables into `docs/benchmarks.md`: GPU-hours @ attainment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any, Final
from unittest.mock import PropertyMock, patch

from benchmarks.parts.compared import as_cell
from benchmarks.parts.days import HOURS, REASONING, RECORDED
from benchmarks.parts.page import commit, written
from policies.scaling import forecast, utilisation
from policies.scaling import policy as judgement
from policies.scaling.decision import Binding
from policies.scaling.forecast import ForecastFit
from policies.scaling.history import History
from policies.scaling.lateness import Lateness
from policies.scaling.series import ARRIVALS, SECONDS
from policies.scaling.settings import ScalingPolicy
from policies.scaling.utilisation import Utilisation
from policies.scaling.work import Work
from simulations.laboratory.candidates import candidates
from simulations.laboratory.scenario import Scenario
from simulations.replay import Preheat, Replay
from simulations.traces import TraceError

BEGIN: Final = "<!-- ablation: written by make bench-ablation -->"
END: Final = "<!-- end of ablation -->"

SENSITIVITY_BEGIN: Final = "<!-- sensitivity: written by make bench-ablation -->"
SENSITIVITY_END: Final = "<!-- end of sensitivity -->"

COLD_START_SECONDS: Final = 180.0
CONVERSATIONS, _ = HOURS
TRACES: Final = (*RECORDED, REASONING, CONVERSATIONS)

Cut = Callable[[ExitStack], None]
"""Takes something out for as long as the stack is open."""


def _instead(of: Any, name: str, put: Any) -> Cut:
    def cut(stack: ExitStack) -> None:
        stack.enter_context(patch.object(of, name, put))

    return cut


def _views(*dropped: str) -> Cut:
    usual = ScalingPolicy(1, 1, ttft_objective_seconds=1.0, tpot_objective_seconds=1.0, attainment=0.99)
    kept = tuple(each for each in usual.views if each.name not in dropped)
    return _instead(ScalingPolicy, "views", PropertyMock(return_value=kept))


def _needs_without(binding: Binding, evidence: str = "") -> Cut:
    needs = judgement._needs

    def fewer(*given: Any) -> list[judgement.Need]:
        return [each for each in needs(*given) if each.binding is not binding or evidence not in each.evidence]

    return _instead(judgement, "_needs", fewer)


def _set(**changes: float) -> Cut:
    begin = Preheat.decide

    def decide(self: Preheat, observation: Any, state: Any) -> Any:
        return begin(replace(self, policy=replace(self.policy, **changes)), observation, state)  # type: ignore[arg-type]

    return _instead(Preheat, "decide", decide)


INGREDIENTS: Final[tuple[tuple[str, Cut], ...]] = (
    ("all of it", lambda stack: None),
    ("arrivals foreseen in place of work", lambda stack: _work_is_arrivals(stack)),
    ("no margin: the expected load planned for", _instead(ForecastFit, "upper", lambda self, expected: expected)),
    ("no forecast, only the load now", _needs_without(Binding.FORECAST)),
    ("no view of the last ten minutes", _views("last-ten-minutes")),
    ("no trend", _views("trend")),
    ("no hours of yesterday and last week", _views("seasonal-day", "seasonal-week")),
    ("no minutes of the last hours", _views("recurring-hour")),
    ("no look at the last half minute", _set(burst_seconds=120.0)),
    ("replicas planned just full", _instead(History, "_utilisation", lambda self, since, policy: Utilisation())),
    ("lateness not learnt, the prior's curve", _instead(Lateness, "then", lambda self, *args, **kwargs: self)),
    ("the queue not worked off", _needs_without(Binding.QUEUE, "wait")),
    ("slow tokens not heeded", _needs_without(Binding.TPOT, "ms a token")),
    ("the KV cache not heeded", _needs_without(Binding.KV_CACHE, "fullest")),
    ("held for 5 minutes, not 15", _set(scale_down_window_seconds=300.0)),
    ("held for 30 minutes", _set(scale_down_window_seconds=1800.0)),
)


CONSTANTS: Final[tuple[tuple[str, Cut], ...]] = (
    ("quantile 0.8, not 0.9", _set(quantile=0.8)),
    ("quantile 0.95", _set(quantile=0.95)),
    ("level of 1 minute, not 2", _set(level_seconds=60.0)),
    ("level of 4 minutes", _set(level_seconds=240.0)),
    ("drain within 150 s, not 300", _set(drain_seconds=150.0)),
    ("drain within 600 s", _set(drain_seconds=600.0)),
    ("κ 0.6, not 0.7", _set(tpot_margin=0.6)),
    ("κ 0.8", _set(tpot_margin=0.8)),
    ("step times remembered for 1 hour, not 6", _set(fit_half_life_seconds=3_600.0)),
    ("step times remembered for a day", _set(fit_half_life_seconds=86_400.0)),
    ("lateness remembered for 6 hours, not a day", _set(lateness_half_life_seconds=21_600.0)),
    ("lateness remembered for 4 days", _set(lateness_half_life_seconds=345_600.0)),
    ("the prior weighs 3 hours, not 12", _set(utilisation_prior_seconds=10_800.0)),
    ("the prior weighs 2 days", _set(utilisation_prior_seconds=172_800.0)),
    ("prior utilisation 1.05, not 1.15", _instead(utilisation, "PRIOR_UTILISATION", 1.05)),
    ("prior utilisation 1.25", _instead(utilisation, "PRIOR_UTILISATION", 1.25)),
    ("0.3 of the misses aimed for, not 0.41", _instead(utilisation, "USE", 0.3)),
    ("0.8 of them", _instead(utilisation, "USE", 0.8)),
    ("one event heard for a quarter of those, not half", _instead(utilisation, "EVENT_USE", 0.25)),
    ("one event heard in full", _instead(utilisation, "EVENT_USE", 1e9)),
    ("error at first 10 %, not 20", _instead(forecast, "PRIOR_ERROR", 0.1)),
    ("error at first 40 %", _instead(forecast, "PRIOR_ERROR", 0.4)),
)


CUTS: Final = dict((*INGREDIENTS, *CONSTANTS))
"""By what the tables call them, for processes of their own."""


def _work_is_arrivals(stack: ExitStack) -> None:
    """As if each request were its own work, in the second it arrives."""
    stack.enter_context(patch.object(Work, "requests", lambda self, sums, longer=0.0: sums[:, ARRIVALS]))
    stack.enter_context(patch.object(Work, "requests_of", lambda self, sums: sums[ARRIVALS] if sums[SECONDS] else 0.0))


def main() -> None:
    """Replay all, and write the table into the page."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("traces", type=Path, help="folder of the recorded traces")
    arguments.add_argument("--days", nargs="*", default=[days.name for days in TRACES], help="only these")
    arguments.add_argument("--tables", nargs="*", default=["ingredients", "constants"], help="only these")
    asked = arguments.parse_args()
    traces = [days for days in TRACES if days.name in asked.days]
    known = commit()
    try:
        scenarios = [days.scenario(days.trace(asked.traces), COLD_START_SECONDS) for days in traces]
    except TraceError as error:
        sys.exit(str(error))
    names = [days.name for days in traces]
    if "ingredients" in asked.tables:
        print(written(BEGIN, END, _table("without", names, scenarios, INGREDIENTS), known))
    if "constants" in asked.tables:
        print(written(SENSITIVITY_BEGIN, SENSITIVITY_END, _table("with", names, scenarios, CONSTANTS), known))


def _table(
    head: str, names: Sequence[str], scenarios: Sequence[Scenario], changes: Sequence[tuple[str, Cut]]
) -> list[str]:
    lines = [f"| {head} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    with ProcessPoolExecutor() as pool:
        cells = pool.map(_cell, *zip(*product([what for what, _ in changes], scenarios), strict=True))
        for what, _ in changes:
            lines.append(f"| {what} | " + " | ".join(islice(cells, len(scenarios))) + " |")
            print(lines[-1], file=sys.stderr)
    return lines


def _cell(what: str, scenario: Scenario) -> str:
    with ExitStack() as stack:
        CUTS[what](stack)
        found = _replayed(scenario)
    return as_cell(found.gpu_hours, found.attainment)


def _replayed(scenario: Scenario) -> Replay:
    (ours,) = candidates(("preheat",), scenario)
    assert isinstance(ours.policy, Preheat)
    return scenario.replayed(
        ours.policy,
        min_replicas=ours.min_replicas,
        max_replicas=ours.max_replicas,
        start_replicas=scenario.start_replicas or ours.min_replicas,
    )


if __name__ == "__main__":
    main()
