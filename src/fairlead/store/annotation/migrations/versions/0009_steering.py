"""Which item goes to whom: raters' places, anchors and what came of them, alarms, calibration rounds; votes that an item lacks."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ID = sa.String(40)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _to(name: str, *columns: str, key: bool = False) -> sa.Column[str]:
    """A column that names a row of another table."""
    return sa.Column(name, ID, sa.ForeignKey(columns[0]), primary_key=key, nullable=False)


def upgrade() -> None:
    """Go forward."""
    _raters()
    _anchors()
    _rounds()
    op.add_column("projects", sa.Column("state_reason", sa.String(500), nullable=False, server_default=""))
    op.add_column("projects", sa.Column("watched_from", NUMBER, nullable=False, server_default="0"))
    op.add_column("projects", sa.Column("steering", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("progress", sa.Column("num_extra", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("progress", sa.Column("num_lacking", sa.Integer(), nullable=False, server_default="0"))
    op.drop_index("progress_in_order", "progress")
    op.create_index("progress_in_order", "progress", ["project_id", "use", "num_lacking", "rank"])
    op.drop_index("ix_verdicts_item_id", "verdicts")
    op.create_index("verdicts_of_item", "verdicts", ["item_id", "verdict"])
    op.create_index("verdicts_in_order", "verdicts", ["project_id", "event_number"])
    _fill()


def _raters() -> None:
    numbers = (
        "num_given",
        "side_lead",
        "num_production",
        "sitting",
        "place",
        "num_missed",
        "passed_round",
        "items_since",
    )
    op.create_table(
        "raters", _to("project_id", "projects.id", key=True), _to("person_id", "people.id", key=True),
        sa.Column("given_at", NUMBER, nullable=False), sa.Column("is_waived", sa.Boolean(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in numbers),
    )  # fmt: skip


def _anchors() -> None:
    op.create_table(
        "anchors", _to("item_id", "items.id", key=True), _to("project_id", "projects.id"), _to("root_id", "items.id"),
        sa.Column("kind", sa.String(12), nullable=False), sa.Column("answer", sa.String(12), nullable=False),
        sa.Column("is_retired", sa.Boolean(), nullable=False),
    )  # fmt: skip
    op.create_index("anchors_of_project", "anchors", ["project_id", "kind"])
    op.create_index("anchors_of_root", "anchors", ["root_id"])
    op.create_table(
        "checks", _to("assignment_id", "assignments.id", key=True), _to("project_id", "projects.id"),
        _to("person_id", "people.id"), _to("item_id", "items.id"), sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("expected", sa.String(12), nullable=False), sa.Column("is_right", sa.Boolean(), nullable=True),
    )  # fmt: skip
    op.create_index("checks_of_person", "checks", ["project_id", "person_id", "position"])
    op.create_table(
        "alarms", sa.Column("event_number", NUMBER, primary_key=True, nullable=False), _to("project_id", "projects.id"),
        _to("person_id", "people.id"), sa.Column("at", NUMBER, nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("position", "since", "num_anchors", "num_right")),
        *(sa.Column(name, sa.Boolean(), nullable=False) for name in ("is_asked", "is_rerated", "is_closed")),
    )  # fmt: skip
    op.create_index("alarms_of_person", "alarms", ["project_id", "person_id", "event_number"])


def _rounds() -> None:
    op.create_table(
        "rounds", _to("project_id", "projects.id", key=True), sa.Column("number", sa.Integer(), primary_key=True, nullable=False),
        sa.Column("person_id", ID, sa.ForeignKey("people.id"), nullable=True), sa.Column("opened_at", NUMBER, nullable=False),
        sa.Column("reason", sa.String(500), nullable=False), sa.Column("is_passed", sa.Boolean(), nullable=False),
    )  # fmt: skip
    op.create_table(
        "round_items", _to("project_id", "projects.id", key=True), sa.Column("number", sa.Integer(), primary_key=True, nullable=False),
        _to("item_id", "items.id", key=True), sa.Column("rank", NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["project_id", "number"], ["rounds.project_id", "rounds.number"]),
    )  # fmt: skip
    op.create_table(
        "looks", _to("project_id", "projects.id", key=True), sa.Column("at", NUMBER, nullable=False), sa.Column("found", sa.JSON(), nullable=False),
    )  # fmt: skip


def _fill() -> None:
    """What the rows that are there mean in the new tables. Round 1 of a project is its calibration items."""
    op.execute(
        "UPDATE progress SET num_lacking = (SELECT votes_per_item FROM projects WHERE projects.id = progress.project_id) - num_votes "
        "WHERE \"use\" = 'production'"
    )
    op.execute("UPDATE progress SET num_lacking = -num_votes WHERE \"use\" <> 'production'")
    op.execute(
        "INSERT INTO raters (project_id, person_id, num_given, side_lead, num_production, sitting, place, given_at, num_missed, passed_round, "
        "is_waived, items_since) SELECT a.project_id, a.person_id, COUNT(*), SUM(CASE a.shown WHEN '10' THEN 1 WHEN '01' THEN -1 ELSE 0 END), "
        "SUM(CASE WHEN i.\"use\" = 'production' THEN 1 ELSE 0 END), 0, 0, 0, 0, 0, (1 = 0), "
        "SUM(CASE WHEN i.\"use\" = 'production' AND a.state = 'done' THEN 1 ELSE 0 END) "
        "FROM assignments a JOIN items i ON i.id = a.item_id GROUP BY a.project_id, a.person_id"
    )
    op.execute(
        "UPDATE raters SET passed_round = 1 WHERE EXISTS (SELECT 1 FROM events e WHERE e.project_id = raters.project_id "
        "AND e.person_id = raters.person_id AND e.kind IN ('calibration.passed', 'calibration.waived'))"
    )
    op.execute(
        "UPDATE raters SET is_waived = (1 = 1) WHERE EXISTS (SELECT 1 FROM events e WHERE e.project_id = raters.project_id "
        "AND e.person_id = raters.person_id AND e.kind = 'calibration.waived')"
    )
    op.execute(
        "INSERT INTO rounds (project_id, number, person_id, opened_at, reason, is_passed) SELECT id, 1, NULL, created_at, 'before production', "
        "(1 = 0) FROM projects WHERE EXISTS (SELECT 1 FROM items i WHERE i.project_id = projects.id AND i.\"use\" = 'calibration')"
    )
    op.execute(
        "INSERT INTO round_items (project_id, number, item_id, rank) SELECT project_id, 1, id, rank FROM items WHERE \"use\" = 'calibration'"
    )


def downgrade() -> None:
    """Go back. Copies that served as anchors stay as items of their kind, which the version before does not hand out."""
    for name in ("looks", "round_items", "rounds", "alarms", "checks", "anchors", "raters"):
        op.drop_table(name)
    op.drop_index("verdicts_in_order", "verdicts")
    op.drop_index("verdicts_of_item", "verdicts")
    op.create_index("ix_verdicts_item_id", "verdicts", ["item_id"])
    op.drop_index("progress_in_order", "progress")
    op.create_index("progress_in_order", "progress", ["project_id", "use", "num_votes", "rank"])
    for table, column in (
        ("progress", "num_lacking"),
        ("progress", "num_extra"),
        ("projects", "steering"),
        ("projects", "watched_from"),
        ("projects", "state_reason"),
    ):
        op.drop_column(table, column)
