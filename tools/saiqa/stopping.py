"""Stopping: SIGINT, SIGTERM and SIGHUP end the work as Ctrl-C does, wherever they arrive."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from saiqa.errors import wants_traceback

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_stopped: int | None = None  # the signal that has asked this process to end


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, SIGINT, SIGTERM and SIGHUP raise ``KeyboardInterrupt``."""
    global _stopped
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _stopped = None
    unraisable = sys.unraisablehook
    with keeping_signals():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, _stop)
        # A KeyboardInterrupt in a destructor is lost and Python would print a trace; ``check_stopped`` raises it again.
        sys.unraisablehook = lambda lost: None if issubclass(lost.exc_type, KeyboardInterrupt) else unraisable(lost)
        try:
            yield
        finally:
            sys.unraisablehook = unraisable


def _stop(number: int, frame: object) -> NoReturn:
    global _stopped
    _stopped = number
    raise KeyboardInterrupt


@contextmanager
def as_interrupt() -> Iterator[None]:
    """Within, errors that a library made of a signal's ``KeyboardInterrupt`` become one again, e.g. numpy's ImportError."""
    try:
        yield
    except Exception as error:
        if _stopped is None or wants_traceback():
            raise
        raise KeyboardInterrupt from error


def stopped_by() -> int | None:
    """The signal that has asked this process to end."""
    return _stopped


def check_stopped() -> None:
    """Raise ``KeyboardInterrupt`` if a signal has arrived: inside a library's callback the first one may be lost."""
    if _stopped:
        raise KeyboardInterrupt


@contextmanager
def keeping_signals() -> Iterator[None]:
    """Within, signal handlers may be changed; they are restored at the end."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
