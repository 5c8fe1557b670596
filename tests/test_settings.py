"""Settings come from the environment, then a file, then defaults; secrets stay out of every text."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from refund.errors import SettingsError
from refund.resources import include_path
from refund.settings import DatabaseAccess, S3Access, Settings


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("min_side_px = 64\nmax_side_px = 2048\n")
    settings = Settings.load({"REFUND_SETTINGS": str(file), "REFUND_MIN_SIDE_PX": "48"})
    assert (settings.limits.min_side_px, settings.limits.max_side_px) == (48, 2048)
    assert settings.limits.max_bytes == 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"REFUND_MIN_SIDE_PX": "wide"}, "setting min_side_px (REFUND_MIN_SIDE_PX) must be of type int, got 'wide'"),
        ({"REFUND_MIN_SIDE_PX": "5000"}, "limits need max_bytes > 0 and 0 < min_side_px <= max_side_px"),
        ({"REFUND_SETTINGS": "/nowhere/settings.toml"}, "REFUND_SETTINGS names /nowhere/settings.toml, which cannot"),
        ({"REFUND_DECODE_TIMEOUT_S": "nan"}, "setting decode_timeout_s (REFUND_DECODE_TIMEOUT_S) must be 1 or more"),
        ({"REFUND_STAGING_KEEP_DAYS": "-1"}, "setting staging_keep_days (REFUND_STAGING_KEEP_DAYS) must be 1 or more"),
        ({"REFUND_DECODE_WORKERS": "-1"}, "setting decode_workers (REFUND_DECODE_WORKERS) must be 0 or more, got -1"),
    ],
)
def test_bad_settings_are_refused_in_words(environ: dict[str, str], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("min_side_px = ", "is not valid TOML"),
        ("colour = 1", "sets 'colour', which is no setting; known are: staging_root"),
        ('decode_timeout_s = "soon"', "must be of type float, got 'soon'"),
    ],
)
def test_bad_files_are_refused_in_words(tmp_path: Path, content: str, text: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        Settings.load({"REFUND_SETTINGS": str(file)})
    assert text in str(caught.value)


def test_the_example_file_sets_every_setting_to_its_default(tmp_path: Path) -> None:
    """The example is commented out: with the comments taken away it must say just what the code does."""
    lines = include_path("settings.example.toml").read_text().splitlines()
    active = tmp_path / "settings.toml"
    active.write_text("\n".join(line.removeprefix("#") for line in lines if line.startswith("#") and " = " in line))
    assert Settings.load({"REFUND_SETTINGS": str(active)}) == Settings()
    named = {line.removeprefix("#").split(" = ")[0] for line in lines if line.startswith("#") and " = " in line}
    without = {spec.name for spec in fields(Settings) if spec.default is None}  # TOML has no null
    assert named | without == set(Settings.__dataclass_fields__)
    assert {line.split()[1] for line in lines if line.endswith("(no default)")} == without


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"alert_channels": "smtp, pager"},
            "setting alert_channels (REFUND_ALERT_CHANNELS) has 'pager'; expected any of smtp, slack, apprise, by "
            "commas",
        ),
        (
            {"alert_min_severity": "bad"},
            "setting alert_min_severity (REFUND_ALERT_MIN_SEVERITY) must be one of info, warning, critical, got 'bad'",
        ),
        (
            {"alert_no_photos": "mon, sunday"},
            "setting alert_no_photos (REFUND_ALERT_NO_PHOTOS) has 'sunday'; expected any of mon, tue, wed, thu, fri, "
            "sat, sun, by commas",
        ),
        (
            {"alert_channels": "smtp", "alert_email_from": "night@example.com"},
            "setting alert_email_to (REFUND_ALERT_EMAIL_TO) must hold mail addresses such as night@example.com, as "
            "alert_channels has smtp; got ''",
        ),
        (
            {"alert_channels": "smtp", "alert_email_to": "a@b.c\nBcc: x@y.z", "alert_email_from": "night@example.com"},
            "setting alert_email_to (REFUND_ALERT_EMAIL_TO) must hold mail addresses such as night@example.com, as "
            "alert_channels has smtp; got 'a@b.c\\nBcc: x@y.z'",
        ),
    ],
)
def test_alert_settings_are_refused_at_once(values: dict[str, str], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**values)  # type: ignore[arg-type]
    assert str(caught.value) == text


def test_channels_and_weekdays_are_read_as_they_are_written() -> None:
    settings = Settings(
        alert_channels="Slack, smtp,slack ,", alert_email_to="a@b.c, d@e.f", alert_email_from="g@h.i",
        alert_no_photos="sat, sun",
    )  # fmt: skip
    assert (settings.channels, settings.delivery_weekdays) == (("slack", "smtp"), frozenset({5, 6}))
    assert Settings().channels == ()
    assert Settings().delivery_weekdays == frozenset(range(7))


def test_who_reads_the_settings_cannot_call_the_heartbeat() -> None:
    assert "topsecret" not in repr(Settings(heartbeat_url="https://beat.example/topsecret"))


def test_no_secret_in_a_repr() -> None:
    s3 = S3Access(bucket="b", access_key="AKIA-SECRET", secret_key="TOP-SECRET")
    database = DatabaseAccess(host="h", password="TOP-SECRET")
    for text in (repr(s3), str(s3), repr(database), str(database), database.place, s3.place):
        assert "SECRET" not in text
