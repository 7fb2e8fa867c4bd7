"""Bombs are stopped long before they are unpacked; damage ends a file with a rejection."""

import gzip
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from e5jax.data.records import Example
from e5jax.datasets.readers.formats import FORMATS, read
from e5jax.datasets.readers.result import Limits, Options, Rejected
from e5jax.errors import ConfigError

PACK = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor(level=19).compress}
ZEROS = bytes(200 << 20)
BOMBS = {suffix: pack(ZEROS) for suffix, pack in PACK.items()}


def lines(count: int) -> bytes:
    return b"".join(
        Example(str(i), f"query {hash(i * 7919)}", (f"p{i}",)).to_json().encode() + b"\n"
        for i in range(count)
    )


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("name", ["e5jax", "e5-mix", "pairs", "tevatron", "dpr"])
def test_a_bomb_is_refused_by_its_ratio_without_being_unpacked(name, suffix, tmp_path):
    path = tmp_path / f"x.json{suffix}"
    path.write_bytes(BOMBS[suffix])
    assert len(ZEROS) > 1000 * path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(
            ConfigError,
            match=r"x\.json.*compressed ones, more than ratio=200; if it is no bomb, raise ratio",
        ):
            list(read(path, name))
        assert tracemalloc.get_traced_memory()[1] < len(ZEROS) / 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", PACK)
def test_the_total_is_capped_too(suffix, tmp_path):
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(PACK[suffix](lines(1000)))
    with pytest.raises(
        ConfigError,
        match=r"x\.jsonl.*: more than 20,000 bytes when decompressed; raise total_bytes to read it",
    ):
        list(read(path, "e5jax", Options(limits=Limits(total_bytes=20_000))))
    assert (
        len(list(read(path, "e5jax", Options(limits=Limits(total_bytes=len(lines(1000))))))) == 1000
    )


@pytest.mark.parametrize("suffix", PACK)
def test_a_raised_ratio_lets_repeated_lines_through(suffix, tmp_path):
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(PACK[suffix](lines(1) * 60_000))
    with pytest.raises(ConfigError, match="ratio"):
        list(read(path, "e5jax", Options(limits=Limits(ratio=50))))
    assert len(list(read(path, "e5jax", Options(limits=Limits(ratio=50_000))))) == 60_000


def test_a_parquet_bomb_is_refused_before_it_is_read(tmp_path):
    text = pa.array(["a" * (4 << 20)])
    pq.write_table(
        pa.table({"query": text, "positive": text}),
        tmp_path / "x.parquet",
        compression="zstd",
        use_dictionary=False,
    )
    with pytest.raises(ConfigError, match=r"x\.parquet: .* more than ratio=200"):
        list(read(tmp_path / "x.parquet", "parquet"))
    with pytest.raises(ConfigError, match="more than 1,000 bytes when decompressed"):
        list(read(tmp_path / "x.parquet", "parquet", Options(limits=Limits(total_bytes=1000))))


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_damage_is_reported_and_the_lines_before_it_are_kept(suffix, harm, tmp_path):
    path = tmp_path / f"x.jsonl{suffix}"
    first, second = PACK[suffix](lines(50)), PACK[suffix](lines(2000))
    second = (
        second[:-40] if harm == "cut" else second[:60] + bytes(255 - byte for byte in second[60:])
    )
    path.write_bytes(first + second)
    found = list(read(path, "e5jax"))
    assert [outcome.id for outcome in found[:50] if isinstance(outcome, Example)] == [
        str(i) for i in range(50)
    ]
    assert len(found) < 2050
    last = found[-1]
    assert isinstance(last, Rejected)
    assert last.line >= 51
    assert last.reason.startswith("compressed data is damaged: ")


def test_every_format_reads_through_the_same_door(tmp_path):
    """No reader opens a text file by itself: each refuses a bomb in its own layout."""
    folder = tmp_path / "bomb"
    names = [
        "corpus.jsonl",
        "queries.jsonl",
        "qrels/train.tsv",
        "collection.tsv",
        "queries.tsv",
        "qrels.train.tsv",
    ]
    names += ["train.jsonl", "wiki-001.jsonl", "docs-fi/docs-0.jsonl"]
    names += [f"{what}.miracl-v1.0-fi-train.tsv" for what in ("topics", "qrels")]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.gz").write_bytes(BOMBS[".gz"])
    for name in FORMATS.keys() - {"parquet", "datasets"}:
        target = (
            folder if name in ("beir", "msmarco", "fever", "miracl") else folder / "corpus.jsonl.gz"
        )
        with pytest.raises(ConfigError, match="more than ratio=200"):
            list(read(target, name))
