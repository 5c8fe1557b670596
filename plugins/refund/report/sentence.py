"""What the report says in words: its first line, for a manager, and that every photo was counted at every stage."""

from __future__ import annotations

from refund.monitor.drift import (
    CATEGORY_SHARES,
    LARGEST_MOVE,
    REJECTION_RATE,
    VOLUME,
    DriftResult,
    DriftStatus,
)
from refund.records import Reconciliation
from refund.report.figures import ReportFigures
from refund.report.labels import (
    category_label,
    count,
    long_date,
    measure_label,
    measure_value,
    percent,
    reason_label,
)

MANY_REJECTED_SHARE = 0.2  # from here on the rejected photos, not the sorted ones, are the news


def summary_sentence(figures: ReportFigures) -> str:
    """What happened to the photos of the night, in one sentence, worst news first."""
    night = long_date(figures.run_date)
    if not figures.reconciliation.adds_up:
        return (
            f"The counts of {night} do not add up, so none of these figures should be used until the run has been "
            f"looked at."
        )
    if figures.night_photos == 0:
        return _nothing_new(figures, night)

    text = _rejections_first(figures, night) or _as_usual(figures, night)
    if figures.counts.classified + figures.counts.rejected == 0:
        text = f"Nothing has changed since {night} was sorted: {text[:1].lower()}{text[1:]}"
    return f"{text}{_drift(figures)}."


def reconciliation_sentences(sums: Reconciliation) -> str:
    """That what the run listed is what its packs, prediction files and tables hold, or that it is not."""
    photos = "photo" if sums.manifest == 1 else "photos"
    text = (
        f"This run listed {count(sums.manifest)} {photos} {'=' if sums.adds_up else '≠'} {count(sums.classified)} "
        f"classified + {count(sums.rejected)} rejected + {count(sums.unchanged)} unchanged since an earlier run."
    )
    if sums.packed is not None and sums.predicted is not None:
        text += (
            f" Classified and rejected are the {count(sums.packed)} in its packs; classified are the "
            f"{count(sums.predicted)} in its prediction files and the {count(sums.decisions)} decisions in the tables."
            if sums.adds_up
            else f" Its packs hold {count(sums.packed)}, its prediction files {count(sums.predicted)}, the tables "
            f"{count(sums.outcomes)} outcomes and {count(sums.decisions)} decisions."
        )
    if sums.overtaken:
        was = "was" if sums.overtaken == 1 else "were"
        text += f" {count(sums.overtaken)} of the unchanged {was} published by another run while this one was at work."
    return text


def _nothing_new(figures: ReportFigures, night: str) -> str:
    found = figures.counts.photos
    if found == 0:
        return f"No photos arrived for {night}, so there was nothing to sort."
    if found == 1:
        return f"No new photos arrived for {night}: the one photo found had been sorted before, and its result stands."
    return (
        f"No new photos arrived for {night}: all {count(found)} photos found had been sorted before, and their "
        f"results stand."
    )


def _as_usual(figures: ReportFigures, night: str) -> str:
    total = figures.night_photos
    waits = "waits" if figures.review == 1 else "wait"
    were = "was" if figures.auto == 1 else "were"
    parts = [f"{count(figures.auto)} ({percent(figures.auto_share)}) {were} sorted automatically"]
    parts.append(f"{count(figures.review)} {waits} for a person" if figures.review else "none waits for a person")
    if figures.rejected:
        parts.append(f"{count(figures.rejected)} could not be used")
    head = f"Of the {count(total)} photos of {night}" if total > 1 else f"Of the one photo of {night}"
    return f"{head}, {_listed(parts)}"


def _rejections_first(figures: ReportFigures, night: str) -> str | None:
    share = figures.rejected_share
    if share is None or share < MANY_REJECTED_SHARE:
        return None
    commonest = max(figures.rejections, key=lambda row: row.photos)
    why = f"because of “{reason_label(commonest.reason).lower()}”"
    if figures.night_photos == 1:
        return f"The only photo of {night} could not be used, {why}"
    if figures.rejected == figures.night_photos:
        return f"None of the {count(figures.night_photos)} photos of {night} could be used, most often {why}"
    return (
        f"{count(figures.rejected)} of the {count(figures.night_photos)} photos of {night} ({percent(share)}) could "
        f"not be used, most often {why}, while {count(figures.auto)} were sorted automatically and "
        f"{count(figures.review)} wait for a person"
    )


def refunds_sentence(figures: ReportFigures) -> str:
    """How many refunds contradict themselves or the customer, and in which way."""
    if not figures.refunds:
        return "No refund of this night has a photo that names it."
    if not figures.contradicting:
        return (
            f"None of the {count(figures.refunds)} refunds: their photos agree with one another and with what was "
            f"declared."
        )
    both = figures.refunds_disagree + figures.refunds_undeclared - figures.contradicting
    return (
        f"{count(figures.contradicting)} of the {count(figures.refunds)} refunds "
        f"({percent(figures.contradicting / figures.refunds, digits=1)}): in {count(figures.refunds_disagree)} the "
        f"photos belong to several categories, in {count(figures.refunds_undeclared)} a photo belongs to another than "
        f"was declared" + (f", {count(both)} of them both." if both else ".")
    )


def _drift(figures: ReportFigures) -> str:
    found = [result for result in figures.drift if result.status is DriftStatus.DRIFT]
    shares = any(result.measure == CATEGORY_SHARES and result.moves for result in found)
    parts = [
        text
        for result in found
        if not (result.measure == LARGEST_MOVE and shares)  # the mix names that category already
        for text in [_difference(result)]
        if text
    ]
    return f"; {'; '.join(parts)}" if parts else ""


def _difference(result: DriftResult) -> str:
    """How one measure differs from other nights, in words."""
    now, usual = result.tonight_value, result.reference_value
    instead = f"({measure_value(now, result.measure)} instead of {measure_value(usual, result.measure)})"
    if result.measure in (CATEGORY_SHARES, LARGEST_MOVE) and result.moves:
        move = result.moves[0]
        goods = "photos without goods" if move.category == "not_a_product" else category_label(move.category).lower()
        more = "more" if move.change > 0 else "fewer" if move.category == "not_a_product" else "less"
        shares = f"({percent(move.tonight_share)} instead of {percent(move.reference_share)})"
        if result.measure == LARGEST_MOVE:
            return f"there was far {more} {goods} than on other nights {shares}"
        return f"the mix of goods differs from other nights, above all {more} {goods} {shares}"
    if result.measure == CATEGORY_SHARES:
        return "the mix of goods differs from other nights"
    if now is not None and usual is not None and result.measure == VOLUME:
        return f"there were far {'more' if now > usual else 'fewer'} photos than on other nights {instead}"
    if now is not None and usual is not None and result.measure == REJECTION_RATE:
        return f"{'more' if now > usual else 'fewer'} photos than on other nights could not be used {instead}"
    return f"{measure_label(result.measure).lower()}: not as on other nights"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
