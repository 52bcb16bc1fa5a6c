"""TUF's metadata through a `Transport`. Apart from it, because a check that finds nothing new loads no tuf."""

from __future__ import annotations

from collections.abc import Iterator

from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError
from tuf.ngclient.fetcher import FetcherInterface

from edge_runtime.errors import UpdateError
from edge_runtime.update.fetcher import ServerAnswered, TooLarge, Transport

__all__ = ["TufFetcher"]


class TufFetcher(FetcherInterface):
    """TUF's metadata through a `Transport`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise DownloadError(f"{url}: only metadata is fetched here, by download_bytes")

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The file at ``url``, in memory: the stock way spools every small file to a temporary one."""
        try:
            return self._transport.fetch(url, max_length).body
        except ServerAnswered as error:
            raise DownloadHTTPError(str(error), error.status) from error
        except TooLarge as error:
            raise DownloadLengthMismatchError(str(error)) from error
        except UpdateError as error:
            raise DownloadError(str(error)) from error
