"""Which rights a target needs, and which of them we lack, named as a Role names them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from cluster.api import Api, StatusError, meaning
from cluster.deletion_cost import HONOURED_BY
from cluster.discovery import Resource
from cluster.objects import group_of


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource; `resource` may carry a subresource, as in `deployments/scale`."""

    verb: str
    group: str
    resource: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"

    @property
    def rule(self) -> str:
        """The line that belongs into the Role."""
        return f'apiGroups: ["{self.group}"], resources: ["{self.resource}"], verbs: ["{self.verb}"]'


def rights_for(target: Resource, between: Iterable[Resource], *, writes: bool) -> tuple[Right, ...]:
    """What observing a target takes, and with `writes` also scaling it and telling so."""
    watched = {(group_of(r.api_version), r.plural) for r in (target, *between)} | {("", "pods")}
    rights = [Right(verb, group, plural) for group, plural in sorted(watched) for verb in ("list", "watch")]
    rights.append(Right("get", target.group, f"{target.plural}/scale"))
    if writes:
        rights.append(Right("patch", target.group, f"{target.plural}/scale"))
        rights += [Right(verb, "", "events") for verb in ("create", "patch")]
        # Whoever writes looks first whether another autoscaler does, and what may be created.
        rights += [Right(verb, "autoscaling", "horizontalpodautoscalers") for verb in ("list", "watch")]
        rights += [Right(verb, "", "resourcequotas") for verb in ("list", "watch")]
        # And before a shrink, what must stay, and who goes first.
        rights += [Right(verb, "policy", "poddisruptionbudgets") for verb in ("list", "watch")]
        if (target.group, target.kind) in HONOURED_BY:
            rights.append(Right("patch", "", "pods"))
    return tuple(rights)


async def missing(api: Api, namespace: str, rights: Iterable[Right]) -> tuple[Right, ...]:
    """Those that the API server says we do not have in this namespace; anybody may ask this of himself."""
    asked = tuple(rights)
    answers = await asyncio.gather(*(_has(api, namespace, right) for right in asked))
    return tuple(right for right, has in zip(asked, answers, strict=True) if not has)


async def _has(api: Api, namespace: str, right: Right) -> bool:
    resource, _, subresource = right.resource.partition("/")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "namespace": namespace,
                "verb": right.verb,
                "group": right.group,
                "resource": resource,
                "subresource": subresource,
            }
        },
    }
    try:
        answer = await api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
    except StatusError as error:
        raise meaning(error, f"the rights in namespace '{namespace}'") from error
    return bool(answer["status"]["allowed"])
