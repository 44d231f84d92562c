"""A stop signal inside another tells the outer, and hears what the outer heard."""

from __future__ import annotations

import os
import signal

import pytest

from sgas.running.signals import StopSignal


def test_the_inner_tells_the_outer() -> None:
    with StopSignal() as outer:
        with StopSignal() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        assert inner.requested and outer.requested
        with StopSignal() as later:
            assert later.requested
    with StopSignal() as fresh:
        assert not fresh.requested


def test_handlers_come_back_and_a_second_sigint_interrupts_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
