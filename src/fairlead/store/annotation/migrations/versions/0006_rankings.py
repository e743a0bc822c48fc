"""Items of two to nine completions, criteria, marked passages, edits.

Columns are added and dropped in place: tables that others name cannot be made anew inside a transaction of SQLite. Going back keeps of each
item its first two completions, which is what the column `verdict` speaks of.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TEXT = sa.String()
_RANKINGS = "WHEN 'a' THEN '[[0],[1]]' WHEN 'b' THEN '[[1],[0]]' WHEN 'tie' THEN '[[0,1]]'"


def upgrade() -> None:
    """Go forward: what is there becomes items of two."""
    _add("items", "completions", sa.JSON(), "'[]'")
    _fill("items", "completions", "'[\"' || completion_a || '\",\"' || completion_b || '\"]'")
    op.alter_column("items", "pair_id", new_column_name="content_id")
    op.drop_column("items", "completion_a")
    op.drop_column("items", "completion_b")
    _add("assignments", "shown", sa.String(9), "''")
    op.execute("UPDATE assignments SET shown = CASE WHEN swapped THEN '10' ELSE '01' END")
    op.drop_column("assignments", "swapped")
    _add("guidelines", "criteria", sa.JSON(), "'[]'")
    _add("guidelines", "spans", sa.Boolean(), sa.false())
    _add("guidelines", "edits", sa.Boolean(), sa.false())
    for name, empty in (("ranking", "'[]'"), ("criteria", "'{}'"), ("spans", "'[]'")):
        _add("verdicts", name, sa.JSON(), empty)
    op.add_column("verdicts", sa.Column("edited", sa.Integer(), nullable=True))
    _add("verdicts", "edited_text", _TEXT, "''")
    _fill("verdicts", "ranking", f"CASE verdict {_RANKINGS} ELSE '[]' END")
    _add("drafts", "fields", sa.JSON(), "'{}'")
    made = "json_object('rationale', text)" if _is_sqlite() else "json_build_object('rationale', text)"
    op.execute(f"UPDATE drafts SET fields = {made}")  # noqa: S608 - names of this file
    op.drop_column("drafts", "text")


def downgrade() -> None:
    """Go back: what the first tables cannot hold is dropped."""
    _add("drafts", "text", _TEXT, "''")
    rationale = "json_extract(fields, '$.rationale')" if _is_sqlite() else "fields->>'rationale'"
    op.execute(f"UPDATE drafts SET text = COALESCE({rationale}, '')")  # noqa: S608 - names of this file
    op.drop_column("drafts", "fields")
    for name in ("ranking", "criteria", "spans", "edited", "edited_text"):
        op.drop_column("verdicts", name)
    for name in ("criteria", "spans", "edits"):
        op.drop_column("guidelines", name)
    _add("assignments", "swapped", sa.Boolean(), sa.false())
    op.execute(sa.text("UPDATE assignments SET swapped = :yes WHERE shown LIKE '%1%0%'").bindparams(yes=True))
    op.drop_column("assignments", "shown")
    for place, name in enumerate(("completion_a", "completion_b")):
        _add("items", name, sa.String(40), "''")
        found = f"json_extract(completions, '$[{place}]')" if _is_sqlite() else f"completions->>{place}"
        op.execute(f"UPDATE items SET {name} = {found}")  # noqa: S608 - names of this file
    op.alter_column("items", "content_id", new_column_name="pair_id")
    op.drop_column("items", "completions")


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _add(table: str, name: str, kind: sa.types.TypeEngine[Any], empty: str | sa.sql.ColumnElement[bool]) -> None:
    """A column that is never null; rows that are there get `empty`."""
    default = sa.text(empty) if isinstance(empty, str) else empty
    op.add_column(table, sa.Column(name, kind, nullable=False, server_default=default))


def _fill(table: str, name: str, text: str) -> None:
    """A column of JSON from an expression that makes its text."""
    op.execute(f"UPDATE {table} SET {name} = {text if _is_sqlite() else f'CAST({text} AS JSON)'}")  # noqa: S608 - names of this file
