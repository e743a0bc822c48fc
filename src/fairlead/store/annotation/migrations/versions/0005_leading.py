"""Decisions of adjudicators, and budgets."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.String(40)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "decisions",
        sa.Column("item_id", ID, sa.ForeignKey("items.id"), primary_key=True, nullable=False),
        sa.Column("project_id", ID, sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("person_id", ID, sa.ForeignKey("people.id"), nullable=False),
        sa.Column("event_number", NUMBER, nullable=False),
        sa.Column("verdict", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("guideline_version", sa.Integer(), nullable=False),
    )
    op.create_index("decisions_of_project", "decisions", ["project_id", "event_number"])
    op.create_table(
        "budgets",
        sa.Column("project_id", ID, sa.ForeignKey("projects.id"), primary_key=True, nullable=False),
        sa.Column("dollars_per_vote", sa.Float(), nullable=False),
        sa.Column("limit_dollars", sa.Float(), nullable=True),
        sa.Column("settled_votes", NUMBER, nullable=False),
        sa.Column("settled_dollars", sa.Float(), nullable=False),
        sa.Column("other_human", sa.Float(), nullable=False),
        sa.Column("other_ai", sa.Float(), nullable=False),
        sa.Column("is_overridden", sa.Boolean(), nullable=False),
    )


def downgrade() -> None:
    """Go back; the events stay."""
    op.drop_table("budgets")
    op.drop_index("decisions_of_project", "decisions")
    op.drop_table("decisions")
