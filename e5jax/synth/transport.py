"""How bytes travel: HTTP by aiohttp under the openai client, which by itself has no limit to what it reads."""

from typing import Self

import aiohttp
import httpx2

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
            self._session = aiohttp.ClientSession(connector=connector, trust_env=self._proxies, cookie_jar=aiohttp.DummyCookieJar())
        try:
            return await self._send(self._session, request)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise httpx2.ConnectError(type(error).__name__) from error
        except TimeoutError as error:  # aiohttp's own are among them
            raise httpx2.ReadTimeout(type(error).__name__) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise httpx2.ReadError(type(error).__name__) from error

    async def _send(self, session: aiohttp.ClientSession, request: httpx2.Request) -> httpx2.Response:
        limits = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(total=limits.get("read"), sock_connect=limits.get("connect"))
        headers = [(name, value) for name, value in request.headers.multi_items() if name.lower() != "accept-encoding"]
        async with session.request(
            request.method,
            str(request.url),
            headers=[*headers, ("Accept-Encoding", "identity")],
            data=await request.aread() or None,
            allow_redirects=False,
            auto_decompress=False,
            timeout=timeout,
        ) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise EncodedError("compressed")
            limit = FILE if request.url.path.endswith("/content") else self._limit
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > limit:
                    raise TooLongError(f"more than {limit:,} bytes")
            return httpx2.Response(response.status, headers=response.raw_headers, content=bytes(body), request=request)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
