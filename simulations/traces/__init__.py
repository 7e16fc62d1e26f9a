"""Traces of requests, and how they are read."""

from simulations.traces.files import read, shipped_trace
from simulations.traces.trace import PromptBlocks, Trace, TraceError

__all__ = ["PromptBlocks", "Trace", "TraceError", "read", "shipped_trace"]
