"""kopf, and what of it is used: it watches, and says what changed. It decides nothing and writes nothing.

It runs in a thread with an event loop of its own, because it cancels every task of its loop when it ends. It has no
timers and no handlers of changes, so it puts no finalizer on anything: a TaskQueue can be deleted without it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from core import telemetry
from services.operator.cluster import DEPLOYMENTS, PODS, TASKQUEUES, Json, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS: Final = "app.kubernetes.io/managed-by=taskflow"
STOP_SECONDS: Final = 5.0
log = telemetry.get_logger("operator")

Hear: TypeAlias = Callable[[Kind, Json, bool], None]


def registry(hear: Hear) -> Any:
    """Return the handlers: each hands over what was seen, `gone` or not, and returns at once."""
    import kopf  # noqa: PLC0415 - it takes a second to import, which a stand-by or a test need not spend

    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**given: Any) -> Any:
        # Both read their file anew each time, so a token that was rotated is found.
        return kopf.login_with_service_account(**given) or kopf.login_with_kubeconfig(**given)

    @kopf.on.event("taskflow.dev", "v1alpha1", "taskqueues", registry=handlers)
    async def taskqueue(event: Any, **_: Any) -> None:
        hear(TASKQUEUES, dict(event["object"]), event["type"] == "DELETED")

    @kopf.on.event("apps", "v1", "deployments", registry=handlers)
    async def deployment(event: Any, **_: Any) -> None:
        hear(DEPLOYMENTS, dict(event["object"]), event["type"] == "DELETED")

    @kopf.on.event("", "v1", "pods", registry=handlers)
    async def pod(event: Any, **_: Any) -> None:
        hear(PODS, dict(event["object"]), event["type"] == "DELETED")

    return handlers


def operator_settings() -> Any:
    """Return kopf's settings: short limits, nothing stored in objects, no right asked for beyond what is watched."""
    import kopf  # noqa: PLC0415 - as above

    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True  # our Lease decides
    # Not our own finalizer's name: kopf takes its finalizer off whatever has it without a handler that needs it.
    chosen.persistence.finalizer = "operator.taskflow.dev/unused"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="operator.taskflow.dev")
    chosen.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(
        prefix="operator.taskflow.dev", key="last-handled"
    )
    chosen.watching.server_timeout, chosen.watching.client_timeout = 300, 330
    chosen.watching.connect_timeout = chosen.networking.connect_timeout = 10
    chosen.networking.request_timeout = 30
    chosen.networking.enforce_retry_after = True
    chosen.watching.label_selectors["", "v1", "pods"] = OURS
    chosen.watching.label_selectors["apps", "v1", "deployments"] = OURS
    chosen.queueing.worker_limit = 50
    chosen.background.instant_exit_timeout = 0.1
    chosen.process.ultimate_exiting_timeout = 20
    chosen.posting.enabled = False
    chosen.posting.loggers = False
    chosen.scanning.disabled = True  # neither namespaces nor definitions are read
    return chosen


class Watches:
    """kopf's thread. `ended` is done when it is no more, with the error that ended it."""

    def __init__(self, namespaces: Sequence[str] | None, heard: Hear) -> None:
        """Watch `namespaces`, or all with None; `heard` is called in the loop that calls `start`."""
        self._namespaces = namespaces
        self._heard = heard
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        # On every event it logs the whole object, and its settings, at level info.
        logging.getLogger("kopf").setLevel(logging.WARNING)
        self._thread.start()

    async def stop(self) -> None:
        """Let it end; a thread that does not end within five seconds is left to the end of the process."""
        self._stop.set()
        await asyncio.wait({self.ended}, timeout=STOP_SECONDS)
        if not self.ended.done():
            log.warning("kopf did not stop in time", seconds=STOP_SECONDS)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._operate())
        except BaseException as failed:  # noqa: BLE001 - whatever ended the thread ends the term, in the other thread
            error = failed
        self._call(self._finish, error)

    async def _operate(self) -> None:
        import kopf  # noqa: PLC0415 - as above

        where: dict[str, Any] = (
            {"clusterwide": True} if self._namespaces is None else {"namespaces": list(self._namespaces)}
        )
        try:
            await kopf.operator(
                registry=registry(self._hear),
                settings=operator_settings(),
                standalone=True,
                stop_flag=self._stop,
                **where,
            )
        finally:
            # A thread of kopf waits for the flag. The loop's end waits for that thread, and after 20 s of that kopf
            # kills the whole process.
            self._stop.set()

    def _hear(self, kind: Kind, body: Json, gone: bool) -> None:  # noqa: FBT001 - the shape of a change
        self._call(self._heard, kind, body, gone)

    def _call(self, function: Callable[..., None], *given: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *given)
        except RuntimeError:  # that loop has ended, and with it the process
            log.debug("a change came too late")

    def _finish(self, error: BaseException | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)
