"""Figures of large projects as they were last made, so that a server that starts again shows them at once."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "readings",
        sa.Column("project_id", sa.String(40), sa.ForeignKey("projects.id"), primary_key=True, nullable=False),
        sa.Column("name", sa.String(40), primary_key=True, nullable=False),
        sa.Column("at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
    )


def downgrade() -> None:
    """Go back: figures are made again."""
    op.drop_table("readings")
