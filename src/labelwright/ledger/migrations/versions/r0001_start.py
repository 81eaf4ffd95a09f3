"""The first ledger: what version 0.0.x wrote."""

revision = "r0001"
down_revision = None


def upgrade() -> None:
    """Nothing: the tables are there."""
