"""Opening an address: http and https alone, redirects followed within bounds, answers put into words."""

from __future__ import annotations

import http.client
import socket
import ssl
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage, HTTPResponse
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from sapis_lab.errors import ConfigError

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as cut."""
MOST_REDIRECTS = 10
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
"""Statuses of a server that may answer in a while."""
_LONGEST_PAUSE = 300.0
"""Most seconds that a server may ask us to wait."""


class DownloadError(ConfigError):
    """A file that cannot be had from an address, or is not the one that was wanted."""


class Unreachable(DownloadError):
    """A connection that does not come about, or breaks again and again; the same command continues later."""


class Cut(Exception):
    """A connection that ended before the file did; `pause` is how long the server asks to wait, seconds."""

    def __init__(self, reason: str, *, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class NothingMore(Exception):
    """The server has no byte beyond those that were asked to be left out (status 416)."""


class _Redirects(HTTPRedirectHandler):
    max_redirections = MOST_REDIRECTS

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https"):
            raise DownloadError(f"{req.full_url}: {_forbidden(newurl)}")
        if urlsplit(req.full_url).scheme == "https" and scheme != "https":
            raise DownloadError(
                f"{req.full_url}: leads to {newurl}, out of https; wanted an address that stays encrypted: "
                f"name another one with --url"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> OpenerDirector:
    """For http and https, with the proxies of the environment; files and ftp are not known to it."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        UnknownHandler(),
        HTTPHandler(),
        HTTPSHandler(context=ssl.create_default_context()),
        HTTPDefaultErrorHandler(),
        _Redirects(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def check_url(url: str) -> None:
    """DownloadError unless it is an address of http or https."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or any(c <= " " or c == "\x7f" for c in url):
        raise DownloadError(f"{url!r}: wanted an address, http://... or https://...")


def open_url(url: str, *, start: int = 0, validator: str = "") -> HTTPResponse:
    """The answer of a server, its headers read.

    Args:
        start: bytes that are to be left out.   validator: ETag or date that the file must still have, else
        the server sends all of it.

    Raises:
        Cut: it may work in a while.   NothingMore: there are no bytes from `start` on.   DownloadError: it
        will not.
    """
    headers = {"User-Agent": "sapis_lab", "Accept": "*/*", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    try:
        answer: HTTPResponse = _opener().open(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        with error:
            if error.code == 416 and start:
                raise NothingMore(error.headers.get("Content-Range", "")) from None
            if error.code in _TRANSIENT:
                raise Cut(
                    f"the server answers {error.code} {error.reason}", pause=_pause(error.headers)
                ) from None
            raise DownloadError(f"{url}: {_refusal(error)}") from None
    except URLError as error:
        raise _unopened(url, error.reason) from None
    except (http.client.HTTPException, OSError) as error:
        raise _unopened(url, error) from None
    return answer


def _unopened(url: str, reason: Any) -> Exception:
    """What to raise where no answer came: a certificate will not get better, a network may."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(
            f"{url}: the certificate of the server is not accepted ({reason.verify_message}); see to this "
            f"machine's clock and certificates, or name another address with --url"
        )
    if isinstance(reason, http.client.InvalidURL):
        return DownloadError(f"{url!r}: wanted an address, http://... or https://...")
    return Cut(in_words(reason))


def in_words(error: Any) -> str:
    """What went wrong with a connection, for people."""
    if isinstance(error, TimeoutError):
        return f"nothing came for {TIMEOUT:.0f} s"
    if isinstance(error, socket.gaierror):
        return f"the name of the server is not known here ({error.strerror})"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the server ended the connection without an answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _refusal(error: HTTPError) -> str:
    """What a server's refusal means, and what to do."""
    code = error.code
    if 300 <= code < 400:
        if "infinite loop" in str(error.reason):
            return (
                f"redirects in a circle, or more than {MOST_REDIRECTS} times; name another address with --url"
            )
        return _forbidden(error.headers.get("Location", "nowhere"))
    if code in (404, 410):
        return (
            f"got {code} {error.reason}: the file is not there; look on the homepage, and name it with --url"
        )
    if code in (401, 403, 407):
        return (
            f"got {code} {error.reason}: it wants a login or a registration; download it in a browser and "
            f"put it into its place"
        )
    return f"got {code} {error.reason}, wanted the file; name another address with --url"


def _forbidden(place: str) -> str:
    return f"redirects to where it must not ({place}), wanted http or https; name another address with --url"


def _pause(headers: Message) -> float | None:
    """Seconds that Retry-After asks for."""
    said = headers.get("Retry-After", "")
    if said.isdecimal():
        return min(float(said), _LONGEST_PAUSE)
    try:
        date = parsedate_to_datetime(said)
        return min(max((date - datetime.now(UTC)).total_seconds(), 0.0), _LONGEST_PAUSE)
    except (ValueError, TypeError):
        return None
