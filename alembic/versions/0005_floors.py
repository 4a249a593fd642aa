"""From where on to look for QUEUED rows.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "ready_floors",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("priority", postgresql.ENUM(name="priority_type", create_type=False), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("queue", "type", "priority"),
        postgresql_with={"fillfactor": "50"},
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("ready_floors")
