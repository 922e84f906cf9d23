"""Names of models that nothing lists are told to the admin with what was probably meant, however names are written."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from app.settings import RUNTIME_SETTINGS
from app.storage.config import ConfigSnapshot, Connection
from app.storage.connections import to_connections
from app.upstream.names import OVERLAY, key_warnings, permission, plain, warnings

URL = "https://api.anthropic.com"
DEFAULTS: Mapping[str, Any] = {setting.name: setting.default for setting in RUNTIME_SETTINGS}


def snapshot(*, keys: int = 1, configs: Mapping[str, Any] | None = None, **values: Any) -> ConfigSnapshot:
    pairs = [(URL, f"sk-ant-{number}") for number in range(keys)]
    return ConfigSnapshot(
        generation=1,
        enabled=True,
        connections=to_connections(pairs, configs or {}, salt="", aliases={}),
        models=tuple(values.get("ANTHROPIC_MODELS", ())),
        values={**DEFAULTS, **values},
        sources={},
    )


def nothing_learned(connection: Connection) -> Collection[str]:
    return ()


def test_an_alias_whose_target_nothing_lists_is_told_with_the_nearest_name() -> None:
    now = snapshot(MODEL_ALIASES={"gpt-4o": "claude-sonet-5-5", "o3": "something-else", "gpt-5": "claude-opus-5-5"})
    assert warnings({"MODEL_ALIASES"}, now, nothing_learned) == [
        "No connection lists the model claude-sonet-5-5, which gpt-4o stands for. Did you mean claude-sonnet-5-5?",
        "No connection lists the model something-else, which o3 stands for.",
    ]
    assert warnings({"COMPAT"}, now, nothing_learned) == []


def test_an_alias_of_an_alias_is_told_since_it_stands_for_no_model() -> None:
    now = snapshot(MODEL_ALIASES={"gpt-4o": "claude-opus-5-5", "gpt-5": "gpt-4o"})
    told = ["gpt-4o, which gpt-5 stands for, is itself an alias; an alias must name a model."]
    assert warnings({"MODEL_ALIASES"}, now, nothing_learned) == told


def test_an_alias_that_hides_a_model_is_told_unless_it_stands_for_that_very_model() -> None:
    aliases = {
        "claude-opus-5": "claude-opus-5-5",
        "claude-opus-5-5": "Claude-Opus-5.5",
        "Claude-Opus-4-8": "claude-opus-5",
    }
    assert warnings({"MODEL_ALIASES"}, snapshot(MODEL_ALIASES=aliases), nothing_learned) == [
        "The alias claude-opus-5 hides the model of that name: who asks for it gets claude-opus-5-5."
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("claude-opus-5-5", "Claude-Opus-5-5", "claude-opus-5.5", "anthropic/claude-opus-5-5"),
        *("claude-haiku-4-5", "claude-haiku-4-5-20251001", "gpt-4o", "GPT-4o", "my-own"),
    ],
)
def test_a_name_may_be_written_in_every_way_in_which_it_is_understood(name: str) -> None:
    now = snapshot(MODEL_ALIASES={"gpt-4o": "claude-opus-5-5"}, ANTHROPIC_MODELS=[{"id": "my-own"}])
    assert key_warnings([name], now, nothing_learned) == []
    assert warnings({"MODEL_ORDER"}, snapshot(**{**now.values, "MODEL_ORDER": [name]}), nothing_learned) == []


def test_a_connection_lists_its_models_with_its_prefix_what_it_learned_and_what_it_is_limited_to() -> None:
    configs = {"0": {"prefix_id": "team"}, "1": {"model_ids": ["claude-opus-5"]}, "2": {"enable": False}}
    now = snapshot(keys=3, configs=configs)

    def learned(connection: Connection) -> Collection[str]:
        return {0: ("claude-mine", "claude-yours"), 1: ("claude-opus-5", "claude-opus-4-8"), 2: ("of-none",)}[
            connection.index
        ]

    assert key_warnings(["team.claude-mine", "Team.Claude-Yours", "claude-opus-5"], now, learned) == []
    assert key_warnings(["claude-mine", "claude-opus-4-8", "of-none"], now, learned) == [
        "No connection lists the model claude-mine, which the key may use. Did you mean team.claude-mine?",
        "No connection lists the model claude-opus-4-8, which the key may use. Did you mean claude-opus-5?",
        "No connection lists the model of-none, which the key may use.",
    ]


def test_a_model_that_is_added_is_told_only_if_it_looks_like_an_error() -> None:
    added = ["claude-sonet-5-5", "claude-sonnet-6", "my-own-model", "claude-opus-5-5"]
    now = snapshot(ANTHROPIC_MODELS=[{"id": id} for id in added])
    assert warnings({"ANTHROPIC_MODELS"}, now, nothing_learned) == [
        "No connection lists the model claude-sonet-5-5, which is added to the models. Did you mean claude-sonnet-5-5?"
    ]


def test_what_a_connection_is_limited_to_is_told_if_its_upstream_does_not_list_it() -> None:
    now = snapshot(configs={"0": {"name": "main", "model_ids": ["claude-opus-5-5", "mine", "claude-opos-5-5"]}})
    told = "No connection lists the model claude-opos-5-5, which main is to serve. Did you mean claude-opus-5-5?"
    assert warnings({"ANTHROPIC_API_CONFIGS"}, now, nothing_learned) == [told]
    assert warnings({"ANTHROPIC_API_CONFIGS"}, now, lambda connection: ["claude-opus-5-5"]) == [
        "No connection lists the model mine, which main is to serve.",
        told,
    ]


def test_of_many_names_a_few_are_told_and_the_rest_counted_without_holding_the_worker_up() -> None:
    names = [f"claude-sonnet-{number}" for number in range(20_000)]
    now = snapshot(MODEL_ORDER=[*names, "x" * 100_000], ANTHROPIC_MODELS=[{"id": f"mine-{n}"} for n in range(20_000)])
    started = time.process_time()
    told = warnings({"MODEL_ORDER", "ANTHROPIC_MODELS"}, now, nothing_learned)
    assert time.process_time() - started < 2
    assert len(told) == 11
    assert told[-1] == f"Nor does one list {len(names) + 1 - 10 - len({'claude-sonnet-5'})} more of these names."
    assert max(map(len, told)) < 400


def test_a_key_may_use_what_it_names_however_that_is_written_and_an_alias_gives_no_more_than_itself() -> None:
    may_use = permission(["Claude-Opus-5.5", "claude-haiku-4-5", "gpt-4o"])
    assert may_use("claude-opus-5-5", None)
    assert may_use("claude-haiku-4-5-20251001", None)
    assert may_use("claude-sonnet-5-5", "GPT-4o")
    assert not may_use("claude-sonnet-5-5", None)
    assert not may_use("claude-sonnet-5-5", "claude-opus-5.5-alias")
    assert permission(None)("anything", None)


def test_short_names_are_those_of_the_dated_ones() -> None:
    assert {plain(alias) for id, entry in OVERLAY.items() for alias in entry["aliases"]} <= set(OVERLAY)


def test_the_command_line_looks_names_up_without_the_sdk() -> None:
    code = "import sys, app.upstream.names; sys.exit('anthropic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
