"""What a process tells the world: JSON lines on stderr, and metrics.

Every metric of the server is declared here, once, so that names stay API. No label holds a task's id or any
other value that clients invent freely.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    exposition,
    start_http_server,
)

from core.config import settings
from core.errors import SettingError

# Where rich is installed structlog imports it for its console: a tenth of a second of each start, and we write JSON.
_HIDE: Final = "rich" not in sys.modules
if _HIDE:
    sys.modules["rich"] = None  # type: ignore[assignment] # which is how Python is told that there is no such module
import structlog  # noqa: E402

if _HIDE:
    del sys.modules["rich"]

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from contextlib import AbstractContextManager

    from structlog.typing import Processor

# ── logs ────────────────────────────────────────────────────────────────────────────────────────────────

_SECRET: Final = frozenset(
    {"password", "secret", "secret_key", "authorization", "token", "api_key", "payload", "claim"}
)
_encode = msgspec.json.Encoder(enc_hook=str, decimal_format="number").encode


def _redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in _SECRET & event.keys():
        event[key] = "[redacted]"
    return event


def _as_json(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    try:
        return _encode(event).decode()
    except (UnicodeEncodeError, TypeError, ValueError):  # a lone surrogate, a strange key: the line must come out
        return json.dumps({str(key): repr(value) for key, value in event.items()})


_BEFORE: Final[list[Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    structlog.processors.format_exc_info,
    _redact,
]


def configure(service: str, *, level: str | None = None) -> None:
    """Send everything that this process logs, libraries included, to stderr as one JSON object a line."""

    def name_service(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_BEFORE,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, name_service, _as_json],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel((level or settings.log_level).upper())
    for noisy in ("uvicorn.access", "sqlalchemy.engine", "asyncio", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for own in ("uvicorn", "uvicorn.error"):  # else uvicorn's own handlers print the line a second time
        logging.getLogger(own).handlers[:] = []
        logging.getLogger(own).propagate = True


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of key-value events. Before `configure`, only warnings show, as the standard library has it."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"taskflow.{name}"),
        processors=[
            structlog.stdlib.filter_by_level,
            *_BEFORE,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


def bound(**values: object) -> AbstractContextManager[None]:
    """Put task_id, attempt, worker, request_id … on every line logged inside, across awaits."""
    return structlog.contextvars.bound_contextvars(**values)


# ── metrics ─────────────────────────────────────────────────────────────────────────────────────────────

# From a millisecond to an hour: a lonely task starts in milliseconds, a backlog waits for hours.
_LONG: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_SHORT: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Every metric of TaskFlow's processes; one that a process never touches stays without samples."""

    registry: CollectorRegistry
    queue_tasks: Gauge
    queue_oldest_queued_seconds: Gauge
    task_wait_seconds: Histogram
    task_run_seconds: Histogram
    tasks_total: Counter
    attempts_total: Counter
    rescues_total: Counter
    fenced_writes_total: Counter
    worker_slots: Gauge
    workers: Gauge
    leader: Gauge
    namespace_served: Gauge
    dispatch_loop_seconds: Histogram
    redis_rebuilds_total: Counter
    redis_errors_total: Counter
    http_requests_total: Counter
    http_request_seconds: Histogram


@functools.cache
def metrics() -> Metrics:
    """The process's metrics, made at the first call."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)

    def gauge(name: str, says: str, *labels: str) -> Gauge:
        return Gauge(f"taskflow_{name}", says, labels, registry=registry)

    def counter(name: str, says: str, *labels: str) -> Counter:
        return Counter(f"taskflow_{name}", says, labels, registry=registry)

    def histogram(name: str, says: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"taskflow_{name}", says, labels, registry=registry, buckets=buckets)

    return Metrics(
        registry=registry,
        queue_tasks=gauge("queue_tasks", "Tasks that have not ended.", "queue", "status", "priority"),
        queue_oldest_queued_seconds=gauge(
            "queue_oldest_queued_seconds", "How long the longest waiting QUEUED task has waited.", "queue"
        ),
        task_wait_seconds=histogram("task_wait_seconds", "From QUEUED to the claim.", "queue", buckets=_LONG),
        task_run_seconds=histogram(
            "task_run_seconds", "From the claim to the outcome.", "queue", "type", buckets=_LONG
        ),
        tasks_total=counter("tasks_total", "Tasks that ended.", "queue", "type", "outcome"),
        attempts_total=counter("attempts_total", "Attempts that ended.", "cause"),
        rescues_total=counter("rescues_total", "Attempts taken back from a worker that is gone.", "reason"),
        fenced_writes_total=counter(
            "fenced_writes_total", "Writes refused because the attempt was no longer the writer's.", "verb"
        ),
        worker_slots=gauge("worker_slots", "Slots of this worker.", "state"),
        workers=gauge("workers", "Worker processes, as the leader sees them.", "state"),
        leader=gauge("leader", "1 while this process leads.", "component"),
        namespace_served=gauge(
            "operator_namespace_served", "1 while the operator can list this namespace, else 0.", "namespace"
        ),
        dispatch_loop_seconds=histogram(
            "dispatch_loop_seconds", "One round of a leader's loop.", "tick", buckets=_SHORT
        ),
        redis_rebuilds_total=counter(
            "redis_rebuilds_total", "Times that the references were filled anew from PostgreSQL."
        ),
        redis_errors_total=counter(
            "redis_errors_total", "Calls that Redis refused or did not answer.", "server", "reason"
        ),
        http_requests_total=counter("http_requests_total", "Requests answered.", "method", "route", "code"),
        http_request_seconds=histogram(
            "http_request_seconds", "Time to answer a request.", "method", "route", buckets=_SHORT
        ),
    )


def exposed() -> tuple[bytes, str]:
    """The metrics as text, and their content type: for a `/metrics` route of the process's own."""
    return exposition.generate_latest(metrics().registry), exposition.CONTENT_TYPE_PLAIN_0_0_4


def serve_metrics(port: int, *, host: str = "0.0.0.0") -> Callable[[], None]:  # noqa: S104 - scraped from outside the pod
    """Serve `/metrics` from a thread of its own; 0 serves nothing. The answer stops it."""
    if not port:
        return lambda: None
    try:
        server, thread = start_http_server(port, host, metrics().registry)
    except OSError as taken:
        message = f"TASKFLOW_METRICS_PORT is wrong: port {port} cannot be used ({taken.strerror})"
        raise SettingError(message, fix="choose a free one, or 0 for none", field="metrics_port") from taken

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return stop
