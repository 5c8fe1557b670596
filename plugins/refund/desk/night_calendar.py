"""Lays nights out as months of a calendar: pure, for the page Tonight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from refund.report.labels import count, long_date, weekday

if TYPE_CHECKING:
    from refund.store.tonight import CalendarDay

_SAID = {"published": "published", "running": "at work", "failed": "failed", "missing": "not run"}
SIGNS = {"published": "✓", "running": "…", "failed": "✕", "missing": "–"}
_MONDAY = date(2024, 1, 1)
WEEKDAYS = tuple(weekday(_MONDAY + timedelta(days=number)) for number in range(7))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One day of a month."""

    day: date
    state: str  # published, running, failed, missing; empty: no night is expected, as none was before or it is to come
    sign: str
    photos: str  # short
    drift: bool
    alerts: int  # open
    made_up: bool
    told: str  # all of it in words
    shown: bool  # it is the night that the page shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """One month, by weeks from Monday; None where the day lies in another month."""

    name: str
    weeks: tuple[tuple[Cell | None, ...], ...]


def month_start(day: date, back: int = 0) -> date:
    """The first day of its month, or of the month that many before."""
    number = day.year * 12 + day.month - 1 - back
    return date(number // 12, number % 12 + 1, 1)


def months(
    days: Iterable[CalendarDay], *, last: date, number: int, today: date, shown: date | None, begun: date | None
) -> tuple[Month, ...]:
    """That many months up to the one of ``last``, oldest first.

    Args:
        days: nights that left a trace.
        last: a day of the newest month.
        number: of months.
        today: by UTC; nights from it on are not missed yet.
        shown: the night that the page shows.
        begun: the oldest night that began; none before it is missed.
    """
    found = {day.run_date: day for day in days}
    starts = [month_start(last, back) for back in range(number - 1, -1, -1)]
    return tuple(
        Month(
            name=" ".join(long_date(start).split()[2:]),
            weeks=tuple(
                tuple(
                    _cell(day, found.get(day), today=today, shown=shown, begun=begun)
                    if day.month == start.month
                    else None
                    for day in (monday + timedelta(days=number) for number in range(7))
                )
                for monday in _mondays(start)
            ),
        )
        for start in starts
    )


def _mondays(start: date) -> list[date]:
    end = month_start(start, -1)
    monday, found = start - timedelta(days=start.weekday()), []
    while monday < end:
        found.append(monday)
        monday += timedelta(days=7)
    return found


def _cell(day: date, night: CalendarDay | None, *, today: date, shown: date | None, begun: date | None) -> Cell:
    expected = begun is not None and begun <= day < today
    state = night.state if night else "missing" if expected else ""
    if state == "missing" and not expected:
        state = ""  # something was told of a night that is still to come
    told = [long_date(day), *([_SAID[state]] if state else [])]
    if night and night.photos is not None:
        told.append(f"{count(night.photos)} photos" if night.photos != 1 else "1 photo")
    if night and night.drift:
        told.append("differs from other nights")
    if night and night.open_alerts:
        told.append(f"{night.open_alerts} open alert{'' if night.open_alerts == 1 else 's'}")
    if night and night.synthetic:
        told.append("made up")
    return Cell(
        day=day,
        state=state,
        sign=SIGNS.get(state, ""),
        photos=short_count(night.photos) if night and night.photos is not None else "",
        drift=bool(night and night.drift),
        alerts=night.open_alerts if night else 0,
        made_up=bool(night and night.synthetic),
        told=", ".join(told),
        shown=day == shown,
    )


def short_count(number: int) -> str:
    """``940``, ``2.4k``, ``31k``, ``1.2M``: what a day of a calendar has room for."""
    for unit, scale in (("M", 1_000_000), ("k", 1_000)):
        if number >= scale:
            return f"{number / scale:.1f}{unit}" if number < 10 * scale else f"{number // scale}{unit}"
    return str(number)
