"""Records survive the disk; a killed writer's last line does not matter."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedzo.errors import CheckpointError
from fedzo.history import RoundRecord, append_history, read_history, write_history

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


def test_files_grow_and_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    lines = [RoundRecord(round_index=i) for i in range(3)]
    write_history(path, lines[:1])
    append_history(path, lines[1:])
    assert read_history(path) == lines
    with path.open("a") as file:
        file.write('{"round_index": 3, "val')
    assert read_history(path) == lines


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
