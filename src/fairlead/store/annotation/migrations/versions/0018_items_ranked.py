"""An index of the items of three completions or more: pages that speak of rankings find them, or that there are none, among many pairs."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_RANKED = sa.text("json_array_length(completions) > 2")


def upgrade() -> None:
    """Go forward."""
    op.create_index("items_ranked", "items", ["project_id"], sqlite_where=_RANKED, postgresql_where=_RANKED)


def downgrade() -> None:
    """Go back."""
    op.drop_index("items_ranked", "items")
