"""Batches are found by id without reading every entry."""

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"


def upgrade() -> None:
    """Add the index on batch ids."""
    names = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("entries")}
    if "ix_entries_batch" not in names:
        op.create_index("ix_entries_batch", "entries", ["batch"])
