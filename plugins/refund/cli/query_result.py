"""Shows the rows of a query so that names and values stay readable, however many columns there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from refund.cli.app import printable

_ANY_WIDTH = 1_000_000  # cells


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """A table where it fits; in a terminal that is too narrow, one record below the other, as psql shows on request.

    Into pipes and logs the table goes at its full width: a row is a line. Names and values are shown as they are,
    whatever brackets they hold.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose by the width that the console has."""
        table = self._table()
        needed = console.measure(table, options=options.update(width=_ANY_WIDTH)).maximum
        if needed <= options.max_width:
            yield table
        elif not console.is_terminal:
            yield from console.render(table, options.update(width=needed))
        elif self.rows:
            for number, row in enumerate(self.rows, start=1):
                yield Text(f"─ {number} ─", style="dim")
                yield self._record(row)
        else:
            yield Text("\n".join(printable(column) for column in self.columns), style="dim")
            yield Text("(0 rows)")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in self.columns:
            table.add_column(Text(printable(column)), overflow="fold")
        for row in self.rows:
            table.add_row(*(_text(value) for value in row))
        return table

    def _record(self, row: Sequence[object]) -> Table:
        table = Table.grid(padding=(0, 2), pad_edge=False)
        table.add_column(style="dim", overflow="fold")
        table.add_column(overflow="fold")
        for column, value in zip(self.columns, row, strict=True):
            table.add_row(Text(printable(column)), _text(value))
        return table


def _text(value: object) -> Text:
    return Text("" if value is None else printable(value))
