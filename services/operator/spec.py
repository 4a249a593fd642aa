"""A TaskQueue as people write it. What the operator answers is in `answer`.

The custom resource definition, the table in docs/taskqueue.md and what the operator reads are all made of these
models. A field that does nothing is absent; every field says what it means, its unit, its bounds and its default.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP: Final = "taskflow.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "TaskQueue"
PLURAL: Final = "taskqueues"
FINALIZER: Final = f"{GROUP}/drain"
MOST_NAME: Final = 40
"""Characters of a TaskQueue's name: what is made of it needs room for suffixes within 63."""
MOST_REPLICAS: Final = 1000
_WEEK: Final = 7 * 24 * 3600
_YEAR: Final = 366 * 24 * 3600

Mode = Literal["QueueDepth", "WaitTime", "External", "Fixed"]
Hold = Literal["None", "All", "Up", "Down"]
DeletionPolicy = Literal["Drain", "Wait", "Purge", "Orphan"]
QueueName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class Model(BaseModel):
    """What all of them share: camelCase outside, unchangeable inside."""

    # `ignore`, because an older operator must read what a newer definition lets through; the API server is who
    # refuses or drops unknown fields.
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True, extra="ignore")


def _rules(*rules: dict[str, str]) -> dict[str, Any]:
    return {"x-kubernetes-validations": list(rules)}


class Limits(Model):
    """How many tasks may run at once."""

    max_concurrent: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Tasks of this queue that run at once, on all workers together. 0 is no limit. 0 to 1000000, "
        "default 0.",
    )
    max_per_key: int = Field(
        default=1,
        ge=0,
        le=1_000_000,
        description="Tasks of one owner and one concurrency key that run at once. 0 is no limit. 0 to 1000000, "
        "default 1.",
    )


class TaskDefaults(Model):
    """What holds for a task when neither its submit nor its code says otherwise."""

    max_attempts: int = Field(
        default=3, ge=1, le=1000, description="Attempts that may fail before the task does. 1 to 1000, default 3."
    )
    timeout_seconds: int = Field(
        default=0, ge=0, le=_YEAR, description="Seconds that an attempt may run. 0 is no limit, the default."
    )


class Retention(Model):
    """How long ended tasks are kept."""

    completed_seconds: int = Field(
        default=604_800,
        ge=0,
        le=10 * _YEAR,
        description="Seconds that a task is kept after it COMPLETED. 0 to 316224000 (ten years), default 604800 "
        "(7 days).",
    )
    failed_seconds: int = Field(
        default=2_592_000,
        ge=0,
        le=10 * _YEAR,
        description="Seconds that a task is kept after any other end. 0 to 316224000 (ten years), default 2592000 "
        "(30 days).",
    )


class ScaleUp(Model):
    """How fast workers may become more: by whichever of the two steps is larger, in each period."""

    max_pods: int = Field(
        default=10, ge=1, le=MOST_REPLICAS, description="Pods added in a period. 1 to 1000, default 10."
    )
    max_percent: int = Field(
        default=100,
        ge=0,
        le=1000,
        description="Percent of the pods that there are, added in a period. 0 to 1000, default 100.",
    )
    period_seconds: int = Field(
        default=15, ge=1, le=1800, description="Length of the period in seconds. 1 to 1800, default 15."
    )


class ScaleDown(Model):
    """How fast workers may become fewer. Only pods that run no task are ever taken away."""

    stabilization_seconds: int = Field(
        default=300,
        ge=0,
        le=3600,
        description="Seconds to look back: there are as many pods as the most that was wanted within them. 0 to 3600, "
        "default 300.",
    )
    max_pods: int = Field(
        default=2, ge=1, le=MOST_REPLICAS, description="Pods taken away in a period. 1 to 1000, default 2."
    )
    period_seconds: int = Field(
        default=60, ge=1, le=1800, description="Length of the period in seconds. 1 to 1800, default 60."
    )


class Scaling(Model):
    """How many worker pods there are."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            {
                # `has`, because the server tries the rule on the bare default `{}` as well.
                "rule": "!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
                "message": "minReplicas must not be above maxReplicas",
                # `format`, because the server reckons the text that `string` makes of a number as endless.
                "messageExpression": "'minReplicas (%d) must not be above maxReplicas (%d)'"
                ".format([self.minReplicas, self.maxReplicas])",
                "reason": "FieldValueInvalid",
                "fieldPath": ".minReplicas",
            }
        )
    )

    mode: Mode = Field(
        default="QueueDepth",
        description="What decides the number of pods. QueueDepth (default): the tasks that wait and run, divided by "
        "tasksPerReplica. WaitTime: as many as it takes to start each task within targetWaitSeconds, from arrivals and "
        "run times. External: `replicas`, set by an HPA, KEDA or kubectl scale. Fixed: `replicas`, set by you.",
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=MOST_REPLICAS,
        description="Pods that modes External and Fixed run, and what kubectl scale writes. In the other modes a "
        "change of it is a floor for one hour. Never more than maxReplicas or fewer than minReplicas. 0 to 1000, "
        "default 1.",
    )
    min_replicas: int = Field(
        default=0,
        ge=0,
        le=MOST_REPLICAS,
        description="Fewest pods. 0 lets an idle queue have none. 0 to 1000, default 0.",
    )
    max_replicas: int = Field(default=10, ge=1, le=MOST_REPLICAS, description="Most pods. 1 to 1000, default 10.")
    tasks_per_replica: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Mode QueueDepth: waiting and running tasks for each pod. 0 (default) is worker.concurrency. "
        "0 to 100000.",
    )
    target_wait_seconds: int = Field(
        default=10,
        ge=1,
        le=3600,
        description="Mode WaitTime: seconds within which a task shall start. 1 to 3600, default 10.",
    )
    scale_up: ScaleUp = Field(default_factory=ScaleUp, description="How fast pods may become more.")
    scale_down: ScaleDown = Field(default_factory=ScaleDown, description="How fast pods may become fewer.")
    idle_to_zero_seconds: int = Field(
        default=300,
        ge=0,
        le=86_400,
        description="With minReplicas 0: seconds without any waiting or running task before the last pod goes. "
        "0 to 86400, default 300.",
    )
    hold: Hold = Field(
        default="None",
        description="Stops scaling by hand: All leaves the number of pods as it is, Up lets it only fall, Down lets it "
        "only rise. None (default) holds nothing. Stronger than every other field here.",
    )


class Worker(Model):
    """The worker pods."""

    concurrency: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Child processes in a pod. A sync task takes one, an async task one of 100 slots in one. 1 to 64, "
        "default 4.",
    )
    drain_seconds: int = Field(
        default=600,
        ge=0,
        le=_WEEK,
        description="Seconds that running tasks may take to end when their pod is told to go (eviction, node drain, "
        "new template, deletion). A scale-down waits without limit. 0 to 604800, default 600.",
    )
    template: dict[str, Any] = Field(
        default_factory=dict,
        description="A PodTemplateSpec, merged over the chart's: its container `worker` names the image with your "
        "tasks. Other containers run beside it. Empty (default): the chart's worker image, which holds the examples.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )


class TaskQueueSpec(Model):
    """A queue of tasks and the workers that run them."""

    queue_name: QueueName | None = Field(
        default=None,
        description="Name of the queue that tasks are submitted to: letters, digits, dot, underscore and hyphen, at "
        "most 63. Default: the name of the TaskQueue. Cannot be changed.",
    )
    paused: bool = Field(
        default=False,
        description="true: no task of the queue starts, those that run go on. Default false. A pause by REST stays "
        "until this field is changed.",
    )
    deletion_policy: DeletionPolicy = Field(
        default="Drain",
        description="What a deletion does. Drain (default): Kubernetes ends the workers at once, and their running "
        "tasks have worker.drainSeconds to end; waiting tasks stay in the database. No operator is needed. Wait: the "
        "operator ends the workers when their running tasks have ended, without limit; it holds the TaskQueue by the "
        "finalizer taskflow.dev/drain until then. Purge: as Wait, and waiting tasks are cancelled. Orphan: the workers "
        "stay as they are.",
    )
    limits: Limits = Field(default_factory=Limits, description="How many tasks may run at once.")
    task_defaults: TaskDefaults = Field(
        default_factory=TaskDefaults,
        description="What holds for a task when neither its submit nor its code says otherwise.",
    )
    retention: Retention = Field(default_factory=Retention, description="How long ended tasks are kept.")
    scaling: Scaling = Field(default_factory=Scaling, description="How many worker pods there are.")
    worker: Worker = Field(default_factory=Worker, description="The worker pods.")


def holds_deletion(spec: TaskQueueSpec) -> bool:
    """Tell whether the operator must act before a deleted TaskQueue may go: only then does it carry our finalizer."""
    return spec.deletion_policy in {"Wait", "Purge"}


def queue_name(spec: TaskQueueSpec, name: str) -> str:
    """Return the queue that the TaskQueue called `name` is about."""
    return spec.queue_name or name
