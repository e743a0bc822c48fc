"""Active choice of pairs: scores of a reward model, batches, and what each holds with which probability."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ID = sa.String(40)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "model_scores", sa.Column("project_id", ID, sa.ForeignKey("projects.id"), primary_key=True, nullable=False),
        sa.Column("completion_id", ID, primary_key=True, nullable=False), sa.Column("value", sa.Float(), nullable=False),
    )  # fmt: skip
    op.create_table(
        "batches", sa.Column("project_id", ID, sa.ForeignKey("projects.id"), primary_key=True, nullable=False),
        sa.Column("number", sa.Integer(), primary_key=True, nullable=False), sa.Column("event_number", NUMBER, nullable=False),
        sa.Column("at", NUMBER, nullable=False), sa.Column("needs", sa.String(200), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("num_pool", "num_scored", "num_seen")),
    )  # fmt: skip
    op.create_table(
        "choices", sa.Column("project_id", ID, sa.ForeignKey("projects.id"), primary_key=True, nullable=False),
        sa.Column("item_id", ID, sa.ForeignKey("items.id"), primary_key=True, nullable=False), sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("arm", sa.String(8), nullable=False), sa.Column("inclusion", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["project_id", "number"], ["batches.project_id", "batches.number"]),
    )  # fmt: skip


def downgrade() -> None:
    """Go back. Chosen pairs stay at the front of the order until a rebuild."""
    for name in ("choices", "batches", "model_scores"):
        op.drop_table(name)
