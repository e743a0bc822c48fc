"""What conversations that want a reply ask of who writes and reviews it: a language, skills."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward. Conversations that are there ask for nothing."""
    op.add_column("writings", sa.Column("needs", sa.String(200), nullable=False, server_default=""))


def downgrade() -> None:
    """Go back. The version before hands every conversation to everybody."""
    op.drop_column("writings", "needs")
