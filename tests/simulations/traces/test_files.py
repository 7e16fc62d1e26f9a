"""Reading traces from files of every known form, and what is said of those that cannot be read."""

from __future__ import annotations

import bz2
import gzip
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.traces import Trace, TraceError, read, shipped_trace

HEADER = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
MOONCAKE = (
    '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0,1,2,3,4,5,6,7,8,9,10,11,12,13]}\n'
    '{"timestamp": 3000, "input_length": 915, "output_length": 355, "hash_ids": [0, 462]}\n'
)
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda raw: raw,
    "gzip": lambda raw: gzip.compress(raw, 1),
    "zstd": lambda raw: zstandard.compress(raw, 1),
}


def given_as(folder: Path, content: bytes | str, name: str = "t.csv") -> Trace:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(path)


def blocks_of(trace: Trace) -> list[list[int]]:
    assert trace.prompt_blocks is not None
    hashes = trace.prompt_blocks.hashes.tolist()
    return [hashes[a:b] for a, b in pairwise(trace.prompt_blocks.offsets.tolist())]


@pytest.mark.parametrize("packing", PACKINGS)
def test_packing_is_seen_in_the_file_and_not_in_its_name(tmp_path: Path, packing: str) -> None:
    text = "\ufeffnum_decode_tokens, arrived_at,other,num_prefill_tokens\r\n7,2.5,x,30\r\n5,0.25,y,10\r\n".encode()
    for name in ("t.csv", "t.csv.gz", "t.zst", "t"):
        trace = given_as(tmp_path, PACKINGS[packing](text), name)
        assert trace.name == "t"
        assert trace.arrived_at_seconds.tolist() == [0.25, 2.5]
        assert trace.prompt_tokens.tolist() == [10, 30]
        assert trace.output_tokens.tolist() == [5, 7]
        assert trace.notes == (
            f"trace {name} was not in order of arrival (a request came too early): it is sorted now",
        )


@pytest.mark.parametrize(
    ("name", "text", "times", "prompts", "outputs"),
    [
        (
            "Azure's",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n",
            [0.0, 0.052],
            [4808, 3180],
            [10, 8],
        ),
        (
            "Azure's",
            "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
            "2024-05-10 00:00:00.009930+00:00,0,2162,5\n2024-05-10 00:00:01+00:00,1,2399,6\n",
            [0.0, 0.99007],
            [2162, 2399],
            [5, 6],
        ),
        (
            "BurstGPT's",
            "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
            "19440110.0,1722,43,GPT-4,906,446,1352,Conversation log\n19440161.0,d598,2,ChatGPT,36,29,65,API log\n",
            [0.0, 51.0],
            [906, 36],
            [446, 29],
        ),
        ("Mooncake's", MOONCAKE, [0.0, 3.0], [6758, 915], [500, 355]),
        (
            "Qwen-Bailian's",
            '{"chat_id": 1, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 20, "output_length": 132, '
            '"type": "text", "turn": 1, "hash_ids": [7, 8]}\n',
            [61.114],
            [20],
            [132],
        ),
        ("ServeGen's", "request_id,timestamp,input_tokens,output_tokens\n0,0.5,100,20\n", [0.5], [100], [20]),
    ],
)
def test_published_formats_are_known_by_their_columns(
    tmp_path: Path, name: str, text: str, times: list[float], prompts: list[int], outputs: list[int]
) -> None:
    trace = given_as(tmp_path, text)
    assert trace.source.startswith(f"read as {name} format (")
    assert trace.arrived_at_seconds == pytest.approx(times, abs=1e-9)
    assert (trace.prompt_tokens.tolist(), trace.output_tokens.tolist()) == (prompts, outputs)
    assert trace.notes == ()


def test_prompt_blocks_come_with_the_size_that_their_number_tells(tmp_path: Path) -> None:
    mooncake = given_as(tmp_path, MOONCAKE)
    assert blocks_of(mooncake) == [list(range(14)), [0, 462]]
    assert blocks_of(given_as(tmp_path, "\ufeff" + MOONCAKE)) == blocks_of(mooncake)
    assert mooncake.prompt_blocks is not None
    assert mooncake.prompt_blocks.tokens_per_block == 512
    rows = [{"timestamp": n, "input_length": 64 * n, "output_length": 1, "hash_ids": list(range(n))} for n in (3, 5)]
    sixty_four = given_as(tmp_path, "\n".join(map(json.dumps, rows)) + "\n")
    assert sixty_four.prompt_blocks is not None
    assert sixty_four.prompt_blocks.tokens_per_block == 64
    assert sixty_four.notes == ("trace t.csv: hash_ids are of blocks of 64 tokens by their number",)
    rows[0]["input_length"], rows[1]["input_length"] = 1, 100_000
    fitting_none = given_as(tmp_path, "\n".join(map(json.dumps, rows)) + "\n")
    assert fitting_none.prompt_blocks is None
    assert "fit no block size" in fitting_none.notes[0]
    in_csv = given_as(tmp_path, 'timestamp,input_length,output_length,hash_ids\n0,900,5,"[0, 1]"\n')
    assert (in_csv.requests, in_csv.prompt_blocks) == (1, None)
    assert "hash_ids is not read from CSV" in in_csv.notes[0]


def test_failed_requests_of_burstgpt_are_left_out_and_said(tmp_path: Path) -> None:
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    trace = given_as(tmp_path, header + "5,GPT-4,300,0,300,API log\n9,ChatGPT,472,18,490,Conversation log\n")
    assert trace.prompt_tokens.tolist() == [472]
    assert trace.notes == (
        "trace t.csv: 1 of 2 requests have a length of 0, as BurstGPT's format writes failed ones: "
        "they are left out, and so is their load",
    )
    with pytest.raises(TraceError, match="no request that was answered"):
        given_as(tmp_path, header + "5,GPT-4,300,0,300,API log\n")


def test_a_clocks_stamps_are_counted_from_the_first_and_said(tmp_path: Path) -> None:
    trace = given_as(tmp_path, HEADER + "1700000000.5,10,5\n1700000002,10,5\n")
    assert trace.arrived_at_seconds.tolist() == [0.0, 1.5]
    assert "arrived_at begins at 1700000000.5 s, which is a clock's" in trace.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arrived_at,prompt\n1,2\n", "lacks the columns num_prefill_tokens, num_decode_tokens; it has arrived_at, pr"),
        ("timestamp,input_length\n1,2\n", "lacks the column output_length of Mooncake's format; it has timestamp, in"),
        ("a,b\n1,2\n", r"columns of no known format \(it has a, b\): give arrived_at, num_prefill_tokens"),
        ("", "t.csv is empty"),
        (HEADER, "holds no request"),
        (HEADER + "-1,5,5\n", "arrived_at of request 1 is -1"),
        (HEADER + "1,5,5\nnan,5,5\n", "arrived_at of request 2 is no number"),
        (HEADER + "1,5,0\n", "num_decode_tokens of request 1 is 0: every request has at least one token"),
        (HEADER + "1,-5,3\n", "num_prefill_tokens of request 1 is -5"),
        (HEADER + "1,2.5,3\n", "num_prefill_tokens of request 1 is 2.5: give a whole number"),
        (HEADER + "1,5,5\n1,,3\n", "num_prefill_tokens of request 2 is no number"),
        (HEADER + "1,5,5\n1,abc,3\n", "num_prefill_tokens of request 2 cannot be read .*invalid value 'abc'"),
        (HEADER + "1,5,5\n1,2\n", "request 2 cannot be read .*Expected 3 columns, got 2"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,1\n,1,1\n", "TIMESTAMP of request 2 is missi"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n", "TIMESTAMP of request 1 cannot be .*'yesterday'"),
        (MOONCAKE.replace("355", "0"), "output_length of request 2 is 0"),
        (MOONCAKE.replace("355", "null"), "output_length of request 2 is no number"),
        (MOONCAKE.replace("355", '"x"'), "request 2 cannot be read .*changed from number to string"),
        (MOONCAKE[:-9], "request 2 cannot be read"),
        (MOONCAKE.replace("462", "4.62"), "cannot be read"),
        ("[]", "holds no request"),
        ("[1]", "holds no request: give an array of objects"),
        ('[{"arrived_at": 1, "num_prefill_tokens": "x", "num_decode_tokens": 1}]', "has a row that cannot be read"),
        ('{"a":\n', "is not JSON"),
        ('[{"a": 1}] [', "is not JSON .Extra data"),
        ("[" * 100_000, "is JSON that is nested too deeply: give an array of objects, or an object a line"),
        ('{"a":' * 100_000 + "\n", "is JSON that is nested too deeply"),
    ],
)
def test_a_trace_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TraceError, match=said) as refused:
        given_as(tmp_path, text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_torn_or_damaged_file_is_told_as_such(tmp_path: Path, packing: str) -> None:
    packed = PACKINGS[packing](HEADER.encode() + b"".join(b"%d,%d,7\n" % (n, 1 + n % 97) for n in range(9999)))
    assert given_as(tmp_path, packed).requests == 9999
    for torn in (packed[:-3], packed[: len(packed) // 2], packed[:9]):
        with pytest.raises(TraceError, match=f"is not a whole {packing} file"):
            given_as(tmp_path, torn)
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 255
    with pytest.raises(TraceError):
        given_as(tmp_path, bytes(damaged))


def test_files_that_are_no_traces_are_named_for_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read: No such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(TraceError, match="cannot be read: Is a directory"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for stream in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(TraceError, match="is a stream, and a trace is read twice: write it to a file first"):
            read(stream)
    for binary in (b"\xff\xfe\x00", b"ustar\x00\x00\x00\n1,2\n", HEADER.encode("utf-16")):
        with pytest.raises(TraceError, match="is not text"):
            given_as(tmp_path, binary)
    with pytest.raises(TraceError, match="is packed with bzip2: unpack it, or pack it with gzip or zstd"):
        given_as(tmp_path, bz2.compress(HEADER.encode()), "t.csv.gz")
    with pytest.raises(TraceError, match="not among those shipped"):
        shipped_trace("nobody")


def parquet(folder: Path, **columns: Any) -> bytes:
    path = folder / "made.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path.read_bytes()


@pytest.mark.parametrize("packing", PACKINGS)
def test_parquet_is_read_under_any_name(tmp_path: Path, packing: str) -> None:
    made = parquet(
        tmp_path, arrived_at=[0.5, 2.0], num_prefill_tokens=[3, 4], num_decode_tokens=[5.0, 6.0], x=["a", "b"]
    )
    trace = given_as(tmp_path, PACKINGS[packing](made), "t.csv")
    assert (trace.arrived_at_seconds.tolist(), trace.prompt_tokens.tolist()) == ([0.5, 2.0], [3, 4])
    assert trace.output_tokens.tolist() == [5, 6]


@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("as_text", [True, False])
def test_parquet_may_hold_instants_and_block_hashes(tmp_path: Path, zone: str | None, as_text: bool) -> None:
    end = "+00:00" if zone else ""
    times = [f"2024-05-10 00:00:01.500000{end}", f"2024-05-10 00:00:00{end}"]
    column = pa.array(times)
    if not as_text:
        column = column.cast(pa.timestamp("us", zone))
    azure = given_as(tmp_path, parquet(tmp_path, timestamp=column, contexttokens=[1, 2], generatedtokens=[3, 4]))
    assert azure.arrived_at_seconds.tolist() == [0.0, 1.5]
    hashes = pa.array([[1, 2], None])
    mooncake = parquet(tmp_path, timestamp=[0, 30], input_length=[600, 9], output_length=[4, 5], hash_ids=hashes)
    assert blocks_of(given_as(tmp_path, mooncake)) == [[1, 2], []]


def test_parquet_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path) -> None:
    whole = parquet(tmp_path, arrived_at=[0.5], num_prefill_tokens=[3], num_decode_tokens=[5])
    for torn in (whole[:-20], whole[:4], whole[:-20] + b"PAR1"):
        with pytest.raises(TraceError, match="is not a whole Parquet file"):
            given_as(tmp_path, torn)
    with pytest.raises(TraceError, match="lacks the column num_decode_tokens; it has arrived_at, num_prefill_tokens"):
        given_as(tmp_path, parquet(tmp_path, arrived_at=[0.5], num_prefill_tokens=[3]))
    missing = parquet(tmp_path, arrived_at=[0.5], num_prefill_tokens=pa.nulls(1, pa.int64()), num_decode_tokens=[5])
    with pytest.raises(TraceError, match="num_prefill_tokens of request 1 is no number"):
        given_as(tmp_path, missing)
    with pytest.raises(TraceError, match="arrived_at holds what is no number"):
        given_as(tmp_path, parquet(tmp_path, arrived_at=["a"], num_prefill_tokens=[3], num_decode_tokens=[5]))
    with pytest.raises(TraceError, match="block hashes that are no lists"):
        given_as(tmp_path, parquet(tmp_path, timestamp=[0], input_length=[6], output_length=[4], hash_ids=["a"]))


requests = st.tuples(
    st.integers(0, 10**9).map(lambda microseconds: microseconds / 1e6),
    st.integers(1, 100_000),
    st.integers(1, 5_000),
)


@given(st.lists(requests, min_size=1, max_size=40), st.sampled_from(sorted(PACKINGS)), st.data())
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read_again_in_every_form(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[float, int, int]],
    packing: str,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("forms")
    names = HEADER.strip().split(",")
    form = data.draw(st.sampled_from(["csv", "lines", "array", "parquet"]))
    if form == "csv":
        content = (HEADER + "".join(f"{time},{prompt},{output}\n" for time, prompt, output in rows)).encode()
    elif form == "parquet":
        content = parquet(folder, **dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    else:
        objects = [dict(zip(names, row, strict=True)) for row in rows]
        text = json.dumps(objects) if form == "array" else "\n".join(map(json.dumps, objects))
        content = text.encode()
    trace = given_as(folder, PACKINGS[packing](content))
    expected = sorted(rows, key=lambda row: row[0])
    assert trace.arrived_at_seconds.tolist() == [time for time, _, _ in expected]
    assert trace.prompt_tokens.tolist() == [prompt for _, prompt, _ in expected]
    assert trace.output_tokens.tolist() == [output for _, _, output in expected]
    assert bool(trace.notes) == (rows != expected)


prompts = st.tuples(st.integers(0, 60_000), st.integers(1, 4_000), st.booleans())


@given(st.lists(prompts, min_size=1, max_size=30))
@settings(deadline=None, max_examples=40)
def test_hashes_stay_with_their_prompt_however_the_rows_are_ordered(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, int, bool]]
) -> None:
    rows = [
        {"timestamp": time, "input_length": length, "output_length": 1 + number}
        | ({"hash_ids": [number * 100 + place for place in range(-(-length // 512))]} if hashed else {})
        for number, (time, length, hashed) in enumerate(drawn)
    ]
    trace = given_as(tmp_path_factory.mktemp("hashes"), "\n".join(map(json.dumps, rows)) + "\n")
    expected = sorted(rows, key=lambda row: row["timestamp"])
    assert trace.output_tokens.tolist() == [row["output_length"] for row in expected]
    if any(hashed for _, _, hashed in drawn):
        assert blocks_of(trace) == [row.get("hash_ids", []) for row in expected]
    else:
        assert trace.prompt_blocks is None


def test_many_parts_make_one_trace(tmp_path: Path) -> None:
    """More than one part of a file is read, and a wrong row far down is still named."""
    times = np.arange(700_000)
    text = HEADER + "".join(f"{time}.000000,1234,567\n" for time in times)
    trace = given_as(tmp_path, text)
    assert np.array_equal(trace.arrived_at_seconds, times)
    with pytest.raises(TraceError, match="num_decode_tokens of request 700001 cannot be read"):
        given_as(tmp_path, text + "700000,1,none of it\n")


WHOLE = (
    (HEADER + "0.5,10,5\n1.5,20,7\n").encode(),
    b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n",
    MOONCAKE.encode(),
    json.dumps({"input_lens": [1, 2], "output_lens": [3, 4], "start_times": [5.0, 6.0]}).encode(),
    json.dumps(
        [{"start_time": 1.0, "info": {"input_tokens": 3, "output_tokens": 4}, "error": None}], indent=1
    ).encode(),
    json.dumps([{"arrived_at": 1.0, "num_prefill_tokens": 3, "num_decode_tokens": 4}]).encode(),
)


@given(
    st.sampled_from(WHOLE),
    st.sampled_from(sorted(PACKINGS)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
    st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_no_damage_to_a_file_ends_in_anything_but_a_trace_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory,
    whole: bytes,
    packing: str,
    changes: list[tuple[float, int]],
    kept: float,
    damaged_before_packing: bool,
) -> None:
    def damaged(raw: bytes) -> bytes:
        torn = bytearray(raw)
        for share, value in changes:
            torn[int(share * (len(torn) - 1))] = value
        return bytes(torn[: int((0.5 + kept) * len(torn))])

    pack = PACKINGS[packing]
    content = pack(damaged(whole)) if damaged_before_packing else damaged(pack(whole))
    said = ""
    try:
        trace = given_as(tmp_path_factory.getbasetemp(), content, "damaged")
    except TraceError as refused:
        said = str(refused)
    else:
        assert trace.requests >= 1
        assert np.isfinite(trace.arrived_at_seconds).all()
        assert min(trace.prompt_tokens.min(), trace.output_tokens.min()) >= 1
    assert "\n" not in said
