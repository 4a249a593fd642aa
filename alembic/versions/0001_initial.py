"""The first tables.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateSequence, DropSequence, Sequence

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

event_type = postgresql.ENUM(
    "CREATED",
    "STARTED",
    "COMPLETED",
    "FAILED",
    "RETRIED",
    "RELEASED",
    "RESCUED",
    "CANCEL_REQUESTED",
    "CANCELLED",
    "EXPIRED",
    "QUARANTINED",
    "REDRIVEN",
    "REPRIORITIZED",
    "FENCED",
    name="event_type",
    create_type=False,
)
priority_type = postgresql.ENUM("LOW", "NORMAL", "HIGH", name="priority_type", create_type=False)
task_status = postgresql.ENUM(
    "BLOCKED",
    "PENDING",
    "QUEUED",
    "IN_PROGRESS",
    "CANCELLING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "EXPIRED",
    "QUARANTINED",
    name="task_status",
    create_type=False,
)
sequences = (Sequence("task_seq"), Sequence("task_event_seq", cache=100))

# The days around now get their partitions here, later ones by the leader; what fits in none goes to the default one.
PARTITIONS = """
do $$
declare day date;
begin
    perform set_config('timezone', 'UTC', true);
    for day in select generate_series((now() at time zone 'UTC')::date - 1, (now() at time zone 'UTC')::date + 7,
                                      interval '1 day')::date loop
        execute format('create table task_events_%s partition of task_events for values from (%L) to (%L)',
                       to_char(day, 'YYYYMMDD'), day, day + 1);
    end loop;
    create table task_events_default partition of task_events default;
end $$
"""


def upgrade() -> None:
    """Apply."""
    connection = op.get_bind()
    for kind in (task_status, priority_type, event_type):
        kind.create(connection)
    for sequence in sequences:
        op.execute(CreateSequence(sequence))
    op.create_table(
        "api_keys",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("prefix"),
    )
    op.create_index(op.f("ix_api_keys_owner_id"), "api_keys", ["owner_id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("owner_id", "key"),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "leader",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=True),
        sa.Column("renewals", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("released", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "queues",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("max_concurrent", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_per_key", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("completed_seconds", sa.Integer(), server_default=sa.text("604800"), nullable=False),
        sa.Column("failed_seconds", sa.Integer(), server_default=sa.text("2592000"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "task_events",
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.BigInteger(), server_default=sa.text("nextval('task_event_seq')"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("event_type", event_type, nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=True),
        sa.Column("claim", sa.Uuid(), nullable=True),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("task_id", "id", "created_at"),
        postgresql_partition_by="RANGE (created_at)",
    )
    op.create_table(
        "task_logs",
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "attempt", "id"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", priority_type, server_default="NORMAL", nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("payload_bytes", sa.Integer(), nullable=False),
        sa.Column("status", task_status, nullable=False),
        sa.Column("gated", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("permit", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("concurrency_key", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "scheduled_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("timeout_seconds", sa.Double(), nullable=True),
        sa.Column("max_attempts", sa.SmallInteger(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("claim", sa.Uuid(), nullable=True),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("retry_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("crash_count", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker_deaths", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("isolation", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("generation", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cancel_deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        postgresql_with={
            "fillfactor": "70",
            "autovacuum_vacuum_scale_factor": "0.02",
            "autovacuum_analyze_scale_factor": "0.05",
        },
    )
    op.create_index(
        "tasks_due",
        "tasks",
        ["scheduled_at"],
        unique=False,
        postgresql_where=sa.text("status = 'PENDING' and not gated"),
    )
    op.create_index(
        "tasks_delayed",
        "tasks",
        ["queue"],
        unique=False,
        postgresql_where=sa.text("status = 'PENDING' and not gated"),
    )
    op.create_index(
        "tasks_cancelling",
        "tasks",
        ["cancel_deadline"],
        unique=False,
        postgresql_where=sa.text("cancel_deadline is not null"),
    )
    op.create_index(
        "tasks_expiring",
        "tasks",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at is not null and status in ('BLOCKED', 'PENDING', 'QUEUED')"),
    )
    op.create_index(
        "tasks_finished",
        "tasks",
        ["queue", "finished_at"],
        unique=False,
        postgresql_where=sa.text("status = 'COMPLETED'"),
    )
    op.create_index(
        "tasks_failed",
        "tasks",
        ["queue", "finished_at"],
        unique=False,
        postgresql_where=sa.text("status in ('FAILED', 'CANCELLED', 'EXPIRED', 'QUARANTINED')"),
    )
    op.create_index(
        "tasks_gate",
        "tasks",
        ["queue", "owner_id", "concurrency_key", "priority", "scheduled_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'PENDING' and gated"),
    )
    op.create_index(
        "tasks_held",
        "tasks",
        ["worker_id"],
        unique=False,
        postgresql_where=sa.text("status in ('IN_PROGRESS', 'CANCELLING')"),
    )
    op.create_index("tasks_owner", "tasks", ["owner_id", "id"], unique=False)
    op.create_index(
        "tasks_permits",
        "tasks",
        ["queue", "owner_id", "concurrency_key"],
        unique=False,
        postgresql_where=sa.text("gated and status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')"),
    )
    op.create_index(
        "tasks_ready",
        "tasks",
        ["queue", "type", "priority", "seq"],
        unique=False,
        postgresql_where=sa.text("status = 'QUEUED'"),
    )
    # The last of all indexes: on a table that looks empty all of them cost the same, and of equals PostgreSQL takes
    # the youngest. As the oldest, it lost look-ups by id to tasks_owner, in plans that sessions keep for minutes.
    op.create_primary_key("tasks_pkey", "tasks", ["id"])
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("is_admin", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("email"),
        sa.UniqueConstraint("username"),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_webhooks_owner_id"), "webhooks", ["owner_id"], unique=False)
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="alive", nullable=False),
        sa.Column("queues", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("sync_types", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("async_types", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("sync_slots", sa.Integer(), nullable=False),
        sa.Column("async_slots", sa.Integer(), nullable=False),
        sa.Column("free_sync", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("free_async", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("build", sa.Text(), server_default="", nullable=False),
        sa.Column("pid", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("facts", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("beat_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id"),
        postgresql_with={"fillfactor": "50"},
    )
    op.execute(PARTITIONS)


def downgrade() -> None:
    """Take back."""
    op.drop_table("workers")
    op.drop_table("webhooks")
    op.drop_table("users")
    op.drop_table("tasks")
    op.drop_table("task_logs")
    op.drop_table("task_events")
    op.drop_table("queues")
    op.drop_table("leases")
    op.drop_table("leader")
    op.drop_table("idempotency_keys")
    op.drop_table("api_keys")
    connection = op.get_bind()
    for sequence in sequences:
        op.execute(DropSequence(sequence))
    for kind in (task_status, priority_type, event_type):
        kind.drop(connection)
