"""The worker's entry point: `python -I -u -m services.worker.main`. Wiring only.

The fork server is started before anything heavy is imported here, and asked for the children as soon as can be: they
import meanwhile.
"""

from __future__ import annotations

import sys
from typing import Final

from core.config import require, settings
from core.errors import SettingError, TaskFlowError
from core.process_protection import protect
from services.worker.allowance import Budget, container_bytes
from services.worker.forks import ForkServer, adopt_orphans, environment
from services.worker.warden import Warden

_NEEDED: Final = (
    "database_url",
    "worker_modules",
    "worker_children",
    "worker_slots",
    "worker_memory_mb",
    "worker_queues",
    "worker_drain_seconds",
    "worker_pass_env",
    "pod_name",
    "pod_uid",
    "namespace",
    "node_name",
    "pod_template",
    "heartbeat_interval_seconds",
    "metrics_port",
    "log_level",
    "redis",
)
_REDIS: Final = tuple(
    f"redis_{what}_{level}" for what in ("host", "port", "username", "password", "tls") for level in ("high", "low")
)


def _check() -> None:
    """Refuse wrong settings and close this process to its tasks, before anything is started."""
    protect()
    require(*_NEEDED)
    if settings.redis:
        require(*_REDIS)
    if not settings.worker_modules:
        raise SettingError("TASKFLOW_WORKER_MODULES is not set", fix="name the modules that define your tasks")


def _work() -> None:
    forks = ForkServer(settings.worker_python, environment())
    adopt_orphans()
    from services.worker.child import Child, ChildSettings  # noqa: PLC0415 - it imports beside this from here on

    budget = Budget(said=settings.worker_memory_mb, container=container_bytes())
    made = ChildSettings(
        forks=forks,
        modules=settings.worker_modules,
        slots=settings.worker_slots,
        memory=budget.share(settings.worker_children),
        warden=Warden(),
    )
    first = [Child(made) for _ in range(settings.worker_children)]
    started = [(child, child.start()) for child in first]
    from services.worker.wiring import work  # noqa: PLC0415 - heavy, so after the children were asked for

    work(made, budget, started)


def main() -> int:
    """Work until SIGTERM; 0 after a drain, 1 when the modules cannot be imported, 2 for a wrong setting."""
    try:
        _check()
        _work()
    except SettingError as wrong:
        print(wrong, file=sys.stderr)  # noqa: T201 - one line, for a person
        return 2
    except TaskFlowError as broken:
        print(broken, file=sys.stderr)  # noqa: T201 - for a person as well
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
