"""Who can rate what: needs of items, languages and skills of people, tests of a skill."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ID = sa.String(40)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _to(name: str, column: str, *, key: bool = False) -> sa.Column[str]:
    """A column that names a row of another table."""
    return sa.Column(name, ID, sa.ForeignKey(column), primary_key=key, nullable=False)


def _number() -> sa.Column[int]:
    return sa.Column("number", sa.Integer(), primary_key=True, nullable=False)


def upgrade() -> None:
    """Go forward. Items that are there ask for nothing."""
    for table in ("items", "progress"):
        op.add_column(table, sa.Column("needs", sa.String(200), nullable=False, server_default=""))
    op.add_column("anchors", sa.Column("qualifies", sa.String(40), nullable=False, server_default=""))
    op.add_column("invites", sa.Column("abilities", sa.JSON(), nullable=False, server_default="[]"))
    op.drop_index("progress_in_order", "progress")
    op.create_index("progress_in_order", "progress", ["project_id", "use", "needs", "num_lacking", "rank"])
    op.create_table(
        "demands", _to("project_id", "projects.id", key=True), sa.Column("needs", sa.String(200), primary_key=True, nullable=False),
    )  # fmt: skip
    op.execute("INSERT INTO demands (project_id, needs) SELECT id, '' FROM projects")
    op.create_table(
        "abilities", _to("person_id", "people.id", key=True), sa.Column("need", sa.String(40), primary_key=True, nullable=False),
    )  # fmt: skip
    op.create_table(
        "qualifications", _to("project_id", "projects.id", key=True), _number(), _to("person_id", "people.id"),
        sa.Column("need", sa.String(40), nullable=False), sa.Column("state", sa.String(12), nullable=False),
        sa.Column("share", sa.Float(), nullable=False), sa.Column("num_used", sa.Integer(), nullable=False),
        sa.Column("num_right", sa.Integer(), nullable=False), sa.Column("at", NUMBER, nullable=False),
    )  # fmt: skip
    op.create_index("qualifications_of_person", "qualifications", ["project_id", "person_id", "need", "number"])
    op.create_table(
        "qualification_items", _to("project_id", "projects.id", key=True), _number(), _to("item_id", "items.id", key=True),
        sa.Column("rank", sa.Integer(), nullable=False), sa.Column("expected", sa.String(12), nullable=False),
        sa.ForeignKeyConstraint(["project_id", "number"], ["qualifications.project_id", "qualifications.number"]),
    )  # fmt: skip
    op.create_index("qualification_items_of_item", "qualification_items", ["item_id"])


def downgrade() -> None:
    """Go back. The version before hands every item to everybody."""
    for name in ("qualification_items", "qualifications", "abilities", "demands"):
        op.drop_table(name)
    op.drop_index("progress_in_order", "progress")
    op.create_index("progress_in_order", "progress", ["project_id", "use", "num_lacking", "rank"])
    for table, column in (("invites", "abilities"), ("anchors", "qualifies"), ("progress", "needs"), ("items", "needs")):  # fmt: skip
        op.drop_column(table, column)
