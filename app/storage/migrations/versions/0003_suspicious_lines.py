"""An index of the lines that took down workers, which a claim asks for first."""

import sqlalchemy as sa
from alembic import op

revision = "0003_suspicious_lines"
down_revision = "0002_keys_and_answers"
branch_labels = None
depends_on = None

NAME = "ix_batch_item_suspicious"


def upgrade() -> None:
    """Apply this step."""
    often = sa.text("tries >= 2")
    op.create_index(
        NAME, "batch_item", ["batch_id", "line"], sqlite_where=often, postgresql_where=often
    )


def downgrade() -> None:
    """Take this step back."""
    op.drop_index(NAME, "batch_item")
