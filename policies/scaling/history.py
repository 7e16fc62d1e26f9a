"""All that is remembered of a target, folded and bounded: ticks for an hour, minutes for a day, five minutes for
eight days, and the sums that capacity and lead time are learnt from. Nothing else keeps state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.scaling.capacity import MixSums, ReplicaCapacity, StepTime, StepTimeFit, replica_capacity
from policies.scaling.decision import Decision
from policies.scaling.demand import Activity, HangUps, LoadBin, activity
from policies.scaling.forecast import ForecastFit, fit
from policies.scaling.forecasters.views import Past
from policies.scaling.idleness import Idleness
from policies.scaling.lateness import Lateness, TokenTimes
from policies.scaling.lead_time import LeadTime
from policies.scaling.observation import BOOTING, Observation, PodStage, carried, with_samples_of
from policies.scaling.sequence_limit import SequenceLimit
from policies.scaling.series import ARRIVALS, COLUMNS, SECONDS, Row, Series
from policies.scaling.settings import ScalingPolicy
from policies.scaling.utilisation import UNTIL, Imagined, Utilisation, imagine
from policies.scaling.work import Work

TIME, WANTED, NEEDED = range(3)
"""Of a turn, as its wish is kept."""
SHORT: Final = 0.9
"""Of the replicas that should be there, fewer ready are too few: among many one always boots or fails."""
IN_FLIGHT_SECONDS, DONE = 1, 2
"""Of a turn, as what was done is kept: after its time Σ of how long requests were in flight since the one before, then
by the columns of a `Series` what was done since."""


@dataclass(frozen=True, slots=True)
class History:
    """Empty at first; `then` adds a turn, `refilled` a past read back from a metrics store."""

    last: Observation | None = None
    ticks: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    """One row a turn, (turns, 3): when, what was wished for, and how much of it by what was measured."""
    recent: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, DONE + COLUMNS)))
    """One row a turn of late, (turns, DONE + COLUMNS), of those before which all was seen."""
    fine: Series | None = None
    coarse: Series | None = None
    hang_ups: Mapping[str, HangUps] = field(default_factory=dict)
    lead_time: LeadTime = field(default_factory=LeadTime)
    steps: StepTimeFit | None = None
    mix: MixSums = field(default_factory=MixSums)
    kv_cache_tokens: float | None = None
    """Of one pod, the smallest seen in the newest observation."""
    sequence_limit: SequenceLimit = field(default_factory=SequenceLimit)
    forecast: ForecastFit | None = None
    lateness: Lateness = field(default_factory=Lateness)
    token_times: TokenTimes = field(default_factory=TokenTimes)
    utilisation: Utilisation = field(default_factory=Utilisation)
    fitted_at: float | None = None
    learnt_template: str | None = None
    """Whose step time was fitted last from evidence enough."""
    idleness: Idleness = field(default_factory=Idleness)
    """Watched only where a target may rest at zero."""

    def taken_up(self) -> History:
        """For another reader: what routers counted in all, each reader adds up from its own beginning."""
        return replace(self, last=replace(self.last, arrivals_total=None)) if self.last else self

    def is_new(self, template: str) -> bool:
        """Whether what is known of a replica was learnt from another template."""
        return self.fitted_at is not None and template != self.learnt_template

    def seen(self, now: Observation, policy: ScalingPolicy) -> Observation:
        """What is known now: what is shown, and of a pod that was not scraped what it showed last, if that is fresh."""
        return carried(now, self.last, policy.carry_seconds)

    def activity(self, now: Observation, policy: ScalingPolicy) -> Activity | None:
        """What happened since the last turn."""
        return activity(
            self.last, self.seen(now, policy), hang_ups=self.hang_ups, max_gap_seconds=policy.max_gap_seconds
        )

    def past(self, policy: ScalingPolicy) -> Past:
        return Past(self.fine or _fine(policy), self.coarse or _coarse(policy), self.work(policy))

    def work(self, policy: ScalingPolicy) -> Work | None:
        """What tokens cost in the present mix; None before the first request was seen."""
        mix = self.mix.mix
        return Work.of(self.step_time(policy), mix, mix_seconds=policy.mix_prompt_seconds) if mix else None

    def step_time(self, policy: ScalingPolicy) -> StepTime:
        return self.steps.step_time if self.steps else StepTime.prior(policy.tpot_objective_seconds)

    def capacity(self, policy: ScalingPolicy) -> ReplicaCapacity | None:
        """What a replica bears of the present mix when it is full; None before the first request was seen."""
        mix = self.mix.mix
        if mix is None:
            return None
        return replica_capacity(
            self.step_time(policy),
            mix,
            ttft_objective_seconds=policy.ttft_objective_seconds,
            tpot_objective_seconds=policy.tpot_objective_seconds,
            kv_cache_tokens=self.kv_cache_tokens,
            most_in_flight=self.sequence_limit.requests,
            tpot_margin=policy.tpot_margin,
            kv_cache_margin=policy.kv_cache_margin,
            greatest_utilisation=policy.greatest_utilisation,
        )

    def greatest_wish(self, now: float, window: float, max_gap_seconds: float) -> int | None:
        """The greatest wish of the last `window` seconds; None where they are not covered by turns."""
        times = self.ticks[self.ticks[:, TIME] > now - window - max_gap_seconds]
        if len(times) == 0 or times[0, TIME] > now - window:
            return None if window > 0 else 0
        within = times[times[:, TIME] > now - window]
        gaps = np.diff(np.concatenate((times[:, TIME], [now])))
        if np.max(gaps) > max_gap_seconds:
            return None
        return int(np.max(within[:, WANTED], initial=0.0))

    def since(self, now: float, seconds: float, newest: Activity | None, policy: ScalingPolicy) -> NDArray[np.float64]:
        """What was done over the last `seconds`, as far as they were seen, up to and with the newest stretch.

        By the columns of a `Series`.
        """
        done: NDArray[np.float64] = self.recent[self.recent[:, TIME] > now - seconds, DONE:].sum(axis=0)
        if newest is not None and newest.trusted:
            done = done + np.array(row_of(newest, policy))
        return done

    def load(self, done: NDArray[np.float64], policy: ScalingPolicy) -> float:
        """Requests' worth of work in what was done, by the columns of a `Series`."""
        work = self.work(policy)
        return work.requests_of(done.tolist()) if work else float(done[ARRIVALS])

    @property
    def stay_seconds(self) -> float | None:
        """How long a request stays, by what was in flight of late (Little); None before any was."""
        held, arrived = self.recent[:, IN_FLIGHT_SECONDS].sum(), self.recent[:, DONE + ARRIVALS].sum()
        return float(held / arrived) if held > 0 and arrived > 0 else None

    def then(self, observation: Observation, decision: Decision, policy: ScalingPolicy) -> History:
        """With one turn more."""
        return self.after(observation, self.activity(observation, policy), decision, policy)

    def after(
        self, observation: Observation, done: Activity | None, decision: Decision, policy: ScalingPolicy
    ) -> History:
        """`then`, by those who have reckoned already what was done since the last turn."""
        if self.last is not None and observation.time < self.last.time:
            return self._turned_back(observation.time).after(observation, None, decision, policy)
        shown, observation = observation, self.seen(observation, policy)
        # No request counts twice, and none is lost: the next reading is compared with the newest.
        last = with_samples_of(self.last, done.not_newer, observation) if self.last and done else observation
        history = replace(self, last=last, lead_time=self.lead_time.then(observation.pods))
        # What was watched before a time in which nobody watched tells nothing of that time.
        idleness = self.idleness.then(shown, done) if policy.min_replicas == 0 else Idleness()
        history = replace(history, idleness=idleness)
        history = history._with_tick(observation, decision, done, policy)
        if done is not None:
            history = history._with_activity(observation, done, policy)
            history = history._with_lateness(observation, done, policy)
        history = history._with_limits(observation)
        return history._refitted(observation.time, decision.horizon_seconds, policy)

    def refilled(self, bins: Sequence[LoadBin], policy: ScalingPolicy) -> History:
        """With the load of a past that this history did not see; what it saw itself is kept."""
        fine, coarse = self.fine or _fine(policy), self.coarse or _coarse(policy)
        newest = max((bin.start + bin.seconds for bin in bins), default=0.0)
        since_fine = newest - policy.fine_keep_seconds
        loads = sorted((b.start, b.seconds, *_loads(b)) for b in bins)
        if loads:
            table = np.array(loads)
            starts, seconds = table[:, 0], table[:, 1]
            ends = starts + seconds
            sums = table[:, 2:] * seconds[:, np.newaxis]
            # Whether it was full is not known of a past that others saw; the prompts are of those that arrived.
            rows = np.column_stack((seconds, sums, np.zeros(len(table)), sums[:, 0]))
            recent = (seconds < policy.coarse_step_seconds) & (ends > since_fine)
            coarse = coarse.add_all(starts, ends, rows)
            fine = fine.add_all(starts[recent], ends[recent], rows[recent])
        mix = self.mix if self.mix.mix else _mix_of(bins, newest - policy.mix_output_seconds)
        return replace(self, fine=fine, coarse=coarse, mix=mix)

    def _turned_back(self, now: float) -> History:
        """As of a clock that was set back to `now`: what was seen at times that are still to come is not of them."""
        periods = self.utilisation.periods
        return replace(
            self,
            last=None,
            ticks=self.ticks[self.ticks[:, TIME] < now],
            recent=self.recent[self.recent[:, TIME] < now],
            fine=self.fine.until(now) if self.fine else None,
            coarse=self.coarse.until(now) if self.coarse else None,
            fitted_at=None if self.fitted_at is None else min(self.fitted_at, now),
            utilisation=replace(self.utilisation, periods=periods[periods[:, UNTIL] < now]),
        )

    def _with_tick(
        self, observation: Observation, decision: Decision, done: Activity | None, policy: ScalingPolicy
    ) -> History:
        now = observation.time
        # A wish to shrink is held against all of its window: one that is longer than what is kept would never end.
        window = max(policy.scale_down_window_seconds, decision.horizon_seconds)
        keep = max(policy.ticks_keep_seconds, window + 2 * policy.max_gap_seconds)
        ticks = self.ticks[self.ticks[:, TIME] > now - keep]
        # The newest stays, however old: it tells since when nothing is measured.
        old = int(np.searchsorted(self.recent[:, TIME], now - policy.recent_keep_seconds, side="right"))
        recent = self.recent[min(old, max(0, len(self.recent) - 1)) :]
        if done is not None and done.trusted:
            in_flight = (done.running + done.waiting) * done.seconds
            recent = np.vstack((recent, (now, in_flight, *row_of(done, policy))))
        return replace(self, ticks=np.vstack((ticks, (now, decision.wanted, decision.needed))), recent=recent)

    def _with_activity(self, observation: Observation, done: Activity, policy: ScalingPolicy) -> History:
        fine, coarse = self.fine or _fine(policy), self.coarse or _coarse(policy)
        mix = self.mix
        if done.trusted and done.seconds > 0:
            # The stretch between two turns holds what the scrapes within it covered.
            end = observation.time
            row = row_of(done, policy)
            fine, coarse = fine.add(done.start, end, row), coarse.add(done.start, end, row)
            mix = mix.then(done, prompt_seconds=policy.mix_prompt_seconds, output_seconds=policy.mix_output_seconds)
        limit = self.sequence_limit
        steps = self.steps or StepTimeFit.empty(observation.template, StepTime.prior(policy.tpot_objective_seconds))
        if steps.template != observation.template:
            # Another template is another engine: what the old one showed is only where to begin.
            steps, limit = StepTimeFit.empty(observation.template, steps.step_time), SequenceLimit()
        warm = [
            done.pods[pod.name]
            for pod in observation.pods
            if pod.name in done.pods
            and pod.stage is PodStage.READY
            and pod.ready_at is not None
            and observation.time - pod.ready_at >= policy.warm_up_seconds
            and (pod.template == observation.template or not pod.template)
        ]
        steps = steps.then(
            warm,
            seconds=observation.time - done.start,
            half_life_seconds=policy.fit_half_life_seconds,
            evidence_seconds=policy.evidence_seconds,
        )
        return replace(
            self, fine=fine, coarse=coarse, mix=mix, hang_ups=done.hang_ups, steps=steps, sequence_limit=limit
        )

    def _with_lateness(self, observation: Observation, done: Activity, policy: ScalingPolicy) -> History:
        """With who was late at the present load; not while a fleet that was just taken over settles.

        Who was late while replicas that were wished for did not come tells nothing of how the wish was made.
        """
        settled = self.fitted_at is not None and observation.time - self.ticks[0, TIME] >= policy.settling_seconds
        ready = observation.count(PodStage.READY)
        if not (settled and done.trusted and ready and done.share_within_both):
            return self
        capacity, level = self.capacity(policy), self.since(observation.time, policy.level_seconds, None, policy)
        if capacity is None or not is_measure(level, policy.level_seconds):
            return self
        load = self.load(level, policy) / float(level[SECONDS]) + done.waiting / policy.ttft_objective_seconds
        pressure = load / (ready * capacity.requests_per_second)
        half_life = policy.lateness_half_life_seconds
        read = next((sample.tpot for sample in observation.ready_samples if sample.tpot), None)
        token_times = self.token_times
        if read is not None:
            token_times = token_times.then(
                pressure, done.within_tpot, done.tpot_count, read, seconds=done.seconds, half_life_seconds=half_life
            )
        between = token_times.slow_between(pressure, policy.tpot_objective_seconds)
        late = (done.late_share(between) or 0.0) * done.first_tokens
        short = ready < SHORT * self._promised(observation, policy)
        return replace(
            self,
            lateness=self.lateness.then(
                pressure, late, done.first_tokens, seconds=done.seconds, half_life_seconds=half_life
            ),
            token_times=token_times,
            utilisation=self.utilisation.with_late(None if short else late),
        )

    def _promised(self, observation: Observation, policy: ScalingPolicy) -> float:
        """Replicas that are ready now if what was wished for comes: the fewest wished of late.

        Less those that were lost and are being replaced: where that happens, wishes are to reckon with it.
        """
        since = observation.time - (self.forecast.horizon_seconds if self.forecast else 0.0)
        since -= 2 * policy.fine_step_seconds
        wished = self.ticks[self.ticks[:, TIME] >= since, WANTED]
        promised = float(wished.min(initial=policy.max_replicas))
        if observation.rolling:
            return promised
        booting = sum(pod.stage in BOOTING and pod.created_at >= since for pod in observation.pods)
        wished_since = max(0.0, observation.desired - promised)
        return promised - max(0.0, booting - wished_since)

    def _with_limits(self, observation: Observation) -> History:
        samples = observation.ready_samples
        tokens = [s.kv_cache_tokens for s in samples if s.kv_cache_tokens]
        return replace(
            self,
            kv_cache_tokens=min(tokens) if tokens else self.kv_cache_tokens,
            sequence_limit=self.sequence_limit.then(samples),
        )

    def _refitted(self, now: float, horizon_seconds: float, policy: ScalingPolicy) -> History:
        """Capacity and forecast fitted anew when their time has come: once a period, at this target's own offset.

        What a new template bears is learnt as soon as it has shown enough.
        """
        taught = self.steps is not None and self.steps.weight >= policy.fewest_evidence
        template = self.steps.template if self.steps and taught else self.learnt_template
        if template == self.learnt_template:
            if self.fitted_at is None:
                return self
            period = policy.refit_seconds
            due = floor((self.fitted_at - policy.refit_offset_seconds) / period + 1) * period
            if now < due + policy.refit_offset_seconds:
                return self
        steps = self.steps.fitted() if self.steps else None
        horizon = horizon_seconds or policy.tick_seconds
        forecast = fit(
            self.past(policy),
            policy.views,
            now=now,
            horizon_seconds=horizon,
            quantile=policy.quantile,
            smooth_seconds=policy.smooth_seconds,
        )
        fitted = replace(self, steps=steps, forecast=forecast, fitted_at=now, learnt_template=template)
        return replace(fitted, utilisation=fitted._utilisation(now, policy))

    def _utilisation(self, now: float, policy: ScalingPolicy) -> Utilisation:
        """Chosen anew from the last day, as the newest fits imagine it."""
        capacity, fitted = self.capacity(policy), self.forecast
        if capacity is None or fitted is None or fitted.mean <= 0:
            return self.utilisation
        past = self.past(policy)
        step = past.fine.step_seconds
        lead = max(policy.actuation_seconds, fitted.horizon_seconds - policy.tick_seconds)
        upper = fitted.uppers(past, policy.views)
        loads = past.level(policy.level_seconds)
        imagined = imagine(
            np.nan_to_num(upper),
            np.nan_to_num(loads),
            self.lateness.curve(),
            capacity=capacity.requests_per_second,
            hardest=capacity.hardest_requests_per_second,
            hold_bins=max(1, round(policy.scale_down_window_seconds / step)),
            lead_bins=max(1, round(lead / step)),
            # At zero it is idle, and nobody is late; what is imagined is awake.
            fewest=max(1, policy.min_replicas),
            most=policy.max_replicas,
            step_seconds=step,
            ttft_objective_seconds=policy.ttft_objective_seconds,
        )
        times = past.fine_times()
        # The first bins lack the past that a held wish looks back on.
        begins = times[0] + policy.scale_down_window_seconds + lead + step
        counted = ~np.isnan(upper) & ~np.isnan(loads) & (times > begins)
        next_begins = begins + max(0.0, times[-1] + policy.refit_seconds - times[0] - policy.fine_keep_seconds)
        leaving = counted & (times <= next_begins) & (times > self.utilisation.past_until)
        return self.utilisation.then(
            Imagined(np.where(counted, imagined.late, 0.0), np.where(counted, imagined.requests, 0.0)),
            times,
            now=now,
            leaving=leaving,
            keep=0.5 ** (policy.refit_seconds / policy.utilisation_half_life_seconds),
            attainment=policy.attainment,
            prior_requests=policy.utilisation_prior_seconds * fitted.mean,
            lead_ratio=lead / policy.utilisation_prior_lead_seconds,
            mean_replicas=fitted.mean / capacity.requests_per_second,
        )


def is_measure(done: NDArray[np.float64], seconds: float) -> bool:
    """Whether so much of the last `seconds` was seen, half of them, that what was done is a measure of them."""
    return bool(done[SECONDS] >= seconds / 2)


def _mix_of(bins: Sequence[LoadBin], since: float) -> MixSums:
    """The mix of the newest past, until the pods' own samples tell it."""
    newest = [bin for bin in bins if bin.start >= since and bin.arrivals_per_second > 0]
    arrivals = sum(bin.arrivals_per_second * bin.seconds for bin in newest)
    prompt = sum(bin.prompt_tokens_per_second * bin.seconds for bin in newest)
    output = sum(bin.generation_tokens_per_second * bin.seconds for bin in newest)
    return MixSums(prompt, arrivals, output, arrivals)


def _loads(bin: LoadBin) -> tuple[float, float, float]:
    return bin.arrivals_per_second, bin.prompt_tokens_per_second, bin.generation_tokens_per_second


def row_of(done: Activity, policy: ScalingPolicy) -> Row:
    """By the columns of a `Series`."""
    full = done.seconds * done.saturated(policy.tpot_objective_seconds)
    return done.seconds, done.arrivals, done.prompt_tokens, done.generation_tokens, full, done.first_tokens


def _fine(policy: ScalingPolicy) -> Series:
    return Series(policy.fine_step_seconds, round(policy.fine_keep_seconds / policy.fine_step_seconds))


def _coarse(policy: ScalingPolicy) -> Series:
    return Series(policy.coarse_step_seconds, round(policy.coarse_keep_seconds / policy.coarse_step_seconds))
