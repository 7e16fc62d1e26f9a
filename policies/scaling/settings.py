"""Every number that judgement uses, with its reason; all times are here, so a story told slower is judged the same."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from policies.scaling.calendar_floor import CalendarFloor, floors_of
from policies.scaling.forecasters.views import LastValue, Recurring, Seasonal, Trend, View
from policies.scaling.resource import Spec

DAY_SECONDS = 86_400.0
GAP_TICKS = 2.5
"""So many ticks without a sample are a gap, however long a tick is: one may come late, and one be missed."""


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """What the user stated, and what the user need not know. Durations are in seconds and end in `_seconds`."""

    min_replicas: int
    max_replicas: int
    ttft_objective_seconds: float
    tpot_objective_seconds: float
    attainment: float
    tick_seconds: float = 15.0
    cold_start_seconds: float | None = None
    """As configured; believed until three starts were measured."""
    scale_up_step: int | None = None
    scale_down_step: int | None = None
    scale_down_window_seconds: float = 900.0
    calendar: tuple[CalendarFloor, ...] = ()
    """Higher floors at their times."""
    idle_seconds: float = 900.0
    """With no fewest replicas: how long nothing must be asked of it before it rests at zero."""

    # Lead time
    prior_lead_base_seconds: float = 60.0
    """Python, CUDA, graph capture and compilation, whatever the model's size."""
    prior_lead_per_billion_seconds: float = 2.0
    """Weights at 1 GB/s in 16 bits: 8B is ready after 76 s, 70B after 200 s."""
    cold_pull_seconds: float = 15.0
    """A start that took longer from scheduled to started pulled its image (9 GB at 5 Gbit/s takes 15 s)."""
    actuation_seconds: float = 2.0
    """From the write to the new pod's creation."""

    # What is seen
    max_gap_seconds: float = 150.0
    """Between two samples; a longer one is a gap, over which rates mean little. Scrapes two minutes apart make none."""
    carry_seconds: float = 60.0
    """How old a pod's sample may be to stand in for one that was not scraped: as old as one may be to be fresh."""
    unmeasured_seconds: float = 120.0
    """Without a single sample: longer than a Prometheus takes to be replaced by its twin."""
    warm_up_seconds: float = 60.0
    """A pod's first minute compiles and fills caches: it teaches nothing of capacity."""

    # Demand
    level_seconds: float = 120.0
    """The present level: two minutes of a request a second are known to ±9 %."""
    burst_seconds: float = 30.0
    """A shorter look, for what has just begun."""
    mix_prompt_seconds: float = 600.0
    mix_output_seconds: float = 1_800.0
    """Outputs are counted as they are generated, so they lag arrivals: a longer mean is a truer one."""

    # Capacity
    tpot_margin: float = 0.7
    """κ: mean step time to plan for, as a share of the objective that 99 % keep."""
    kv_cache_margin: float = 0.85
    """Above this vLLM preempts, and recomputes what it had."""
    greatest_utilisation: float = 0.85
    """However lax the objectives: beyond this a queue grows faster than a replica comes."""
    fit_half_life_seconds: float = 21_600.0
    evidence_seconds: float = 15.0
    """One pod for so long is one piece of evidence of the step time."""
    fewest_evidence: float = 4.0
    """Pieces before the first fit: a minute of one pod, or a quarter of one of four."""
    fewest_tokens: float = 50.0
    """Tokens between two looks for their mean time to be one."""

    # Forecast
    quantile: float = 0.9
    smooth_seconds: float = 180.0
    """What came is compared as a mean over this: a shorter excess ends before its requests are late."""
    refit_seconds: float = 300.0
    refit_offset_seconds: float = 0.0
    """Spreads the refits of many targets over the period."""
    drain_seconds: float = 300.0
    """A backlog is to be worked off within this, once the replicas for it are there."""

    # How full replicas are planned
    lateness_half_life_seconds: float = DAY_SECONDS
    utilisation_half_life_seconds: float = DAY_SECONDS
    utilisation_prior_seconds: float = DAY_SECONDS / 2
    """Of mean traffic: what the prior weighs."""
    utilisation_prior_lead_seconds: float = 180.0
    """The cold start that the prior is for."""
    settling_seconds: float = 1_800.0
    """A fleet that has just been taken over is late for reasons of its own."""

    # Memory
    ticks_keep_seconds: float = 3_600.0
    recent_keep_seconds: float = 900.0
    fine_step_seconds: float = 60.0
    fine_keep_seconds: float = DAY_SECONDS
    coarse_step_seconds: float = 300.0
    coarse_keep_seconds: float = 8 * DAY_SECONDS
    day_seconds: float = DAY_SECONDS

    @classmethod
    def of(cls, spec: Spec, *, tick_seconds: float = 15.0, refit_share: float = 0.0) -> ScalingPolicy:
        """The policy that a resource states; `refit_share` is where in the refit period its refits fall, 0 to 1."""
        policy = cls(
            min_replicas=spec.min_replicas,
            max_replicas=spec.max_replicas,
            ttft_objective_seconds=spec.objectives.ttft_seconds,
            tpot_objective_seconds=spec.objectives.tpot_seconds,
            attainment=spec.objectives.attainment,
            tick_seconds=tick_seconds,
            cold_start_seconds=spec.cold_start_seconds,
            scale_up_step=spec.behavior.scale_up.max_step,
            scale_down_step=spec.behavior.scale_down.max_step,
            scale_down_window_seconds=spec.behavior.scale_down.window_seconds,
            calendar=floors_of(spec.schedule),
            idle_seconds=spec.idle_seconds,
        )
        # Who looks seldom sees no gap between two looks.
        gap = max(policy.max_gap_seconds, GAP_TICKS * tick_seconds)
        return replace(policy, max_gap_seconds=gap, refit_offset_seconds=refit_share * policy.refit_seconds)

    def slowed(self, factor: float) -> ScalingPolicy:
        """The same judgement of a world in which everything takes `factor` times as long."""
        changed = {
            field.name: getattr(self, field.name) * factor
            for field in fields(self)
            if field.name.endswith("_seconds") and getattr(self, field.name) is not None
        }
        return replace(self, **changed)

    @property
    def views(self) -> tuple[View, ...]:
        """The ways of seeing ahead; the first is the fallback that the others must beat."""
        return (
            LastValue(self.level_seconds),
            LastValue(5 * self.level_seconds, "last-ten-minutes"),
            Trend(self.level_seconds, 2.5 * self.level_seconds),
            Seasonal(self.day_seconds, "seasonal-day", 5 * self.level_seconds, 6 * self.coarse_step_seconds),
            Recurring(self.day_seconds / 24, "recurring-hour", self.level_seconds, self.smooth_seconds),
            Seasonal(7 * self.day_seconds, "seasonal-week", 5 * self.level_seconds, 6 * self.coarse_step_seconds),
        )
