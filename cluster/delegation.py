"""What a server behind the API server asks it: by whom requests are handed on, whose a token is, what he may do.

The API server hands requests on with a certificate of its own (the front proxy's) and the user in headers; how they
are spelled, and which authority issued the certificate, stands in a ConfigMap that every such server may read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from cluster.api import Api, Lane, StatusError, meaning
from cluster.errors import NotObservedError

CONFIG_MAP: Final = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
TOKEN_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """How the API server shows whose request it hands on."""

    authorities: str
    """PEM of those that issued its certificate."""
    names: tuple[str, ...]
    """Common names of that certificate; empty: any."""
    user_headers: tuple[str, ...]
    group_headers: tuple[str, ...]
    extra_prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose a request is."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        return self.name, self.groups, self.uid, tuple(sorted(self.extra.items()))


async def front_proxy(api: Api) -> FrontProxy | None:
    """As the cluster's ConfigMap says; None where the API server hands nothing on. ClusterError if it is unreadable."""
    try:
        data = (await api.call("GET", CONFIG_MAP)).get("data") or {}
    except StatusError as error:
        raise meaning(error, "how the API server hands requests on (extension-apiserver-authentication)") from error
    authorities = data.get("requestheader-client-ca-file")
    if not authorities:
        return None

    def names(key: str, default: str) -> tuple[str, ...]:
        try:
            return tuple(map(str, orjson.loads(data.get(key) or default)))
        except (orjson.JSONDecodeError, TypeError) as error:
            raise NotObservedError(f"extension-apiserver-authentication: {key} is no list in JSON") from error

    return FrontProxy(
        authorities=authorities,
        names=names("requestheader-allowed-names", "[]"),
        user_headers=names("requestheader-username-headers", '["X-Remote-User"]'),
        group_headers=names("requestheader-group-headers", '["X-Remote-Group"]'),
        extra_prefixes=names("requestheader-extra-headers-prefix", '["X-Remote-Extra-"]'),
    )


async def asker_of(api: Api, token: str) -> Asker | None:
    """Whose the bearer token is; None if it is nobody's."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    try:
        status = (await api.call("POST", TOKEN_REVIEWS, body=body, lane=Lane.REVIEWS)).get("status") or {}
    except StatusError as error:
        raise meaning(error, "whose a token is (TokenReview)") from error
    if not status.get("authenticated"):
        return None
    user = status.get("user") or {}
    return Asker(
        name=user.get("username", ""),
        groups=tuple(user.get("groups") or ()),
        uid=user.get("uid", ""),
        extra={key: tuple(values) for key, values in (user.get("extra") or {}).items()},
    )


async def may(api: Api, asker: Asker, attributes: Mapping[str, Any]) -> bool:
    """Whether the cluster lets him; `attributes` holds `resourceAttributes` or `nonResourceAttributes`."""
    spec = {
        "user": asker.name,
        "groups": list(asker.groups),
        "uid": asker.uid,
        "extra": {key: list(values) for key, values in asker.extra.items()},
        **attributes,
    }
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    try:
        answer = await api.call("POST", ACCESS_REVIEWS, body=body, lane=Lane.REVIEWS)
    except StatusError as error:
        raise meaning(error, f"what '{asker.name}' may do (SubjectAccessReview)") from error
    return bool((answer.get("status") or {}).get("allowed"))
