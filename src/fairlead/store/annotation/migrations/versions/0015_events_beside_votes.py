"""An index of the events that are no votes: the log of who did what is searched by kind among a million votes."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_NO_VOTE = sa.text("kind <> 'verdict.submitted'")


def upgrade() -> None:
    """Go forward."""
    op.create_index("events_beside_votes", "events", ["number"], sqlite_where=_NO_VOTE, postgresql_where=_NO_VOTE)


def downgrade() -> None:
    """Go back."""
    op.drop_index("events_beside_votes", "events")
