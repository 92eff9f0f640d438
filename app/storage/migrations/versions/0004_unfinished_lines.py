"""Indexes of the lines that wait and of those that are leased, which stay small as a batch ends."""

import sqlalchemy as sa
from alembic import op

revision = "0004_unfinished_lines"
down_revision = "0003_suspicious_lines"
branch_labels = None
depends_on = None

OLD = "ix_batch_item_batch_id_state_line"


def upgrade() -> None:
    """Apply this step."""
    for state in ("pending", "leased"):
        where = sa.text(f"state = '{state}'")
        op.create_index(
            f"ix_batch_item_{state}",
            "batch_item",
            ["batch_id", "line"],
            sqlite_where=where,
            postgresql_where=where,
        )
    op.drop_index(OLD, "batch_item")


def downgrade() -> None:
    """Take this step back."""
    op.create_index(OLD, "batch_item", ["batch_id", "state", "line"])
    for state in ("pending", "leased"):
        op.drop_index(f"ix_batch_item_{state}", "batch_item")
