"""Signals that ask a command to stop: heeded between steps, at once where no step is under way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from rlhf.loops.interrupt import EXIT_CODES, Interrupt, Interrupted


def send(which: signal.Signals) -> None:
    os.kill(os.getpid(), which)


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    before = [signal.getsignal(which) for which in EXIT_CODES]
    with Interrupt() as listening:
        yield listening
    assert [signal.getsignal(which) for which in EXIT_CODES] == before, "handlers are put back"


@pytest.mark.parametrize(("which", "code"), [(signal.SIGUSR1, 75), (signal.SIGTERM, 143)])
def test_a_signal_during_a_step_waits_for_its_checkpoint(
    interrupt: Interrupt, which: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    interrupt.hold()
    interrupt.heed(6)
    assert not interrupt.requested
    send(which)
    assert interrupt.requested
    assert capfd.readouterr().err == f"{which.name}: ending after this step; a second signal ends at once\n"
    with pytest.raises(Interrupted, match=f"{which.name}.*continues from the checkpoint of step 7") as stop:
        interrupt.heed(7)
    assert stop.value.exit_code == code


@pytest.mark.parametrize("which", EXIT_CODES)
def test_a_signal_outside_a_step_ends_at_once(interrupt: Interrupt, which: signal.Signals) -> None:
    with pytest.raises(Interrupted, match="continues from the last checkpoint"):
        send(which)


def test_a_signal_after_the_last_step_asked_is_heeded_when_the_stage_ends(interrupt: Interrupt) -> None:
    interrupt.hold()
    send(signal.SIGUSR1)
    with pytest.raises(Interrupted):
        interrupt.release()


def test_after_the_steps_a_signal_ends_at_once_again(interrupt: Interrupt) -> None:
    interrupt.hold()
    interrupt.release()
    with pytest.raises(Interrupted):
        send(signal.SIGUSR1)


def test_a_step_takes_back_the_handlers_that_a_library_replaced(interrupt: Interrupt) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as ray.init does
    interrupt.hold()
    send(signal.SIGTERM)
    assert interrupt.requested


def test_nobody_is_heard_without_listening() -> None:
    before = [signal.getsignal(which) for which in EXIT_CODES]
    deaf = Interrupt()
    deaf.hold()
    deaf.heed(1)
    deaf.release()
    assert [signal.getsignal(which) for which in EXIT_CODES] == before


@pytest.mark.parametrize(("first", "second"), [("SIGUSR1", "SIGUSR1"), ("SIGUSR1", "SIGTERM"), ("SIGTERM", "SIGUSR1")])
def test_a_second_signal_kills_even_a_process_that_hangs(first: str, second: str) -> None:
    hanging = """
        import signal, sys
        from rlhf.loops.interrupt import Interrupt
        with Interrupt() as interrupt:
            interrupt.hold()
            signal.raise_signal(signal.Signals[sys.argv[1]])
            signal.raise_signal(signal.Signals[sys.argv[2]])
            sys.exit("it went on")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(hanging), first, second], capture_output=True)
    assert done.returncode == -signal.Signals[second], done.stderr
