"""Live conversations with the policy."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = sa.String(40)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "chat_turns",
        sa.Column("chat_id", ID, primary_key=True, nullable=False),
        sa.Column("number", sa.Integer(), primary_key=True, nullable=False),
        sa.Column("project_id", ID, sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("person_id", ID, sa.ForeignKey("people.id"), nullable=False),
        sa.Column("event_number", NUMBER, nullable=False),
        sa.Column("prompt_id", ID, nullable=False),
        sa.Column("seed", NUMBER, nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("failure", sa.String(200), nullable=False),
        sa.Column("assignment_id", ID, sa.ForeignKey("assignments.id")),
    )
    op.create_index("chat_turns_of_person", "chat_turns", ["project_id", "person_id", "event_number"])
    op.create_index("chat_turns_in_order", "chat_turns", ["state", "event_number"])


def downgrade() -> None:
    """Go back."""
    op.drop_table("chat_turns")
