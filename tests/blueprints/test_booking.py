"""What a request leaves in the books, however it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from gevent import GreenletExit
from sqlalchemy import text

from app.blueprints import chat
from app.blueprints.booking import Booking
from app.storage import database
from app.upstream.dispatch import Dispatch
from tests.conftest import CLIENT, AppMaker

HI = [{"role": "user", "content": "hi"}]
COLUMNS = (
    "id, key_id, route, model_asked, model, connection, attempts, status, ending, stream, input_tokens, output_tokens, "
    "cost_micros, cost_state, price_version, ttft_ms, duration_ms, client, user_ref, tag, warnings, upstream_ids, parts"
)


@pytest.fixture
def app(make_app: AppMaker, simulator: str) -> Flask:
    return make_app(
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": "sk-ant-of-these-tests",
            "ANTHROPIC_API_BASE_URLS": simulator,
            "MODEL_PRICES": orjson.dumps({"sim-text": {"input": 1, "output": 5}}).decode(),
        }
    )


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def ask(client: FlaskClient, model: str = "sim-text", **more: Any) -> Any:
    headers = {**CLIENT, "user-agent": "tests/1.0", **more.pop("headers", {})}
    return client.post("/v1/chat/completions", json={"model": model, "messages": HI, **more}, headers=headers)


def booked(app: Flask) -> list[dict[str, Any]]:
    return database.read(
        app, lambda s: [dict(row) for row in s.execute(text(f"SELECT {COLUMNS} FROM requests ORDER BY id")).mappings()]
    )


def test_an_answer_is_in_the_books_with_what_it_used(app: Flask, client: FlaskClient) -> None:
    answer = ask(client, user="ann@example.com", metadata={"tag": "night"})
    (row,) = booked(app)
    usage = answer.json["usage"]
    assert (row["input_tokens"], row["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert row["cost_micros"] == usage["prompt_tokens"] + 5 * usage["completion_tokens"]
    assert answer.headers["x-gateway-request-cost"] == str(row["cost_micros"])
    assert answer.headers["x-gateway-request-id"] == row["id"]
    assert row["upstream_ids"] == answer.json["id"]
    assert (row["ending"], row["status"], row["attempts"], row["cost_state"]) == ("complete", 200, 1, "exact")
    assert (row["client"], row["tag"], row["parts"], row["ttft_ms"]) == ("tests/1.0", "night", None, None)
    assert row["user_ref"] and "@" not in row["user_ref"]
    assert row["price_version"].startswith("o:")
    assert row["route"] == "/v1/chat/completions"


def test_a_stream_tells_its_cost_with_the_usage_and_is_booked_before_its_end(app: Flask, client: FlaskClient) -> None:
    answer = ask(client, stream=True, stream_options={"include_usage": True})
    chunks = [orjson.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    answer.close()
    (row,) = booked(app)
    assert chunks[-1]["gateway"]["request_cost"] == row["cost_micros"]
    assert chunks[-1]["usage"]["completion_tokens"] == row["output_tokens"]
    assert row["stream"] and row["ttft_ms"] is not None and row["ttft_ms"] <= row["duration_ms"] + 1


def test_several_choices_are_one_row_of_several_messages(app: Flask, client: FlaskClient) -> None:
    answer = ask(client, n=3)
    (row,) = booked(app)
    assert row["output_tokens"] == answer.json["usage"]["completion_tokens"]
    assert row["attempts"] == 3
    assert len(row["upstream_ids"].split(",")) == 3
    parts = orjson.loads(row["parts"])
    assert [each["outcome"] for each in parts["tries"]] == ["answered"] * 3
    assert len(parts["charges"]) == 1


@pytest.fixture
def of_two(make_app: AppMaker, simulator: str) -> Flask:
    """A gateway with a second connection, at twice the price, for what the first does not answer."""
    configs = {"0": {"name": "first"}, "1": {"name": "second", "priority": 1, "price_factor": 2}}
    return make_app(
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": "sk-ant-first-of-two,sk-ant-second-of-two",
            "ANTHROPIC_API_BASE_URLS": simulator,
            "ANTHROPIC_API_CONFIGS": orjson.dumps(configs).decode(),
            "MODEL_PRICES": orjson.dumps(
                {name: {"input": 1, "output": 5} for name in ("sim-text", "sim-text:tokens=20")}
            ).decode(),
        }
    )


def fail_once(simulator: str, fault: dict[str, Any]) -> None:
    """The first of the two connections."""
    order = {"key": "sk-ant-first-of-two", "fault": fault, "times": 1}
    requests.post(f"{simulator}/_sim/faults", json=order, timeout=10).raise_for_status()


def test_choices_of_two_connections_are_one_row_with_a_charge_of_each(
    of_two: Flask, simulator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch = Booking.dispatch

    def but_the_second_fails(booking: Booking, *asked: Any) -> Dispatch:
        made = dispatch(booking, *asked)
        if len(booking._dispatches) == 2:
            fail_once(simulator, {"status": 529})
        return made

    monkeypatch.setattr(Booking, "dispatch", but_the_second_fails)
    answer = ask(of_two.test_client(), n=3)
    (row,) = booked(of_two)
    usage = answer.json["usage"]
    assert (row["input_tokens"], row["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (row["attempts"], row["ending"], row["cost_state"]) == (4, "complete", "exact")
    assert len(set(row["upstream_ids"].split(","))) == 3
    parts = orjson.loads(row["parts"])
    assert sorted(each["outcome"] for each in parts["tries"]) == ["answered"] * 3 + ["overloaded"]
    first, second = sorted(parts["charges"], key=lambda charge: -charge["messages"])
    assert (first["messages"], second["messages"]) == (2, 1)
    assert len({each["connection"] for each in parts["charges"]}) == 2
    for charge, factor in ((first, 1), (second, 2)):
        tokens = charge["tokens"]
        assert charge["cost_micros"] == factor * (tokens["input"] + 5 * tokens["output"])
    assert row["cost_micros"] == first["cost_micros"] + second["cost_micros"]


def test_a_try_that_broke_off_is_charged_beside_the_answer(of_two: Flask, simulator: str) -> None:
    fail_once(simulator, {"cut_after": 5})
    answer = ask(of_two.test_client(), "sim-text:tokens=20", max_tokens=64_000)  # asked for as a stream
    (row,) = booked(of_two)
    assert (row["attempts"], row["ending"], row["status"]) == (2, "complete", 200)
    assert row["cost_state"] == "estimated"
    parts = orjson.loads(row["parts"])
    assert [each["outcome"] for each in parts["tries"]] == ["answered", "answered"]
    broken, whole = parts["charges"]
    usage = answer.json["usage"]
    assert (whole["tokens"]["output"], whole["cost_state"]) == (usage["completion_tokens"], "exact")
    assert broken["cost_state"] == "estimated"
    assert broken["tokens"]["input"] == usage["prompt_tokens"]
    assert 0 < broken["tokens"]["output"] < usage["completion_tokens"]
    assert row["cost_micros"] == broken["cost_micros"] + whole["cost_micros"]
    assert row["output_tokens"] == broken["tokens"]["output"] + whole["tokens"]["output"]


@pytest.mark.parametrize(("model", "status"), [("sim-error-midstream", 503), ("sim-error-midstream:gap_ms=40", 200)])
def test_an_error_behind_the_first_words_costs_what_came_however_it_arrives(
    make_app: AppMaker, simulator: str, model: str, status: int
) -> None:
    """In one piece with the beginning it is an error before the answer, and tried once more."""
    app = make_app(
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": "sk-ant-of-these-tests",
            "ANTHROPIC_API_BASE_URLS": simulator,
            "MODEL_PRICES": orjson.dumps({model: {"input": 1, "output": 5}}).decode(),
        }
    )
    answer = ask(app.test_client(), model, stream=True)
    assert "Overloaded" in answer.text
    answer.close()
    (row,) = booked(app)
    assert (row["status"], row["attempts"]) == (status, 2 if status == 503 else 1)
    assert row["cost_state"] == "estimated"
    assert row["input_tokens"] / row["attempts"] == 9
    assert row["output_tokens"] >= 4 * row["attempts"]


@pytest.mark.parametrize(("ttl", "column"), [("1h", "cache_write_1h_tokens"), ("5m", "cache_write_5m_tokens")])
def test_what_goes_into_the_cache_is_written_for_as_long_as_the_request_asked(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, ttl: str, column: str
) -> None:
    """Where the usage says only how much it was, and not for how long."""
    monkeypatch.setattr(Dispatch, "so_far", property(lambda self: {"usage": {"cache_creation_input_tokens": 300}}))
    part = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": ttl}}
    assert ask(client, messages=[{"role": "user", "content": [part]}]).status_code == 200
    (row,) = database.read(
        app,
        lambda s: s.execute(text("SELECT cache_write_5m_tokens, cache_write_1h_tokens FROM requests")).mappings().all(),
    )
    assert {name: value for name, value in row.items() if value} == {column: 300}


def test_a_model_without_a_price_has_an_unknown_cost_and_no_header(app: Flask, client: FlaskClient) -> None:
    answer = ask(client, "sim-tool-use", tools=[{"type": "function", "function": {"name": "t", "parameters": {}}}])
    (row,) = booked(app)
    assert (row["cost_micros"], row["cost_state"]) == (None, "unknown")
    assert row["output_tokens"] == answer.json["usage"]["completion_tokens"] > 0
    assert "x-gateway-request-cost" not in answer.headers


def test_a_client_that_leaves_pays_for_what_came(app: Flask, client: FlaskClient) -> None:
    answer = ask(client, "sim-text:tokens=500,gap_ms=5", stream=True)
    frames = answer.iter_encoded()
    next(frames)
    next(frames)
    answer.close()
    (row,) = booked(app)
    assert (row["ending"], row["status"], row["cost_state"]) == ("client_gone", 200, "unknown")  # it has no price here
    assert row["input_tokens"] > 0
    assert 0 < row["output_tokens"] < 500


def test_an_answer_that_cannot_be_told_is_booked_all_the_same(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*_: Any, **__: Any) -> Any:
        raise KeyError("odd")

    monkeypatch.setattr(chat, "to_chat_completion", odd)
    assert ask(client).status_code == 502
    (row,) = booked(app)
    assert (row["ending"], row["status"], row["cost_state"]) == ("upstream_cut", 502, "exact")
    assert row["output_tokens"] > 0


def test_nothing_goes_upstream_for_a_request_that_is_over(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is stopped may still have his turn."""
    made: list[tuple[Booking, Any]] = []
    monkeypatch.setattr(Booking, "dispatch", lambda self, *asked: made.append((self, asked)))
    ask(client)
    monkeypatch.undo()
    ((booking, asked),) = made
    booking.left()
    with pytest.raises(GreenletExit):
        booking.dispatch(*asked)
    assert booked(app) == []


def test_what_cannot_be_charged_is_a_row_of_unknown_cost(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*_: Any) -> Any:
        raise TypeError("odd")

    monkeypatch.setattr("app.money.charges.charges", odd)
    assert ask(client).status_code == 200
    (row,) = booked(app)
    assert (row["ending"], row["cost_micros"], row["cost_state"]) == ("complete", None, "unknown")


def test_neither_what_was_asked_nor_a_key_stands_in_the_books(app: Flask, client: FlaskClient) -> None:
    texts = [{"role": "user", "content": "purple elephants"}]
    answer = ask(client, messages=texts, user="ann@example.com")
    said = answer.json["choices"][0]["message"]["content"]
    books = [*Path(app.instance_path).rglob("*.jsonl"), *Path(app.instance_path).glob("dragoman.db*")]
    written = b"".join(file.read_bytes() for file in books)
    assert booked(app)[0]["id"].encode() in written
    for secret in ("purple elephants", said, "ann@example.com", "sk-ant-of-these-tests", CLIENT["authorization"][7:]):
        assert secret.encode() not in written


def test_an_error_of_anthropics_is_booked_and_costs_nothing(app: Flask, client: FlaskClient) -> None:
    answer = ask(client, "sim-error-529")
    assert answer.status_code == 503
    (row,) = booked(app)
    assert (row["ending"], row["status"]) == ("upstream_error", 503)
    assert (row["cost_micros"], row["cost_state"], row["output_tokens"]) == (0, "exact", 0)
    assert row["attempts"] >= 1


@pytest.mark.parametrize(
    "asked", [{"model": "sim-text", "temperature": "hot"}, {"model": "sim-text", "messages": "hi"}, {"model": ""}]
)
def test_what_the_gateway_refuses_itself_is_no_row(app: Flask, client: FlaskClient, asked: dict[str, Any]) -> None:
    assert ask(client, **{"messages": HI, **asked}).status_code in (400, 404)
    assert booked(app) == []


def test_a_dry_run_is_no_row(app: Flask, client: FlaskClient) -> None:
    client.post("/v1/chat/completions?explain=1", json={"model": "sim-text", "messages": HI}, headers=CLIENT)
    assert booked(app) == []


def test_the_id_of_a_row_begins_with_its_time(app: Flask, client: FlaskClient) -> None:
    ids = [ask(client).headers["x-gateway-request-id"] for _ in range(3)]
    rows = booked(app)
    assert [row["id"] for row in rows] == sorted(ids)
    at = database.read(app, lambda s: [row[0] for row in s.execute(text("SELECT at FROM requests ORDER BY id"))])
    assert all(abs(int(id[7:19], 16) - when) < 1000 for id, when in zip(sorted(ids), at, strict=True))


@pytest.mark.parametrize("model", ["sim-\x00text", "sim-\ud83d", "sim-error-404\n", "x" * 300])
def test_whatever_clients_call_things_the_row_is_taken(app: Flask, client: FlaskClient, model: str) -> None:
    body = json.dumps({"model": model, "messages": HI, "user": "a\x00\ud83d" * 100, "metadata": {"tag": "no\ntag"}})
    headers = {**CLIENT, "content-type": "application/json", "user-agent": "\u00e9\u00fc" * 100}
    answer = client.post("/v1/chat/completions", data=body, headers=headers)
    assert answer.status_code in (400, 404), answer.text
    for row in booked(app):
        assert row["tag"] is None
        assert row["ending"] == "upstream_error"


def test_a_row_of_odd_names_is_taken_by_either_database(
    make_app: AppMaker, simulator: str, either_database: dict[str, str]
) -> None:
    app = make_app(
        **either_database,
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": "sk-ant-of-these-tests",
            "ANTHROPIC_API_BASE_URLS": simulator,
        },
    )
    body = json.dumps({"model": "sim-error-404", "messages": HI, "user": "a\x00b\ud83d" * 100})
    for data in (body, body.replace("sim-error-404", "sim-error-404\\u0000")):
        app.test_client().post("/v1/chat/completions", data=data, headers=CLIENT)
    assert booked(app)
    assert not (Path(app.instance_path) / "journal" / "left-out.jsonl").exists()


def test_an_answer_that_the_gateway_ends_at_a_stop_string_is_booked_as_complete(
    app: Flask, client: FlaskClient
) -> None:
    answer = ask(client, "sim-unicode", stream=True, stop=["\n", " "])
    assert "[DONE]" in answer.text
    answer.close()
    (row,) = booked(app)
    assert (row["ending"], row["status"]) == ("complete", 200)
    assert row["input_tokens"] > 0
