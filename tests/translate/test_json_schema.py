"""What clients write as JSON Schema, in the words of draft 2020-12."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import UntranslatableRequest
from app.schemas.chat import chat_request
from app.translate.argument_names import ArgumentNames, with_argument_names
from app.translate.chat import memory
from app.translate.chat.request import Options, to_message_params
from app.translate.facts import ModelFacts
from app.translate.json_schema import known_name, modernised

STRING = {"type": "string"}
NUMBER = {"type": "number"}
HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("older", "modern"),
    [
        ({"minimum": 0, "exclusiveMinimum": True}, {"exclusiveMinimum": 0}),
        ({"maximum": 9.5, "exclusiveMaximum": True, "minimum": 1}, {"minimum": 1, "exclusiveMaximum": 9.5}),
        ({"minimum": 0, "exclusiveMinimum": False}, {"minimum": 0}),
        ({"exclusiveMinimum": True}, {}),
        ({"exclusiveMinimum": 3}, {"exclusiveMinimum": 3}),
        ({"items": [STRING, NUMBER]}, {"prefixItems": [STRING, NUMBER]}),
        ({"items": [STRING], "additionalItems": False}, {"prefixItems": [STRING], "items": False}),
        ({"items": [STRING], "additionalItems": NUMBER}, {"prefixItems": [STRING], "items": NUMBER}),
        ({"items": STRING, "additionalItems": False}, {"items": STRING}),
        ({"items": []}, {}),
        ({"properties": {"a": {**STRING, "required": True}}}, {"properties": {"a": STRING}, "required": ["a"]}),
        ({"properties": {"a": {**STRING, "required": False}}}, {"properties": {"a": STRING}}),
        (
            {"properties": {"a": {"required": True}, "b": {}}, "required": ["b"]},
            {"properties": {"a": {}, "b": {}}, "required": ["b", "a"]},
        ),
        ({"required": ["a", "a"]}, {"required": ["a"]}),
        ({"divisibleBy": 0.5}, {"multipleOf": 0.5}),
        ({"dependencies": {"a": ["b"]}}, {"dependentRequired": {"a": ["b"]}}),
        ({"dependencies": {"a": "b"}}, {"dependentRequired": {"a": ["b"]}}),
        ({"dependencies": {"a": {"required": ["b"]}}}, {"dependentSchemas": {"a": {"required": ["b"]}}}),
        ({"type": "STRING"}, {"type": "string"}),
        ({"type": ["String", "NULL"]}, {"type": ["string", "null"]}),
        ({"properties": None, "required": None, "description": None}, {}),
        ({"default": None, "const": None}, {"default": None, "const": None}),
        ({"properties": {"a": None, "b": "integer"}}, {"properties": {"a": {}, "b": {"type": "integer"}}}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x", "id": "y"}, {}),
        ({"type": ["String", "string"]}, {"type": ["string"]}),
        ({"properties": {"city": "Where it is"}}, {"properties": {"city": {"description": "Where it is"}}}),
        ({"$defs": {"x": {"$schema": "http://json-schema.org/draft-07/schema#"}}}, {"$defs": {"x": {}}}),
        ({"examples": "x"}, {"examples": ["x"]}),
        ({"$ref": "#/properties/a/items/0"}, {"$ref": "#/properties/a/prefixItems/0"}),
        ({"x-order": [1], "uiSchema": {"type": "any"}}, {"x-order": [1], "uiSchema": {"type": "any"}}),
        ({"pattern": "^a+$"}, {"pattern": "^a+$"}),
        (
            {"pattern": "^\\p{L}+$", "description": "A word."},
            {"description": "A word.\nMust match the regular expression ^\\p{L}+$"},
        ),
        ({"pattern": "(?<y>\\d{4})"}, {"description": "Must match the regular expression (?<y>\\d{4})"}),
        ({"not": {"items": [STRING]}}, {"not": {"prefixItems": [STRING]}}),
        ({"anyOf": [{"allOf": [{"type": "NUMBER"}]}]}, {"anyOf": [{"allOf": [NUMBER]}]}),
    ],
)
def test_older_words_are_said_in_todays(older: dict[str, Any], modern: dict[str, Any]) -> None:
    made = modernised(older)
    assert made.schema == modern
    assert made.lost == ()


@pytest.mark.parametrize(
    ("wrong", "left", "lost"),
    [
        ({"type": "any"}, {}, ("type",)),
        ({"type": "file", "description": "a file"}, {"description": "a file"}, ("type",)),
        ({"type": ["string", "any"]}, {"type": ["string"]}, ("type",)),
        ({"type": []}, {}, ("type",)),
        ({"minimum": "5"}, {}, ("minimum",)),
        ({"minLength": -1, "maxLength": 2.5}, {}, ("minLength", "maxLength")),
        ({"multipleOf": 0}, {}, ("multipleOf",)),
        ({"enum": "a,b"}, {}, ("enum",)),
        ({"properties": ["a"]}, {}, ("properties",)),
        ({"required": "a"}, {}, ("required",)),
        ({"anyOf": []}, {}, ("anyOf",)),
        ({"anyOf": ["x", STRING]}, {"anyOf": [STRING]}, ("a part of a list of schemas",)),
        ({"required": ["a", 5]}, {"required": ["a"]}, ("a name",)),
        ({"properties": {"a": 5, "c": []}}, {"properties": {"a": {}, "c": {}}}, ("a", "c")),
        ({"dependencies": {"a": 5}}, {}, ("dependencies",)),
        ({"items": [1, "what"]}, {}, ("items",)),
        ({"description": ["a", "b"]}, {}, ("description",)),
        ({"items": "what"}, {}, ("items",)),
        ({"additionalProperties": "no"}, {}, ("additionalProperties",)),
        ({"$ref": 5}, {}, ("$ref",)),
        ({"patternProperties": {"[": {}}, "pattern": 5}, {}, ("patternProperties", "pattern")),
        ({"items": {"items": {"type": "anything"}}}, {"items": {"items": {}}}, ("type",)),
    ],
)
def test_what_no_draft_knows_is_left_out_and_named(
    wrong: dict[str, Any], left: dict[str, Any], lost: tuple[str, ...]
) -> None:
    made = modernised(wrong)
    assert made.schema == left
    assert made.lost == lost


@pytest.mark.parametrize(
    "name", ["filter[name]", "$.xgafv", "größe", "城市", "a b", "a/b", "", "x" * 65, "a:b", "@type", "é", "\n"]
)
def test_a_name_that_claude_refuses_is_altered_wherever_it_stands(name: str) -> None:
    made = modernised(
        {
            "properties": {name: STRING, "list": {"items": {"properties": {name: {"title": "T"}}, "required": [name]}}},
            "required": ["list", name],
            "dependentRequired": {name: ["list"], "list": [name]},
            "dependentSchemas": {name: {"required": [name]}},
            "default": {name: [{name: 1}]},
            "propertyNames": {"enum": [name, "list"]},
            "enum": [{name: 1}],
        }
    )
    other = made.renamed[name]
    assert made.schema == {
        "properties": {
            other: {"title": name, **STRING},
            "list": {"items": {"properties": {other: {"title": "T"}}, "required": [other]}},
        },
        "required": ["list", other],
        "dependentRequired": {other: ["list"], "list": [other]},
        "dependentSchemas": {other: {"required": [other]}},
        "default": {other: [{other: 1}]},
        "propertyNames": {"enum": [other, "list"]},
        "enum": [{other: 1}],
    }


def test_two_names_never_become_one() -> None:
    first = modernised({"properties": {"a b": {}}}).renamed["a b"]
    made = modernised({"properties": {"a b": {}, first: {}, "a/b": {}, "a:b": {}}})
    assert len(made.schema["properties"]) == 4
    assert made.renamed["a b"] != first


def test_a_pointer_leads_through_the_names_as_they_are_now() -> None:
    made = modernised(
        {"properties": {"a/b ü": {"properties": {"c": {}}}, "d": {"$ref": "#/properties/a~1b%20%C3%BC/properties/c"}}}
    )
    assert made.schema["properties"]["d"] == {"$ref": f"#/properties/{made.renamed['a/b ü']}/properties/c"}


def test_what_is_kept_of_one_request_is_not_changed_by_the_next() -> None:
    schema = {"type": "object", "properties": {"a": {"items": [STRING]}}, "anyOf": [{"required": ["a"]}]}
    first = modernised(schema)
    assert modernised({**schema}) is first
    large = {"properties": {f"p{i}": {"description": "x" * 100} for i in range(100)}}
    assert modernised(large) == modernised(large)


ARGUMENTS = [
    ('{"k": 1}', '{"größe": 1}'),
    ('{ "k" : {"k":[{"k":"k"}]}}', '{ "größe" : {"größe":[{"größe":"k"}]}}'),
    ('{"a": "\\"k\\": 2", "k": null}', '{"a": "\\"k\\": 2", "größe": null}'),
    ('{"a": ["k", "k"], "b": "k"}', '{"a": ["k", "k"], "b": "k"}'),
    ('["k", {"k": 1.50}]', '["k", {"größe": 1.50}]'),
    ('{"q": {"x": 1}, "k": {}}', '{"quo\\"te": {"x": 1}, "größe": {}}'),
    ('{"k', '{"k'),
    ('{"k": "cut, {\\"k', '{"größe": "cut, {\\"k'),
    ("", ""),
    ("k", "k"),
    (']}, "k": 1', ']}, "k": 1'),
    ('{"' + "long" * 30 + '": {"k": 1}}', '{"' + "long" * 30 + '": {"größe": 1}}'),
]


@pytest.mark.parametrize(("written", "shown"), ARGUMENTS)
def test_keys_are_given_back_and_nothing_else_is_touched(written: str, shown: str) -> None:
    names = {"k": "größe", "q": 'quo"te'}
    assert with_argument_names(written, names) == shown
    for step in range(1, 6):
        filter = ArgumentNames(names)
        pieces = [filter.feed(written[at : at + step]) for at in range(0, len(written), step)]
        assert "".join([*pieces, filter.release()]) == shown


def test_examples_of_calls_have_the_names_that_claude_knows() -> None:
    function = {"name": "f", "parameters": {"properties": {"my param": {}}}, "input_examples": [{"my param": "x"}]}
    asked = chat_request({"model": "m", "messages": HI, "tools": [{"type": "function", "function": function}]})
    (tool,) = to_message_params(asked, ModelFacts("m"), Options()).body["tools"]
    assert list(tool["input_schema"]["properties"]) == list(tool["input_examples"][0])


@pytest.mark.parametrize("schema", [{"type": "array", "items": STRING}, {"properties": {"a": {"enum": "abc"}}}])
def test_what_is_lost_of_a_schema_is_told_and_refused_in_strict_mode(schema: dict[str, Any]) -> None:
    asked = chat_request(
        {"model": "m", "messages": HI, "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
    )
    assert "schema_rewritten" in to_message_params(asked, ModelFacts("m"), Options()).reply.warnings
    with pytest.raises(UntranslatableRequest):
        to_message_params(asked, ModelFacts("m"), Options(strict=True))


def test_what_is_lost_of_an_answers_schema_is_told() -> None:
    schema = {"properties": {"a": {"type": "string", "maxLength": "5"}}, "required": ["a"]}
    answer = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    asked = chat_request({"model": "m", "messages": HI, "response_format": answer})
    assert to_message_params(asked, ModelFacts("m"), Options()).reply.warnings == ("schema_rewritten",)


def test_a_remembered_call_is_known_however_its_parameters_are_called_now() -> None:
    known = known_name("a b")
    blocks = [{"type": "tool_use", "id": "t", "name": "f", "input": {known: 1, "meta": {"a b": 5}}}]
    for given in ({known: 1, "meta": {"a b": 5}}, {"a b": 1, "meta": {"a b": 5}}, {known: 1, "meta": {known: 5}}):
        assert memory.matches(blocks, "", {"t": ("f", given)})
    for other in ({known: 2, "meta": {"a b": 5}}, {"a c": 1, "meta": {"a b": 5}}, {}):
        assert not memory.matches(blocks, "", {"t": ("f", other)})
