"""The official SDK cannot tell the simulator from the real API."""

import contextlib
from typing import Any

import anthropic
import pytest

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city"],
    },
}


def test_a_message_comes_as_json(sdk):
    message = sdk.messages.create(model="sim-text:tokens=3", max_tokens=100, messages=HELLO)
    assert message.content[0].text == "w0 w1 w2"
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 3)
    assert message._request_id.startswith("req_")


def test_the_same_message_comes_as_a_stream(sdk):
    with sdk.messages.stream(model="sim-text:tokens=50", max_tokens=100, messages=HELLO) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) == 50
    assert message.content[0].text == "".join(pieces) == " ".join(f"w{n}" for n in range(50))


def test_an_alias_answers_under_its_dated_id(sdk):
    assert (
        sdk.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=HELLO).model == "claude-haiku-4-5-20251001"
    )


def test_a_tool_loop_runs_to_its_end(sdk):
    first = sdk.messages.create(model="sim-tool-use", max_tokens=200, tools=[WEATHER], messages=HELLO)
    call = first.content[-1]
    assert (first.stop_reason, call.name, call.input["city"]) == ("tool_use", "get_weather", "Paris")
    history = [
        *HELLO,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees"}]},
    ]
    second = sdk.messages.create(model="sim-tool-use", max_tokens=200, tools=[WEATHER], messages=history)
    assert second.stop_reason == "end_turn"
    assert second.content[0].text == "get_weather answered: 21 degrees"


@pytest.mark.parametrize(
    ("scenario", "calls"), [("sim-parallel-tools", 2), ("sim-empty-tool", 1), ("sim-whole-tool", 1)]
)
def test_tool_calls_stream_as_they_accumulate(sdk, scenario, calls):
    with sdk.messages.stream(model=scenario, max_tokens=200, tools=[WEATHER], messages=HELLO) as stream:
        message = stream.get_final_message()
    assert [block.name for block in message.content if block.type == "tool_use"] == ["get_weather"] * calls
    assert message.stop_reason == "tool_use"


def test_thinking_is_taken_back_with_its_signature_and_refused_without(sdk):
    with sdk.messages.stream(model="sim-thinking", max_tokens=200, messages=HELLO) as stream:
        thinking, text = stream.get_final_message().content
    assert thinking.thinking
    history = [*HELLO, {"role": "assistant", "content": [thinking, text]}, {"role": "user", "content": "Go on"}]
    sdk.messages.create(model="sim-thinking", max_tokens=200, messages=history)
    thinking.thinking += " (edited)"
    with pytest.raises(
        anthropic.BadRequestError, match=r"messages\.1\.content\.0: Invalid `signature` in `thinking` block"
    ):
        sdk.messages.create(model="sim-thinking", max_tokens=200, messages=history)


def test_thinking_is_shown_only_where_it_is_asked_for(sdk):
    def thinking(model, **options):
        return sdk.messages.create(model=model, max_tokens=2000, messages=HELLO, **options).content[0]

    assert thinking("claude-opus-5-5").thinking == ""
    assert thinking("claude-opus-5-5", thinking={"type": "adaptive", "display": "summarized"}).thinking
    assert thinking("claude-opus-5", thinking={"type": "disabled"}).type == "text"
    assert thinking("claude-haiku-4-5", thinking={"type": "enabled", "budget_tokens": 1024}).thinking


def test_bound_thinking_does_not_move_to_another_conversation(sdk):
    answer = {
        "role": "assistant",
        "content": sdk.messages.create(model="claude-opus-5-5", max_tokens=99, messages=HELLO).content,
    }
    more = {"role": "user", "content": "Go on"}
    sdk.messages.create(model="claude-opus-5-5", max_tokens=99, messages=[*HELLO, answer, more])
    moved = [{"role": "user", "content": "Another beginning"}, answer, more]
    with pytest.raises(anthropic.BadRequestError, match="bound to a different conversation"):
        sdk.messages.create(model="claude-opus-5-5", max_tokens=99, messages=moved)
    sdk.beta.messages.create(
        model="claude-opus-5-5",
        max_tokens=99,
        messages=moved,
        betas=["thinking-binding-controls-2026-08-01"],
        thinking={"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}},
    )


def test_a_usual_account_is_listed_claudes_models_and_no_others(sdk):
    ids = [model.id for model in sdk.models.list(limit=100)]
    assert 12 <= len(ids) <= 18
    assert all(id.startswith("claude-") for id in ids)
    assert sdk.models.retrieve("sim-text").id == "sim-text"


def test_models_are_listed_page_by_page(start_simulator):
    with contextlib.contextmanager(start_simulator)("--scenarios") as simulator:
        _page_by_page(anthropic.Anthropic(base_url=simulator.url, api_key="sk-ant-test"))


def _page_by_page(sdk):
    first = sdk.models.list(limit=5)
    assert (len(first.data), first.has_more, first.last_id) == (5, True, first.data[-1].id)
    everything = list(sdk.models.list(limit=7))
    ids = [model.id for model in everything]
    assert len(ids) == len(set(ids)) > 50
    assert {"claude-opus-5-5", "sim-text", "sim-error-529"} <= set(ids)
    before = sdk.models.list(before_id=ids[5], limit=3)
    assert [model.id for model in before.data] == ids[2:5]


def test_a_model_says_what_it_can(sdk):
    model = sdk.models.retrieve("claude-sonnet-4-5")
    assert (model.id, model.line, model.lifecycle) == ("claude-sonnet-4-5-20250929", "sonnet", "deprecated")
    assert model.retires_at.isoformat() == "2026-11-30T00:00:00+00:00"
    assert (model.capabilities.thinking.types.enabled.supported, model.capabilities.effort.supported) == (True, False)
    assert sdk.models.retrieve("claude-sonnet-5-5").capabilities.thinking.types.between_tools.supported
    with pytest.raises(anthropic.NotFoundError):
        sdk.models.retrieve("claude-3-opus-20240229")


def test_tokens_are_counted(sdk):
    count = sdk.messages.count_tokens(model="claude-opus-5-5", messages=HELLO).input_tokens
    assert 0 < count < sdk.messages.count_tokens(model="claude-opus-5-5", messages=HELLO, tools=[WEATHER]).input_tokens
    assert sdk.messages.create(model="sim-text", max_tokens=10, messages=HELLO).usage.input_tokens == count


def test_a_cached_prompt_is_written_once_and_then_read(simulator):
    system = [{"type": "text", "text": "word " * 2000, "cache_control": {"type": "ephemeral"}}]
    with simulator.sdk("sk-ant-cache") as client:
        usages = [
            client.messages.create(model="sim-text", max_tokens=10, system=system, messages=HELLO).usage
            for _ in range(2)
        ]
    assert usages[0].cache_creation_input_tokens == usages[1].cache_read_input_tokens > 2000
    assert usages[0].cache_read_input_tokens == usages[1].cache_creation_input_tokens == 0


def test_a_growing_conversation_reads_what_automatic_caching_wrote(simulator):
    long = [{"role": "user", "content": "word " * 2000}]
    longer = [*long, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "word " * 500}]
    with simulator.sdk("sk-ant-cache-2") as client:
        control = {"type": "ephemeral"}
        first = client.messages.create(model="sim-text", max_tokens=9, messages=long, cache_control=control).usage
        second = client.messages.create(model="sim-text", max_tokens=9, messages=longer, cache_control=control).usage
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens
    assert 0 < second.cache_creation_input_tokens < first.cache_creation_input_tokens


def test_max_tokens_and_stop_sequences_end_a_message(sdk):
    cut = sdk.messages.create(model="sim-text", max_tokens=4, messages=HELLO)
    assert (cut.content[0].text, cut.stop_reason, cut.usage.output_tokens) == ("w0 w1 w2 w3", "max_tokens", 4)
    stopped = sdk.messages.create(model="sim-text", max_tokens=99, messages=HELLO, stop_sequences=["w9", "w3"])
    assert (stopped.content[0].text, stopped.stop_reason, stopped.stop_sequence) == ("w0 w1 w2 ", "stop_sequence", "w3")


def test_structured_output_fits_its_schema(sdk):
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}},
        "required": ["name", "tags"],
    }
    output = {"format": {"type": "json_schema", "schema": schema}}
    message = sdk.messages.create(model="claude-sonnet-4-6", max_tokens=99, messages=HELLO, output_config=output)
    assert message.content[0].text == '{"name":"Ada Lovelace","tags":["a"]}'


def test_claude_calls_a_tool_that_the_user_seems_to_want(sdk):
    question = [{"role": "user", "content": "What is the weather like?"}]
    asked = sdk.messages.create(model="claude-opus-4-8", max_tokens=99, messages=question, tools=[WEATHER])
    chat = sdk.messages.create(model="claude-opus-4-8", max_tokens=99, messages=HELLO, tools=[WEATHER])
    assert (asked.stop_reason, chat.stop_reason) == ("tool_use", "end_turn")
    assert "“Hello”" in chat.content[0].text


def test_a_web_search_cites_before_it_says(sdk):
    with sdk.messages.stream(model="sim-web-search", max_tokens=99, messages=HELLO) as stream:
        deltas = [event.delta.type for event in stream if event.type == "content_block_delta" and event.index == 3]
        message = stream.get_final_message()
    assert deltas[0] == "citations_delta"
    assert [block.type for block in message.content[:2]] == ["server_tool_use", "web_search_tool_result"]
    assert message.usage.server_tool_use.web_search_requests == 1


def test_a_pause_can_be_continued(sdk):
    paused = sdk.messages.create(model="sim-pause", max_tokens=99, messages=HELLO)
    assert paused.stop_reason == "pause_turn"
    history = [*HELLO, {"role": "assistant", "content": paused.content}]
    assert sdk.messages.create(model="sim-pause", max_tokens=99, messages=history).stop_reason == "end_turn"


@pytest.mark.parametrize("pauses", [0, 1, 3])
def test_it_pauses_as_often_as_its_number_says(sdk, pauses):
    model, reasons = f"sim-pause-{pauses}", []
    content: list[Any] = []
    for _ in range(pauses + 1):
        history = [*HELLO, {"role": "assistant", "content": content}] if content else HELLO
        answer = sdk.messages.create(model=model, max_tokens=99, messages=history)
        content += answer.content
        reasons.append(answer.stop_reason)
    assert reasons == ["pause_turn"] * pauses + ["end_turn"]
    assert content[-1].text == " And this is the rest of it."


def test_thinking_stands_between_the_calls_and_is_taken_back(sdk):
    def ask(history):
        return sdk.messages.create(model="sim-interleaved", max_tokens=200, tools=[WEATHER], messages=history)

    first = ask(HELLO)
    assert [block.type for block in first.content] == ["thinking", "text", "tool_use", "thinking", "tool_use"]
    calls = [block.id for block in first.content if block.type == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call, "content": "21 degrees"} for call in calls]
    history = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    second = ask(history)
    assert [block.type for block in second.content] == ["thinking", "text"]
    first.content[3].signature = first.content[0].signature
    with pytest.raises(anthropic.BadRequestError, match=r"messages\.1\.content\.3: Invalid `signature`"):
        ask(history)


def test_a_demand_brings_the_call_that_was_not_made_at_first(sdk):
    def ask(model, *history):
        return sdk.messages.create(model=model, max_tokens=99, tools=[WEATHER], messages=[*HELLO, *history]).content

    demand = {"role": "user", "content": "You must answer by calling one of the tools."}
    for model, kind in (("sim-second-thought", "tool_use"), ("sim-no-tool", "text")):
        first = ask(model)
        assert [block.type for block in first] == ["text"]
        assert ask(model, {"role": "assistant", "content": first}, demand)[-1].type == kind


def test_documents_are_cited_where_citations_are_enabled(sdk):
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjc="}
    sources = [
        {"type": "text", "media_type": "text/plain", "data": "The grass is green."},
        pdf,
        {"type": "content", "content": [{"type": "text", "text": "The sky is blue."}]},
    ]

    def cite(**more):
        documents = [{"type": "document", "source": source, "title": "Notes", **more} for source in sources]
        messages = [{"role": "user", "content": documents}]
        content = sdk.messages.create(model="sim-document-citations", max_tokens=99, messages=messages).content
        return [citation for block in content for citation in block.citations or ()]

    assert cite() == []
    found = cite(citations={"enabled": True})
    assert [citation.type for citation in found] == ["char_location", "page_location", "content_block_location"]
    assert [(citation.document_index, citation.document_title) for citation in found] == [
        (n, "Notes") for n in range(3)
    ]
    assert found[0].cited_text == "The grass is green."
    assert (found[0].start_char_index, found[0].end_char_index) == (0, 19)


@pytest.mark.parametrize(
    ("model", "fields", "refused"),
    [
        (
            "sim-tool-use:forced_tool=0",
            {"tool_choice": {"type": "any"}, "tools": [WEATHER]},
            'type "tool" and "any" are not supported for this model',
        ),
        ("sim-text:adaptive=0", {"thinking": {"type": "adaptive"}}, "adaptive thinking is not supported"),
        ("sim-text:xhigh=0", {"output_config": {"effort": "xhigh"}}, "is not supported by this model"),
        ("sim-text:effort=0", {"output_config": {"effort": "low"}}, "does not support the effort parameter"),
        (
            "sim-text:prefill=0",
            {"messages": [*HELLO, {"role": "assistant", "content": "I"}]},
            "does not support assistant message prefill",
        ),
        (
            "sim-text:mid_system=0",
            {"messages": [*HELLO, {"role": "system", "content": "Be brief."}]},
            "role 'system' is not supported on this model",
        ),
    ],
)
def test_a_name_can_deny_what_the_model_accepts(sdk, model, fields, refused):
    body = {"max_tokens": 99, "messages": HELLO, **fields}
    sdk.messages.create(model=model.partition(":")[0], **body)
    with pytest.raises(anthropic.BadRequestError, match=refused):
        sdk.messages.create(model=model, **body)


def test_a_name_can_bind_thinking_to_its_conversation(sdk):
    def ask(history):
        return sdk.messages.create(model="sim-thinking:bound=1", max_tokens=99, messages=history).content

    more = [{"role": "assistant", "content": ask(HELLO)}, {"role": "user", "content": "Go on"}]
    ask([*HELLO, *more])
    with pytest.raises(anthropic.BadRequestError, match="bound to a different conversation"):
        ask([{"role": "user", "content": "Another beginning"}, *more])


@pytest.mark.parametrize(
    ("scenario", "stop_reason"),
    [
        ("sim-refusal", "refusal"),
        ("sim-refusal-midway", "refusal"),
        ("sim-max-tokens", "max_tokens"),
        ("sim-truncated-tool", "max_tokens"),
        ("sim-context-exceeded", "model_context_window_exceeded"),
        ("sim-empty", "end_turn"),
        ("sim-unknown-stop", "out_of_ink"),
    ],
)
def test_each_stop_reason_has_a_scenario(sdk, scenario, stop_reason):
    message = sdk.messages.create(model=scenario, max_tokens=99, messages=HELLO, tools=[WEATHER])
    assert message.stop_reason == stop_reason
    with sdk.messages.stream(model=scenario, max_tokens=99, messages=HELLO, tools=[WEATHER]) as stream:
        assert stream.get_final_message().stop_reason == stop_reason
    assert (message.stop_details is not None) == (stop_reason == "refusal")


def test_text_survives_awkward_chunks(sdk):
    whole = sdk.messages.create(model="sim-unicode", max_tokens=99, messages=HELLO).content[0].text
    with sdk.messages.stream(model="sim-unicode", max_tokens=99, messages=HELLO) as stream:
        assert stream.get_final_text() == whole
    assert "\u2028" in whole and "\U0001f600" in whole


@pytest.mark.parametrize(
    ("scenario", "exception"),
    [
        ("sim-error-400", anthropic.BadRequestError),
        ("sim-error-401", anthropic.AuthenticationError),
        ("sim-error-402", anthropic.PaymentRequiredError),
        ("sim-error-403", anthropic.PermissionDeniedError),
        ("sim-error-404", anthropic.NotFoundError),
        ("sim-error-413", anthropic.RequestTooLargeError),
        ("sim-error-429", anthropic.RateLimitError),
        ("sim-error-500", anthropic.InternalServerError),
        ("sim-error-504", anthropic.InternalServerError),
        ("sim-error-529", anthropic.InternalServerError),
        ("sim-error-spend-limit", anthropic.RateLimitError),
        ("sim-error-low-credit", anthropic.BadRequestError),
        ("sim-error-html-502", anthropic.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_each_error_raises_the_right_exception(sdk, scenario, exception, stream):
    with pytest.raises(exception) as caught:
        sdk.messages.create(model=scenario, max_tokens=9, messages=HELLO, stream=stream)
    if "html" not in scenario:
        assert caught.value.body["type"] == "error"
        assert caught.value.request_id == caught.value.body["request_id"]


def test_a_spend_limit_has_its_code_and_no_retry_after(sdk):
    with pytest.raises(anthropic.RateLimitError) as caught:
        sdk.messages.create(model="sim-error-spend-limit", max_tokens=9, messages=HELLO)
    assert caught.value.error_code == "enforced_spend_limit_reached"
    assert "retry-after" not in caught.value.response.headers
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_an_error_in_mid_stream_comes_after_text(sdk):
    seen = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        for event in sdk.messages.create(model="sim-error-midstream", max_tokens=99, messages=HELLO, stream=True):
            seen.append(event.type)
    assert seen.count("content_block_delta") == 5
    assert caught.value.type == "overloaded_error"
