"""A trace: when each request arrives, how long its prompt is and how many tokens it will be answered with.

This module alone reads the format `arrived_at,num_prefill_tokens,num_decode_tokens` (CSV, plain or gzip).
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")


class TraceError(ValueError):
    """A trace cannot be used; the message names the file, the column or row, and the remedy."""


@dataclass(frozen=True, slots=True)
class PromptBlocks:
    """What of the prompts is the same: the blocks that each prompt is made of, named by a hash.

    Those of request n are `hashes[offsets[n] : offsets[n + 1]]`, in order, each of `tokens_per_block` tokens, the
    last one of what is left; it may be named, too. A hash stands for its block and all before it, so two
    prompts begin alike for as many blocks as their hashes are the same from the first on. A prompt with fewer
    hashes than blocks shares the rest with nobody.
    """

    tokens_per_block: int
    offsets: NDArray[np.int64]
    """Of length requests + 1, from 0, never falling."""
    hashes: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.tokens_per_block < 1:
            raise TraceError(f"a block of a prompt has {self.tokens_per_block} tokens: give at least one")
        ends = self.offsets[[0, -1]].tolist() if self.offsets.size else []
        if ends != [0, self.hashes.size] or (np.diff(self.offsets) < 0).any():
            raise TraceError("the offsets of prompt blocks must rise from 0 to the number of hashes")

    @property
    def requests(self) -> int:
        return int(self.offsets.size) - 1

    def taken(self, requests: NDArray[np.int64]) -> PromptBlocks:
        """The blocks of these requests, in this order."""
        return self._parts(self.offsets[requests], np.diff(self.offsets)[requests])

    def first(self, count: int) -> PromptBlocks:
        """The blocks of the first requests."""
        offsets = self.offsets[: count + 1]
        return PromptBlocks(self.tokens_per_block, offsets, self.hashes[: offsets[-1]])

    def within(self, prompt_tokens: NDArray[np.int64] | NDArray[np.int32]) -> PromptBlocks:
        """The blocks that prompts of these lengths fill or begin."""
        most = -(-np.asarray(prompt_tokens, dtype=np.int64) // self.tokens_per_block)
        return self._parts(self.offsets[:-1], np.minimum(np.diff(self.offsets), most))

    def _parts(self, starts: NDArray[np.int64], counts: NDArray[np.int64]) -> PromptBlocks:
        """So many blocks from each of these places on."""
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
        return PromptBlocks(self.tokens_per_block, offsets, self.hashes[places])


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival, in seconds from the trace's time 0."""

    name: str
    arrived_at_seconds: NDArray[np.float64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    source: str = ""
    prompt_blocks: PromptBlocks | None = None
    """None where the trace does not say what of the prompts is the same."""
    notes: tuple[str, ...] = ()
    """What its reader should tell the user, one sentence each."""

    @classmethod
    def of(
        cls,
        name: str,
        arrived_at_seconds: NDArray[np.float64],
        prompt_tokens: NDArray[np.int64],
        output_tokens: NDArray[np.int64],
        *,
        source: str = "",
        prompt_blocks: PromptBlocks | None = None,
        notes: tuple[str, ...] = (),
    ) -> Self:
        """A checked trace; requests are sorted by arrival where they were not, and a note says so."""
        arrived = np.asarray(arrived_at_seconds, dtype=np.float64)
        if arrived.size == 0:
            raise TraceError(f"trace {name} holds no request: give one with at least one row")
        if not np.isfinite(arrived).all() or (arrived < 0).any():
            row = int(np.flatnonzero(~np.isfinite(arrived) | (arrived < 0))[0])
            raise TraceError(
                f"trace {name}: arrived_at of request {row + 1} is {arrived[row]}: seconds from the start, ≥ 0"
            )
        for column, tokens in (("num_prefill_tokens", prompt_tokens), ("num_decode_tokens", output_tokens)):
            wrong = np.flatnonzero(np.asarray(tokens) < 1)
            if wrong.size:
                row = int(wrong[0])
                raise TraceError(
                    f"trace {name}: {column} of request {row + 1} is {tokens[row]}: "
                    "every request has at least one token each way, drop or mend such rows"
                )
        prompts, outputs = np.asarray(prompt_tokens), np.asarray(output_tokens)
        if not arrived.size == prompts.size == outputs.size:
            raise TraceError(
                f"trace {name} has {arrived.size} times, {prompts.size} prompts and {outputs.size} outputs: "
                "give one of each a request"
            )
        if prompt_blocks is not None and prompt_blocks.requests != arrived.size:
            raise TraceError(
                f"trace {name} has prompt blocks of {prompt_blocks.requests} requests, but {arrived.size} requests: "
                "give them for each request, empty where unknown"
            )
        early = int(np.count_nonzero(np.diff(arrived) < 0))
        if early:
            order = np.argsort(arrived, kind="stable")
            arrived, prompts, outputs = arrived[order], prompts[order], outputs[order]
            prompt_blocks = None if prompt_blocks is None else prompt_blocks.taken(order)
            notes = (
                *notes,
                f"trace {name} was not in order of arrival ({early} rows came too early): it is sorted now",
            )
        if prompt_blocks is not None:
            prompt_blocks = prompt_blocks.within(prompts)
        arrived = np.ascontiguousarray(arrived)
        return cls(name, arrived, prompts.astype(np.int32), outputs.astype(np.int32), source, prompt_blocks, notes)

    @property
    def requests(self) -> int:
        return int(self.arrived_at_seconds.size)

    @property
    def end_seconds(self) -> float:
        """When the last request arrives."""
        return float(self.arrived_at_seconds[-1])

    def clipped(self, prompt_tokens: int) -> Trace:
        """The same requests with no prompt longer than that."""
        if prompt_tokens < 1:
            raise TraceError(
                f"trace {self.name} cannot be clipped to prompts of {prompt_tokens} tokens: give at least 1"
            )
        clipped = np.minimum(self.prompt_tokens, np.int32(min(prompt_tokens, 2**31 - 1)))
        blocks = None if self.prompt_blocks is None else self.prompt_blocks.within(clipped)
        return replace(self, prompt_tokens=clipped, prompt_blocks=blocks)

    def until(self, seconds: float) -> Trace:
        """The requests that arrive before that time."""
        count = int(np.searchsorted(self.arrived_at_seconds, seconds, side="left"))
        if count == 0:
            raise TraceError(f"trace {self.name} has no request before {seconds:g} s")
        return replace(
            self,
            arrived_at_seconds=self.arrived_at_seconds[:count],
            prompt_tokens=self.prompt_tokens[:count],
            output_tokens=self.output_tokens[:count],
            prompt_blocks=None if self.prompt_blocks is None else self.prompt_blocks.first(count),
        )

    def bent(self, rate_at: Callable[[float], float], *, name: str, scale: float = 1.0) -> Trace:
        """The same requests in the same order, their times moved so that the rate is `scale` × `rate_at` × what it was.

        `rate_at` is a multiple of the rate as a share 0…1 of the trace goes by, with mean 1; the span is divided
        by `scale`. Gaps are squeezed and stretched, requests neither made up nor dropped, so bursts stay bursts.
        """
        span = self.end_seconds
        grid = np.linspace(0.0, 1.0, 4097)
        rate = np.array([rate_at(float(x)) for x in grid])
        if not (rate > 0).all():
            raise TraceError(f"trace {self.name}: the curve that bends its rate must stay above 0")
        work = np.concatenate(([0.0], np.cumsum((rate[1:] + rate[:-1]) / 2)))
        moved = np.interp(self.arrived_at_seconds / span, work / work[-1], grid) * (span / scale)
        return replace(self, name=name, arrived_at_seconds=np.round(moved, 6))


def load_trace(path: str | Path) -> Trace:
    """Reads a CSV with the columns `arrived_at,num_prefill_tokens,num_decode_tokens`, plain or gzip."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TraceError(f"trace {path} cannot be read: {error.strerror or error}") from error
    return _parse(path.name, raw)


def shipped_trace(name: str = "azure2023_conv") -> Trace:
    """A trace that comes with us; its licence and origin are in `ATTRIBUTION.md` beside it."""
    file = resources.files("simulations.traces").joinpath(f"{name}.csv.gz")
    if not file.is_file():
        raise TraceError(f"trace '{name}' is not among those shipped: azure2023_conv is")
    trace = _parse(name, file.read_bytes())
    return replace(trace, source="Azure LLM inference trace 2023 (conversation), Microsoft, CC-BY 4.0")


def _parse(name: str, raw: bytes) -> Trace:
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError) as error:
            raise TraceError(f"trace {name} is not a whole gzip file: {error}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(f"trace {name} is not text (byte {error.start}): give a CSV, plain or gzip") from error
    header = next(csv.reader(io.StringIO(text[: text.find("\n") + 1 or None])), [])
    header = [column.strip() for column in header]
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise TraceError(
            f"trace {name} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"it has {', '.join(header) or 'none'}"
        )
    if len(text.splitlines()) < 2:
        raise TraceError(f"trace {name} holds no request: give one with at least one row")
    try:
        rows = np.loadtxt(
            io.StringIO(text), delimiter=",", skiprows=1, ndmin=2, usecols=[header.index(c) for c in COLUMNS]
        )
    except ValueError as error:
        raise TraceError(f"trace {name} has a row that cannot be read: {error}") from error
    return Trace.of(
        name.removesuffix(".gz").removesuffix(".csv"),
        rows[:, 0],
        _whole(name, rows[:, 1], COLUMNS[1]),
        _whole(name, rows[:, 2], COLUMNS[2]),
    )


def _whole(name: str, values: NDArray[np.float64], column: str) -> NDArray[np.int64]:
    wrong = np.flatnonzero(~np.isfinite(values) | (values != np.floor(values)) | (np.abs(values) >= 2**31))
    if wrong.size:
        row = int(wrong[0])
        raise TraceError(f"trace {name}: {column} of request {row + 1} is {values[row]}: give a whole number")
    return values.astype(np.int64)
