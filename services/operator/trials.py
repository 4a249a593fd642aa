"""Whether the present pod template was tried with task types that nobody announced. Reads no clock and does nothing.

A worker announces its types when it registers, so a queue without workers knows only what the last one announced. A
task of another type is a new type of a new image, or a typing error. One pod finds out: while tasks of unknown types
wait and no worker of the present template has registered since, they count as demand for one pod.

PostgreSQL keeps when, and from which template, a worker registered last. Workers of older versions do not say it, so
what the operator itself has seen counts as well: a typing error costs such a queue one start for each new operator.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.operator.views import History, QueueView


def remember(history: History, view: QueueView, now: float) -> History:
    """Return the history with the present template as tried, when a worker of it lives."""
    if view.deployment is None or not _lives(view):
        return history
    return replace(history, tried=(view.deployment.template, now))


def untried(view: QueueView, history: History, now: float) -> bool:
    """Tell whether tasks of unknown types wait that no worker of the present template has had a chance to know."""
    demand, deployment = view.demand, view.deployment
    if demand is None or deployment is None or demand.paused or not demand.unknown or _lives(view):
        return False
    template, waited = deployment.template, demand.unknown_seconds or 0.0
    if history.tried is not None and history.tried[0] == template and now - history.tried[1] < waited:
        return False
    announced = demand.announced_seconds
    return announced is None or announced > waited or demand.announced_template != template


def _lives(view: QueueView) -> bool:
    present = view.deployment.template if view.deployment else None
    return any(pod.workers and pod.template == present for pod in view.pods if not pod.deleting)
