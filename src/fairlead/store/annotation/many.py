"""Many rows into a table in few exchanges with the database: what a replay of a million events writes.

Example:
    insert_many(rows, table_of(Verdict), [{"assignment_id": ..., ...}, ...])
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from fairlead.store.annotation.database import Rows


def insert_many(rows: Rows, table: sa.Table, values: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that name the same columns, all of them plain values and JSON."""
    if not values:
        return
    connection = rows.connection()
    if connection.dialect.name == "sqlite":
        connection.execute(sa.insert(table), values)
    else:  # pg8000 would send them one by one
        connection.execute(_from_json(table, tuple(values[0])), {"rows": values})


@functools.cache
def _from_json(table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    given = sa.func.json_to_recordset(sa.bindparam("rows", type_=sa.JSON()))
    found = given.table_valued(*(sa.column(name, table.c[name].type) for name in names)).render_derived(
        "given", with_types=True
    )
    return sa.insert(table).from_select(names, sa.select(*found.c))
