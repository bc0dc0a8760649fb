"""Tables in pages of docs/: each stands between the lines `<!-- table: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mmmsvmamba.engine.errors import UserError


def markdown(columns: Sequence[str], rules: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in markdown; `rules` are `---` for a column of text and `---:` for one of numbers."""
    return ''.join(f'| {" | ".join(row)} |\n' for row in (columns, rules, *rows))


def fill(page: str, tables: Mapping[str, str]) -> str:
    """Puts each table between its two lines.

    Raises:
        UserError: The page has no place for a table, two, or one for a table that does not exist.
    """
    places = re.findall(r'^<!-- table: (.*) -->$', page, re.M)
    if sorted(places) != sorted(tables):
        raise UserError(f'the page has places for the tables {places}; there are {list(tables)}')
    for name, table in tables.items():
        start = f'<!-- table: {name} -->\n'
        before, after = page.split(start)
        if '<!-- end -->' not in after:
            raise UserError(f'the page has no line "<!-- end -->" behind the table {name}')
        page = f'{before}{start}\n{table}\n<!-- end -->{after.split("<!-- end -->", 1)[1]}'
    return page


def update(page: Path, tables: Callable[[], Mapping[str, str]]) -> int:
    """Writes the tables into a page; the exit code of a command that does no more."""
    try:
        page.write_text(fill(page.read_text(), tables()))
    except UserError as error:
        print(f'error: {page.name}: {error}', file=sys.stderr)
        return 1
    return 0
