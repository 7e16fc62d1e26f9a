"""Traces of requests, and how they are read."""

from simulations.traces.trace import Trace, TraceError, load_trace, shipped_trace

__all__ = ["Trace", "TraceError", "load_trace", "shipped_trace"]
