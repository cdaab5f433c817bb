"""Signals: held back where they would leave something half changed, and never lost."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from rational_sae.support.interrupt import end_like_ctrl_c, noted, shielded


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_block_and_is_then_heard(number: int) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    done = []

    def block() -> None:
        with shielded():
            os.kill(os.getpid(), number)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == [1]
    assert {one: signal.getsignal(one) for one in before} == before


def test_signals_can_be_only_noted_inside_shielded_blocks_and_between_them() -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    with noted() as heard:
        with shielded():
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGINT)
        assert heard == [signal.SIGTERM, signal.SIGINT]
    assert {one: signal.getsignal(one) for one in before} == before


def test_an_error_in_the_block_is_the_one_that_is_raised() -> None:
    with pytest.raises(ValueError, match="mine"), shielded():
        raise ValueError("mine")


def test_other_threads_pass_through() -> None:
    done = []

    def run() -> None:
        with shielded():
            done.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [1]


def test_sigterm_can_be_made_to_end_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        end_like_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
