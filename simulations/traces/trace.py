"""A trace: when each request arrives, how long its prompt is and how many tokens it will be answered with.

This module alone knows what makes a trace one; how it is read from files is told beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")
"""What the three are called where nothing else is said."""
TOO_LONG = 2_000_000_000

Numbers = NDArray[np.float64] | NDArray[np.int64] | NDArray[np.int32]


class TraceError(ValueError):
    """A trace cannot be used; the message names the file, the column or row, and the remedy."""


def seconds(name: str, column: str, values: Numbers, *, before: int = 0) -> NDArray[np.float64]:
    """Times ≥ 0 in seconds, or TraceError with the first request that has none; `before` requests came before."""
    times = np.asarray(values, dtype=np.float64)
    words = f"trace {name}: {column} of request {{}} is {{}}: give the time from the start, 0 or more"
    _refuse(~(np.isfinite(times) & (times >= 0)), words, times, before)
    return times


def instants(name: str, column: str, values: Numbers, *, before: int = 0) -> NDArray[np.float64]:
    """Times in seconds from any instant, or TraceError with the first request that has none."""
    times = np.asarray(values, dtype=np.float64)
    words = f"trace {name}: {column} of request {{}} is missing: give it, or drop that row"
    _refuse(~np.isfinite(times), words, times, before)
    return times


def whole_tokens(name: str, column: str, values: Numbers, *, before: int = 0) -> NDArray[np.int32]:
    """Lengths ≥ 0 in tokens, or TraceError with the first request that has none; `before` requests came before."""
    tokens = np.asarray(values, dtype=np.float64)
    in_range = (tokens >= 0) & (tokens < TOO_LONG)
    words = f"trace {name}: {column} of request {{}} is {{}}: give a whole number of tokens, below 2 billion"
    _refuse(~(in_range & (tokens == np.floor(tokens))), words, tokens, before)
    return tokens.astype(np.int32)


def _refuse(wrong: NDArray[np.bool_], words: str, values: Numbers | None = None, before: int = 0) -> None:
    places = np.flatnonzero(wrong)
    if places.size:
        place = int(places[0])
        shown = "" if values is None else "no number" if np.isnan(values[place]) else f"{values[place]:g}"
        raise TraceError(words.format(before + place + 1, shown))


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
        counts = np.diff(self.offsets)
        if (counts <= most).all():
            return self
        return self._parts(self.offsets[:-1], np.minimum(counts, most))

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
    priorities: NDArray[np.int32] | None = None
    """Of each request, the lowest first; None where all are alike."""

    @classmethod
    def of(
        cls,
        name: str,
        arrived_at_seconds: Numbers,
        prompt_tokens: Numbers,
        output_tokens: Numbers,
        *,
        source: str = "",
        prompt_blocks: PromptBlocks | None = None,
        notes: tuple[str, ...] = (),
        priorities: NDArray[np.int32] | None = None,
        columns: tuple[str, str, str] = COLUMNS,
    ) -> Self:
        """A checked trace; requests are sorted by arrival where they were not, and a note says so.

        `columns` are the names that the user knows the three by. TraceError names the first request that is wrong.
        """
        arrived = seconds(name, columns[0], arrived_at_seconds)
        prompts, outputs = (
            whole_tokens(name, column, values)
            for column, values in zip(columns[1:], (prompt_tokens, output_tokens), strict=True)
        )
        if arrived.size == 0:
            raise TraceError(f"trace {name} holds no request: give one with at least one row")
        if not arrived.size == prompts.size == outputs.size:
            raise TraceError(
                f"trace {name} has {arrived.size} times, {prompts.size} prompts and {outputs.size} outputs: "
                "give one of each a request"
            )
        if priorities is not None and priorities.size != arrived.size:
            raise TraceError(
                f"trace {name} has {priorities.size} priorities: give one for each of {arrived.size} requests"
            )
        if prompt_blocks is not None and prompt_blocks.requests != arrived.size:
            raise TraceError(
                f"trace {name} has prompt blocks of {prompt_blocks.requests} requests, but {arrived.size} requests: "
                "give them for each request, empty where unknown"
            )
        for column, tokens in zip(columns[1:], (prompts, outputs), strict=True):
            _refuse(
                tokens == 0,
                f"trace {name}: {column} of request {{}} is 0: "
                "every request has at least one token each way, drop or mend such rows",
            )
        early = int(np.count_nonzero(np.diff(arrived) < 0))
        if early:
            order = np.argsort(arrived, kind="stable")
            arrived, prompts, outputs = arrived[order], prompts[order], outputs[order]
            prompt_blocks = None if prompt_blocks is None else prompt_blocks.taken(order)
            priorities = None if priorities is None else priorities[order]
            came = "a request came" if early == 1 else f"{early} requests came"
            notes = (*notes, f"trace {name} was not in order of arrival ({came} too early): it is sorted now")
        if prompt_blocks is not None:
            prompt_blocks = prompt_blocks.within(prompts)
        return cls(name, np.ascontiguousarray(arrived), prompts, outputs, source, prompt_blocks, notes, priorities)

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
        clipped = np.minimum(self.prompt_tokens, np.int32(min(prompt_tokens, TOO_LONG)))
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
            priorities=None if self.priorities is None else self.priorities[:count],
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
