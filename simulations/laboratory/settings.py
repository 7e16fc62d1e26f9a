"""What a user asks of a replay, a sizing or a sweep, as typed; checked here, and turned into values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from cluster.files import ConfigError
from policies.scaling.resource import Objectives
from simulations.laboratory.scenario import Scenario
from simulations.model.cold_start import ColdStart, ColdStartError, Constant, Jittered, Sampled
from simulations.model.conditions import GREATEST_SEED, Conditions, ConditionsError, Router, Scraping
from simulations.model.engine import Engine, EngineError
from simulations.model.engine_file import engine_of
from simulations.policy_files.files import STARTS_AT
from simulations.traces.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options that describe the traffic's world, named as on the command line."""

    engine: str
    slo_ttft: float
    slo_tpot: float
    attainment: float = 0.99
    cold_start: float = 180.0
    cold_start_jitter: str | None = None
    """Seconds, or a file of measured cold starts."""
    min: int = 1
    max: int
    start: int | None = None
    tick: float = 15.0
    scrape_interval: float = 15.0
    score_from: float = 0.0
    clip_prompt: int | None = None
    grace: float | None = None
    router: str = "least-outstanding"
    slots: int | None = None
    client_timeout: float | None = None
    client_retries: int = 0
    prefix_cache: bool = False
    spot_losses: float = 0.0
    seed: str = "0"
    starts_at: str | None = None
    """Wall time of the trace's time 0, for triggers and schedules that go by the clock."""

    def scenario(self, trace: Trace) -> Scenario:
        """All of it about this trace; a ConfigError says everything that is wrong."""
        problems: list[str] = []
        engine: Engine | None = _told(problems, lambda: engine_of(self.engine))
        conditions = _told(problems, self._conditions)
        objectives = self._objectives(problems)
        if self.clip_prompt is not None and self.clip_prompt < 1:
            problems.append(f"--clip-prompt is {self.clip_prompt}: a prompt has at least 1 token")
        if problems or engine is None or conditions is None or objectives is None:
            raise ConfigError(tuple(problems))
        return Scenario(
            trace if self.clip_prompt is None else trace.clipped(self.clip_prompt),
            engine,
            objectives,
            conditions,
            self.max,
            min_replicas=self.min,
            start_replicas=self.start,
            tick_seconds=self.tick,
            score_from_seconds=self.score_from,
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of `--seed 1,2,3`, each once."""
        parts = [part.strip() for part in self.seed.split(",")]
        if not all(part.isdecimal() for part in parts):
            raise ConfigError((f"--seed is '{self.seed}': give whole numbers from 0 on, as in 0 or 1,2,3",))
        # Looked at before they are read: Python takes no number of more than 4,300 digits.
        if any(len(part) > len(str(GREATEST_SEED)) or int(part) > GREATEST_SEED for part in parts):
            raise ConfigError((f"--seed holds a number beyond {GREATEST_SEED}: give one of 64 bits, as in 0 or 1,2,3",))
        return tuple(dict.fromkeys(int(part) for part in parts))

    @property
    def wall_start(self) -> datetime:
        """Of `--starts-at`, UTC unless it says otherwise; midnight before a Monday where nobody says."""
        if self.starts_at is None:
            return STARTS_AT
        try:
            moment = datetime.fromisoformat(self.starts_at)
        except ValueError:
            wrong = f"--starts-at is '{self.starts_at}': give an ISO 8601 time, as in 2026-03-02T08:00+01:00"
            raise ConfigError((wrong,)) from None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def _objectives(self, problems: list[str]) -> Objectives | None:
        wrong = [
            f"{option} is {value:g}: give seconds, more than 0"
            for option, value in (("--slo-ttft", self.slo_ttft), ("--slo-tpot", self.slo_tpot))
            if not 0 < value < math.inf
        ]
        if not 0 < self.attainment < 1:
            wrong.append(f"--attainment is {self.attainment:g}: give a share between 0 and 1, as in 0.99")
        problems += wrong
        if wrong:
            return None
        return Objectives(ttft_seconds=self.slo_ttft, tpot_seconds=self.slo_tpot, attainment=self.attainment)

    def _conditions(self) -> Conditions:
        router: Any = self.router
        if router not in get_args(Router):
            raise ConditionsError(f"--router is '{router}': choose one of {', '.join(get_args(Router))}")
        return Conditions(
            cold_start=self._cold_start(),
            # What was scraped is fresh for at least two scrapes, however rare they are.
            scraping=Scraping(self.scrape_interval, stale_after_seconds=max(300.0, 2 * self.scrape_interval)),
            router=router,
            replica_slots=self.slots,
            grace_seconds=self.grace,
            client_timeout_seconds=self.client_timeout,
            client_retries=self.client_retries,
            prefix_cache=self.prefix_cache,
            spot_losses_per_hour=self.spot_losses,
            seed=self.seeds[0],
        )

    def _cold_start(self) -> ColdStart:
        if self.cold_start_jitter is None:
            return Constant(self.cold_start)
        try:
            jitter = float(self.cold_start_jitter)
        except ValueError:
            return Sampled(cold_starts(Path(self.cold_start_jitter)))
        return Jittered(self.cold_start, jitter)


def cold_starts(path: Path) -> tuple[float, ...]:
    """Measured cold starts in seconds: a JSON list, or one a line; lines that begin with # are left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            (f"--cold-start-jitter {path} is neither seconds nor a file that can be read: {error}",)
        ) from error
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    try:
        values = json.loads(text) if text.lstrip().startswith("[") else lines
        return tuple(float(value) for value in values)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            (f"--cold-start-jitter {path} holds something that is no number of seconds: {error}",)
        ) from error


def _told(problems: list[str], make: Callable[[], Any]) -> Any:
    """What it makes, or None and its complaint among the problems."""
    try:
        return make()
    except ConfigError as error:
        problems += error.problems
    except (EngineError, ConditionsError, ColdStartError) as error:
        problems.append(str(error))
    return None
