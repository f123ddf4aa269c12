"""What of somebody's code is a failure of theirs, and how it reads.

A client's function may raise anything, also what is no `Exception`: `sys.exit` in a script that was
made for the command line. It fails alone. Ctrl-C, and what a signal handler raises while that code
happens to run, are for the whole process. `os._exit` and a crash of the interpreter cannot be
caught: on the engine ray they cost an actor, which is replaced. The text ends in the line of the
user's own file that failed.
"""

import signal

from fedzo.origin import place_of


def failure_of(error: BaseException) -> str:
    """Return why somebody's code failed; raises the error again where it is meant for all."""
    if isinstance(error, KeyboardInterrupt) or _is_of_a_signal(error):
        raise error
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, SystemExit):
        told = f"SystemExit: the code called exit({error.code!r})"
    place = place_of(error)
    return f"{told} ({place})" if place else told


def _is_of_a_signal(error: BaseException) -> bool:
    """Return whether one of this process's signal handlers has raised it."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {getattr(handler, "__code__", None) for handler in handlers} - {None}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False
