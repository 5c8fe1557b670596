"""What validate makes of a store that gives nothing out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refund.errors import AccessDeniedError, ReasonCode
from refund.night.validate import check_readable
from refund.records import PhotoFacts

PLACE = "http://s3.example"


def refused(slot: int) -> PhotoFacts:
    return PhotoFacts(slot=slot, reason=ReasonCode.UNREADABLE, detail="403 AccessDenied")


def test_a_shard_of_which_nothing_may_be_read_is_a_fault_of_rights() -> None:
    with pytest.raises(AccessDeniedError, match=r"refused every one of the shard's 3 photos, for example: 403"):
        check_readable([refused(0), refused(1), refused(2)], place=PLACE)


def test_single_refusals_cost_their_photos_alone() -> None:
    check_readable([refused(0), refused(1)], place=PLACE)
    check_readable([refused(0), refused(1), refused(2), replace(refused(3), reason=None, detail=None)], place=PLACE)
    check_readable([], place=PLACE)
