# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads on the controller: one file to a path, with retries, and with its progress where somebody sees it."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    import types

#: Seconds to wait for a connection, and for the next byte.
TIMEOUT = (10, 20)

#: How often an answer that may be different in a moment is asked for again, and a transfer that broke off begun anew.
RETRIES = 3

# RFC 9110, RFC 6585.
_PASSING = (408, 425, 429, 500, 502, 503, 504)

_BLOCK = 1 << 16

#: Called with the bytes that have come and those that are going to (0: nobody knows).
Progress = t.Callable[[int, int], None]


class MissingLibraryError(JemallocError):
    """The controller lacks requests, so that nothing is downloaded on it."""

    def __init__(self) -> None:
        super().__init__(
            "the controller lacks the Python package requests (python3 -m pip install requests, for the Python of "
            "Ansible)"
        )


def library() -> types.ModuleType:
    """Return requests; MissingLibraryError where the controller lacks it.

    It takes longer to import than all else of an action, and most runs download nothing.
    """
    try:
        import requests
    except ImportError:
        raise MissingLibraryError from None
    return requests


def download(url: str, path: str, limit: int, progress: Progress) -> None:
    """Bring what a URL holds to a path; limit is the largest size in bytes that is taken."""
    requests = library()
    failure = ""
    for _attempt in range(RETRIES):
        try:
            _transfer(url, path, limit, progress)
            return
        except requests.exceptions.ChunkedEncodingError:
            failure = "the connection ended before all had come"
        except requests.exceptions.RetryError:
            raise JemallocError("the server has been failing all the time") from None
        except requests.RequestException as error:
            raise JemallocError(_reason(error)) from error
    raise JemallocError(f"{failure} (tried {RETRIES} times)")


def _transfer(url: str, path: str, limit: int, progress: Progress) -> None:
    from requests import Session
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(RETRIES, connect=0, backoff_factor=0.5, status_forcelist=_PASSING)
    with Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        # identity: what is compared with a digest must not be packed once more on the way
        headers = {"Accept-Encoding": "identity"}
        with session.get(url, stream=True, timeout=TIMEOUT, headers=headers) as response, open(path, "wb") as stream:
            response.raise_for_status()
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else 0
            come = 0
            for block in response.iter_content(_BLOCK):
                with files.about(path):
                    come += stream.write(block)
                if come > limit:
                    raise JemallocError(f"it is larger than {limit >> 20} MiB, too much for a release")
                progress(come, total)


def _reason(error: Exception) -> str:
    """Return why a request failed, in one line without the library's own objects."""
    requests = library()
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answers {response.status_code} {response.reason}".strip()
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not accepted; REQUESTS_CA_BUNDLE names the authorities that the controller trusts"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection within {TIMEOUT[0]} s"
    if isinstance(error, requests.exceptions.ConnectionError):
        text = str(error)
        known = ("Name or service not known", "Temporary failure in name resolution", "Connection refused")
        return next((words for words in known if words in text), "no connection")
    return str(error).splitlines()[0] if str(error) else type(error).__name__
