"""The cloud client against a real server, healthy and broken in every way that servers are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from edge_runtime.authorization import Bearer
from edge_runtime.bundle import Hybrid
from edge_runtime.errors import BreakerOpen, CloudError, CloudRefused, CloudUnreachable
from edge_runtime.hybrid.breaker import Breaker, BreakerPolicy, BreakerState
from edge_runtime.hybrid.client import CloudClient
from edge_runtime.hybrid.policy import RoutingPolicy
from tests.support import tiny
from tests.support.oip_server import OipServer, decode

HYBRID = Hybrid(model="tiny-teacher", releases=(1,), inputs=(tiny.CONTEXT,))
INPUTS = {"context": tiny.windows(3)}
POLICY = RoutingPolicy(cloud_timeout_s=0.4, connect_timeout_s=0.3)
PATIENT = BreakerPolicy(minimum_calls=100)


@pytest.fixture
def server() -> Iterator[OipServer]:
    with OipServer() as running:
        yield running


@pytest.fixture
def client(server: OipServer) -> Iterator[CloudClient]:
    client = CloudClient(server.url, Bearer("secret"), POLICY, Breaker(PATIENT))
    yield client
    client.close()


def test_an_answer_is_scored_and_names_who_gave_it(client: CloudClient, server: OipServer) -> None:
    answer = client.ask(HYBRID, INPUTS, 4)
    assert answer.cloud == "tiny-teacher/1"
    assert answer.index == 2
    assert answer.confidence > 0.99
    np.testing.assert_allclose(answer.outputs["scores"][3], INPUTS["context"].mean(), rtol=1e-5)
    request = server.requests[0]
    assert request["path"] == "/v2/models/tiny-teacher/versions/1/infer"
    assert request["headers"]["Authorization"] == "Bearer secret"


def test_tensors_travel_as_bytes_on_one_kept_connection(client: CloudClient, server: OipServer) -> None:
    for _ in range(3):
        client.ask(HYBRID, INPUTS, 4)
    body, header = server.requests[2]["body"], server.requests[2]["headers"]["Inference-Header-Content-Length"]
    np.testing.assert_array_equal(decode(body, header)["context"], INPUTS["context"])
    assert len(body) == int(header) + INPUTS["context"].nbytes
    assert server.connections == 1


def test_a_server_that_takes_only_json_is_remembered(client: CloudClient, server: OipServer) -> None:
    server.fault = "json_only"
    for _ in range(2):
        assert client.ask(HYBRID, INPUTS, 4).index == 2
    assert ["Inference-Header-Content-Length" in r["headers"] for r in server.requests] == [True, False, False]
    np.testing.assert_allclose(decode(server.requests[1]["body"], None)["context"], INPUTS["context"])


def test_a_request_refused_in_both_forms_is_refused_and_not_remembered(client: CloudClient, server: OipServer) -> None:
    server.fault = "status:422"
    with pytest.raises(CloudRefused):
        client.ask(HYBRID, INPUTS, 4)
    server.fault = None
    client.ask(HYBRID, INPUTS, 4)
    assert "Inference-Header-Content-Length" in server.requests[-1]["headers"]


def test_the_newest_release_that_the_endpoint_has_answers() -> None:
    hybrid = Hybrid(model="tiny-teacher", releases=(1, 2, 3), inputs=(tiny.CONTEXT,))
    with OipServer(releases=(1, 2)) as server:
        client = CloudClient(server.url, Bearer(None), POLICY, Breaker(PATIENT))
        assert client.ask(hybrid, INPUTS, 4).cloud == "tiny-teacher/2"
        client.close()


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_an_error_status_is_kept(client: CloudClient, server: OipServer, status: int) -> None:
    server.fault = f"status:{status}"
    with pytest.raises(CloudRefused, match="as told") as caught:
        client.ask(HYBRID, INPUTS, 4)
    assert caught.value.status == status
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "fault", ["garbage", "nan", "nan_elsewhere", "wrong_shape", "wrong_model", "huge", "cut", "status:302"]
)
def test_an_answer_that_breaks_the_protocol_is_an_error_by_name(
    client: CloudClient, server: OipServer, fault: str
) -> None:
    server.fault = fault
    with pytest.raises(CloudError):
        client.ask(HYBRID, INPUTS, 4)


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_server_that_hangs_or_drips_is_given_up_on_in_time(
    client: CloudClient, server: OipServer, fault: str
) -> None:
    server.fault = fault
    start = time.monotonic()
    with pytest.raises(CloudUnreachable):
        client.ask(HYBRID, INPUTS, 4)
    assert time.monotonic() - start < 2 * POLICY.cloud_timeout_s + 0.2


def test_a_server_that_is_gone_is_unreachable() -> None:
    with OipServer() as server:
        url = server.url
    client = CloudClient(url, Bearer(None), POLICY, Breaker(PATIENT))
    with pytest.raises(CloudUnreachable):
        client.ask(HYBRID, INPUTS, 4)
    client.close()


@pytest.mark.parametrize("url", ["http://[broken", "ftp://example.invalid", "nonsense"])
def test_a_url_that_cannot_be_is_unreachable_by_name(url: str) -> None:
    client = CloudClient(url, Bearer(None), POLICY, Breaker(PATIENT))
    with pytest.raises(CloudUnreachable):
        client.ask(HYBRID, INPUTS, 4)


def test_a_failing_server_is_left_alone_and_found_again(server: OipServer) -> None:
    now = [100.0]
    breaker = Breaker(BreakerPolicy(minimum_calls=3, open_s=5.0))
    client = CloudClient(server.url, Bearer(None), POLICY, breaker, monotonic=lambda: now[0])
    server.fault = "status:503"
    for _ in range(3):
        with pytest.raises(CloudRefused):
            client.ask(HYBRID, INPUTS, 4)
    for _ in range(10):
        with pytest.raises(BreakerOpen):
            client.ask(HYBRID, INPUTS, 4)
    assert len(server.requests) == 3

    server.fault = None
    now[0] += 5.1
    client.ask(HYBRID, INPUTS, 4)
    assert breaker.state is BreakerState.CLOSED
    client.close()


def test_a_refused_request_does_not_open_the_breaker(server: OipServer) -> None:
    breaker = Breaker(BreakerPolicy(minimum_calls=2))
    client = CloudClient(server.url, Bearer(None), POLICY, breaker)
    server.fault = "status:403"
    for _ in range(5):
        with pytest.raises(CloudRefused):
            client.ask(HYBRID, INPUTS, 4)
    assert breaker.state is BreakerState.CLOSED
    client.close()


class Signing:
    """Signs as a device does whose clock was wrong."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def header(self, body: bytes) -> str:
        self.bodies.append(body)
        return f"Edgeship-Device {len(self.bodies)}"

    def corrected(self, headers: Mapping[str, str]) -> bool:
        return True

    def unknown(self) -> None:
        pytest.fail("devices do not enrol at a cloud endpoint: what it does not know says nothing about the device")


def test_what_is_asked_is_signed_and_signed_once_more_where_the_time_was_wrong(server: OipServer) -> None:
    server.fault = "status:401"
    by = Signing()
    client = CloudClient(server.url, by, RoutingPolicy(cloud_timeout_s=10.0), Breaker(PATIENT))
    with pytest.raises(CloudRefused, match="401"):
        client.ask(HYBRID, INPUTS, 4)
    client.close()
    assert [request["headers"]["Authorization"] for request in server.requests] == [
        "Edgeship-Device 1",
        "Edgeship-Device 2",
    ]
    assert by.bodies == [request["body"] for request in server.requests]
