"""The page on which people try photos: its form, its limits, and the words that its script says things in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from refund.desk.auth import DAG_ID, DESK_VIEW, Asking
from refund.desk.pages import render
from refund.desk.uploads import MOST_IN_A_BATCH
from refund.desk.verdict import MAX_TOP_K
from refund.desk.wiring import DeskDep
from refund.errors import ReasonCode
from refund.imaging.sniff import SUPPORTED_FORMATS
from refund.model.taxonomy import DEPARTMENT_BRANCHES, DEPARTMENTS
from refund.params import NightParams
from refund.records import QualityLabel, ReviewReason
from refund.report.labels import category_label, explain_reason, quality_label, reason_label

if TYPE_CHECKING:
    from refund.records import ImageLimits

router = APIRouter()

AT_ONCE = 3  # uploads: more would only queue at the server, and one person must not fill it

# Why a night would put the photo before a person; the script fills in the numbers.
_REVIEW_REASONS = {
    ReviewReason.LOW_SCORE: "The best category reaches {score}, and a night asks for {threshold}.",
    ReviewReason.NOT_A_PRODUCT: "What it shows is no goods of any department but an animal, scenery or the like.",
    ReviewReason.DECLARED_MISMATCH: "The customer declared another category.",
}
# What somebody who holds the photo can do; docs/reason_codes.md says what a night does.
_HELP = {
    ReasonCode.EMPTY_FILE: "Choose the photo again; if it stays empty, take a new one.",
    ReasonCode.FILE_TOO_LARGE: "Send a smaller copy: most phones and mail programs offer one when they share a photo.",
    ReasonCode.NOT_AN_IMAGE: "Look at what the file is, and choose the photo itself.",
    ReasonCode.UNSUPPORTED_FORMAT: "Save it as JPEG; on an iPhone: Settings, Camera, Formats, Most Compatible.",
    ReasonCode.CORRUPT: "Copy the file again from where it came from, or take a new photo.",
    ReasonCode.TRUNCATED: "The copy broke off: copy the file again from where it came from.",
    ReasonCode.TOO_SMALL: "Send the photo itself instead of its thumbnail.",
    ReasonCode.TOO_LARGE: "Send a copy with fewer pixels.",
    ReasonCode.DECODE_TIMEOUT: "Try it once more; if it fails again, save it anew as JPEG.",
    ReasonCode.DECODE_MEMORY: "Save it anew as JPEG with fewer pixels.",
    ReasonCode.DECODE_CRASHED: "Save it anew as JPEG, and tell whoever runs this Airflow: the reader has a fault.",
    ReasonCode.BODY_MISMATCH: "Try it once more.",
}
_QUALITY_HELP = {
    QualityLabel.DARK: "more light",
    QualityLabel.BRIGHT: "no flash",
    QualityLabel.BLURRY: "hold the phone still, clean its lens",
    QualityLabel.LOW_INFORMATION: "look whether there is anything in the picture",
    QualityLabel.ODD_ASPECT: "do not crop to a strip",
}


@router.get("/try", include_in_schema=False)
def try_photos(request: Request, desk: DeskDep, visitor: Asking) -> HTMLResponse:
    """Try one to ten photos, and look at those tried last."""
    limits = desk.services.settings.limits
    return render(
        request,
        "try.html.j2",
        title="Try photos",
        visitor=visitor,
        words=words(limits),
        max_photos=MOST_IN_A_BATCH,
        max_top_k=MAX_TOP_K,
        usual_top_k=NightParams().top_k,
        largest=_largest(limits),
        limits=limits,
        formats=SUPPORTED_FORMATS,
        media_types=",".join(f"image/{name.lower()}" for name in SUPPORTED_FORMATS),
        dag_id=DAG_ID,
        desk_view=DESK_VIEW,
    )


def words(limits: ImageLimits) -> dict[str, Any]:
    """What the script says things in, and what it checks before it sends anything, as JSON values."""
    return {
        "max_photos": MOST_IN_A_BATCH,
        "max_bytes": limits.max_bytes,
        "largest": _largest(limits),
        "at_once": AT_ONCE,
        "threshold": NightParams().review_threshold,
        "categories": {name: category_label(name) for name in sorted(DEPARTMENTS)},
        "branches": {name: "; ".join(branches) for name, branches in DEPARTMENT_BRANCHES.items()},
        "review_reasons": dict(_REVIEW_REASONS),
        "reasons": {
            reason.value: {"title": reason_label(reason), "what_to_do": _HELP.get(reason) or explain_reason(reason)}
            for reason in ReasonCode
        },
        "quality": {
            label.value: {"title": quality_label(label), "what_to_do": _QUALITY_HELP[label]} for label in QualityLabel
        },
    }


def _largest(limits: ImageLimits) -> str:
    """The limit as people say it: 16 MB and not 16.8, what 16 x 1,024 x 1,024 bytes are in decimal units."""
    return f"{limits.max_bytes / 2**20:.3g} MB" if limits.max_bytes >= 2**20 else f"{limits.max_bytes:,} bytes"
