"""A tiny S3 server on loopback that lists any number of keys over a few bodies: a large night without a large disk.

It answers what the night asks of S3: listings page by page, GET, HEAD, PUT and copies. It checks no signature.
"""

from __future__ import annotations

import argparse
import bisect
import hashlib
import sys
import threading
from collections.abc import Sequence
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE_KEYS = 1000  # as S3
PREFIX = "incoming/"
PHOTOS_PER_REFUND = 3


class ManyKeys:
    """What lies in the bucket: ``photos`` keys below each day, over the bodies in turn, and what was written since."""

    def __init__(self, bodies: Sequence[bytes], *, days: Sequence[str], photos: int) -> None:
        self.bodies = [(body, hashlib.md5(body, usedforsecurity=False).hexdigest()) for body in bodies]
        self.keys = [key_of(day, number) for day in sorted(days) for number in range(photos)]
        self.photos = photos
        self.written: dict[str, bytes] = {}
        self.lock = threading.Lock()

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Body and ETag."""
        if (body := self.written.get(key)) is not None:
            return body, hashlib.md5(body, usedforsecurity=False).hexdigest()
        place = bisect.bisect_left(self.keys, key)
        if place == len(self.keys) or self.keys[place] != key:
            return None
        return self.bodies[place % self.photos % len(self.bodies)]

    def list(self, prefix: str, *, after: str, delimiter: str) -> tuple[list[str], list[str], str | None]:
        """Keys, common prefixes and where the next page begins; a page has at most `PAGE_KEYS` of both together."""
        with self.lock:
            others = sorted(self.written)
        keys: list[str] = []
        folders: list[str] = []
        place = after
        while len(keys) + len(folders) < PAGE_KEYS:
            key = min(
                (found for pile in (self.keys, others) if (found := _next(pile, prefix, place)) is not None),
                default=None,
            )
            if key is None:
                return keys, folders, None
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                folders.append(key[: cut + 1])
                place = folders[-1] + "\U0010ffff"
            else:
                keys.append(key)
                place = key
        return keys, folders, place


def key_of(day: str, number: int) -> str:
    """The key of a photo; keys of a day sort by number."""
    return f"{PREFIX}{day}/R-{number // PHOTOS_PER_REFUND:07d}/{number:07d}.jpg"


def _next(pile: Sequence[str], prefix: str, after: str) -> str | None:
    place = bisect.bisect_right(pile, after) if after >= prefix else bisect.bisect_left(pile, prefix)
    return pile[place] if place < len(pile) and pile[place].startswith(prefix) else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    many: ManyKeys

    def do_GET(self) -> None:
        path, query = self._asked()
        _, _, key = path.lstrip("/").partition("/")
        if not key:
            return self._list(query)
        return self._body(key, send=True)

    def do_HEAD(self) -> None:
        path, _ = self._asked()
        _, _, key = path.lstrip("/").partition("/")
        if key:
            self._body(key, send=False)
        else:
            self._answer(200, b"")

    def do_PUT(self) -> None:
        path, _ = self._asked()
        _, _, key = path.lstrip("/").partition("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        source = self.headers.get("x-amz-copy-source")
        if source is not None:
            found = self.many.get(unquote(source).lstrip("/").partition("/")[2].partition("?")[0])
            if found is None:
                return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            body = found[0]
        with self.many.lock:
            self.many.written[key] = body
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        copied = f'<CopyObjectResult><ETag>"{etag}"</ETag></CopyObjectResult>'.encode() if source else b""
        return self._answer(200, copied, {"ETag": f'"{etag}"'})

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        return unquote(parts.path), {name: values[0] for name, values in query.items()}

    def _body(self, key: str, *, send: bool) -> None:
        found = self.many.get(key)
        if found is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>" if send else b"")
            return
        body, etag = found
        headers = {"ETag": f'"{etag}"', "Last-Modified": formatdate(1_700_000_000, usegmt=True)}
        self._answer(200, body, headers, send=send)

    def _list(self, query: dict[str, str]) -> None:
        prefix = query.get("prefix", "")
        after = query.get("continuation-token", "")
        keys, folders, more = self.many.list(prefix, after=after, delimiter=query.get("delimiter", ""))
        rows = [
            f"<Contents><Key>{escape(quote(key, safe='/'))}</Key><LastModified>2026-11-21T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{found[1]}&quot;</ETag><Size>{len(found[0])}</Size></Contents>"
            for key in keys
            if (found := self.many.get(key)) is not None
        ]
        rows += [f"<CommonPrefixes><Prefix>{escape(quote(one, safe='/'))}</Prefix></CommonPrefixes>" for one in folders]
        rest = f"<NextContinuationToken>{escape(more)}</NextContinuationToken>" if more else ""
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>b</Name><EncodingType>url</EncodingType><KeyCount>{len(keys) + len(folders)}</KeyCount>"
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{rest}{''.join(rows)}</ListBucketResult>"
        )
        self._answer(200, text.encode(), {"Content-Type": "application/xml"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, send: bool = True) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send:
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Serve until standard input is closed; the port is told on standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_keys", description=__doc__)
    parser.add_argument("--bodies", type=Path, required=True, help="folder of files, each a body")
    parser.add_argument("--days", required=True, help="photo dates, separated by commas")
    parser.add_argument("--photos", type=int, required=True, help="keys of each day")
    args = parser.parse_args()
    bodies = [path.read_bytes() for path in sorted(args.bodies.iterdir())]
    _Handler.many = ManyKeys(bodies, days=args.days.split(","), photos=args.photos)
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
