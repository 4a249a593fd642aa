"""What a container's first process has to mind.

The kernel gives process 1 no default action for a signal: a SIGTERM that arrives before a handler is set is lost, and
the pod then sits out its whole grace period.
"""

from __future__ import annotations

import os
import signal
from typing import Final

_TERMINATED: Final = 128 + signal.SIGTERM


def end_on_sigterm() -> None:
    """Let SIGTERM end process 1, as it ends any other, until it has a handler of its own. Elsewhere nothing changes."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(_TERMINATED))
