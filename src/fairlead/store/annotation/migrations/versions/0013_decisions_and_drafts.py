"""Decisions place all completions of an item and may rate them; what was decided before places the first two. Drafts that people ask for."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_RANKINGS = "CASE verdict WHEN 'a' THEN '[[0],[1]]' WHEN 'b' THEN '[[1],[0]]' WHEN 'tie' THEN '[[0,1]]' ELSE '[]' END"


def upgrade() -> None:
    """Go forward."""
    for name, empty in (("ranking", "'[]'"), ("criteria", "'{}'")):
        op.add_column("decisions", sa.Column(name, sa.JSON(), nullable=False, server_default=sa.text(empty)))
    made = _RANKINGS if op.get_bind().dialect.name == "sqlite" else f"CAST({_RANKINGS} AS JSON)"
    op.execute(f"UPDATE decisions SET ranking = {made}")  # noqa: S608 - names of this file
    op.create_table(
        "draft_asks",
        sa.Column("writing_id", sa.String(40), sa.ForeignKey("writings.id"), primary_key=True),
        sa.Column("project_id", sa.String(40), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("event_number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("seed", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("failure", sa.String(200), nullable=False),
        sa.Column("draft_id", sa.String(40), nullable=True),
    )
    op.create_index("draft_asks_in_order", "draft_asks", ["state", "event_number"])


def downgrade() -> None:
    """Go back: of a ranking what is said of the first two stays; drafts stay as completions and events."""
    op.drop_table("draft_asks")
    for name in ("ranking", "criteria"):
        op.drop_column("decisions", name)
