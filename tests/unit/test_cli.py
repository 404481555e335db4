"""What commands print is what they have to say."""

from __future__ import annotations

import logging
import signal

import pytest

from rlhf import cli


def test_deepspeed_does_not_speak_up_in_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        assert cli.main(["tasks"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert "sums" in capsys.readouterr().out

    def heard(message: str) -> bool:
        record = logging.LogRecord("DeepSpeed", logging.WARNING, "real_accelerator.py", 213, message, None, None)
        return bool(logging.getLogger("DeepSpeed").filter(record))

    assert not heard("Setting accelerator to CPU. If you have GPU or other accelerator, we were unable to detect it.")
    assert heard("something else")
