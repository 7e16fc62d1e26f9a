"""Traces of requests, and how they are read."""

from simulations.traces.trace import PromptBlocks, Trace, TraceError, load_trace, shipped_trace

__all__ = ["PromptBlocks", "Trace", "TraceError", "load_trace", "shipped_trace"]
