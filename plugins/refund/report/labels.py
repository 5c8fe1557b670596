"""Turns what the tables hold into what a manager reads: labels, numbers, dates, and file names as safe text."""

from __future__ import annotations

import math
import unicodedata
from datetime import date

from refund.errors import ReasonCode
from refund.monitor.drift import CATEGORY_SHARES, LARGEST_MOVE, REJECTION_RATE, VOLUME
from refund.records import QualityLabel

MADE_UP = "Made-up night of the demo: nothing of it happened"

_CATEGORIES = {  # where "replace underscores, capitalise" would not read well
    "arts_entertainment": "Arts & entertainment",
    "baby_toddler": "Baby & toddler",
    "bags_luggage": "Bags & luggage",
    "business_industrial": "Business & industrial",
    "cameras_optics": "Cameras & optics",
    "food_beverages": "Food & beverages",
    "hardware_tools": "Hardware & tools",
    "health_beauty": "Health & beauty",
    "home_garden": "Home & garden",
    "jewellery_watches": "Jewellery & watches",
    "kitchen_dining": "Kitchen & dining",
    "religious_ceremonial": "Religious & ceremonial",
    "toys_games": "Toys & games",
    "vehicles_parts": "Vehicles & parts",
}

_REASONS = {  # title, and what it means to someone who has never seen the code
    ReasonCode.EMPTY_FILE: ("Empty file", "The file holds nothing; the upload probably broke off at once."),
    ReasonCode.FILE_TOO_LARGE: ("File too large", "The file has more bytes than the limit allows."),
    ReasonCode.NOT_AN_IMAGE: ("Not an image", "The file is something else, whatever its name ends with."),
    ReasonCode.UNSUPPORTED_FORMAT: ("Unsupported format", "An image, but none of JPG, PNG, GIF, BMP or WEBP."),
    ReasonCode.CORRUPT: ("Damaged", "It begins like an image, but the rest cannot be read."),
    ReasonCode.TRUNCATED: ("Cut off", "The image ends before it is complete; upload it again."),
    ReasonCode.TOO_SMALL: ("Too small", "A side has fewer pixels than the limit asks for."),
    ReasonCode.TOO_LARGE: ("Too many pixels", "A side has more pixels than the limit allows."),
    ReasonCode.DECODE_TIMEOUT: ("Took too long", "Reading it used up its time; the next night tries again."),
    ReasonCode.DECODE_MEMORY: ("Needed too much memory", "Reading it used up its memory; the next night tries again."),
    ReasonCode.DECODE_CRASHED: (
        "Broke the reader",
        "Reading it ended the reading process; the next night tries again.",
    ),
    ReasonCode.VANISHED: ("Gone", "It was listed, but removed before it could be read."),
    ReasonCode.CHANGED: (
        "Replaced meanwhile",
        "It was overwritten during the night; the new one comes with the next night.",
    ),
    ReasonCode.BODY_MISMATCH: ("Transfer fault", "What arrived was not what was listed; the next night tries again."),
    ReasonCode.UNREADABLE: ("Not given out", "The store refuses to give it out; the next night tries again."),
}

_NEXT_STEPS = {  # what to do, as docs/reason_codes.md has it
    ReasonCode.EMPTY_FILE: "Upload it again.",
    ReasonCode.FILE_TOO_LARGE: "Send a smaller photo, or have the limit raised (max_bytes).",
    ReasonCode.NOT_AN_IMAGE: "Find out what was uploaded, and upload the photo itself.",
    ReasonCode.UNSUPPORTED_FORMAT: "Set the phone to JPG, and take or save the photo anew.",
    ReasonCode.CORRUPT: "Upload it again.",
    ReasonCode.TRUNCATED: "Upload it again.",
    ReasonCode.TOO_SMALL: "Take a larger photo.",
    ReasonCode.TOO_LARGE: "Send a smaller photo, or have the limit raised (max_side_px).",
    ReasonCode.DECODE_TIMEOUT: "Nothing; if it repeats, look at the file.",
    ReasonCode.DECODE_MEMORY: "Nothing; if it repeats, look at the file.",
    ReasonCode.DECODE_CRASHED: "Nothing; if it repeats, report the file: the reader has a fault.",
    ReasonCode.VANISHED: "Ask who deleted it.",
    ReasonCode.CHANGED: "Nothing: the new version has a place of its own in the history.",
    ReasonCode.BODY_MISMATCH: "Look at the S3 server.",
    ReasonCode.UNREADABLE: "Look at what was seen; restore the photo, correct its rights, or look at the S3 server.",
}

_QUALITY = {
    QualityLabel.DARK: "Dark",
    QualityLabel.BRIGHT: "Overexposed",
    QualityLabel.BLURRY: "Blurry",
    QualityLabel.LOW_INFORMATION: "Almost blank",
    QualityLabel.ODD_ASPECT: "Unusually long or tall",
}

_STAGES = {
    "fetch": "List the photos",
    "validate": "Read and check",
    "classify": "Classify",
    "persist": "Write to the database",
    "generate_report": "Write the report",
}

_MEASURES = {
    CATEGORY_SHARES: "Mix of goods",
    LARGEST_MOVE: "Largest move",
    VOLUME: "Number of photos",
    REJECTION_RATE: "Share that could not be used",
}

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


def category_label(category: str) -> str:
    """``bags_luggage`` → ``Bags & luggage``; unknown categories lose their underscores."""
    return _CATEGORIES.get(category) or plain_label(category)


def reason_label(reason: str) -> str:
    """A reason code as a title."""
    known = _REASONS.get(ReasonCode(reason)) if reason in set(ReasonCode) else None
    return known[0] if known else plain_label(reason)


def explain_reason(reason: str) -> str:
    """What a reason code means, in one sentence; empty for codes that this version does not know."""
    known = _REASONS.get(ReasonCode(reason)) if reason in set(ReasonCode) else None
    return known[1] if known else ""


def reason_next_step(reason: str) -> str:
    """What somebody can do about a photo rejected for this reason; empty for codes that this version does not know."""
    return _NEXT_STEPS.get(ReasonCode(reason), "") if reason in set(ReasonCode) else ""


def quality_label(label: str) -> str:
    """A quality label as a title."""
    return _QUALITY.get(QualityLabel(label), "") if label in set(QualityLabel) else plain_label(label)


def stage_label(stage: str) -> str:
    """A stage of the run as a title."""
    return _STAGES.get(stage) or plain_label(stage)


def measure_label(measure: str) -> str:
    """A measure of drift as a title."""
    return _MEASURES.get(measure) or plain_label(measure)


def measure_value(value: float | None, measure: str) -> str:
    """What a measure of drift looked at: photos, or a share; a dash where it has no one value."""
    if value is None or not math.isfinite(value):
        return "–"
    if measure == VOLUME:
        return count(round(value))
    return percent(value, digits=1) if measure in _MEASURES else f"{value:.3g}"


def plain_label(name: str) -> str:
    """Underscores become spaces, the first letter a capital."""
    text = visible(name).replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def count(number: int) -> str:
    """``3214`` → ``3,214``."""
    return f"{number:,}"


def percent(share: float | None, *, digits: int = 0) -> str:
    """A ratio as a percentage that never rounds something to nothing or most to all; a dash for None and NaN."""
    if share is None or not math.isfinite(share):
        return "–"
    step = 10**-digits
    if 0.0 < share * 100 < step / 2:
        return f"<{step:.{digits}f}%"
    if 100 - step / 2 < share * 100 < 100:
        return f">{100 - step:.{digits}f}%"
    return f"{share * 100:.{digits}f}%"


def points(change: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    rounded = round(change * 100, 1)
    return f"{'−' if rounded < 0 else '+' if rounded > 0 else '±'}{abs(rounded):.1f}"


def decimal(value: float | None, *, digits: int = 3) -> str:
    """A number with so many decimals; a dash for None and NaN."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def milliseconds(value: float | None) -> str:
    """A time for one photo: ``0.8 ms``, ``21 ms``, ``1,500 ms``; a dash for None and NaN."""
    shown = decimal(value, digits=1 if value is not None and value < 9.95 else 0)
    return shown if shown == "–" else f"{shown} ms"


def seconds(value: float | None) -> str:
    """A duration: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``; a dash for None and NaN."""
    if value is None or not math.isfinite(value):
        return "–"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def megabytes(size_bytes: int) -> str:
    """A size in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:,.1f} {unit}"
    return f"{size_bytes} bytes"


def long_date(day: date) -> str:
    """``Saturday 21 November 2026``, in English whatever the machine's locale."""
    return f"{_DAYS[day.weekday()]} {day.day} {_MONTHS[day.month - 1]} {day.year}"


def short_date(day: date) -> str:
    """``21 Nov``, in English."""
    return f"{day.day} {_MONTHS[day.month - 1][:3]}"


def weekday(day: date) -> str:
    """``Saturday``, in English."""
    return _DAYS[day.weekday()]


def visible(text: str, *, limit: int = 160) -> str:
    """A text from outside as one line that can be trusted to look like what it is.

    Control characters, line ends, lone surrogates and the marks that turn the direction of writing (by which
    ``gpj.exe`` reads as ``exe.jpg``) are shown as their escapes; past ``limit`` characters the middle is left out.
    """
    shown = "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in _UNSEEN else char
        for char in text
    )
    if len(shown) <= limit:
        return shown
    head = limit // 3
    return f"{shown[:head]}…{shown[-(limit - head - 1) :]}"


_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
