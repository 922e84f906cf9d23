"""What the journal keeps of a request, byte for byte, and how much of it."""

import hashlib
import json
import socket

from app.simulator.http import Request
from app.simulator.journal import KEPT_RAW_BYTES, Journal
from tests.simulator.test_wire import read_until

ODD = b'{"model":"sim-text", "max_tokens" : 1e1,"messages":[ {"role":"user","content":"\\u00e9"} ],"n":1.0,"n":2}'


def test_a_body_is_kept_as_it_came_with_its_digest(simulator):
    simulator.post(ODD)
    entry = simulator.last_request()
    assert simulator.fetch("GET", f"/_sim/requests/{entry['number']}/body")[2] == ODD
    assert simulator.fetch("GET", "/_sim/requests/last/body")[2] == ODD
    assert (entry["body_bytes"], entry["body_sha256"]) == (len(ODD), hashlib.sha256(ODD).hexdigest())


def test_a_body_of_a_megabyte_is_kept_too(simulator):
    body = json.dumps({"model": "sim-text", "max_tokens": 9, "messages": [], "pad": "x" * 1_100_000}).encode()
    simulator.post(body)
    assert simulator.fetch("GET", "/_sim/requests/last/body")[2] == body


def test_headers_are_kept_in_order_and_doubled_ones_twice(simulator):
    with socket.create_connection(simulator.address, timeout=5) as raw:
        raw.sendall(
            b"POST /v1/messages?beta=true&beta= HTTP/1.1\r\nX-Api-Key: sk-ant-raw\r\nanthropic-beta: a\r\nHost: x\r\n"
            b"Anthropic-Beta:b , c\r\ncontent-length: 2\r\n\r\n{}"
        )
        read_until(raw, b"request_id")
    entry = simulator.last_request()
    assert entry["target"] == "/v1/messages?beta=true&beta="
    assert entry["raw_headers"] == [
        ["X-Api-Key", "sk-ant-raw"],
        ["anthropic-beta", "a"],
        ["Host", "x"],
        ["Anthropic-Beta", "b , c"],
        ["content-length", "2"],
    ]
    assert entry["headers"]["anthropic-beta"] == "a, b , c"


def test_a_body_that_is_not_there_is_not_found(simulator):
    assert simulator.fetch("GET", "/_sim/requests/987654321/body")[0] == 404


def test_the_oldest_bodies_are_let_go_and_their_digests_stay():
    journal = Journal()
    third = bytes(KEPT_RAW_BYTES // 3)
    for _ in range(5):
        journal.close(journal.open(Request("POST", "/", {}, {}, third), "", 0.0), "finished", 0.0)
    assert [entry.raw_body is None for entry in journal.entries] == [True, True, False, False, False]
    assert not any(entry.request.body for entry in journal.entries)
    assert {entry.body_sha256 for entry in journal.entries} == {hashlib.sha256(third).hexdigest()}
    assert journal.raw_body("1") is None
    assert journal.raw_body("last") == third
