"""How many verdicts a project has, as one row that verdicts keep current."""

import sqlalchemy as sa
from alembic import op

from fairlead.store.annotation.totals import fill_tallies

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward, with the verdicts that are there counted."""
    op.create_table(
        "tallies",
        sa.Column("project_id", sa.String(40), sa.ForeignKey("projects.id"), primary_key=True, nullable=False),
        sa.Column("num_verdicts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
    )
    fill_tallies(op.get_bind())


def downgrade() -> None:
    """Go back."""
    op.drop_table("tallies")
