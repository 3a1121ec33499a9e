"""Where files are: on this machine, or behind a URL that fsspec can read (``s3://``, ``gs://``, ``http://``, ...).

A place is a ``Path``, or a ``RemotePath`` with the methods of paths that this toolkit uses. Only reading is remote: results are
written to local folders. The packages for individual protocols (s3fs for ``s3://``) are not installed with this one.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from saiqa.errors import InputError, lacking

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_LOCAL = ("file", "local")


class RemotePath:
    """A URL with the few methods of ``pathlib.Path`` that reading needs. Creating one does not contact the store."""

    def __init__(self, url: str):
        self.url = url

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RemotePath({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __truediv__(self, part: str | PurePosixPath) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{part}")

    def joinpath(self, *parts: str) -> RemotePath:
        return functools.reduce(RemotePath.__truediv__, parts, self)

    @property
    def name(self) -> str:
        return url_name(self.url)

    def resolve(self) -> RemotePath:
        return self

    def is_file(self) -> bool:
        """Whether the file exists in the store. Raises ``InputError`` if the store does not answer."""
        try:
            with _system(self.url) as (system, path):
                return system.isfile(path)
        except OSError as error:
            raise InputError(f"{self} cannot be read: {error}", "Check the address and the access to it") from None

    def read_bytes(self) -> bytes:
        """The whole file, in one request, within ``url_limits``. Raises ``OSError``."""
        most, seconds = url_limits()
        until = time.monotonic() + seconds
        # Without blocks and with a given size, HTTP is one request that can be aborted at any time.
        how = {"block_size": 0, "size": 1} if self.url.startswith(_HTTP) else {}
        content = bytearray()
        with _system(self.url) as (system, path), system.open(path, "rb", **how) as file:
            while part := file.read(_PART_BYTES):
                content += part
                if len(content) > most:
                    raise OSError(f"{self.url}: more than {most // 10**6} MB, the limit of --url_megabytes")
                if time.monotonic() > until:
                    raise OSError(f"{self.url}: takes longer than {seconds:g} s, the limit of --url_seconds")
        return bytes(content)

    def open(self, mode: str) -> IO[bytes]:
        """The file for reading, ``mode`` "rb", fetched block by block. Raises ``OSError``."""
        with _system(self.url) as (system, path):
            return system.open(path, mode)


Place = Path | RemotePath

_HTTP = ("http://", "https://")
_NOT_FOUND = "the server has no such file"
_PART_BYTES = 2**20

# Flags set them; the environment passes them on to workers.
MEGABYTES_VARIABLE, SECONDS_VARIABLE = "SAIQA_URL_MEGABYTES", "SAIQA_URL_SECONDS"
MOST_MEGABYTES, MOST_SECONDS = 100, 60


def url_limits() -> tuple[int, float]:
    """The limits for a file behind a URL, in bytes and seconds."""
    megabytes = int(os.environ.get(MEGABYTES_VARIABLE, MOST_MEGABYTES))
    return megabytes * 10**6, float(os.environ.get(SECONDS_VARIABLE, MOST_SECONDS))


def _timed(url: str) -> dict:
    """Options that make a protocol's library give up in time."""
    if not url.startswith(_HTTP):
        return {}
    import aiohttp

    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=url_limits()[1])}}


def is_url(text: str) -> bool:
    """Whether a text starts with a protocol: ``s3://bucket/a.jpg``, ``file:///a.jpg``."""
    return "://" in text


def place(text: str | os.PathLike | RemotePath) -> Place:
    """The place that a text names; a ``file://`` URL is a path. Raises ``InputError`` as ``require`` does."""
    if not is_url(str(text)):
        return Path(str(text))
    protocol, _, rest = str(text).partition("://")
    if protocol in _LOCAL:
        return Path(unquote(rest))
    remote = RemotePath(str(text))
    require(remote)
    return remote


def file_name(text: str) -> str:
    """The last part of a path or a URL: ``a.jpg``."""
    return url_name(text) if is_url(text) else PurePath(text).name


def url_name(url: str) -> str:
    """The last part of a URL's path, for HTTP without query and fragment: ``a.jpg``."""
    parts = _split(url)
    path = unquote(parts.path) if parts.scheme in ("http", "https") else url
    return PurePosixPath(path).name


class Fetched(io.BytesIO):
    """A remote file in memory, downloaded in one request; error messages show its URL. Raises ``OSError``."""

    def __init__(self, remote: RemotePath):
        super().__init__(remote.read_bytes())
        self._shown = repr(remote.url)

    def __repr__(self) -> str:
        return self._shown


def require(remote: RemotePath) -> None:
    """Raise ``InputError``, saying what to install, for a URL whose protocol cannot be read here."""
    _system_class(_split(remote.url).scheme)


def _split(url: str) -> SplitResult:
    """The parts of a URL. Raises ``InputError`` if it is not one."""
    try:
        return urlsplit(url)
    except ValueError as error:  # e.g. an unmatched bracket of an IPv6 address
        raise InputError(f"{url[:200]} is not a URL: {error}", "Check the address") from None


@functools.cache
def _system_class(protocol: str) -> type[AbstractFileSystem]:
    try:
        import fsspec
    except ModuleNotFoundError:
        raise lacking(f"{protocol}://", "fsspec") from None
    try:
        return fsspec.get_filesystem_class(protocol)
    except ImportError as error:  # fsspec's text names the package
        raise InputError(f"{protocol}:// cannot be read here: {error}", _installation(protocol)) from None
    except ValueError:
        raise InputError(f"{protocol}:// is not a protocol that fsspec knows", "Check the address") from None


def _installation(protocol: str) -> str:
    package = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}.get(protocol)
    return f"Run `pip install {package}`" if package else "Install that package"


@contextmanager
def _system(url: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """The filesystem of a URL and the path in it; whatever its library raises becomes an ``OSError``."""
    from fsspec.core import url_to_fs

    try:
        yield url_to_fs(url, **_timed(url))
    except FileNotFoundError:
        what = f"{_NOT_FOUND} (404)" if url.startswith(_HTTP) else os.strerror(errno.ENOENT)
        raise FileNotFoundError(errno.ENOENT, what, url) from None
    except OSError:
        raise
    except Exception as error:  # each protocol has its own errors (aiohttp's, botocore's), without a common base class
        raise OSError(f"{url}: {error or type(error).__name__}") from error
