"""Signals: the first is noted, the second stops; handlers come back. What training does with it is in test_run."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from parnassus.interrupts import Interrupts, stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_noted(number):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert interrupts.signal is None
        os.kill(os.getpid(), number)
        assert interrupts.signal == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number, error", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_the_second_stops(number, error):
    with pytest.raises(error), Interrupts():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)


def test_status_of_the_shell():
    with pytest.raises(SystemExit) as leaving:
        stop(signal.SIGTERM)
    assert leaving.value.code == 143


def test_other_threads_leave_signals_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def elsewhere():
        with Interrupts() as interrupts:
            seen.append((interrupts.signal, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


def test_an_event_loops_descriptor_stays():
    """A notebook has one; then the handler itself says that it has heard."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.signal == signal.SIGINT
        assert os.read(read, 1) == bytes([signal.SIGINT])
    finally:
        assert signal.set_wakeup_fd(before) == write
        os.close(read)
        os.close(write)


def test_nothing_is_left_behind():
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    for _ in range(5):
        with Interrupts():
            pass
    for thread in threading.enumerate():
        if thread.name == "parnassus-interrupts":
            thread.join(10)
            assert not thread.is_alive()
    if before:
        assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_compiled_code_can_be_stopped(number):
    """Python's own handlers wait until a call into C returns, here for an hour."""
    program = (
        "import ctypes\n"
        "from parnassus.interrupts import Interrupts\n"
        "with Interrupts():\n"
        "    print('ready', flush=True)\n"
        "    while True: ctypes.CDLL(None).sleep(3600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stderr.readline() == "\n"
        assert process.stderr.readline() == "stopping after this chunk; once more to stop at once\n"
        process.send_signal(number)
        process.communicate(timeout=60)
        # The C call may also return early, interrupted: then Python ends itself by SIGINT, which a shell shows alike.
        assert process.returncode in (128 + number, -number)
    finally:
        process.kill()
        process.wait()
