"""TaskFlow's SDK: make tasks of functions, submit them, wait for their results.

>>> from taskflow_queue import task
>>> @task(queue="text", max_attempts=5, timeout=60)
... def count(path: str) -> dict[str, int]: ...
>>> handle = count.submit("README.md")
>>> handle.result(timeout=30)
"""

from taskflow_queue.client import Client, use
from taskflow_queue.context import Context, cancel_requested, current, log, progress, track
from taskflow_queue.errors import (
    ApiError,
    Cancelled,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotJson,
    PartlySubmitted,
    ResultTimeout,
    RetryLater,
    ServerError,
    SettingError,
    SoftTimeout,
    TaskCancelled,
    TaskError,
    TaskExpired,
    TaskFailed,
    TaskFlowError,
    TaskQuarantined,
    Throttled,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unreachable,
)
from taskflow_queue.handle import Handle
from taskflow_queue.models import Outcome, TaskInfo
from taskflow_queue.task import AsyncTask, SyncTask, Task, registry, task

__all__ = [
    "ApiError",
    "AsyncTask",
    "Cancelled",
    "Client",
    "Conflict",
    "Context",
    "Forbidden",
    "Handle",
    "Invalid",
    "NotFound",
    "NotJson",
    "Outcome",
    "PartlySubmitted",
    "ResultTimeout",
    "RetryLater",
    "ServerError",
    "SettingError",
    "SoftTimeout",
    "SyncTask",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskExpired",
    "TaskFailed",
    "TaskFlowError",
    "TaskInfo",
    "TaskQuarantined",
    "Throttled",
    "TimedOut",
    "TooLarge",
    "Unauthenticated",
    "Unreachable",
    "cancel_requested",
    "current",
    "log",
    "progress",
    "registry",
    "task",
    "track",
    "use",
]
