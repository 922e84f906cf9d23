"""What the real API refuses. Not written yet: takes everything."""


from typing import Any

from app.simulator.models import Model


def validate(body: dict[str, Any], headers: dict[str, str], model: Model, account: str = "") -> dict[str, Any]:
    return body


def validate_count_tokens(body: dict[str, Any], headers: dict[str, str], model: Model, account: str = "") -> None:
    return None


def validate_version(headers: dict[str, str]) -> None:
    return None
