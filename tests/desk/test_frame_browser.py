"""The pages that belong to no other test in a real browser: the calls, errors, other DAGs, a missing report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.desk.conftest import desk_in
from tests.desk.serving import serve, watched
from tests.night.conftest import World

LONG = "a_dag_with_a_name_" * 12
NO_REPORT = "/reports/2026-01-01/page"
PATHS = (
    "/api/docs",
    "/nothing-of-that-name",
    "/history/2026-11-21/00000000-0000-4000-8000-000000000000",
    f"/dag/{LONG}",
    NO_REPORT,
)


@pytest.fixture(scope="module")
def url(shared_world: World) -> Iterator[str]:
    with desk_in(shared_world) as made:
        made.sign_in("ana")
        with serve(made.app) as address:
            yield address


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (390, "light"), (1280, "light"), (1280, "dark")])
def test_pages_fit_the_window_and_axe_finds_nothing_serious(browser: Any, url: str, width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with watched(browser, width=width, scheme=scheme) as seen:
        for path in PATHS:
            if path == NO_REPORT:  # its own policy lets no script run, nor axe: look at the same text without it
                text = seen.page.request.get(url + path, headers={"Accept": "text/html"}).text()
                assert "There is no report of the night of 2026-01-01." in text
                seen.page.goto("about:blank")
                seen.page.set_content(text)
            else:
                seen.page.goto(url + path)
            seen.page.get_by_role("heading", level=1).wait_for()
            assert (path, seen.overflow_px) == (path, 0)
            found = Axe().run(seen.page).response["violations"]
            assert (path, [each["id"] for each in found if each["impact"] in ("serious", "critical")]) == (path, [])
        assert seen.strangers(url) == []
        assert [text for text in seen.complaints if "404" not in text] == []
