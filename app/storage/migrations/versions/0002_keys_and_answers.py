"""API keys, stored answers and shared secrets."""

import sqlalchemy as sa
from alembic import op

revision = "0002_keys_and_answers"
down_revision = "0001_files_and_batches"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this step."""
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("quota_units", sa.Double(), nullable=True),
        sa.Column("quota_window_s", sa.BigInteger(), nullable=False),
        sa.Column("max_priority", sa.BigInteger(), nullable=False),
        sa.Column("rate_full_at", sa.Double(), nullable=False),
        sa.Column("quota_full_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
    )
    op.create_table(
        "idempotent_answer",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.Column("lease_token", sa.String(96), nullable=False),
        sa.Column("lease_expires_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("media_type", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("owner", "key", name=op.f("pk_idempotent_answer")),
    )
    op.create_index(op.f("ix_idempotent_answer_expires_at"), "idempotent_answer", ["expires_at"])
    op.create_table(
        "secret",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secret")),
    )


def downgrade() -> None:
    """Take this step back."""
    op.drop_table("secret")
    op.drop_table("idempotent_answer")
    op.drop_table("api_key")
