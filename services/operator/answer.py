"""What the operator answers: the status of a TaskQueue."""

from typing import Literal

from pydantic import AwareDatetime, Field

from services.operator.spec import Model

ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(Model):
    """One statement about the TaskQueue, in the form that all of Kubernetes uses."""

    type: str = Field(max_length=63, description="What the statement is about.")
    status: ConditionStatus = Field(description="Whether it holds.")
    reason: str = Field(max_length=63, description="Why, in one word for programs.")
    message: str = Field(default="", max_length=2000, description="Why, in a sentence for people.")
    last_transition_time: AwareDatetime = Field(description="When status changed last.")
    observed_generation: int = Field(default=0, ge=0, description="The generation of the spec that was looked at.")


class Depth(Model):
    """How many tasks the queue has. Counting stops at 10000 or what maxReplicas can use, whichever is more."""

    pending: int = Field(default=0, ge=0, description="Tasks that may not run yet (delay, retry, limit).")
    queued: int = Field(default=0, ge=0, description="Tasks that wait for a worker, those of unknown types too.")
    running: int = Field(default=0, ge=0, description="Tasks that run.")
    failed: int = Field(default=0, ge=0, description="Tasks that ended FAILED or QUARANTINED within the last hour.")


class LastScale(Model):
    """The last change of the number of pods."""

    time: AwareDatetime = Field(description="When.")
    from_: int = Field(alias="from", ge=0, description="Pods before.")
    to: int = Field(ge=0, description="Pods after.")
    reason: str = Field(default="", max_length=500, description="Why, in words.")


class Manual(Model):
    """The value of spec.scaling.replicas that the operator saw last."""

    replicas: int = Field(ge=0, description="The value.")
    since: AwareDatetime | None = Field(default=None, description="When it was changed; absent: never while looked at.")


class TaskQueueStatus(Model):
    """What the operator found and did."""

    observed_generation: int = Field(
        default=0, ge=0, description="The generation of the spec that this status is about."
    )
    phase: str = Field(
        default="",
        max_length=63,
        description="A summary for people: Pending, Ready, Idle, Scaling, Paused, Held, UnknownTypes, Degraded, "
        "Deleting. Programs read conditions.",
    )
    reason: str = Field(
        default="", max_length=500, description="Why there are as many pods as there are, or what is wrong."
    )
    ready: str = Field(default="", max_length=32, description="Ready pods of ordered ones, like 2/5.")
    replicas: int = Field(default=0, ge=0, description="Pods that are ordered.")
    ready_replicas: int = Field(default=0, ge=0, description="Pods that take tasks.")
    busy_replicas: int = Field(default=0, ge=0, description="Pods that run at least one task.")
    draining_replicas: int = Field(
        default=0, ge=0, description="Pods that take no more tasks and go when theirs have ended."
    )
    desired_replicas: int = Field(default=0, ge=0, description="Pods that are wanted now.")
    selector: str = Field(
        default="", max_length=500, description="Label selector of the pods, for the scale subresource."
    )
    depth: Depth = Field(default_factory=Depth, description="Tasks of the queue.")
    depth_capped: bool = Field(
        default=False, description="true: a count of depth stopped early, there are at least as many."
    )
    oldest_queued_seconds: int = Field(default=0, ge=0, description="Seconds that the oldest task waits for a worker.")
    arrival_per_second: float = Field(
        default=0.0, ge=0, description="Tasks that arrived in a second, over the last minute."
    )
    finish_per_second: float = Field(
        default=0.0, ge=0, description="Tasks that ended in a second, over the last minute."
    )
    last_scale: LastScale | None = Field(default=None, description="The last change of the number of pods.")
    manual: Manual | None = Field(
        default=None,
        description="The value of spec.scaling.replicas seen last, so that a change made by hand is noticed.",
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=32,
        description="Ready and Progressing, then what is wrong. Use kubectl wait --for=condition=Ready.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
