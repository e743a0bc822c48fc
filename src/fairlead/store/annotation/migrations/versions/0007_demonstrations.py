"""Kinds of projects; replies that people write and others review."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ID = sa.String(40)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go forward. What is there compares."""
    op.add_column("projects", sa.Column("kind", sa.String(16), nullable=False, server_default="comparison"))
    op.create_table(
        "writings",
        sa.Column("id", ID, primary_key=True, nullable=False), _to("project_id", "projects.id"),
        sa.Column("prompt_id", ID, nullable=False), sa.Column("draft_id", ID), sa.Column("rank", NUMBER, nullable=False),
        sa.UniqueConstraint("project_id", "prompt_id"),
    )  # fmt: skip
    op.create_table(
        "writing_tasks",
        sa.Column("id", ID, primary_key=True, nullable=False), _to("project_id", "projects.id"), _to("writing_id", "writings.id"),
        _to("person_id", "people.id"), sa.Column("part", sa.String(12), nullable=False), sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(12), nullable=False), sa.Column("leased_until", NUMBER, nullable=False), sa.Column("text", sa.String()),
        sa.Column("took_draft", sa.Boolean(), nullable=False), sa.UniqueConstraint("writing_id", "person_id", "part", "round"),
    )  # fmt: skip
    op.create_index("writing_tasks_of_person", "writing_tasks", ["project_id", "person_id", "state"])
    op.create_table(
        "demonstrations",
        _to("writing_id", "writings.id", is_key=True), _to("project_id", "projects.id"), sa.Column("rank", NUMBER, nullable=False),
        sa.Column("state", sa.String(12), nullable=False), sa.Column("changed_at", NUMBER, nullable=False),
        sa.Column("event_number", NUMBER, nullable=False), sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("num_skips", sa.Integer(), nullable=False), _to("author_id", "people.id", is_needed=False),
        sa.Column("text", sa.String(), nullable=False), sa.Column("guideline_version", sa.Integer(), nullable=False),
        sa.Column("active_ms", sa.Integer()), sa.Column("draft_id", ID), sa.Column("is_drafted", sa.Boolean(), nullable=False),
        sa.Column("from_draft", sa.Float(), nullable=False), sa.Column("draft_kept", sa.Float(), nullable=False),
        _to("reviewer_id", "people.id", is_needed=False), sa.Column("is_edited", sa.Boolean(), nullable=False),
        sa.Column("review_kept", sa.Float(), nullable=False), sa.Column("reason", sa.String(), nullable=False),
    )  # fmt: skip
    op.create_index("demonstrations_in_order", "demonstrations", ["project_id", "state", "rank"])


def _to(name: str, target: str, *, is_key: bool = False, is_needed: bool = True) -> sa.Column[str]:
    """A column that names a row of another table."""
    return sa.Column(name, ID, sa.ForeignKey(target), primary_key=is_key, nullable=not is_needed)


def downgrade() -> None:
    """Go back."""
    for name in ("demonstrations", "writing_tasks", "writings"):
        op.drop_table(name)
    op.drop_column("projects", "kind")
