"""Records survive the disk; a killed writer's last line does not matter."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedzo.errors import CheckpointError
from fedzo.records.history import RoundRecord, append_history, read_history, write_history

records = st.builds(
    RoundRecord,
    problem=st.integers(0, 3),
    round_index=st.integers(0, 100),
    value=st.one_of(st.none(), st.floats(allow_nan=False)),
    metrics=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=2),
    queries=st.integers(0, 2**60),
    wall_s=st.floats(0, 1e9),
    clients=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    failures=st.dictionaries(st.integers(0, 9), st.text(max_size=5), max_size=2),
)


@given(records)
def test_a_record_survives_json(record: RoundRecord) -> None:
    assert RoundRecord.from_json(record.to_json()) == record


def test_lines_that_are_missing_twice_or_in_another_order_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    rounds = [RoundRecord(round_index=i, wall_s=float(i)) for i in range(4)]
    ended = replace(rounds[3], value=1.0)  # the record of the round that ended it comes twice
    after = [RoundRecord(problem=1, round_index=i, wall_s=9.0 + i) for i in range(2)]
    write_history(path, [*rounds, ended, *after])
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(read_history(path)) == 7
    wrong = [
        (1, lines[1:]),
        (2, [*lines[:1], *lines[2:]]),
        (3, [*lines[:2], lines[1], *lines[2:]]),
        (3, [*lines[:2], lines[3], lines[2], *lines[4:]]),
        (6, [*lines[:5], *lines[6:]]),
    ]
    for line, changed in wrong:
        path.write_bytes(b"".join(changed))
        with pytest.raises(CheckpointError, match=f"line {line} .*missing before it, or it is out"):
            read_history(path)


def test_files_grow_and_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    lines = [RoundRecord(round_index=i) for i in range(3)]
    write_history(path, lines[:1])
    append_history(path, lines[1:])
    assert read_history(path) == lines
    with path.open("a") as file:
        file.write('{"round_index": 3, "val')
    assert read_history(path) == lines


def test_every_flipped_bit_of_a_history_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    wanted = [RoundRecord(round_index=i, value=1 / (i + 3), clients=(0, 1)) for i in range(2)]
    write_history(path, wanted)
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 41):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(flipped))
        try:
            found = read_history(path)
        except CheckpointError:
            continue
        assert found == wanted[:1]
        assert bit // 8 == len(whole) - 1, "the last line was unfinished"


def test_histories_without_checksums_are_read_but_no_mixtures(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    lines = [RoundRecord(round_index=i) for i in range(3)]
    path.write_text("".join(line.to_json() + "\n" for line in lines))
    assert read_history(path) == lines
    append_history(path, lines)
    with pytest.raises(CheckpointError, match=r"line 4 .*some lines have a checksum"):
        read_history(path)


def test_a_line_is_json_with_todays_fields(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    record = RoundRecord(round_index=1, value=float("nan"), failures={0: "late"})
    write_history(path, [record])
    [line] = path.read_text().splitlines()
    told = json.loads(line)
    assert told.pop("checksum")
    assert told == json.loads(record.to_json())
    assert RoundRecord.from_json(line).failures == {0: "late"}


@pytest.mark.parametrize(
    "content",
    [
        *(b"\x89PNG\r\n\x1a\n\0\0", b"[1, 2]\n", b"null\n", b"{}\n", b"\xff\n", b"7\n", b"\n"),
        *(b'{"round_index": "x"}\n', b'{"round_index": 1e400}\n', b'{"round_index": NaN}\n'),
        *(b'{"round_index": 1, "metrics": [1]}\n', b'{"round_index": 1, "clients": 5}\n'),
        *(b'{"round_index": 1, "failures": {"a": 1}}\n', b'{"round_index": 1, "new": 1}\n'),
        *(b"[" * 100_000 + b"\n", b'{"round_index": ' + b"9" * 5000 + b"}\n"),
        b'{"round_index": ' + b"9" * 400 + b"}\n",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_other_files_are_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="line 1 is not a round record"):
        read_history(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "history.jsonl")
    for path in (tmp_path / "history.jsonl", tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match="is no file"):
            read_history(path)


def test_damage_in_the_middle_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(RoundRecord(round_index=0).to_json() + "\nrubbish\n")
    with pytest.raises(CheckpointError, match="line 2 is not a round record: 'rubbish'"):
        read_history(path)


def test_answered_and_axes() -> None:
    record = RoundRecord(
        round_index=4, clients=(1, 2, 3), failures={2: "x"}, bytes_up=3, bytes_down=4, queries=9
    )
    assert (record.clients_asked, record.clients_answered) == (3, 2)
    assert [record.axis(a) for a in ("queries", "rounds", "bytes", "seconds")] == [9, 4, 7, 0]
