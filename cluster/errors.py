"""Errors of the world, named for what the caller does next; the client library's own error is the cause."""

from __future__ import annotations


class ClusterError(Exception):
    """Something outside did not do what it was asked."""


class NotObservedError(ClusterError):
    """It could not be seen: hold, count it, look again at the next tick."""


class RefusedError(ClusterError):
    """The API server said no, and will say so again until somebody mends it: tell, and hold.

    `right` names the missing permission as a Role would state it ("patch deployments/scale"), "" if it is none.
    """

    def __init__(self, message: str, *, right: str = "") -> None:
        super().__init__(message)
        self.right = right


class TargetNotFoundError(RefusedError):
    """What is to be scaled does not exist, or is on its way out."""


class OvertakenError(ClusterError):
    """Somebody changed the number that the decision was made from: respect it for this tick."""


class WithheldError(ClusterError):
    """It was not sent, for a reason of our own: hold, and say so. `kind` is one word for the reason."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
