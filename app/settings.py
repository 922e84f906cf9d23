"""Every variable that Dragoman reads, declared once; the only reader of the environment.

Process settings (`Settings`) hold for the life of a process. Runtime settings (`RUNTIME_SETTINGS`) are only defaults
here: an admin changes them while the gateway runs, and storage/config.py keeps the change in the database.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from app.errors import ConfigError, shown

ROOT = Path(__file__).resolve().parents[1]
SHORTEST_KEY = 24
"""Characters of a client or admin key that somebody invented; shorter ones are warned of."""
RuntimeType = Literal["bool", "int", "str", "list", "object", "objects"]


@dataclass(frozen=True)
class RuntimeSetting:
    """A setting that lives in the database. `type` names its JSON shape; in the environment a list is
    separated by commas or semicolons, an object and a list of objects are JSON. `choices` limits a string, `minimum`
    an integer."""

    name: str
    type: RuntimeType
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    secret: bool = False


RUNTIME_SETTINGS: tuple[RuntimeSetting, ...] = (
    RuntimeSetting("ENABLE_ANTHROPIC_API", "bool", False, "Answer chat requests at all."),
    RuntimeSetting(
        "ANTHROPIC_API_BASE_URLS",
        "list",
        ["https://api.anthropic.com"],
        "Base URLs; one serves all keys, otherwise one for each key.",
    ),
    RuntimeSetting("ANTHROPIC_API_KEYS", "list", [], "Anthropic API keys.", secret=True),
    RuntimeSetting(
        "ANTHROPIC_API_CONFIGS",
        "object",
        {},
        'Per-connection settings, keyed by index ("0") or by base URL.',
        secret=True,
    ),
    RuntimeSetting(
        "ANTHROPIC_MODELS", "objects", [], "Models that override or add to what is learned from the upstream."
    ),
    RuntimeSetting("MODEL_ALIASES", "object", {}, 'Names that clients may use for a model, as {"gpt-4o": "claude-…"}.'),
    RuntimeSetting(
        "MODEL_ORDER",
        "list",
        [],
        "Ids of models that /v1/models lists first, in this order; programs often start on the first. Then come the "
        "newest Sonnet and the others, the newest first.",
    ),
    RuntimeSetting(
        "MODEL_PRICES",
        "object",
        {},
        "Prices that differ from the gateway's own list, in dollars for a million tokens, as in "
        '{"claude-opus-5": {"from": "2026-12-01", "input": 4, "output": 20}}; or a list of such rows.',
    ),
    RuntimeSetting(
        "ATTRIBUTION",
        "str",
        "auto",
        "How the books name the user whom a client speaks for (safety_identifier, user or metadata.user_id): plain as "
        "it is, hash without a way back, auto a hash of what has an @ in it and else plain, off not at all.",
        choices=("auto", "plain", "hash", "off"),
    ),
    RuntimeSetting(
        "BUDGET_TIMEZONE",
        "str",
        "UTC",
        "The time zone in which days, weeks and months of a client key's use begin, as Europe/Vienna.",
    ),
    RuntimeSetting(
        "DEFAULT_MAX_TOKENS",
        "int",
        0,
        "max_tokens for requests without a limit; 0 means the most the model can write.",
        minimum=0,
    ),
    RuntimeSetting("EXPOSE_REASONING", "bool", True, "Show Claude's thinking as reasoning_content."),
    RuntimeSetting(
        "COMPAT",
        "str",
        "lenient",
        "strict answers 400 where lenient ignores a field and says so in x-gateway-warnings.",
        choices=("lenient", "strict"),
    ),
    RuntimeSetting(
        "PROMPT_CACHE",
        "str",
        "auto",
        "auto has Anthropic cache prompts that are likely to come again, as OpenAI does by itself; passive only where "
        "the client asks for it; off never.",
        choices=("auto", "passive", "off"),
    ),
    RuntimeSetting(
        "SYSTEM_PLACEMENT",
        "str",
        "in_place",
        "Of system messages in the middle of a conversation. in_place: Claude gets them behind the user's message that "
        "they stand at, as a message of their own or as its text; hoist: at the top, which costs the prompt cache.",
        choices=("in_place", "hoist"),
    ),
    RuntimeSetting(
        "REMEMBER_ANSWERS",
        "bool",
        True,
        "Keep answers with signed thinking for 24 hours, encrypted, for clients that do not send the thinking back.",
    ),
    RuntimeSetting(
        "SERVER_TOOLS",
        "bool",
        True,
        "Clients may use what Anthropic runs or keeps for them: web search and fetch, code execution, MCP servers, "
        "containers, files. Otherwise such requests are refused.",
    ),
    RuntimeSetting(
        "REFUSAL_FINISH",
        "str",
        "content_filter",
        "The finish_reason of a refusal; stop for clients that take content_filter for a failure.",
        choices=("content_filter", "stop"),
    ),
    RuntimeSetting(
        "REFUSAL_TEXT",
        "str",
        "content",
        "Where a refusal's text stands. content: in refusal, and in content too where nothing else was written, for "
        "clients that show content alone; refusal: there alone, as with OpenAI.",
        choices=("content", "refusal"),
    ),
    RuntimeSetting(
        "ALWAYS_USAGE", "bool", False, "Usage on the last chunk of streams whose clients did not ask for it, too."
    ),
    RuntimeSetting(
        "IDLE_TIMEOUT_S",
        "int",
        300,
        "Seconds a stream may be silent upstream (keep-alive comments do not count) before it is given up.",
        minimum=1,
    ),
    RuntimeSetting(
        "REQUEST_DEADLINE_S",
        "int",
        600,
        "Seconds within which an answer must begin, and one that Anthropic gives in one piece must be whole. A long "
        "answer is streamed from Anthropic, and once begun only IDLE_TIMEOUT_S bounds it.",
        minimum=1,
    ),
)


def demo_environment(simulator_url: str) -> dict[str, str]:
    """The environment of a gateway that knows nothing but the simulator, and keeps apart from the real one."""
    not_taken = ("ANTHROPIC_", "DATABASE_URL", "SECRET_KEY")
    given = {k: v for k, v in os.environ.items() if not k.startswith(not_taken)}  # noqa: TID251  # this file reads it
    folder = Path(given.get("INSTANCE_PATH") or ROOT / "instance") / "demo"
    return {
        **given,
        "INSTANCE_PATH": str(folder),
        "DRAGOMAN_DEMO": "true",
        "ENABLE_ANTHROPIC_API": "true",
        "ANTHROPIC_API_BASE_URLS": simulator_url,
        "ANTHROPIC_API_KEYS": "sk-ant-simulator",
    }


def _setting(default: Any, help: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"help": help, "secret": secret})


@dataclass(frozen=True)
class Settings:
    """Process settings: the field `host` is the variable HOST. Lists are separated by commas or semicolons in the
    environment."""

    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(4117, "Port to listen on.")
    web_concurrency: int = _setting(1, "Worker processes.")
    instance_path: Path = _setting(  # noqa: RUF009  # a Path cannot be changed either
        Path("instance"),
        "Folder of the SQLite database, the generated secret key and the books' journal; it must outlive the process.",
    )
    database_url: str = _setting("", "SQLAlchemy URL; empty means SQLite under INSTANCE_PATH. postgres:// works.")
    redis_url: str = _setting(
        "",
        "Redis in which all workers and nodes together count failed sign-ins; empty: each worker counts for itself.",
        secret=True,
    )
    secret_key: str = _setting("", "Encrypts stored secrets and signs sessions; empty: SECRET_KEY_FILE.", secret=True)
    secret_key_file: str = _setting(
        "", "File with the secret key, read again at each change; empty: secret_key under INSTANCE_PATH (SQLite only)."
    )
    secret_key_fallbacks: tuple[str, ...] = _setting((), "Earlier secret keys that still decrypt.", secret=True)
    admin_username: str = _setting("", "With ADMIN_PASSWORD: makes the first admin account once.")
    admin_password: str = _setting("", "See ADMIN_USERNAME.", secret=True)
    anthropic_api_key: str = _setting(
        "",
        "One Anthropic key, by the name that Anthropic's SDKs read; counts while ANTHROPIC_API_KEYS is not set.",
        secret=True,
    )
    admin_api_keys: tuple[str, ...] = _setting((), "Admin API keys, valid exactly while listed.", secret=True)
    gateway_api_keys: tuple[str, ...] = _setting((), "Client keys, valid exactly while listed.", secret=True)
    metrics_token: str = _setting("", "Bearer token for /metrics and the details of /readyz.", secret=True)
    trusted_proxies: int = _setting(0, "Number of reverse proxies whose X-Forwarded-* headers are believed.")
    cors_allow_origins: tuple[str, ...] = _setting((), "Origins whose pages may call the API from a browser.")
    log_level: str = _setting("INFO", "DEBUG, INFO, WARNING or ERROR.")
    ledger_sync: str = _setting(
        "normal",
        "normal: what is in the books survives whatever happens to the gateway, while a power cut may take the last "
        "moments with it; full waits for the disk. The configuration and keys always do.",
    )
    ledger_retention_days: int = _setting(
        90, "Days for which the books keep each request; 0 for ever. Sums by the hour stay for 800 days."
    )
    access_log: bool = _setting(True, "A line in the log for each request; false: none.")
    max_body_bytes: int = _setting(32 * 1024 * 1024, "Largest request body.")
    graceful_timeout: int = _setting(120, "Seconds that running requests get to finish when the service stops.")
    max_requests: int = _setting(0, "Requests after which a worker is replaced by a fresh one; 0 means never.")
    https_proxy: str = _setting("", "Proxy for the way to Anthropic (https).", secret=True)
    http_proxy: str = _setting("", "Proxy for http base URLs.", secret=True)
    no_proxy: str = _setting("", "Hosts that are reached without a proxy.")
    ssl_cert_file: str = _setting("", "PEM file of the certificate authorities to trust instead of the built-in ones.")
    dragoman_demo: bool = _setting(False, "Tell on the pages that this is the demo; `make demo` sets it.")
    runtime: Mapping[str, str] = field(default_factory=dict, repr=False, metadata={"help": "", "secret": True})

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Raises ConfigError that names the variable."""
        environ = os.environ if environ is None else environ  # noqa: TID251  # this is that reader
        values: dict[str, Any] = {"instance_path": ROOT / "instance"}  # wherever the command is given
        for each in fields(cls):
            if each.name == "runtime":
                continue
            name = each.name.upper()
            raw = environ.get(name) or (environ.get(name.lower()) if name.endswith("_PROXY") else None)
            if raw is not None and raw.strip():
                values[each.name] = _parse(name, raw.strip(), each.default)
        runtime = {s.name: environ[s.name] for s in RUNTIME_SETTINGS if environ.get(s.name, "").strip()}
        if "anthropic_api_key" in values:
            runtime.setdefault("ANTHROPIC_API_KEYS", values["anthropic_api_key"])
        settings = cls(**values, runtime=runtime)
        _check(settings)
        return settings

    @property
    def doubts(self) -> list[str]:
        """What may not be meant as it is set, for the log of a start. No secret stands in it."""
        found = []
        if self.anthropic_api_key and self.runtime.get("ANTHROPIC_API_KEYS") == self.anthropic_api_key:
            found.append(
                "ANTHROPIC_API_KEY is used as the gateway's Anthropic key, since ANTHROPIC_API_KEYS is not set."
            )
        for name, keys in (("GATEWAY_API_KEYS", self.gateway_api_keys), ("ADMIN_API_KEYS", self.admin_api_keys)):
            found += [
                f"{name}[{place}] has fewer than {SHORTEST_KEY} characters and might be guessed; "
                "`openssl rand -hex 24` makes a better one."
                for place, key in enumerate(keys)
                if len(key) < SHORTEST_KEY
            ]
        found += [
            f"GATEWAY_API_KEYS[{place}] stands in ADMIN_API_KEYS, too: whoever has this client key is an admin."
            for place, key in enumerate(self.gateway_api_keys)
            if key in self.admin_api_keys
        ]
        urls = split_list(self.runtime.get("ANTHROPIC_API_BASE_URLS", "https://api.anthropic.com"))
        secrets = split_list(self.runtime.get("ANTHROPIC_API_KEYS", ""))
        found += [
            f"ANTHROPIC_API_KEYS[{place}] does not begin with sk-ant-, as Anthropic's own keys do."
            for place, (url, key) in enumerate(
                zip(urls * len(secrets) if len(urls) == 1 else urls, secrets, strict=False)
            )
            if urlsplit(url).hostname == "api.anthropic.com" and not key.startswith("sk-ant-")
        ]
        return found

    @property
    def database_uri(self) -> str:
        """SQLAlchemy's form: psycopg 3 for PostgreSQL, an absolute path for the default SQLite file."""
        url = self.database_url
        if not url:
            return f"sqlite:///{self.instance_path.resolve() / 'dragoman.db'}"
        for prefix in ("postgres://", "postgresql://"):
            if url.startswith(prefix):
                return "postgresql+psycopg://" + url.removeprefix(prefix)
        return url

    @property
    def uses_sqlite(self) -> bool:
        return not self.database_url or self.database_url.startswith("sqlite")


def _parse(name: str, raw: str, default: Any) -> Any:
    if isinstance(default, bool):
        return parse_bool(name, raw)
    if isinstance(default, int):
        try:
            return int(raw)
        except ValueError:
            raise ConfigError(f"{name} must be a whole number, not {shown(raw)}.") from None
    if isinstance(default, tuple):
        return tuple(split_list(raw))
    return Path(raw) if isinstance(default, Path) else raw


def _check(settings: Settings) -> None:
    """What a worker would stumble over only after it was started."""
    if settings.log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigError(f"LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, not {shown(settings.log_level)}.")
    if settings.ledger_sync not in ("normal", "full"):
        raise ConfigError(f"LEDGER_SYNC must be normal or full, not {shown(settings.ledger_sync)}.")
    for name, least, most in (
        ("LEDGER_RETENTION_DAYS", 0, 100_000),
        ("PORT", 0, 65_535),
        ("WEB_CONCURRENCY", 1, 1_000),
        ("TRUSTED_PROXIES", 0, 100),
        ("MAX_BODY_BYTES", 1_000, 2**31 - 1),
        ("GRACEFUL_TIMEOUT", 1, 86_400),
        ("MAX_REQUESTS", 0, 2**31 - 1),
    ):
        if not least <= getattr(settings, name.lower()) <= most:
            raise ConfigError(f"{name} must be from {least} to {most}, not {getattr(settings, name.lower())}.")


def parse_bool(name: str, raw: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if raw.lower() not in known:
        raise ConfigError(f"{name} must be true or false, not {shown(raw)}.")
    return known[raw.lower()]


def split_list(raw: str) -> list[str]:
    """At commas, and at semicolons as Open WebUI has it; neither stands in a URL or a key."""
    return [part.strip() for part in re.split("[,;]", raw) if part.strip()]


def settings_table() -> str:
    """All variables as a Markdown table: README's."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for each in fields(Settings):
        if each.name != "runtime":
            rows.append(_row(each.name.upper(), _shown(each.default), each.metadata["help"]))
    rows.append(_row("**Runtime settings**", "", "can be changed while the gateway runs"))
    for setting in RUNTIME_SETTINGS:
        accepted = f" One of: {', '.join(setting.choices)}." if setting.choices else ""
        rows.append(_row(setting.name, _shown(setting.default), setting.help + accepted))
    return "\n".join(rows)


def _row(name: str, default: str, help: str) -> str:
    name = name if name.startswith("*") else f"`{name}`"
    return f"| {name} | {f'`{default}`' if default else ''} | {help.replace('|', chr(92) + '|')} |"


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list | tuple):
        return ",".join(map(str, default))
    return "" if default in ("", {}) else str(default)


def prepare_metrics_folder() -> None:
    """A folder for the counts of this master's workers, named to prometheus_client, which reads it from the
    environment. Call before prometheus_client is imported; called again (a reload) it keeps the counts.

    In memory: prometheus_client maps these files, and a full disk under a mapped file kills the process.
    """
    if os.getpid() in _metrics_folders:
        return
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    for left_over in place.glob(f"{_METRICS_PREFIX}*"):
        _remove_unless_in_use(left_over)
    while True:
        folder = tempfile.mkdtemp(prefix=_METRICS_PREFIX, dir=place)  # mode 0700
        lock = _locked(folder)
        if lock is not None and os.path.isdir(folder):
            break
    _metrics_folders[os.getpid()] = lock
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # noqa: TID251  # the only way to tell it
    atexit.register(_remove_at_exit, os.getpid(), folder)


def metrics_folder() -> Path | None:
    """None where a process counts for itself alone."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")  # noqa: TID251  # see prepare_metrics_folder()
    return Path(folder) if folder else None


_METRICS_PREFIX = "dragoman-metrics-"
_metrics_folders: dict[int, int] = {}  # by process; open and locked: workers share the lock, a successor does not


def _locked(folder: str | Path) -> int | None:
    """Held by the process and its children until the last of them has ended, however it ended."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_unless_in_use(folder: Path) -> None:
    """What a master that was killed left behind."""
    lock = _locked(folder)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_at_exit(pid: int, folder: str) -> None:
    if os.getpid() == pid:  # workers leave by the same door
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def hidden_from_libraries(name: str) -> Iterator[None]:
    """While a library makes something of the environment that it should not know."""
    value = os.environ.pop(name, None)  # noqa: TID251  # as above: the only way to tell it
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value  # noqa: TID251  # as above
