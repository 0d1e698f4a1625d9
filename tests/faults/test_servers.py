# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that fail in every way: the right error, or a successful retry, against a real server on this machine."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import ipaddress
import ssl
import threading
import time
import typing as t
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.preload.jemalloc.plugins.module_utils import _download as download
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc as module

Handler = http.server.BaseHTTPRequestHandler
Behaviour = t.Callable[[Handler, bytes], None]


class Quiet(http.server.ThreadingHTTPServer):
    """A server that says nothing of connections that the other side gave up."""

    def handle_error(self, *_arguments: t.Any) -> None:
        """Say nothing."""


HTML = b"<!DOCTYPE html><html><title>Please log in</title></html>"


def status(number: int, **headers: str) -> Behaviour:
    """Answer with a status."""

    def answer(handler: Handler, _data: bytes) -> None:
        handler.send_response(number)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def whole(handler: Handler, data: bytes) -> None:
    """Answer as a server should, also for a part."""
    wanted = handler.headers.get("Range")
    start = int(wanted[len("bytes=") : -1]) if wanted else 0
    handler.send_response(206 if wanted else 200)
    if wanted:
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    handler.send_header("Content-Length", str(len(data) - start))
    handler.end_headers()
    handler.wfile.write(data[start:])


def whole_without_ranges(handler: Handler, data: bytes) -> None:
    """Answer with everything, whatever part was asked for."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def html(handler: Handler, _data: bytes) -> None:
    """Answer with a page for people."""
    whole_without_ranges(handler, HTML)


def cut(handler: Handler, data: bytes) -> None:
    """Announce everything and send the first half."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])


def too_long(handler: Handler, data: bytes) -> None:
    """Announce more than there is."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data) + 7))
    handler.end_headers()
    handler.wfile.write(data)


def too_short(handler: Handler, data: bytes) -> None:
    """Announce less than there is."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data) - 7))
    handler.end_headers()
    handler.wfile.write(data)


def without_length(handler: Handler, data: bytes) -> None:
    """End the answer by the end of the connection."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(data)


def drip(handler: Handler, data: bytes) -> None:
    """Send a byte now and then, so that no time-out of a single read ever ends it."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    with contextlib.suppress(OSError):
        for number in range(len(data)):
            handler.wfile.write(data[number : number + 1])
            time.sleep(0.05)


def silence(handler: Handler, _data: bytes) -> None:
    """Send headers and then nothing."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    time.sleep(3)


def endless(handler: Handler, _data: bytes) -> None:
    """Send without an end."""
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"\0" * 65536)


def no_http(handler: Handler, _data: bytes) -> None:
    """Answer in another protocol."""
    handler.wfile.write(b"220 mail.example.com ESMTP\r\n")


def hang_up(handler: Handler, _data: bytes) -> None:
    """Close the connection without a word."""
    handler.connection.close()


class Server(t.NamedTuple):
    """A server on this machine: where it has the source, and the Range of each request that it got."""

    url: str
    requests: list[str | None]


@contextlib.contextmanager
def serving(data: bytes, behaviours: t.Sequence[Behaviour], tls: ssl.SSLContext | None = None) -> t.Iterator[Server]:
    """Behave in a list of ways, one for each request, the last one for all others."""
    requests: list[str | None] = []

    def answer(handler: Handler) -> None:
        requests.append(handler.headers.get("Range"))
        with contextlib.suppress(OSError):  # the other side gave up
            behaviours[min(len(requests), len(behaviours)) - 1](handler, data)

    handler = type("Answering", (Handler,), {"do_GET": answer, "log_message": lambda *_arguments: None})
    with Quiet(("127.0.0.1", 0), handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        scheme = "https" if tls else "http"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Server(f"{scheme}://127.0.0.1:{server.server_address[1]}/jemalloc-9.9.9.tar.bz2", requests)
        server.shutdown()


@pytest.fixture
def install(
    tmp_path: Path,
    alone: None,
    monkeypatch: pytest.MonkeyPatch,
    call: t.Callable[..., dict[str, t.Any]],
    tarball: t.Callable[[str], tuple[str, str]],
) -> t.Callable[..., dict[str, t.Any]]:
    """Install 9.9.9 from an origin, by a module that has less patience than usual."""
    monkeypatch.setattr(download, "TIMEOUT", 1)
    monkeypatch.setattr(download, "TIME_LIMIT", 2)

    def run(origin: str, **more: t.Any) -> dict[str, t.Any]:
        checksum = tarball("9.9.9")[1]
        prefix = str(tmp_path / "jemalloc")
        arguments = {"prefix": prefix, "version": "9.9.9", "checksum": checksum, "origins": [origin], **more}
        return call(module, **arguments)

    return run


@pytest.fixture
def data(tarball: t.Callable[[str], tuple[str, str]]) -> bytes:
    """What the server holds."""
    return Path(tarball("9.9.9")[0]).read_bytes()


@pytest.mark.parametrize(
    ("behaviours", "ranges"),
    [
        ([whole], [None]),
        ([without_length], [None]),
        ([status(500), whole], [None, None]),
        ([status(503), status(429), whole], [None, None, None]),
        ([hang_up, whole], [None, None]),
        ([no_http, whole], [None, None]),
        ([cut, whole], [None, "half"]),
        ([cut, whole_without_ranges], [None, "half"]),
        ([cut, status(416), whole], [None, "half", None]),
        ([cut, status(500), whole], [None, "half", "half"]),
        ([silence, whole], [None, None]),
        ([too_long, status(416), whole], [None, "all", None]),
    ],
)
def test_success(
    install: t.Callable[..., dict[str, t.Any]],
    data: bytes,
    monkeypatch: pytest.MonkeyPatch,
    behaviours: list[Behaviour],
    ranges: list[str | None],
) -> None:
    monkeypatch.setattr(download, "TIME_LIMIT", 60)
    named = {"half": f"bytes={len(data) // 2}-", "all": f"bytes={len(data)}-"}
    with serving(data, behaviours) as server:
        result = install(server.url)
        assert result.get("msg") is None
        assert result["origin"] == server.url
        assert server.requests == [named.get(wanted or "") for wanted in ranges]


@pytest.mark.parametrize(
    ("behaviour", "reason", "requests"),
    [
        (status(404), "the server answers 404 Not Found", 1),
        (status(403), "the server answers 403 Forbidden", 1),
        (status(410), "the server answers 410 Gone", 1),
        (status(500), "the server answers 500 Internal Server Error (tried 3 times)", 3),
        (status(301, Location="/jemalloc-9.9.9.tar.bz2"), "the server answers 301 The HTTP server returned a ", None),
        (html, "SHA-256 is ", 1),
        (too_short, "SHA-256 is ", 1),
        (cut, "the connection ended after ", 3),
        (drip, "it took more than 2 s", 1),
        (silence, "timed out (tried ", None),
        (endless, "it is larger than 16 MiB, too much for a release", 1),
        (no_http, "220 mail.example.com ESMTP", 3),
        (hang_up, "Remote end closed connection without response (tried 3 times)", 3),
    ],
)
def test_failure(
    install: t.Callable[..., dict[str, t.Any]],
    data: bytes,
    tmp_path: Path,
    behaviour: Behaviour,
    reason: str,
    requests: int | None,
) -> None:
    with serving(data, [behaviour]) as server:
        result = install(server.url)
        assert result["failed"]
        start = "No origin has the source of this release; tried 2: "
        assert result["msg"].startswith(f"{start}{server.url}: {reason}"), result["msg"]
        assert result["msg"].endswith("Name a mirror or a local tarball in origins.")
        assert "\n" not in result["msg"]
        assert not (tmp_path / "jemalloc").exists()
        if requests:
            assert len(server.requests) == requests


def names_of(authority: bool) -> x509.Name:
    """Return the name of the authority, or of a server here."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority" if authority else "127.0.0.1")])


def usage(authority: bool) -> x509.KeyUsage:
    """Return what a key is for: the authority signs certificates with it, a server what it says."""
    signing = ("key_cert_sign", "crl_sign")
    never = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    rest = dict.fromkeys((*never, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=True, **dict.fromkeys(signing, authority), **rest)


def certificate(own: ec.EllipticCurvePrivateKey, issuer: ec.EllipticCurvePrivateKey, authority: bool) -> bytes:
    """Return the certificate of a key, as a PEM file has it."""
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(names_of(authority))
        .issuer_name(names_of(authority=True))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
        .add_extension(usage(authority), critical=True)
    )
    return builder.sign(issuer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def authority(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate authority; return its certificate's file and a server's settings with a certificate of it."""
    issuer, own = (ec.generate_private_key(ec.SECP256R1()) for _key in range(2))
    paths = {name: directory / f"{name}.pem" for name in ("authority", "server", "key")}
    paths["authority"].write_bytes(certificate(issuer, issuer, authority=True))
    paths["server"].write_bytes(certificate(own, issuer, authority=False))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths["key"].write_bytes(own.private_bytes(*plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths["server"], paths["key"])
    return paths["authority"], context


def test_private_authority(install: t.Callable[..., dict[str, t.Any]], data: bytes, tmp_path: Path) -> None:
    certificate, context = authority(tmp_path)
    with serving(data, [whole], context) as server:
        result = install(server.url)
        assert f"{server.url}: its certificate is not accepted (unable to get local issuer" in result["msg"]
        assert "; name the authority behind it by ca_path" in result["msg"]
        assert server.requests == []
        assert install(server.url, ca_path=str(certificate))["origin"] == server.url


def test_the_next_origin_is_tried(
    install: t.Callable[..., dict[str, t.Any]], data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []  # in a process in which the controller's half can be loaded, warnings are no part of a result
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: said.append(message))
    with serving(data, [html]) as broken, serving(data, [whole]) as good:
        result = install(broken.url, origins=[broken.url, good.url])
        assert result["origin"] == good.url
        assert f"The source came from {good.url}, as others did not have it: {broken.url}: SHA-256 is " in said[0]
