"""The work of a node on one message, in a thread that can be left behind."""

import threading
import time
from collections.abc import Callable
from typing import Any


class NodeTask:
    """Does `work` in a thread, once the node's task `after` has ended, and hands it to `then`.

    `then` also hears after how many seconds. What `work` raises is raised in whoever waits.
    """

    def __init__(
        self,
        work: Callable[[], Any],
        *,
        after: "NodeTask | None",
        then: Callable[[Any, float], None],
    ) -> None:
        self._work, self._after, self._then = work, after, then
        self._error: BaseException | None = None
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._do, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return not self._thread.is_alive()

    def wait(self, most: float | None) -> bool:
        """Wait until it has had so many seconds since it began; return whether it is over."""
        left = None if most is None else max(0.0, self._begun + most - time.monotonic())
        self._thread.join(left)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self.ended

    def _do(self) -> None:
        try:
            if self._after is not None:
                self._after._thread.join()
            answer = self._work()
            self._then(answer, time.monotonic() - self._begun)
        except BaseException as error:  # raised again where somebody waits
            self._error = error
        finally:
            self._after = None
