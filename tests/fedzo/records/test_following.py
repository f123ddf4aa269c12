"""A history that grows, stops in mid-line, and is cut back by a resume."""

from pathlib import Path

import pytest

from fedzo.errors import CheckpointError
from fedzo.records.following import HistoryFollower
from fedzo.records.history import RoundRecord, append_history, read_history, write_history


def record(index: int) -> RoundRecord:
    return RoundRecord(round_index=index, value=float(index))


def test_every_record_comes_once_and_only_when_its_line_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    follower = HistoryFollower(path)
    assert follower.new() == []
    write_history(path, [record(0)])
    assert follower.new() == [record(0)]
    assert follower.new() == []
    append_history(path, [record(1), record(2)])
    text = path.read_text()
    path.write_text(text[:-5])
    assert follower.new() == [record(1)]
    path.write_text(text)
    assert follower.new() == [record(2)]
    assert read_history(path) == [record(k) for k in range(3)]


def test_a_resumed_run_is_followed_from_where_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    write_history(path, [record(k) for k in range(5)])
    follower = HistoryFollower(path)
    assert len(follower.new()) == 5
    write_history(path, [record(k) for k in range(3)])
    assert follower.new() == []
    append_history(path, [record(3), record(4), record(5)])
    assert follower.new() == [record(3), record(4), record(5)]
    write_history(path, [record(k) for k in range(7)])
    assert follower.new() == [record(6)]


def test_a_line_that_is_no_record_ends_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text("nonsense\n")
    with pytest.raises(CheckpointError, match="no round record: 'nonsense'"):
        HistoryFollower(path).new()
