"""The tables of docs/compatibility.md, from the declarations that the translation itself goes by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.translate.chat.fields import fields_table
from app.translate.content import parts_table
from app.translate.tools import tools_table
from app.translate.warnings import warnings_table

TABLES: Mapping[str, Callable[[], str]] = {
    "fields": fields_table,
    "parts": parts_table,
    "tools": tools_table,
    "warnings": warnings_table,
}
