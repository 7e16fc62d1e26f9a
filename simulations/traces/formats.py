"""Whose a trace is by the names of its columns, and what its numbers mean; nothing here opens a file.

Names are compared without regard to case, since conversions to Parquet often change it. What publishers say:
Azure/AzurePublicDataset (LLM inference 2023 and 2024, multimodal 2025), HPMLL/BurstGPT v2.0, kvcache-ai/Mooncake
(FAST25), alibaba-edu/qwen-bailian-usagetraces-anon, alibaba/ServeGen's `save_requests_to_csv`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulations.traces.trace import COLUMNS, Numbers, PromptBlocks, Trace, TraceError, instants, seconds, whole_tokens

# A time from the start that is later than three years is a clock's stamp.
CLOCK_SECONDS: Final = 1e8
# Of the prompts that have block hashes, how many must have as many as the block size says.
BLOCKS_FIT: Final = 0.9


@dataclass(frozen=True, slots=True)
class Format:
    """One publisher's columns: time of arrival, prompt's and output's length in tokens."""

    whose: str
    time: str
    prompt: str
    output: str
    unit_seconds: float = 1.0
    by_clock: bool = False
    """Times are a clock's: they count from the first request."""
    instants: bool = False
    """Times are written as date and time."""
    failed_is_zero: bool = False
    """A request that failed has 0 tokens in its output."""
    block_hashes: str = ""
    """Column with the list of a prompt's block hashes, where there is one."""
    tokens_per_block: int = 0
    sign: str = ""
    """A column more that sets this format apart."""

    @property
    def columns(self) -> tuple[str, str, str]:
        return self.time, self.prompt, self.output


OURS: Final = Format("Preheat's", *COLUMNS)
FORMATS: Final = (
    OURS,
    Format("Azure's", "TIMESTAMP", "ContextTokens", "GeneratedTokens", by_clock=True, instants=True),
    Format("BurstGPT's", "Timestamp", "Request tokens", "Response tokens", by_clock=True, failed_is_zero=True),
    Format(
        *("Qwen-Bailian's", "timestamp", "input_length", "output_length"),
        block_hashes="hash_ids",
        tokens_per_block=16,
        sign="chat_id",
    ),
    Format(
        *("Mooncake's", "timestamp", "input_length", "output_length"),
        unit_seconds=0.001,
        block_hashes="hash_ids",
        tokens_per_block=512,
    ),
    Format("ServeGen's", "timestamp", "input_tokens", "output_tokens"),
)
KNOWN: Final = (
    f"{', '.join(COLUMNS)} (seconds, tokens, tokens), or those of Azure, BurstGPT, Mooncake, Qwen-Bailian, ServeGen, "
    "vllm bench serve or inference-perf"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """A format, and how its columns are spelt in one file; `block_hashes` is "" where there are none."""

    format: Format
    time: str
    prompt: str
    output: str
    block_hashes: str = ""

    @classmethod
    def of(cls, form: Format) -> Layout:
        return cls(form, form.time, form.prompt, form.output)

    @property
    def columns(self) -> tuple[str, str, str]:
        return self.time, self.prompt, self.output


def recognised(name: str, columns: Sequence[str]) -> Layout:
    """The first format whose columns are all there; TraceError names what is missing of the likest."""
    spelt = {column.strip().casefold(): column for column in columns}
    likest: Format | None = None
    most = 0
    for form in FORMATS:
        if form.sign and form.sign not in spelt:
            continue
        if not missing(form, spelt):
            time, prompt, output = (spelt[column.casefold()] for column in form.columns)
            return Layout(form, time, prompt, output, spelt.get(form.block_hashes, ""))
        # That a time is called `timestamp` tells nothing of whose it is.
        telling = (column.casefold() for column in form.columns if column.casefold() != "timestamp")
        told = sum(column in spelt for column in telling)
        if told > most:
            likest, most = form, told
    there = f"it has {', '.join(column.strip() for column in columns) or 'none'}"
    if likest is None:
        raise TraceError(f"trace {name} has columns of no known format ({there}): give {KNOWN}")
    lacking = missing(likest, spelt)
    whose = "" if likest is OURS else f" of {likest.whose} format"
    plural = "s" if len(lacking) > 1 else ""
    raise TraceError(f"trace {name} lacks the column{plural} {', '.join(lacking)}{whose}; {there}: add what it lacks")


def missing(form: Format, spelt: Mapping[str, str]) -> list[str]:
    return [column for column in form.columns if column.casefold() not in spelt]


class Gathered:
    """Rows of one file as they are read, a part at a time, checked and kept as narrow as they may be."""

    def __init__(self, name: str, layout: Layout) -> None:
        self.name = name
        self.layout = layout
        self.rows = 0
        self.notes: list[str] = []
        self._times: list[NDArray[np.float64]] = []
        self._prompts: list[NDArray[np.int32]] = []
        self._outputs: list[NDArray[np.int32]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._hashes: list[NDArray[np.int64]] = []

    def add(
        self,
        times: Numbers,
        prompts: Numbers,
        outputs: Numbers,
        blocks: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> None:
        """Rows that follow those before; `blocks` are the number of hashes of each prompt, and all hashes."""
        time, prompt, output = self.layout.columns
        checked = instants if self.layout.format.instants else seconds
        arrived = checked(self.name, time, times, before=self.rows)
        unit = self.layout.format.unit_seconds
        self._times.append(arrived if unit == 1.0 else arrived * unit)
        self._prompts.append(whole_tokens(self.name, prompt, prompts, before=self.rows))
        self._outputs.append(whole_tokens(self.name, output, outputs, before=self.rows))
        if blocks is not None:
            self._counts.append(blocks[0])
            self._hashes.append(blocks[1])
        self.rows += len(times)

    def trace(self) -> Trace:
        """All rows as a trace, with notes of what was done to them."""
        form, name = self.layout.format, self.name
        if not self.rows:
            raise TraceError(f"trace {name} holds no request: give one with at least one row")
        arrived = np.concatenate(self._times)
        prompts, outputs = np.concatenate(self._prompts), np.concatenate(self._outputs)
        blocks = self._blocks(prompts) if self._counts else None
        if form.failed_is_zero:
            done = (prompts > 0) & (outputs > 0)
            lost = self.rows - int(np.count_nonzero(done))
            if lost == self.rows:
                raise TraceError(f"trace {name} holds no request that was answered: give one with some that were")
            if lost:
                self.notes.append(
                    f"trace {name}: {lost} of {self.rows} requests have a length of 0, as {form.whose} format writes "
                    "failed ones: they are left out, and so is their load"
                )
                arrived, prompts, outputs = arrived[done], prompts[done], outputs[done]
                blocks = None if blocks is None else blocks.taken(np.flatnonzero(done))
        first = float(arrived.min())
        if form.by_clock:
            arrived -= first
        elif first >= CLOCK_SECONDS:
            arrived -= first
            self.notes.append(
                f"trace {name}: {self.layout.time} begins at {first:.15g} s, which is a clock's: "
                "times are counted from the first request"
            )
        source = "" if form is OURS else f"read as {form.whose} format ({', '.join(self.layout.columns)})"
        return Trace.of(
            *(name, arrived, prompts, outputs),
            source=source,
            prompt_blocks=blocks,
            notes=tuple(self.notes),
            columns=self.layout.columns,
        )

    def _blocks(self, prompts: NDArray[np.int32]) -> PromptBlocks | None:
        """The prompts' blocks, of the size that their numbers fit; None, and said, where they fit none."""
        counts, hashes = np.concatenate(self._counts), np.concatenate(self._hashes)
        self._hashes.clear()  # a copy of millions
        if not hashes.size:
            return None
        with_hashes = np.flatnonzero(counts)
        published = self.layout.format.tokens_per_block
        size, share = published, 0.0
        for candidate in (published, *(2**power for power in range(3, 13))):
            fitting = np.mean(-(-prompts[with_hashes].astype(np.int64) // candidate) == counts[with_hashes])
            if fitting > share:
                size, share = candidate, float(fitting)
            if share == 1.0:
                break
        if share < BLOCKS_FIT:
            self.notes.append(
                f"trace {self.name}: the numbers of {self.layout.block_hashes} fit no block size: "
                "they are left out, and prompts have nothing in common"
            )
            return None
        if size != published:
            self.notes.append(
                f"trace {self.name}: {self.layout.block_hashes} are of blocks of {size} tokens by their number"
            )
        return PromptBlocks(size, np.concatenate((np.zeros(1, np.int64), np.cumsum(counts))), hashes)
