"""The tests' own hand in the cluster: a small client, so that what is tested is not also what looks."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

Json = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


def condition(written: Json, type_: str) -> Json:
    """What an object says of itself by one condition; empty while it says nothing.

    For a moment a definition of a kind that has just been made carries `null` in their place.
    """
    said: list[Json] = written.get("status", {}).get("conditions") or []
    return next((each for each in said if each["type"] == type_), {})


def is_true(written: Json, type_: str) -> bool:
    return condition(written, type_).get("status") == "True"


class ApiError(Exception):
    """The API server answered, and not with what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """Paths in, JSON out."""

    def __init__(self, url: str, *, ca: Path, token: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.verify = str(ca)
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()

    def is_ready(self) -> bool:
        try:
            return self.session.get(f"{self.url}/readyz", timeout=2).text == "ok"
        except requests.RequestException:
            return False

    def request(self, verb: str, path: str, body: object = None, *, content: str = "", **params: str) -> Json:
        answer = self.session.request(
            verb,
            f"{self.url}{path}",
            json=body,
            params=params,
            headers={"Content-Type": content} if content else None,
            timeout=10,
        )
        if answer.status_code >= 400:
            raise ApiError(answer.status_code, answer.text)
        decoded: Json = answer.json()
        return decoded

    def get(self, path: str, **params: str) -> Json:
        return self.request("GET", path, **params)

    def items(self, path: str, **params: str) -> list[Json]:
        found: list[Json] = self.get(path, **params)["items"]
        return found

    def create(self, path: str, body: Json) -> Json:
        return self.request("POST", path, body)

    def replace(self, path: str, body: Json) -> Json:
        return self.request("PUT", path, body)

    def patch(self, path: str, body: object, *, content: str = MERGE) -> Json:
        return self.request("PATCH", path, body, content=content)

    def delete(self, path: str, **params: str) -> None:
        """Gone already is fine."""
        try:
            self.request("DELETE", path, **params)
        except ApiError as error:
            if error.status != 404:
                raise
