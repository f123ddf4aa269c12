"""What a trial has started ends with it, even when it is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedzo.runtime.flower.processes import MARK, end_watch, start_watch

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


@pytest.mark.more
def test_what_is_marked_ends_with_whoever_started_the_watch(tmp_path: Path) -> None:
    marked = {**os.environ, MARK: f"{tmp_path}:node-0"}
    other = {**os.environ, MARK: f"{tmp_path}-other:node-0"}
    mine = subprocess.Popen(SLEEP, env=marked, start_new_session=True)
    theirs = subprocess.Popen(SLEEP, env=other, start_new_session=True)
    time.sleep(0.3)
    watch = start_watch(tmp_path)
    assert watch.stdin is not None
    watch.stdin.close()  # as the end of this process would
    assert mine.wait(20) == -signal.SIGKILL
    assert theirs.poll() is None
    theirs.kill()
    theirs.wait()
    watch.wait(20)


def test_a_watch_that_is_ended_kills_nobody(tmp_path: Path) -> None:
    mine = subprocess.Popen(SLEEP, env={**os.environ, MARK: f"{tmp_path}:a"})
    end_watch(start_watch(tmp_path))
    assert mine.poll() is None
    mine.kill()
    mine.wait()
