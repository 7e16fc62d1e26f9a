"""The real parts for the tests of this folder."""

from tests.parts.fixtures import control_plane, namespace, prometheus

__all__ = ["control_plane", "namespace", "prometheus"]
