"""Users' own data: tables from files and frames, streamed in bounded memory, and turned into features.

:func:`open_source` reads, :class:`Encoder` turns columns into numbers, :func:`bad_feature_rows` finds rows to
set aside, :func:`row_bytes` identifies rows by content, :func:`write_table` writes.
"""

from labelwright.tables.arrow import NOT_A_NUMBER, together, widened
from labelwright.tables.checks import bad_feature_rows
from labelwright.tables.chunked import TableSource
from labelwright.tables.columns import MAX_CATEGORIES, State
from labelwright.tables.encoder import TRUSTED_TYPES, Encoder
from labelwright.tables.files import CSV_BLOCK, CSV_HEAD, CSV_SUFFIXES, PARQUET_BATCH, PARQUET_SUFFIXES
from labelwright.tables.kinds import ID_NAME
from labelwright.tables.parts import FilePart, HeldPart, Part, parts_of
from labelwright.tables.rows import MISSING_FLOAT, row_bytes
from labelwright.tables.sources import open_source, vector_column
from labelwright.tables.write import write_bytes, write_table, write_tables

__all__ = [
    "CSV_BLOCK",
    "CSV_HEAD",
    "CSV_SUFFIXES",
    "ID_NAME",
    "MAX_CATEGORIES",
    "MISSING_FLOAT",
    "NOT_A_NUMBER",
    "PARQUET_BATCH",
    "PARQUET_SUFFIXES",
    "TRUSTED_TYPES",
    "Encoder",
    "FilePart",
    "HeldPart",
    "Part",
    "State",
    "TableSource",
    "bad_feature_rows",
    "open_source",
    "parts_of",
    "row_bytes",
    "together",
    "vector_column",
    "widened",
    "write_bytes",
    "write_table",
    "write_tables",
]
