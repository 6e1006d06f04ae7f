"""SIGINT and SIGTERM: the first asks training to finish the chunk and save, the second stops it at once."""

import os
import select
import signal
import sys
import threading
from types import FrameType, TracebackType

_GRACE_SECONDS = 2.0


class Interrupts:
    """A context in which SIGINT and SIGTERM are counted. Does nothing outside the main thread.

    Python runs signal handlers between two of its own instructions, so not while a compiled chunk runs. A thread on the
    wakeup descriptor, which the operating system writes to, answers at once and can end the process.
    """

    def __init__(self) -> None:
        self.signal: int | None = None  # the first that arrived
        self._before: dict[int, object] = {}
        self._old_descriptor = -1
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._before:
            signal.signal(number, self._on_signal)
        read, write = os.pipe()
        os.set_blocking(write, False)
        self._old_descriptor = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        if self._old_descriptor != -1:  # an event loop's, such as a notebook's: leave that alone
            signal.set_wakeup_fd(self._old_descriptor, warn_on_full_buffer=False)
            os.close(read)
            os.close(write)
            return self
        self._pipe = (read, write)
        threading.Thread(target=_watch, args=(read,), daemon=True, name="parnassus-interrupts").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])  # the thread reads the end of the file, closes its side and ends

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            stop(number)
        self.signal = number
        if self._pipe is None:
            _say_first()


def stop(number: int) -> None:
    """Raise what a signal means to a program that does not handle it."""
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _watch(descriptor: int) -> None:
    count = 0
    while byte := os.read(descriptor, 1):
        if byte[0] not in (signal.SIGINT, signal.SIGTERM):
            continue
        count += 1
        if count == 1:
            _say_first()
            continue
        # Python code sees the second signal too and leaves the context; compiled code does not.
        ready, _, _ = select.select([descriptor], [], [], _GRACE_SECONDS)
        if not ready or os.read(descriptor, 1):
            os._exit(128 + byte[0])
        break
    os.close(descriptor)


def _say_first() -> None:
    print("\nstopping after this chunk; once more to stop at once", file=sys.stderr, flush=True)
