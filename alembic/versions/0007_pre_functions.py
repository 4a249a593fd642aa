"""Workers reach their tables by functions: who calls which, and what proves that a call is a worker's own.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# A database of before keeps the rights that its running workers use; one that begins here has none of these workers.
ACCESS = "insert into installation (name, value) values ('worker_rights', :rights)"
DROP = """
do $$
declare signature text;
begin
    for signature in
        select pg_proc.oid::regprocedure::text
        from pg_proc join function_sets on pg_proc.proname like 'taskflow\\_%\\_' || function_sets.digest
        where pg_proc.pronamespace = 'public'::regnamespace
    loop
        execute 'drop function ' || signature;
    end loop;
end $$
"""


def upgrade() -> None:
    """Apply."""
    op.add_column("workers", sa.Column("functions", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("secret_hash", sa.LargeBinary(), nullable=True))
    op.create_table(
        "function_sets",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "installation",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    rights = "functions" if context.config.attributes.get("empty") else "tables"
    op.get_bind().execute(sa.text(ACCESS), {"rights": rights})


def downgrade() -> None:
    """Take back."""
    op.execute(DROP)
    op.drop_table("installation")
    op.drop_table("function_sets")
    op.drop_column("workers", "secret_hash")
    op.drop_column("workers", "functions")
