"""Endpoint, key, pool and event loop; and what really goes over a socket."""

from __future__ import annotations

import asyncio
import pickle

import httpx
import pytest

from ingest.errors import AuthenticationError, IngestError, SettingsError, UnreachableError
from ingest.retry import RetryPolicy
from ingest.shard import Shard
from ingest.telemetry import Secret
from ingest.wire.client import PlatformClient
from ingest.wire.session import check_endpoint, put_timeout_s
from tests.wire.fakes import ENDPOINT, KEY, META, SHARD, FakePlatform, Rig, ok


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://api.atomscale.ai", "https://api.atomscale.ai"),
        (" http://127.0.0.1:8080/ ", "http://127.0.0.1:8080"),
        ("https://h/base//", "https://h/base"),
        ("HTTPS://Host", "https://host"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_takes_http_endpoints(given: str, kept: str) -> None:
    assert check_endpoint(given) == kept


@pytest.mark.parametrize(
    "given", ["", "api.atomscale.ai", "ftp://h", "file:///x", "http://", "https://h:port", "http://\x00", "https:h"]
)
def test_refuses_other_endpoints(given: str) -> None:
    with pytest.raises(SettingsError, match="endpoint"):
        check_endpoint(given)


@pytest.mark.parametrize(
    "given", ["https://user:pw@h", "https://h?token=pw", "https://h/#pw", "ftp://user:pw@h/?a=pw", "https://user:pw#@h"]
)
def test_refuses_an_endpoint_with_secrets_without_repeating_them(given: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_endpoint(given)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "  \n", "schlüssel", "a\nb", "a\x00b"])
def test_refuses_a_key_that_is_none(key: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        PlatformClient(ENDPOINT, Secret(key))
    assert not key.strip() or key not in str(caught.value)


def test_trims_the_key_of_a_file() -> None:
    platform = FakePlatform()
    asyncio.run(PlatformClient(ENDPOINT, Secret(f" {KEY}\n"), transport=platform).list_streams())
    assert platform.requests[0].headers["x-api-key"] == KEY


def test_refuses_a_pool_of_none() -> None:
    with pytest.raises(SettingsError, match="0 connections"):
        PlatformClient(ENDPOINT, Secret(KEY), max_connections=0)


def test_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="make one where it is used"):
        pickle.dumps(Rig().client)


def test_belongs_to_one_event_loop_and_says_so() -> None:
    rig = Rig()
    asyncio.run(rig.client.list_streams())
    with pytest.raises(IngestError, match="another event loop"):
        asyncio.run(rig.client.list_streams())


def test_opens_again_after_it_was_closed() -> None:
    rig = Rig()

    async def once() -> None:
        async with rig.client as client:
            await client.list_streams()
        await rig.client.aclose()

    asyncio.run(once())
    asyncio.run(once())
    assert len(rig.platform.requests) == 2


def test_has_no_more_requests_in_flight_than_connections() -> None:
    class Counting(FakePlatform):
        now = most = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            self.now -= 1
            return ok([])

    platform = Counting()

    async def run() -> None:
        async with PlatformClient(ENDPOINT, Secret(KEY), transport=platform, max_connections=3) as client:
            await asyncio.gather(*(client.list_streams() for _ in range(20)))

    asyncio.run(run())
    assert platform.most == 3


def test_a_put_may_take_a_minute_and_a_second_per_100_kb() -> None:
    assert put_timeout_s(0) == 60
    assert put_timeout_s(25_000_000) == 310


def test_an_answer_that_never_comes_is_a_failed_attempt() -> None:
    class Stuck(FakePlatform):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.PoolTimeout("stuck")

    client = PlatformClient(ENDPOINT, Secret(KEY), transport=Stuck(), retry=RetryPolicy(retry_for_s=0))
    with pytest.raises(UnreachableError, match="PoolTimeout: stuck"):
        asyncio.run(client.list_streams())


class Wire:
    """A server of one answer per request that keeps the raw bytes it got."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.reset_after: int | None = None
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = next(int(ln[15:]) for ln in head.split(b"\r\n") if ln.lower().startswith(b"content-length:"))
                if head.startswith(b"PUT") and self.reset_after is not None:
                    await reader.readexactly(self.reset_after)
                    self.reset_after = None
                    writer.transport.abort()
                    return
                self.bodies.append(await reader.readexactly(length))
                url = f'{{"url": "http://127.0.0.1:{self.port}/put?sig=1"}}'.encode()
                body = url if head.startswith(b"POST") else b""
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def over_a_socket(wire: Wire, shard: Shard, puts: int = 1) -> list[int]:
    async def no_wait(_seconds: float) -> None:
        return None

    async def run() -> list[int]:
        async with await asyncio.start_server(wire.serve, "127.0.0.1", 0) as server:
            wire.port = server.sockets[0].getsockname()[1]
            async with PlatformClient(f"http://127.0.0.1:{wire.port}", Secret(KEY), sleep=no_wait) as client:
                return [(await client.put_shard("s0", i, META, shard)).attempts for i in range(puts)]

    return asyncio.run(run())


def test_what_goes_over_the_socket_is_what_the_protocol_says() -> None:
    wire = Wire()
    assert over_a_socket(wire, SHARD, puts=2) == [1, 1]
    ask, put = (head.split(b"\r\n") for head in wire.heads[:2])
    query = b"original_filename=frames.zarr/frames/c/0/0/0&num_parts=1&staging_type=stream"
    assert ask[0] == b"POST /data_entries/raw_data/staged/upload_urls/?" + query + b" HTTP/1.1"
    assert b"X-API-KEY: " + KEY.encode() in ask
    assert put[0] == b"PUT /put?sig=1 HTTP/1.1"
    assert [line for line in put if line.lower().startswith(b"content-type")] == [b"Content-Type: "]
    assert b"Content-Length: 12" in put
    assert not any(line.lower().startswith((b"x-api-key", b"transfer-encoding", b"expect")) for line in put)
    assert wire.bodies[1] == SHARD.tobytes()
    assert wire.connections == 1


def test_a_connection_reset_in_mid_body_costs_one_more_attempt() -> None:
    wire = Wire()
    wire.reset_after = 100_000
    shard = Shard((bytes(1_000_000),) * 20, 20_000_000)
    assert over_a_socket(wire, shard) == [2]
    assert wire.bodies[-1] == shard.tobytes()
    assert [head[:4] for head in wire.heads] == [b"POST", b"PUT ", b"POST", b"PUT "]


def test_no_server_is_unreachable() -> None:
    client = PlatformClient("http://127.0.0.1:9", Secret(KEY), retry=RetryPolicy(retry_for_s=0))

    async def run() -> None:
        async with client:
            await client.list_streams()

    with pytest.raises(UnreachableError, match=r"list the streams at http://127.0.0.1:9.*ConnectError"):
        asyncio.run(run())
