"""Alembic runs this: migrations use the connection that labelwright hands over."""

from alembic import context

from labelwright.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
