"""A worker finds what it is asked to stop without walking over all that it ever claimed.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply: beside running workers, and again where it was cut short."""
    with op.get_context().autocommit_block():
        op.drop_index("tasks_stopping", "tasks", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            "tasks_stopping",
            "tasks",
            ["worker_id"],
            postgresql_where=sa.text("cancel_deadline is not null"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    """Take back."""
    with op.get_context().autocommit_block():
        op.drop_index("tasks_stopping", "tasks", postgresql_concurrently=True, if_exists=True)
