"""The journal: what a crash, a full disk or a flipped bit leave of it."""

import asyncio
import contextlib
import os
import resource
import signal
from pathlib import Path
from random import Random

import pytest

from e5jax.errors import ConfigError
from e5jax.llm_client.journal import Journal, decode, encode
from e5jax.llm_client.request import Failure, Reply, Stop
from e5jax.llm_client.usage import Usage
from tests.llm_client.asking import MODELS

TEXT = 'é "\ud800\u2028\x00\n'


def reply(i: int, **changed: object) -> Reply:
    return Reply(f"t/{i}", 0, f"{TEXT}{i}", "stop", "one", 10, 20)._replace(**changed)


def tried(i: int, **changed: object) -> dict:
    tokens = {"prompt": 10, "completion": 100}
    return {
        "kind": "try",
        "id": f"t/{i}",
        "attempt": 0,
        "number": i,
        "model": "one",
        **tokens,
        **changed,
    }


def line(outcome: Reply | Failure) -> dict:
    return {"kind": type(outcome).__name__.lower(), **outcome._asdict()}


@contextlib.asynccontextmanager
async def journal(path: Path):
    async with Journal(path, Usage(MODELS)) as book:
        yield book


def written(path: Path, *lines: dict, unsent: tuple[int, ...] = ()) -> dict:
    """Writes them one after the other, and sends what they announce but for `unsent`; what the ledger says then."""

    async def run() -> dict:
        async with journal(path) as book:
            for one in lines:
                await book.write(one)
                if one["kind"] == "try" and one["number"] not in unsent:
                    book.mark(one["number"])
            return book.ledger.totals()

    return asyncio.run(run())


def read(path: Path, *names: int) -> tuple[list, dict, int]:
    """Outcomes, totals, damaged lines."""

    async def run() -> tuple[list, dict, int]:
        async with journal(path) as book:
            return [book.outcome((f"t/{i}", 0)) for i in names], book.ledger.totals(), book.damaged

    return asyncio.run(run())


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "deep/journal.jsonl"
    failure = Failure("t/1", 0, "bad-request", "no")
    live = written(
        path,
        tried(0),
        line(reply(0)),
        tried(1),
        {**tried(1), "kind": "fault", "fault": "bad-request"},
        line(failure),
    )
    outcomes, replayed, damaged = read(path, 0, 1, 2)
    assert outcomes == [reply(0), failure, None]
    assert damaged == 0
    assert replayed == {**live, "sessions": 2}
    assert path.stat().st_mode & 0o077 == 0
    assert all(decode(part) for part in path.read_bytes().splitlines(keepends=True))


def test_a_journal_cut_at_any_byte_gives_all_whole_lines_and_can_be_written_on(tmp_path):
    path = tmp_path / "journal.jsonl"
    written(path, *(part for i in range(3) for part in (tried(i), line(reply(i)))))
    marks = path.with_suffix(".sent")
    whole, marked = path.read_bytes(), marks.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        marks.write_bytes(marked)
        outcomes, totals, damaged = read(
            path, 0, 1, 2
        )  # and writes that it started, behind the cut
        lines = sum(
            end <= cut for end in ends
        )  # the first one says start, then try and reply in turn
        replies = max(0, lines - 1) // 2
        assert outcomes == [reply(i) if i < replies else None for i in range(3)]
        assert (totals["replies"], damaged) == (replies, 0)
        assert totals["possibly_billed"]["in_flight_at_crash"] == (lines > 0 and lines % 2 == 0)
        assert [decode(part) is None for part in path.read_bytes().splitlines(keepends=True)] == [
            False
        ] * (lines + 1)


def test_what_was_announced_and_had_not_left_when_the_process_died_was_not_sent(tmp_path):
    path = tmp_path / "journal.jsonl"
    written(path, tried(0), line(reply(0)), tried(1), tried(2), tried(3), unsent=(2, 3))
    _, totals, _ = read(path)
    assert (totals["requests"], totals["possibly_billed"]["in_flight_at_crash"]) == (2, 1)
    assert totals["possibly_billed"]["tokens_at_most"] == 110
    assert read(path)[1] == {**totals, "sessions": 3}  # what was taken back stays so
    written(path, tried(2, number=0), unsent=(0,))  # numbers are those of a session
    assert read(path)[1] == {**totals, "sessions": 5}


@pytest.mark.parametrize("lost", ["machine", "marks", "session", "damaged", "numbers"])
def test_without_marks_all_that_was_announced_counts_as_sent(lost, tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    old = {"number": None} if lost == "numbers" else {}
    written(path, tried(0, **old), tried(1, **old), unsent=(0, 1, None))
    match lost:
        case "machine":
            (tmp_path / "boot").write_text("another\n", encoding="ascii")
            monkeypatch.setattr("e5jax.llm_client.sent_log.BOOT", tmp_path / "boot")
        case "marks":
            path.with_suffix(".sent").unlink()
        case "damaged":
            with path.with_suffix(".sent").open("ab") as file:
                file.write(b"\n7x")
        case "session":
            marks = path.with_suffix(".sent").read_bytes()
            path.with_suffix(".sent").write_bytes(marks.replace(b" 1", b" 7"))
    assert read(path)[1]["possibly_billed"]["in_flight_at_crash"] == 2


def test_a_flipped_bit_loses_its_line_only(tmp_path):
    path, random = tmp_path / "journal.jsonl", Random(0)
    written(path, *(line(reply(i)) for i in range(5)))
    whole = path.read_bytes()
    for _ in range(50):
        flipped = bytearray(whole)
        place = random.randrange(len(whole))
        flipped[place] ^= 1 << random.randrange(8)
        path.write_bytes(flipped)
        outcomes, _, damaged = read(path, *range(5))
        assert all(outcome in (reply(i), None) for i, outcome in enumerate(outcomes))
        assert (
            sum(outcome is None for outcome in outcomes) <= 2
        )  # a lost or a new end of line touches its neighbour
        assert damaged >= 1 or flipped[place] == 10 or whole[place] == 10 or place > len(whole) - 2


def test_lines_of_many_are_made_durable_together(tmp_path, monkeypatch):
    syncs = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (syncs.append(file), fsync(file)))

    async def run() -> None:
        async with journal(tmp_path / "journal.jsonl") as book:
            await asyncio.gather(*(book.write(line(reply(i))) for i in range(500)))

    asyncio.run(run())
    assert read(tmp_path / "journal.jsonl", *range(500))[0] == [reply(i) for i in range(500)]
    assert len(syncs) < 20


def test_one_process_at_a_time(tmp_path):
    async def run() -> None:
        async with journal(tmp_path / "journal.jsonl"), journal(tmp_path / "journal.jsonl"):
            pass

    with pytest.raises(ConfigError, match="another process is at work there"):
        asyncio.run(run())


def test_a_full_disk_stops_the_run_and_loses_nothing_before_it(tmp_path):
    path = tmp_path / "journal.jsonl"
    limits, handler = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )

    async def run() -> int:
        async with journal(path) as book:
            for i in range(10_000):
                try:
                    await book.write(line(reply(i)))
                except Stop:
                    with pytest.raises(Stop):
                        await book.write(line(reply(0)))
                    return i
        return -1

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
        failed = asyncio.run(run())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert 10 < failed < 100
    assert read(path, *range(failed + 1))[0] == [*map(reply, range(failed)), None]


def test_a_journal_of_another_version_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(encode({"kind": "start", "version": 2, "run": "0"}))
    with pytest.raises(ConfigError, match="another version"):
        read(path)
