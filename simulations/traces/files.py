"""Traces as files: CSV, Parquet and JSON, plain, gzip or zstd, told apart by what is in them and not by their names.

Rows are read in parts, so that a file of many millions takes little more memory than the trace that it becomes.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray

from simulations.traces import benches
from simulations.traces.formats import Gathered, Layout, recognised
from simulations.traces.trace import Trace, TraceError

SHIPPED: Final = {
    "azure2023_conv": "Azure LLM inference trace 2023 (conversation), Microsoft, CC-BY 4.0",
}
PACKED: Final = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
PACKED_OTHERWISE: Final = (
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
PARQUET: Final = b"PAR1"
BOM: Final = b"\xef\xbb\xbf"
# Enough for any header, and for the first of a file of JSON lines.
PEEK_BYTES: Final = 1 << 20
PART_BYTES: Final = 4 << 20
ZONE: Final = r"(Z|[+-]\d\d:?\d\d)\s*$"
ENDINGS: Final = re.compile(r"(\.(csv|parquet|pq|jsonl|ndjson|json|gz|zst|zstd))+$", re.IGNORECASE)


def read(path: str | Path) -> Trace:
    """The trace in a file, whatever of the known forms it has; TraceError says why there is none."""
    path = Path(path)
    if path.is_fifo() or path.is_char_device():
        raise TraceError(f"trace {path} is a stream, and a trace is read twice: write it to a file first")
    try:
        with path.open("rb") as file:
            magic = file.read(8)
        packed = _packing(path.name, magic)
        try:
            trace = _read(path, packed).trace()
        except OSError as error:
            if packed is None or error.errno is not None:
                raise
            raise TraceError(
                f"trace {path.name} is not a whole {packed} file ({error}): fetch or pack it anew"
            ) from error
    except OSError as error:
        raise TraceError(f"trace {path} cannot be read: {error.strerror or error}: look at the path") from error
    return replace(trace, name=ENDINGS.sub("", path.name) or path.name)


def shipped_trace(name: str = "azure2023_conv") -> Trace:
    """A trace that comes with us; its licence and origin are in `ATTRIBUTION.md` beside it."""
    if name not in SHIPPED:
        raise TraceError(f"trace '{name}' is not among those shipped: {', '.join(SHIPPED)} is")
    with resources.as_file(resources.files("simulations.traces").joinpath(f"{name}.csv.gz")) as path:
        return replace(read(path), source=SHIPPED[name])


def _packing(name: str, magic: bytes) -> str | None:
    for first, packing in PACKED_OTHERWISE:
        if magic.startswith(first):
            raise TraceError(f"trace {name} is packed with {packing}: unpack it, or pack it with gzip or zstd")
    return next((packing for first, packing in PACKED if magic.startswith(first)), None)


def _read(path: Path, packed: str | None) -> Gathered:
    with _stream(path, packed) as stream:
        head = stream.read(PEEK_BYTES)
    if not head.strip():
        raise TraceError(f"trace {path.name} is empty: give a file with a header and at least one row")
    if head.startswith(PARQUET):
        return _parquet(path, packed)
    if head.lstrip(BOM + b" \t\r\n")[:1] in (b"{", b"["):
        return _json(path, packed, head)
    return _csv(path, packed, head)


def _stream(path: Path, packed: str | None) -> Any:
    return pa.input_stream(str(path), compression=packed)


# --- CSV


def _csv(path: Path, packed: str | None, head: bytes) -> Gathered:
    line, _, rows = head.partition(b"\n")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(f"trace {path.name} is not text (byte {error.start}): give CSV, Parquet or JSON") from error
    if "\0" in text:
        raise TraceError(f"trace {path.name} is not text (byte {line.index(0)}): give CSV, Parquet or JSON")
    try:
        header = _fields(text)
    except csv.Error as error:
        raise TraceError(f"trace {path.name} has a header that is none of CSV ({error}): mend it") from error
    found = recognised(path.name, header)
    layout = replace(found, block_hashes="")
    gathered = Gathered(path.name, layout)
    if found.block_hashes:
        words = f"trace {path.name}: {found.block_hashes} is not read from CSV, and prompts have nothing in common"
        gathered.notes.append(f"{words}: give JSON lines or Parquet")
    if not rows.strip():
        return gathered
    kinds: dict[str, Any] = dict.fromkeys(layout.columns, pa.float64())
    if layout.format.instants:
        kinds[layout.time] = _instants(rows, header.index(layout.time))
    try:
        with _stream(path, packed) as stream:
            reader = pyarrow.csv.open_csv(
                stream,
                # With threads, a row that is wrong could not be named.
                pyarrow.csv.ReadOptions(
                    use_threads=False, column_names=_distinct(header), skip_rows=1, block_size=PART_BYTES
                ),
                pyarrow.csv.ParseOptions(newlines_in_values=False),
                pyarrow.csv.ConvertOptions(column_types=kinds, include_columns=list(layout.columns)),
            )
            _gather(gathered, reader)
    except pa.ArrowException as error:
        raise TraceError(_csv_words(path.name, header, str(error))) from error
    return gathered


def _fields(line: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line.strip("\r")]), [])]


def _distinct(header: Sequence[str]) -> list[str]:
    """Two columns of one name would be taken for one: all but the first get a name that nobody asks for."""
    return [column if header.index(column) == place else f"{column} #{place}" for place, column in enumerate(header)]


def _instants(rows: bytes, place: int) -> Any:
    """The type of dates with times: whether they name a zone is seen in the first."""
    try:
        first = _fields(rows.split(b"\n", 1)[0].decode("utf-8", "replace"))
    except csv.Error:
        first = []  # the reader will say what is wrong with it
    zoned = place < len(first) and re.search(ZONE, first[place]) is not None
    return pa.timestamp("ns", "UTC" if zoned else None)


def _csv_words(name: str, header: Sequence[str], said: str) -> str:
    row = re.search(r"Row #(\d+): ", said)
    column = re.search(r"In CSV column #(\d+)", said)
    where = f"request {int(row[1]) - 1}" if row else "a row"
    of = f"{header[int(column[1])]} of {where}" if column else where
    why = said[row.end() :] if row else said
    return f"trace {name}: {of} cannot be read ({_short(why)}): mend or drop that row"


# --- Parquet


def _parquet(path: Path, packed: str | None) -> Gathered:
    source: Any = str(path)
    if packed is not None:
        with _stream(path, packed) as stream:
            source = pa.BufferReader(stream.read())
    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            layout = recognised(path.name, file.schema_arrow.names)
            gathered = Gathered(path.name, layout)
            wanted = [column for column in (*layout.columns, layout.block_hashes) if column]
            _gather(gathered, file.iter_batches(1 << 18, columns=wanted))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise TraceError(
            f"trace {path.name} is not a whole Parquet file ({_short(error)}): write or fetch it anew"
        ) from error
    return gathered


# --- JSON


def _json(path: Path, packed: str | None, head: bytes) -> Gathered:
    """JSON lines, an array of rows, or what a load generator wrote."""
    first, end, _ = head.partition(b"\n")
    if end and first.lstrip(BOM + b" ").startswith(b"{"):
        try:
            row = json.loads(first)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and not benches.is_vllm_bench(row):
            return _json_lines(path, packed, list(row), marked=first.startswith(BOM))
    with _stream(path, packed) as stream:
        text = stream.read()
    try:
        document = json.loads(text)
    except RecursionError as error:
        words = f"trace {path.name} is JSON that is nested too deeply"
        raise TraceError(f"{words}: give an array of objects, or an object a line") from error
    except ValueError as error:
        said = str(error)
        several = said.startswith("Extra data")
        if several and benches.is_vllm_bench(json.JSONDecoder().raw_decode(text.decode("utf-8-sig").lstrip())[0]):
            raise TraceError(
                f"trace {path.name} holds several runs of vllm bench serve: give a file of one, "
                "as it is written without --append-result"
            ) from error
        raise TraceError(f"trace {path.name} is not JSON ({_short(said)}): mend it there or fetch it anew") from error
    if benches.is_vllm_bench(document):
        return benches.of_vllm_bench(path.name, document)
    if benches.is_inference_perf_summary(document):
        raise TraceError(
            f"trace {path.name} is a summary of inference-perf: give the run's per_request_lifecycle_metrics.json, "
            "which it writes with report.request_lifecycle.per_request: true"
        )
    rows = [document] if isinstance(document, dict) else document
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise TraceError(f"trace {path.name} holds no request: give an array of objects, or an object a line")
    if benches.is_inference_perf(rows[0]):
        return benches.of_inference_perf(path.name, rows)
    layout = _json_layout(path.name, list(rows[0]))
    gathered = Gathered(path.name, layout)
    try:
        _gather(gathered, [pa.RecordBatch.from_pylist(rows, _schema(layout))])
    except (pa.ArrowException, TypeError) as error:
        raise TraceError(f"trace {path.name} has a row that cannot be read ({_short(error)}): give numbers") from error
    return gathered


def _json_layout(name: str, columns: Sequence[str]) -> Layout:
    """By what the first row has; block hashes may begin in a later one."""
    layout = recognised(name, columns)
    return replace(layout, block_hashes=layout.block_hashes or layout.format.block_hashes)


def _schema(layout: Layout) -> Any:
    fields = [(column, pa.float64()) for column in layout.columns]
    if layout.format.instants:
        fields[0] = (layout.time, pa.string())
    if layout.block_hashes:
        fields.append((layout.block_hashes, pa.list_(pa.int64())))
    return pa.schema(fields)


def _json_lines(path: Path, packed: str | None, columns: Sequence[str], *, marked: bool) -> Gathered:
    layout = _json_layout(path.name, columns)
    gathered = Gathered(path.name, layout)
    try:
        with _stream(path, packed) as stream:
            stream.read(len(BOM) if marked else 0)
            reader = pyarrow.json.open_json(
                stream,
                pyarrow.json.ReadOptions(use_threads=False, block_size=PART_BYTES),
                pyarrow.json.ParseOptions(explicit_schema=_schema(layout), unexpected_field_behavior="ignore"),
            )
            _gather(gathered, reader)
    except pa.ArrowException as error:
        said = str(error).removeprefix("JSON parse error: ")
        row = re.search(r" in row (\d+)$", said)
        where = f"request {gathered.rows + int(row[1]) + 1}" if row else "a row"
        why = said[: row.start()] if row else said
        raise TraceError(
            f"trace {path.name}: {where} cannot be read ({_short(why)}): mend or drop that line"
        ) from error
    return gathered


# --- what all have in common


def _gather(gathered: Gathered, batches: Iterable[Any]) -> None:
    """Adds record batches to what is gathered; what is missing is NaN, instants count from the earliest at first."""
    layout = gathered.layout
    began: int | None = None
    for batch in batches:
        column = batch.column(layout.time)
        if layout.format.instants and not pa.types.is_floating(column.type):
            ticks = _ticks(gathered.name, layout.time, column)
            began = pyarrow.compute.min(ticks).as_py() if began is None else began
            times = pyarrow.compute.subtract(ticks, began or 0).cast(pa.float64()).to_numpy(zero_copy_only=False) / 1e9
        else:
            times = _numbers(gathered.name, layout.time, column)
        prompts = _numbers(gathered.name, layout.prompt, batch.column(layout.prompt))
        outputs = _numbers(gathered.name, layout.output, batch.column(layout.output))
        hashes = _hashes(gathered.name, batch.column(layout.block_hashes)) if layout.block_hashes else None
        gathered.add(times, prompts, outputs, hashes)


def _numbers(name: str, title: str, column: Any) -> NDArray[np.float64]:
    try:
        numbers: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise TraceError(f"trace {name}: {title} holds what is no number ({_short(error)}): write numbers") from error
    return numbers


def _ticks(name: str, title: str, column: Any) -> Any:
    """Nanoseconds since 1970 of dates with times, in UTC or, all of them, without a zone."""
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    zoned = text and any(re.search(ZONE, each.as_py() or "") for each in column[:1])
    kind = pa.timestamp("ns", "UTC" if zoned else None if text else getattr(column.type, "tz", None))
    try:
        return column.cast(kind).cast(pa.int64())
    except pa.ArrowException as error:
        raise TraceError(f"trace {name}: {title} holds what is no date with time ({_short(error)}): mend it") from error


def _hashes(name: str, column: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many hashes each prompt has, none where the list is missing, and all hashes in a row."""
    try:
        counts = pyarrow.compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        hashes = column.flatten().cast(pa.int64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowException, AttributeError) as error:
        words = f"trace {name} has block hashes that are no lists of whole numbers ({_short(error)})"
        raise TraceError(f"{words}: mend them, or leave the column out") from error
    return counts.astype(np.int64), hashes


def _short(said: object) -> str:
    return " ".join(str(said).split())[:120]
