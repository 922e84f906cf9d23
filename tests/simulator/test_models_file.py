"""app/models.json is complete and means what the simulator makes of it."""

import json

import pytest

from app.simulator.models import DATA_FILE, EFFORTS, THINKING_TYPES, catalogue, model_info

DATA = json.loads(DATA_FILE.read_text())


@pytest.mark.parametrize("model_id", DATA["models"])
def test_every_model_states_every_fact(model_id):
    facts = DATA["models"][model_id]
    assert set(facts) == set(DATA["models"]["claude-opus-5"])
    assert set(facts["thinking"]) <= set(THINKING_TYPES)
    assert set(facts["effort"]) <= set(EFFORTS)
    assert facts["default_effort"] in (None, *facts["effort"])
    assert facts["thinking_default"] in ("off", "on", "always")


def test_no_listed_model_is_retired():
    assert not [name for name in DATA["models"] if name.startswith(tuple(DATA["retired"]))]


def test_always_thinking_models_cannot_switch_it_off():
    always = {name: facts for name, facts in DATA["models"].items() if facts["thinking_default"] == "always"}
    assert not [name for name, facts in always.items() if {"disabled", "between_tools"} & set(facts["thinking"])]


def test_a_retired_model_is_found_only_by_those_who_replay_old_traffic():
    assert catalogue().find("claude-3-opus-20240229") is None
    found = catalogue().find("claude-3-opus-20240229", known_only=False)
    assert found and not found.strict


def test_capabilities_name_every_thinking_type_and_effort():
    info = model_info(catalogue().names["claude-opus-5-5"])
    assert set(info["capabilities"]["thinking"]["types"]) == set(THINKING_TYPES)
    assert set(info["capabilities"]["effort"]) == {"supported", *EFFORTS}
