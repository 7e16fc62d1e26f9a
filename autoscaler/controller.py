"""Keeps targets in step with the `VLLMAutoscaler` objects of a cluster, as these come, change and go.

An object is looked at when it is new or its spec has changed; what is wrong with it is said on it, in the words of
`preheat check`, and concerns no other. One that goes leaves its target as it is.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from autoscaler.cluster_fleet import Conflict
from autoscaler.conditions import INVALID_SPEC
from autoscaler.config import CREDENTIALS, forbidden_files, missing_files
from autoscaler.events import Announcement
from autoscaler.loop import Turn
from autoscaler.reporter import Reporter
from autoscaler.service import Target
from autoscaler.targets import Targets
from cluster.autoscalers import Autoscalers, Stated
from cluster.errors import ClusterError, OvertakenError, RefusedError
from cluster.events import EventType
from cluster.kubernetes import Cluster
from cluster.watch import Watch
from policies.scaling.history import History
from policies.scaling.resource import API_VERSION, KIND, Mode, ScaleTargetRef, VLLMAutoscaler
from policies.scaling.resource_reading import InvalidResourceError, read
from policies.scaling.status import history_of, status_of

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 5.0
"""How often what was wrong is looked at again: a file may be mounted, a kind installed, a right given."""
_DIGITS: Final = re.compile(r"\d+")
"""What counts on is no news."""
SAME_TARGET: Final = "SameTarget"
FINALIZER: Final = "autoscaling.preheat.dev/floor"
"""On an object of mode Floor: before it goes, what it raised is given back."""


@dataclass(slots=True)
class Followed:
    """One object, and the target that it became; None while it is not fit to be one."""

    stated: Stated
    reporter: Reporter
    resource: VLLMAutoscaler | None = None
    target: Target | None = None
    problem: str = ""
    """What is wrong with the spec."""
    told: str = ""
    """What was last said to stand in its way."""
    history: History = field(default_factory=History)

    @property
    def lacks_finalizer(self) -> bool:
        """Whether its deletion would leave something behind that nobody gives back."""
        raises = self.resource is not None and self.resource.spec.mode is Mode.FLOOR
        return raises and FINALIZER not in self.stated.finalizers and not self.stated.being_deleted


class Controller:
    """Runs until it is cancelled; then every target is let go of."""

    def __init__(
        self, cluster: Cluster, autoscalers: Autoscalers, targets: Targets, credentials: Path = CREDENTIALS
    ) -> None:
        self.problem = "the resources were not listed yet"
        """Why the objects cannot be followed; "" while they can."""
        self._cluster = cluster
        self._autoscalers = autoscalers
        self._targets = targets
        self._credentials = credentials
        self._followed: dict[str, Followed] = {}
        self._histories: dict[str, tuple[VLLMAutoscaler, History]] = {}
        """What was seen for objects that are let go of for now, by uid: the spec changed, or another replica led."""
        self._changed: dict[str, Stated | None] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled, which lets go of everything; it may be run again."""
        self._changed.clear()
        watch: Watch[Stated] | None = None
        try:
            watch = await self._watch()
            while True:
                await self._look(watch)
                await self._wait()
        finally:
            if watch:
                await watch.stop()
            await asyncio.gather(*(self._forget(key) for key in list(self._followed)))

    async def _watch(self) -> Watch[Stated]:
        while True:
            try:
                return await self._autoscalers.watch(self._note)
            except ClusterError as error:
                self._tell_problem(str(error))
                await asyncio.sleep(AGAIN_SECONDS)

    def _note(self, key: str, stated: Stated | None) -> None:
        self._changed[key] = stated
        self._wake.set()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(AGAIN_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _look(self, watch: Watch[Stated]) -> None:
        """Take in what has changed, and look again at what is not fit to run."""
        try:
            await watch.whole()
            self._tell_problem("")
        except ClusterError as error:
            self._tell_problem(str(error))
            return
        changed, self._changed = self._changed, {}
        for key, stated in changed.items():
            if stated is None:
                gone = self._followed.get(key)
                await self._forget(key)
                self._histories.pop(gone.stated.uid if gone else "", None)
            elif not self._is_known(stated):
                await self._take(stated)
        for followed in sorted(self._followed.values(), key=_age):
            if followed.target is None or followed.lacks_finalizer:
                try:
                    await self._attend(followed)
                except Exception:  # a mistake of ours in one resource must not end the others
                    log.exception("it cannot be taken up", extra={"target": followed.stated.key})

    def _tell_problem(self, problem: str) -> None:
        if problem and _DIGITS.sub("", problem) != _DIGITS.sub("", self.problem):
            log.warning("the resources cannot be followed: %s", problem)
        self.problem = problem

    def _is_known(self, stated: Stated) -> bool:
        """Whether nothing but its status has changed."""
        followed = self._followed.get(stated.key)
        if followed is None:
            return False
        known = followed.stated
        followed.stated = stated if known.uid == stated.uid else known
        return (known.uid, known.generation) == (stated.uid, stated.generation)

    async def _take(self, stated: Stated) -> None:
        """Follow an object that is new, or whose spec is; what was learnt of the same target is kept."""
        await self._forget(stated.key)
        before, seen = self._histories.pop(stated.uid, (None, History()))
        status = status_of(stated.document.get("status"))
        of_this_spec = status.observed_generation == stated.generation
        history = history_of(status.learnt) if of_this_spec else History()
        followed = Followed(stated, self._reporter(stated), history=history)
        self._followed[stated.key] = followed
        try:
            followed.resource = read(stated.document)
        except InvalidResourceError as error:
            followed.problem = str(error)
        resource = followed.resource
        if before and resource and _same_measures(before, resource):
            followed.history = history if of_this_spec and self._targets.broke_off(resource, seen) else seen

    def _reporter(self, stated: Stated) -> Reporter:
        async def write(status: dict[str, object]) -> None:
            await self._autoscalers.write_status(stated, status)

        return Reporter(stated.key, status_of(stated.document.get("status")), write)

    async def _attend(self, followed: Followed) -> None:
        if followed.stated.being_deleted:
            await self._finish(followed)
            return
        # Before its first turn: nothing may be raised that its deletion would leave behind.
        finalizers = (*followed.stated.finalizers, FINALIZER)
        if followed.lacks_finalizer and not await self._set_finalizers(followed, finalizers):
            return
        if followed.target is None:
            await self._begin(followed)

    async def _finish(self, followed: Followed) -> None:
        """Of an object that is being deleted: give back what it raised, and let it go."""
        stated = followed.stated
        if FINALIZER not in stated.finalizers:
            return
        try:
            # By its name alone: what it raised stands whatever has become of its spec.
            await self._targets.floors.give_back(stated.key, listed_anew=True)
        except ClusterError as error:
            log.warning("it cannot go yet: %s", error, extra={"target": stated.key})
            return
        await self._set_finalizers(followed, tuple(each for each in stated.finalizers if each != FINALIZER))

    async def _set_finalizers(self, followed: Followed, finalizers: tuple[str, ...]) -> bool:
        """Whether they stand."""
        try:
            await self._autoscalers.set_finalizers(followed.stated, finalizers)
        except OvertakenError:
            return False  # the watch brings the newer one
        except ClusterError as error:
            problem = f"its finalizer cannot be set: {error}"
            if problem != followed.told:
                log.warning("%s", problem, extra={"target": followed.stated.key})
            followed.told = problem
            if followed.target is None:
                reason = "MissingRight" if isinstance(error, RefusedError) and error.right else "Refused"
                followed.reporter.refuse(reason, problem, followed.stated.generation)
            return False
        return True

    async def _begin(self, followed: Followed) -> None:
        """Let its turns begin, or say what stands in the way."""
        reason, problem = self._obstacle(followed)
        resource = followed.resource
        if problem or resource is None:
            if problem != followed.told:
                log.warning("%s", problem, extra={"target": followed.stated.key, "reason": reason})
                await self._tell_on_resource(followed.stated, Announcement(problem, logging.WARNING, reason))
            followed.told = problem
            followed.reporter.refuse(reason, problem, followed.stated.generation)
            return
        stated, reporter = followed.stated, followed.reporter
        target: Target

        def report(turn: Turn, conflict: Conflict | None) -> None:
            reporter.follow(turn, conflict, target.resource, target.policy)

        async def tell_also(said: Announcement) -> None:
            await self._tell_on_resource(stated, said)

        target = self._targets.begin(resource, report=report, tell_also=tell_also, history=followed.history)
        followed.target = target
        log.info("taken up", extra={"target": stated.key, "generation": stated.generation})

    def _obstacle(self, followed: Followed) -> tuple[str, str]:
        """The reason and the sentence of what keeps it from running; empty if nothing does."""
        if followed.resource is None:
            return INVALID_SPEC, followed.problem
        unread = [*forbidden_files(followed.resource, self._credentials)] or [*missing_files(followed.resource)]
        if unread:
            return INVALID_SPEC, "; ".join(unread).replace(f"{followed.stated.key}: ", "")
        for other in self._followed.values():
            if other.target and other is not followed and _same_target(other.target.resource, followed.resource):
                ref = followed.resource.spec.scale_target_ref
                return SAME_TARGET, (
                    f"{other.stated.key} scales {ref.kind} '{ref.name}' already: delete one of the two, or they "
                    "would fight over it"
                )
        return "", ""

    async def _tell_on_resource(self, stated: Stated, said: Announcement) -> None:
        ref = ScaleTargetRef(api_version=API_VERSION, kind=KIND, name=stated.name)
        type_ = EventType.WARNING if said.is_warning else EventType.NORMAL
        await self._cluster.event(ref, stated.namespace, stated.uid, said.reason, said.message, type_)

    async def _forget(self, key: str) -> None:
        followed = self._followed.pop(key, None)
        if followed is None:
            return
        if followed.target:
            try:
                await self._targets.end(followed.target)
            finally:  # the leadership may end meanwhile
                self._histories[followed.stated.uid] = followed.target.resource, followed.target.history
            log.info("let go of; its replicas stay as they are", extra={"target": key})
        await followed.reporter.close()


def _age(followed: Followed) -> tuple[str, str]:
    """The older one keeps a target that two name."""
    return followed.stated.created_at, followed.stated.key


def _same_target(one: VLLMAutoscaler, other: VLLMAutoscaler) -> bool:
    """Whatever its version, it is one object: apps/v1 and apps/v1beta1 scale the same Deployment."""
    a, b = one.spec.scale_target_ref, other.spec.scale_target_ref
    return (one.metadata.namespace, a.kind, a.name, a.api_version.rpartition("/")[0]) == (
        *(other.metadata.namespace, b.kind, b.name),
        b.api_version.rpartition("/")[0],
    )


def _same_measures(one: VLLMAutoscaler, other: VLLMAutoscaler) -> bool:
    """Whether what was seen for the one was seen of the other, too."""
    return _same_target(one, other) and one.spec.prometheus == other.spec.prometheus
