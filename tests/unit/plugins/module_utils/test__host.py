# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module lends: commands that are really run, a server on this machine, files."""

from __future__ import annotations

import http.server
import pathlib
import typing as t

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as module
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from tests.unit.conftest import serving

DIGEST = "a" * 64


@pytest.fixture
def host() -> t.Iterator[module.Host]:
    """A host with a real module behind it."""
    with patch_module_args({}):
        yield module.Host(AnsibleModule(argument_spec={}))


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves /SIZE, sends /cut less than it promised, and knows nothing else."""

    def do_GET(self) -> None:
        """Answer."""
        name = self.path[1:]
        if name not in ("cut", "junk") and not name.isdigit():
            self.send_error(404)
            return
        if name == "junk":
            self.wfile.write(b"this is not HTTP at all\r\n\r\n")
            return
        self.send_response(200)
        self.send_header("Content-Length", "100" if name == "cut" else name)
        self.end_headers()
        self.wfile.write(b"x" * (10 if name == "cut" else int(name)))

    def log_message(self, *_arguments: t.Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> t.Iterator[str]:
    """A server on this machine; its address."""
    with serving(Handler) as address:
        yield address


def test_run(host: module.Host, tmp_path: pathlib.Path) -> None:
    assert host.run(["sh", "-c", "pwd; echo no >&2; exit 3"], str(tmp_path)) == (3, f"{tmp_path}\nno\n")
    assert host.run(["cat"], None, "given\n") == (0, "given\n\n")
    assert host.run(["sh", "-c", "echo $LC_ALL"]) == (0, "C\n")
    assert host.run(["echo", "$(id)", "*", "a b", "$HOME", "~"]) == (0, "$(id) * a b $HOME ~\n")


def test_run_of_what_is_not_there(host: module.Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    status, output = host.run(["no-such-command", "x"])
    assert (status, output) == (127, "[Errno 2] No such file or directory: b'no-such-command'")


def test_run_of_what_may_not_be_run(host: module.Host, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError):
        host.run([str(tmp_path / "file")])


def test_warn(host: module.Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "_global_warnings", {})  # or the next module in this process returns it too
    host.warn("look here")
    with pytest.raises(SystemExit):
        host._module.exit_json()
    captured = capsys.readouterr()  # in a process that has loaded a controller's plugin it goes to stderr
    assert "look here" in captured.out + captured.err


def test_archive_roots(
    host: module.Host, monkeypatch: pytest.MonkeyPatch, program: t.Callable[[str, str], pathlib.Path]
) -> None:
    monkeypatch.setattr(module, "_APT_HELPER", "/bin/true")
    log = program("apt-get", "echo http://deb.example.com/debian/ main")
    assert host.archive_roots() == ["http://deb.example.com/debian/pool/main"]
    query = "indextargets --no-release-info --format $(REPO_URI) $(COMPONENT) Created-By: Packages\n"
    assert log.read_text() == query
    program("apt-get", "echo E: broken; exit 100")
    assert host.archive_roots() == []


def test_archive_roots_without_apt(host: module.Host, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(module, "_APT_HELPER", str(tmp_path / "missing"))
    assert host.archive_roots() == []


def test_fetch_a_file(host: module.Host, tmp_path: pathlib.Path) -> None:
    (tmp_path / "from").write_bytes(b"bytes")
    host.fetch(source.Candidate("file", str(tmp_path / "from"), DIGEST), str(tmp_path / "to"))
    assert (tmp_path / "to").read_bytes() == b"bytes"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "No such file or directory"),
        ("", "it is not a regular file"),
        ("large", "it is larger than 0 MiB, too much for a release"),
    ],
)
def test_fetch_a_file_that_is_none(
    host: module.Host, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setattr(archive, "MAX_PACKED", 10)
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(JemallocError) as caught:
        host.fetch(source.Candidate("file", str(tmp_path / name), DIGEST), str(tmp_path / "to"))
    assert str(caught.value) == reason


def test_fetch_a_file_to_a_full_disk(host: module.Host, tmp_path: pathlib.Path) -> None:
    (tmp_path / "from").write_bytes(b"bytes")
    with pytest.raises(OSError, match="No space left on device"):
        host.fetch(source.Candidate("file", str(tmp_path / "from"), DIGEST), "/dev/full")


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, 1 << 17])
def test_fetch_from_a_server(
    host: module.Host, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, server: str, size: int
) -> None:
    monkeypatch.setattr(archive, "MAX_PACKED", 1 << 17)
    host.fetch(source.Candidate("url", f"{server}/{size}", DIGEST), str(tmp_path / "to"))
    assert (tmp_path / "to").read_bytes() == b"x" * size


def reason(host: module.Host, tmp_path: pathlib.Path, url: str) -> str:
    """Return why something cannot be fetched."""
    with pytest.raises(JemallocError) as caught:
        host.fetch(source.Candidate("url", url, DIGEST), str(tmp_path / "to"))
    return str(caught.value)


def test_fetch_of_what_is_too_large(
    host: module.Host, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setattr(archive, "MAX_PACKED", 1 << 20)
    assert reason(host, tmp_path, f"{server}/{(1 << 20) + 1}") == "it is larger than 1 MiB, too much for a release"
    assert (tmp_path / "to").stat().st_size <= (1 << 20) + (1 << 16)


def test_fetch_of_what_a_server_does_not_have(host: module.Host, tmp_path: pathlib.Path, server: str) -> None:
    assert reason(host, tmp_path, f"{server}/missing") == "the server answers 404 Not Found"


def test_fetch_from_nobody(host: module.Host, tmp_path: pathlib.Path) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        port = httpd.server_address[1]
    assert reason(host, tmp_path, f"http://127.0.0.1:{port}/1") == "Connection refused (tried 3 times)"


def test_fetch_from_what_is_no_server(host: module.Host, tmp_path: pathlib.Path, server: str) -> None:
    assert reason(host, tmp_path, f"{server}/junk") == "this is not HTTP at all (tried 3 times)"


@pytest.mark.parametrize("url", ["http://", "http://[", "http://127.0.0.1:x/", "http://127.0.0.1/a b"])
def test_fetch_from_no_address(host: module.Host, tmp_path: pathlib.Path, url: str) -> None:
    message = reason(host, tmp_path, url)
    assert message
    assert "\n" not in message


def test_a_file_that_is_cut_off(host: module.Host, tmp_path: pathlib.Path, server: str) -> None:
    assert reason(host, tmp_path, f"{server}/cut") == "the connection ended after 10 of 100 bytes (tried 3 times)"


def test_fetch_by_apt(
    host: module.Host,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    program: t.Callable[[str, str], pathlib.Path],
) -> None:
    log = program("apt-helper", "echo bytes > $5")
    monkeypatch.setattr(module, "_APT_HELPER", str(log.parent / "apt-helper"))
    path = tmp_path / "to"
    host.fetch(source.Candidate("apt", "http://x/y.tar.gz", DIGEST), str(path))
    assert path.read_text() == "bytes\n"
    expected = f"-o APT::Sandbox::User=root download-file http://x/y.tar.gz {path} SHA256:{DIGEST}\n"
    assert log.read_text() == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "echo Err:1; echo 'E: Failed to fetch'; echo 'E: Download Failed' >&2; exit 100",
            "Failed to fetch; Download Failed",
        ),
        ("exit 7", "apt-helper ended with 7"),
    ],
)
def test_fetch_by_apt_that_fails(
    host: module.Host,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    program: t.Callable[[str, str], pathlib.Path],
    script: str,
    expected: str,
) -> None:
    log = program("apt-helper", script)
    monkeypatch.setattr(module, "_APT_HELPER", str(log.parent / "apt-helper"))
    with pytest.raises(JemallocError) as caught:
        host.fetch(source.Candidate("apt", "http://x/y.tar.gz", DIGEST), str(tmp_path / "to"))
    assert str(caught.value) == expected


def test_what_a_command_complains_of_is_no_output(host: module.Host) -> None:
    assert host.run(["sh", "-c", "echo yes; echo no >&2"]) == (0, "yes\n")
    assert host.run(module.with_errors(["sh", "-c", "echo $0 $1; echo no >&2", "a b", "$x"])) == (0, "a b $x\nno\n")


def test_a_library_that_is_gone_is_not_preloaded(
    host: module.Host, monkeypatch: pytest.MonkeyPatch, library: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("LD_PRELOAD", f"{tmp_path}/gone.so:{library} libm.so.6 /gone/too.so")
    assert host.outputs(["sh", "-c", "echo $LD_PRELOAD"]) == (0, f"{library}:libm.so.6\n", "")
    monkeypatch.setenv("LD_PRELOAD", f"{tmp_path}/gone.so")
    assert host.outputs(["sh", "-c", "echo [$LD_PRELOAD]"]) == (0, "[]\n", "")


def test_no_password_in_a_warning(
    host: module.Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warnings, "_global_warnings", {})
    host.warn("http://svc:s3cret@proxy does not answer")
    with pytest.raises(SystemExit):
        host._module.exit_json()
    captured = capsys.readouterr()
    assert "http://proxy does not answer" in captured.out + captured.err


def test_apt_and_a_full_disk(
    host: module.Host,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    program: t.Callable[[str, str], pathlib.Path],
) -> None:
    words = "E: Failed to fetch http://x/y  Error writing to file - write (28: No space left on device)"
    log = program("apt-helper", f"echo '{words}' >&2; exit 100")
    monkeypatch.setattr(module, "_APT_HELPER", str(log.parent / "apt-helper"))
    with pytest.raises(OSError, match="No space left on device") as caught:
        host.fetch(source.Candidate("apt", "http://x/y", DIGEST), str(tmp_path / "to"))
    assert caught.value.filename == str(tmp_path / "to")
