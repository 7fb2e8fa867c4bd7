"""How bytes travel: HTTP by aiohttp under the openai client, which by itself has no limit to what it reads."""

from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, Self

import aiohttp
import httpx2

# Called as the bytes of a request go out, in the step of the event loop that hands them to the kernel. The openai client between
# here and whoever sends has no way to pass it on.
LEAVING: ContextVar[Callable[[], object]] = ContextVar("LEAVING", default=lambda: None)
FILE = 500_000_000  # bytes of the file that holds the replies of a batch


class TooLongError(httpx2.RequestError):
    """A body goes on beyond what may be read."""


class EncodedError(httpx2.RequestError):
    """A body is compressed, though none such was asked for: it could become any size."""


class Transport(httpx2.AsyncBaseTransport):
    """Bodies come whole and of at most `limit` bytes, those of files of at most FILE. Redirects are not followed."""

    def __init__(self, limit: int, connections: int, proxies: bool):
        self._limit, self._connections, self._proxies = limit, connections, proxies
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections)
            leaving = aiohttp.TraceConfig()
            leaving.on_request_chunk_sent.append(
                _leaves
            )  # whose name is wrong: it comes before the chunk, and the headers with it
            self._session = aiohttp.ClientSession(
                connector=connector,
                trust_env=self._proxies,
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[leaving],
            )
        try:
            return await self._send(self._session, request)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise httpx2.ConnectError(type(error).__name__) from error
        except TimeoutError as error:  # aiohttp's own are among them
            raise httpx2.ReadTimeout(type(error).__name__) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise httpx2.ReadError(type(error).__name__) from error

    async def _send(
        self, session: aiohttp.ClientSession, request: httpx2.Request
    ) -> httpx2.Response:
        limits = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(
            total=limits.get("read"), sock_connect=limits.get("connect")
        )
        headers = [
            (name, value)
            for name, value in request.headers.multi_items()
            if name.lower() != "accept-encoding"
        ]
        async with session.request(
            request.method,
            str(request.url),
            headers=[*headers, ("Accept-Encoding", "identity")],
            data=await request.aread() or None,
            allow_redirects=False,
            auto_decompress=False,
            timeout=timeout,
            trace_request_ctx=LEAVING.get(),
        ) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise EncodedError("compressed")
            limit = FILE if request.url.path.endswith("/content") else self._limit
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > limit:
                    raise TooLongError(f"more than {limit:,} bytes")
            return httpx2.Response(
                response.status, headers=response.raw_headers, content=bytes(body), request=request
            )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


async def _leaves(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx()
