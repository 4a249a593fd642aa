"""A task's log takes no lock that an interrupted task could keep."""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING

from taskflow_queue.runner_logs import Handler

if TYPE_CHECKING:
    import pytest


def test_a_record_passes_while_somebody_keeps_the_handlers_lock(capsys: pytest.CaptureFixture[str]) -> None:
    handler = Handler()
    handler.addFilter(lambda record: record.msg != "left out")
    log = logging.Logger("a")  # noqa: LOG001 - not of the tree, whose handlers pytest has
    log.addHandler(handler)

    def say() -> None:
        log.warning("left out")
        log.warning("said")

    speaker = threading.Thread(target=say, daemon=True)
    assert handler.lock is not None
    with handler.lock:  # as a task does that was interrupted right behind `acquire`
        speaker.start()
        speaker.join(10)
        assert not speaker.is_alive()
    sys.stderr.flush()
    assert capsys.readouterr().err == "said\n"
