"""Totals that verdicts keep current: labels of an item, work of a rater, and a rater's labels against those of others."""

import sqlalchemy as sa
from alembic import op

from fairlead.store.annotation.totals import fill

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.String(40)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go forward, with the verdicts that are there counted."""
    op.add_column("progress", sa.Column("pattern", sa.String(200), nullable=False, server_default=""))
    op.create_index("progress_by_pattern", "progress", ["project_id", "use", "pattern"])
    op.create_table(
        "work", _project(), _person(),
        *(sa.Column(name, sa.Integer(), primary_key=True, nullable=False, autoincrement=False) for name in ("day", "guideline_version")),
        sa.Column("choice", sa.String(12), primary_key=True, nullable=False),
        sa.Column("strength", sa.Integer(), primary_key=True, nullable=False, autoincrement=False),
        sa.Column("num", sa.Integer(), nullable=False), sa.Column("num_timed", sa.Integer(), nullable=False),
        sa.Column("active_ms", NUMBER, nullable=False),
    )  # fmt: skip
    op.create_table(
        "concord", _project(), _person(), sa.Column("label", sa.String(12), primary_key=True, nullable=False),
        sa.Column("others", sa.String(12), primary_key=True, nullable=False), sa.Column("num", sa.Integer(), nullable=False),
    )  # fmt: skip
    fill(op.get_bind())


def _project() -> sa.Column[str]:
    return sa.Column("project_id", ID, sa.ForeignKey("projects.id"), primary_key=True, nullable=False)


def _person() -> sa.Column[str]:
    return sa.Column("person_id", ID, sa.ForeignKey("people.id"), primary_key=True, nullable=False)


def downgrade() -> None:
    """Go back."""
    op.drop_table("concord")
    op.drop_table("work")
    op.drop_index("progress_by_pattern", "progress")
    op.drop_column("progress", "pattern")
