"""Where batches come from: a user's table, a growing folder, a Redis stream, a Kafka topic.

:mod:`~labelwright.streams.intake` turns rows into batches, :mod:`~labelwright.streams.source` is the face of everything that
keeps on giving, :func:`~labelwright.streams.address.open_stream` makes one of a URL. Clients of brokers are imported when used.
"""

from labelwright.streams.intake import (
    Accepted,
    Bad,
    Columns,
    Intake,
    as_table,
    class_names,
    comparable,
    content,
    label_text,
    numbered,
)

__all__ = [
    "Accepted",
    "Bad",
    "Columns",
    "Intake",
    "as_table",
    "class_names",
    "comparable",
    "content",
    "label_text",
    "numbered",
]
