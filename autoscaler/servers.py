"""The Prometheus servers of all targets: one client each, its readings shared by whoever names the same server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from autoscaler.cluster_fleet import Pasts, Readings, shared_pasts, shared_readings
from autoscaler.telemetry import BY_NAME
from cluster.prometheus import Prometheus
from policies.scaling.resource import Prometheus as Settings
from policies.scaling.resource import PrometheusLabels

Numbers = Iterable[tuple[str, tuple[str, ...], float]]
"""(metric, labels, value)"""


def identity(settings: Settings) -> Settings:
    """The settings without what differs between the targets of one server."""
    return settings.model_copy(update={"arrivals": None, "labels": PrometheusLabels()})


@dataclass(slots=True)
class Server:
    """One client and what its targets share."""

    prometheus: Prometheus
    readings: Readings
    pasts: Pasts
    users: int = 0

    def close(self) -> None:
        self.readings.close()
        self.pasts.close()
        self.prometheus.close()


class Servers:
    """Opened for the first target that names them, closed after the last."""

    def __init__(self) -> None:
        self._open: dict[Settings, Server] = {}

    def take(self, settings: Settings) -> Server:
        """The server for one target more; `leave` it when that target goes."""
        key = identity(settings)
        if key not in self._open:
            prometheus = Prometheus(key)
            self._open[key] = Server(prometheus, shared_readings(prometheus), shared_pasts(prometheus))
        server = self._open[key]
        server.users += 1
        return server

    def leave(self, settings: Settings) -> None:
        key = identity(settings)
        server = self._open[key]
        server.users -= 1
        if server.users == 0:
            del self._open[key]
            server.close()

    def close(self) -> None:
        for server in self._open.values():
            server.close()

    def numbers(self) -> Numbers:
        """By URL: one that is asked as several identities is one server, whose counts add up."""
        numbers: dict[tuple[str, tuple[str, ...]], float] = {}
        for name, labels, value in (number for server in tuple(self._open.values()) for number in _numbers(server)):
            before = numbers.get((name, labels), 0.0)
            counts = BY_NAME[name].kind == "counter"
            numbers[name, labels] = before + value if counts else max(before, value, key=abs)
        return [(name, labels, value) for (name, labels), value in numbers.items()]


def _numbers(server: Server) -> Numbers:
    connection = server.prometheus.connection
    url = connection.settings.url
    yield "preheat_prometheus_requests_total", (url,), connection.requests_made
    for kind, times in tuple(connection.errors_by_kind.items()):
        yield "preheat_prometheus_errors_total", (url, kind), times
    yield "preheat_prometheus_remarks_total", (url,), server.prometheus.remarks_made
    yield "preheat_prometheus_dropped_series", (url,), server.prometheus.dropped_series
    yield "preheat_prometheus_reading_seconds", (url,), server.readings.seconds
    yield "preheat_prometheus_clock_ahead_seconds", (url,), server.prometheus.clock_ahead_seconds
