"""Keys that some part of the way from the bucket to the report could take for something else."""

from __future__ import annotations

from refund.keys import MAX_KEY_BYTES

FOLDER = "incoming/2026-11-21/"


def _filled(start: str, unit: str = "k") -> str:
    """A key of exactly as many bytes as S3 takes."""
    left = MAX_KEY_BYTES - len(start.encode())
    count, rest = divmod(left, len(unit.encode()))
    return start + unit * count + "x" * rest


NAMES = (
    *(" ", "R 1/a b.jpg", " R-1/ lead.jpg", "R-1 /trail.jpg ", "R-1/a\u00a0b.jpg"),
    *("../a.jpg", "R-1/../../b.jpg", "./a.jpg", "R-1/./c.jpg", "..", ".", "R-1/...", ".hidden", "R-1/..jpg"),
    *("//a.jpg", "R-1//b.jpg", "R-1///c.jpg"),
    *(
        "a\nb.jpg",
        "a\r\nb.jpg",
        "a\tb.jpg",
        "\n",
        "a\u2028b.jpg",
        "a\x0bb.jpg",
        "a\x1b[31mred.jpg",
        "a\x7fb.jpg",
        "a\x01b",
        "nul\0.jpg",
    ),
    *("100%.jpg", "%41.jpg", "%2e%2e/a.jpg", "%00.jpg", "%%.jpg", "%E9.jpg"),
    *("a+b.jpg", "a%2Bb.jpg", "a&b=c.jpg", "a?versionId=1.jpg", "a#b.jpg", "a;b.jpg", "a=b.jpg", "a:b@c.jpg"),
    *(
        "ä.jpg",
        "a\u0308.jpg",
        "写真.jpg",
        "фото.jpg",
        "📷.jpg",
        "👨‍👩‍👧.jpg",
        "\u202egpj.exe.jpg",
        "\u200fא.jpg",
        "a\u200bb.jpg",
    ),
    *("\ufeffa.jpg", "\ufffd.jpg", "\U0010ffff.jpg"),
    *("a\\b.jpg", "\\N", "\\.", "a\\tb.jpg", "C:\\a.jpg"),
    *("'; DROP TABLE refund.photo; --.jpg", '"a".jpg', "{a,b}.jpg", "<script>alert(1)</script>.jpg", "&lt;&amp;.jpg"),
    *("=1+1.jpg", "@sum.jpg", "-a.jpg", "{{ 7*7 }}.jpg", "$(id).jpg", "`id`.jpg", "NULL", "None", "a,b.jpg", "*?.jpg"),
)
KEYS = (
    *(FOLDER + name for name in NAMES),
    _filled(FOLDER + "R-1/"),
    _filled(FOLDER + "R-2/", "ä"),
    _filled(FOLDER + "R-3/", "📷"),
)
