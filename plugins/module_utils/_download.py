"""Downloading one file: time limits, retries with back-off, resuming, and one reason when it fails for good."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import socket
import ssl
import time
import typing as t
from http.client import HTTPException, InvalidURL
from urllib.error import HTTPError, URLError

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: Seconds without a byte after which a connection is given up.
TIMEOUT = 20

#: Seconds that one file may take with all retries; the largest release is 1 MB, so this allows 4 kB/s.
TIME_LIMIT = 300

#: Seconds to wait before each further attempt.
PAUSES = (1, 2, 4)

# What may be different in a moment (RFC 9110, RFC 6585); every other status of 400 and more is an answer for good.
_PASSING = (408, 425, 429, 500, 502, 503, 504)

_BLOCK = 1 << 16

#: Opens a URL with these headers and this time-out in seconds, as ansible's open_url does.
Open = t.Callable[[str, t.Dict[str, str], int], t.Any]


class _PassingError(Exception):
    """A failure that another attempt may not meet."""


class _LocalError(Exception):
    """The failure to write here, which no other attempt and no other server can mend; its argument is the error."""


def download(url: str, path: str, limit: int, opener: Open) -> None:
    """Bring what a URL holds to a path; JemallocError says why that is not possible.

    A transfer that broke off is taken up where it ended if the server can do that, else from the start. The limit is
    the largest size in bytes that is taken.
    """
    deadline = time.monotonic() + TIME_LIMIT
    attempts, failure = 0, ""
    with open(path, "wb") as stream:
        for pause in (0, *PAUSES):
            if time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
            attempts += 1
            try:
                _attempt(url, stream, limit, opener, deadline)
                return
            except _PassingError as error:
                failure = str(error)
            except _LocalError as error:
                raise error.args[0] from None
    raise JemallocError(f"{failure} (tried {attempts} times)")


def _attempt(url: str, stream: t.BinaryIO, limit: int, opener: Open, deadline: float) -> None:
    """Transfer what is missing at the end of a stream."""
    have = stream.tell()
    # identity: what is compared with a digest must not be packed once more on the way
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with opener(url, headers, TIMEOUT) as response:
            if have and not _continues(response, have):
                have = 0
                _restart(stream)
            _transfer(response, stream, have, limit, deadline)
    except HTTPError as error:
        if error.code == 416:  # what is there already is not the beginning of it
            _restart(stream)
            raise _PassingError("the server has no rest of it") from error
        # urllib explains a redirection without end in several lines
        reason = f"the server answers {error.code} {str(error.reason).splitlines()[0] if error.reason else ''}".rstrip()
        raise (_PassingError if error.code in _PASSING else JemallocError)(reason) from error
    except URLError as error:
        raise _explained(error.reason) from error
    except (InvalidURL, ValueError) as error:
        raise JemallocError(str(error)) from error
    except (HTTPException, OSError) as error:
        raise _PassingError(str(error).strip() or type(error).__name__) from error


def _restart(stream: t.BinaryIO) -> None:
    stream.seek(0)
    stream.truncate()


def _transfer(response: t.Any, stream: t.BinaryIO, have: int, limit: int, deadline: float) -> None:
    """Write what an answer holds to the end of a stream that has so many bytes of it already."""
    length = response.headers.get("Content-Length") or ""
    # read1 returns what has come: read would wait for a whole block, and with it the look at the clock
    for block in iter(lambda: response.read1(_BLOCK), b""):
        try:
            stream.write(block)
        except OSError as error:
            raise _LocalError(error) from error
        if stream.tell() > limit:
            raise JemallocError(f"it is larger than {limit >> 20} MiB, too much for a release")
        if time.monotonic() > deadline:
            raise JemallocError(f"it took more than {TIME_LIMIT} s")
    if length.isdigit() and stream.tell() < have + int(length):
        raise _PassingError(f"the connection ended after {stream.tell()} of {have + int(length)} bytes")


def _explained(reason: t.Any) -> Exception:
    """Return the error for a server that was not reached."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return JemallocError(
            f"its certificate is not accepted ({reason.verify_message}); name the authority behind it by ca_path"
        )
    lasting = isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME
    return (JemallocError if lasting else _PassingError)(str(getattr(reason, "strerror", None) or reason))


def _continues(response: t.Any, have: int) -> bool:
    """Whether an answer holds the rest after that many bytes, and not the whole."""
    status = getattr(response, "status", None) or response.getcode()
    return status == 206 and str(response.headers.get("Content-Range")).startswith(f"bytes {have}-")
