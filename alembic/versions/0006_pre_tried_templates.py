"""Which pod template a queue's newest worker came from.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply: a constant default rewrites nothing, and older workers leave the column alone."""
    op.add_column("queue_types", sa.Column("template", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """Take back."""
    op.drop_column("queue_types", "template")
