"""The command line: `dragoman run`, and what an admin does on the machine itself.

Imports wait until a command needs them, so that `run` has handed over to gunicorn in a fraction of a second.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.command import command
from app.errors import ConfigError, GatewayError, NotFound
from app.settings import ROOT, RUNTIME_SETTINGS, Settings, demo_environment
from app.version import VERSION

if TYPE_CHECKING:
    from flask import Flask

    from app.reconcile import Reconciled

WHO = "command line"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}
_OF_THE_ENVIRONMENT = (
    "Not listed: keys of the gateway's environment (GATEWAY_API_KEYS, ADMIN_API_KEYS), valid while they stand there."
)
_FROM_ELSEWHERE = "From another machine: put this machine's name in place of 127.0.0.1"


@contextmanager
def said_in_one_line() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    except GatewayError as error:
        raise click.ClickException(error.message) from None


class _Group(click.Group):
    """Lists its commands with the whole of their descriptions."""

    group_class = type

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        cmd.short_help = cmd.short_help or cmd.help
        super().add_command(cmd, name)


@click.group(cls=_Group)
@click.version_option(VERSION, prog_name="dragoman")
def main() -> None:
    """Dragoman lets OpenAI-compatible clients talk to Claude."""


_ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""For glibc: left to itself it has a heap for each thread, and more and more of the large blocks in them, and the holes
between never fill again in a process that lives for weeks."""


_DESCRIPTORS = 65_536


@main.command()
def run() -> None:
    """Check the settings, migrate the database and start the gateway."""
    with said_in_one_line():
        settings = Settings.from_environment()
        _check_runtime_settings(settings)
        _check_port(settings)
        _prepare(settings)
    _say_where(settings)
    _allow_descriptors()
    os.execve(
        sys.executable,
        [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "--pythonpath", str(ROOT), "wsgi:app"],
        {**_ALLOCATOR, **os.environ},  # noqa: TID251  # handed on as it is
    )


@main.command()
@click.option("--scenarios", is_flag=True, help="List the simulator's sim-… models, each of which plays one part.")
def demo(scenarios: bool) -> None:
    """The whole product against the bundled simulator, with a database of its own and without an Anthropic key."""
    command = [sys.executable, "-m", "app.cli", "simulator", "--port", "0", *(["--scenarios"] if scenarios else [])]
    simulated = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        with said_in_one_line():
            said = simulated.stdout.readline() if simulated.stdout else ""
            if "http" not in said:
                raise ConfigError(f"The simulator did not start: {said.strip() or 'it said nothing'}")
            variables = demo_environment(said[said.index("http") :].split()[0])
        gateway = subprocess.Popen([sys.executable, "-m", "app.cli", "run"], env=variables)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: gateway.terminate())
        sys.exit(gateway.wait())
    finally:
        simulated.terminate()
        simulated.wait()


@main.command()
def migrate() -> None:
    """Bring the database to this version's schema."""
    with said_in_one_line():
        app = _app(Settings.from_environment(), migrated=False)
        from app.storage.migrate import head, upgrade

        changed = upgrade(app)
        click.echo(f"The database {'was brought to' if changed else 'is at'} revision {head()}.")


@main.command("setup-link")
def setup_link() -> None:
    """Print the link that makes the first admin account."""
    with said_in_one_line():
        settings = Settings.from_environment()
        app = _existing(settings)
        from app.storage import accounts

        if accounts.any_exists(app):
            lost = command(settings, "admin", "reset-password", "USERNAME")
            raise ConfigError(f"There is an admin already. A lost password: {lost}")
        click.echo(_setup_link(app, settings))
        if _listens_everywhere(settings):
            click.echo(_FROM_ELSEWHERE, err=True)


@main.command("settings")
def list_settings() -> None:
    """Every variable with its default, as README has them."""
    from app.settings import settings_table

    click.echo(settings_table())


@main.command()
def fields() -> None:
    """What becomes of each field, content part and tool of a request, as docs/compatibility.md has it."""
    from app.translate.chat.compatibility import TABLES

    for name, table in TABLES.items():
        click.echo(f"{name}\n\n{table()}\n")


@main.group()
def admin() -> None:
    """Accounts of the web interface."""


def _password_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")(command)


@admin.command("create")
@click.argument("username")
@_password_option
def admin_create(username: str, password_stdin: bool) -> None:
    """Make an account."""
    with said_in_one_line():
        app = _app(Settings.from_environment())
        from app.storage import accounts

        accounts.create(app, username, _password(password_stdin), who=WHO)
        click.echo(f"{username} can sign in now.")


@admin.command("reset-password")
@click.argument("username")
@_password_option
def admin_reset_password(username: str, password_stdin: bool) -> None:
    """Set a new password; the account's sessions end."""
    with said_in_one_line():
        app = _existing(Settings.from_environment())
        from app.storage import accounts

        if username.strip() not in {admin.username for admin in accounts.everyone(app)}:
            raise NotFound(f"There is no admin called {username}.")
        accounts.set_password(app, username, _password(password_stdin), who=WHO)
        click.echo(f"{username} has a new password; earlier sessions have ended.")


@admin.command("list")
def admin_list() -> None:
    """The accounts, by name."""
    with said_in_one_line():
        app = _existing(Settings.from_environment())
        from app.storage import accounts

        everyone = accounts.everyone(app)
        _echo_table([("USERNAME", "MADE"), *((each.username, _day(each.created_at)) for each in everyone)])


@admin.command("remove")
@click.argument("username")
def admin_remove(username: str) -> None:
    """Remove an account; its sessions end at once. The last one stays."""
    with said_in_one_line():
        app = _existing(Settings.from_environment())
        from app.storage import accounts

        accounts.remove(app, username, who=WHO)
        click.echo(f"{username} can no longer sign in.")


@main.group()
def keys() -> None:
    """Client keys."""


@keys.command("create")
@click.argument("name")
@click.option("--owner", default="", help="Person or program that uses it.")
@click.option("--admin", "is_admin", is_flag=True, help="May also read and change the configuration.")
@click.option("--model", "models", multiple=True, help="A model that it may use; several times for several; else all.")
@click.option("--days", type=click.IntRange(1), help="Days until it expires; else never.")
def keys_create(name: str, owner: str, is_admin: bool, models: tuple[str, ...], days: int | None) -> None:
    """Make a key. It is shown this once."""
    with said_in_one_line():
        app = _existing(Settings.from_environment())
        _, secret = app.extensions["dragoman"].keys.create(
            name=name,
            owner=owner,
            scope="admin" if is_admin else "client",
            models=models or None,
            expires_at=int(time.time()) + days * 86_400 if days else None,
            who=WHO,
        )
        click.echo(secret)
        from app.upstream.names import key_warnings

        for warning in key_warnings(models, app.extensions["dragoman"].config.snapshot, lambda connection: ()):
            click.echo(f"Warning: {warning}", err=True)


@keys.command("list")
def keys_list() -> None:
    """The keys made here, the newest first."""
    with said_in_one_line():
        app = _existing(Settings.from_environment())
        rows = [("ID", "KEY", "SCOPE", "STATE", "NAME", "OWNER", "MODELS", "EXPIRES", "USED")]
        for key in app.extensions["dragoman"].keys.list():
            state = "valid"
            if key.revoked_at is not None:
                state = "revoked"
            elif key.expires_at is not None and key.expires_at <= time.time():
                state = "expired"
            models = "all" if key.models is None else ",".join(key.models)
            expires = (
                "never" if key.expires_at is None else _day(key.expires_at - 1)
            )  # the last day on which it is valid
            used = "never" if key.last_used_at is None else _day(key.last_used_at)
            rows.append((key.id, key.masked, key.scope, state, key.name, key.owner or "-", models, expires, used))
        _echo_table(rows)
        click.echo(_OF_THE_ENVIRONMENT, err=True)


@keys.command("revoke")
@click.argument("id")
def keys_revoke(id: str) -> None:
    """Refuse a key from now on; every worker obeys within a second. ID is the one that `keys list` shows."""
    with said_in_one_line():
        settings = Settings.from_environment()
        app = _existing(settings)
        try:
            revoked = app.extensions["dragoman"].keys.revoke(id, who=WHO)
        except NotFound:
            listed = command(settings, "keys", "list")
            raise NotFound(f"There is no key {id}. Give the ID that this shows: {listed}") from None
        click.echo(f"{revoked.id} ({revoked.name}) is revoked.")


class _Instant(click.ParamType[datetime]):
    """A day, which begins in UTC, or RFC 3339 with its zone."""

    name = "day or instant"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:
        try:
            at = datetime.fromisoformat(value)
            if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
                at = at.replace(tzinfo=UTC)
            if at.tzinfo is None:
                raise ValueError(value)
            return at.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        raise click.BadParameter(
            f"{value!r} is neither a day, as 2026-11-29, nor an instant with its zone, as 2026-11-29T12:00:00Z."
        )


def _range_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--to", "end", type=_Instant(), required=True, help="Not included.")(command)
    return click.option("--from", "begin", type=_Instant(), required=True, help="Included.")(command)


@main.group()
def prices() -> None:
    """What tokens cost."""


@prices.command("list")
@click.argument("models", nargs=-1)
def prices_list(models: tuple[str, ...]) -> None:
    """Dollars for a million tokens; of all models, or of those named. The last row whose day has come is in force."""
    with said_in_one_line():
        app = _existing(Settings.from_environment())
        known = app.extensions["dragoman"].config.snapshot.prices
        names = [known.listed(model) for model in models]
        for model, name in zip(models, names, strict=True):
            if name is None:
                raise NotFound(f"{model} has no price: what it costs is not known. Set one in MODEL_PRICES.")
        rows: list[tuple[str, ...]] = [
            ("MODEL", "FROM", "FOR", "INPUT", "WRITE 5M", "WRITE 1H", "READ", "OUTPUT", "VERSION")
        ]
        for model, prices in known.models.items():
            if not models or model in names:
                rows += [(model, *cells) for price in prices for cells in price.table()]
        _echo_table(rows)


@prices.command("recompute")
@_range_options
@click.option("--model", help="Requests that this model answered alone, by its name in the books.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Tell what would change, and change nothing.")
def prices_recompute(begin: datetime, end: datetime, model: str | None, is_dry: bool) -> None:
    """Charge requests in the books again that had no price, or another one than is in force now."""
    with said_in_one_line():
        app = _existing(Settings.from_environment())
        from app.storage.recompute import recompute

        done = recompute(app, begin, end, model=model, is_dry=is_dry, who=WHO)
        for name, count in sorted(done.by_model.items()):
            click.echo(f"{name}: {count} of them {'would change' if is_dry else 'changed'}")
        unknown = f"of {done.still_unknown} the cost is not known."
        if not done.changed:
            click.echo(f"{done.rows} requests, and none would cost anything else; {unknown}")
            return
        verb = "would cost" if is_dry else "cost"
        click.echo(
            f"{done.changed} of {done.rows} requests {verb} {_dollars(done.after_micros)}, where they cost "
            f"{_dollars(done.before_micros)}; {unknown}"
        )


@main.command("reconcile")
@_range_options
@click.option("--connection", help="One connection alone, by its id or name; else all.")
@click.option("--api-key-id", "key_ids", multiple=True, help="The id at Anthropic of a key, where none is found by it.")
@click.option("--json", "as_json", is_flag=True, help="Tell all of it as JSON.")
def reconcile_(begin: datetime, end: datetime, connection: str | None, key_ids: tuple[str, ...], as_json: bool) -> None:
    """Compare the books with Anthropic's Analytics reports. The admin key comes from ANTHROPIC_ADMIN_KEY, or as a line
    on standard input; it is kept nowhere. Exits with 0 where they are equal, or differ for reasons that the books
    know, 1 where they differ, 2 where that could not be found out."""
    try:
        app = _existing(Settings.from_environment())
        from app.reconcile import reconcile

        key = os.environ.get("ANTHROPIC_ADMIN_KEY") or sys.stdin.readline().strip()  # noqa: TID251  # of this alone
        if not key:
            raise ConfigError("Set ANTHROPIC_ADMIN_KEY, or give the admin key on standard input.")
        done = reconcile(app, begin, end, key, connection=connection, key_ids=key_ids, who=WHO)
    except (ConfigError, GatewayError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps(done.as_json(), indent=2))
    else:
        _echo_reconciled(done)
    sys.exit(1 if done.verdict == "differs" else 0)


def _echo_reconciled(done: Reconciled) -> None:
    click.echo(f"From {done.begin.isoformat()} to {done.end.isoformat()}, of {', '.join(done.connections)}.\n")
    rows: list[tuple[str, ...]] = [("MODEL", "", "REQUESTS", "AT ANTHROPIC", "TOKENS", "AT ANTHROPIC")]
    for line in done.lines:
        ours, theirs = line.booked, line.reported
        counts = (f"{n:,}" for n in (ours.requests, theirs.requests, ours.total, theirs.total))
        rows.append((str(line.kind), line.verdict, *counts))
    _echo_table(rows)
    rows = [("COST IN $", "", "BOOKED", "AT LIST PRICE", "CHARGED")]
    for cost in done.costs:
        amounts = (f"{amount / 1_000_000:,.6f}" for amount in (cost.booked, cost.listed, cost.charged))
        rows.append((cost.what, "equal" if cost.is_equal else "differs", *amounts))
    click.echo()
    _echo_table(rows)
    said = [f"{line.kind}: {cause}" for line in done.lines for cause in line.causes]
    said += [f"{cost.what}: what {cost.unknown} cost is not known" for cost in done.costs if cost.unknown]
    for text in [*said, *done.twice, *done.minutes]:
        click.echo(f"- {text}")
    words = {"equal": "Equal.", "explained": "Equal but for what is said above.", "differs": "Different."}
    click.echo(f"\n{words[done.verdict]}")


def _dollars(micros: int) -> str:
    return f"${micros // 1_000_000:,}.{micros % 1_000_000:06}"


@main.group("secrets")
def secrets_group() -> None:
    """Encryption at rest."""


@secrets_group.command("reencrypt")
def secrets_reencrypt() -> None:
    """Encrypt every stored secret with the current secret key, so that earlier ones can be dropped."""
    with said_in_one_line():
        app = _existing(Settings.from_environment())
        done, lost = app.extensions["dragoman"].config.reencrypt(who=WHO)
        click.echo(f"{done} values are encrypted with the current secret key.")
        if lost:
            raise ConfigError(f"Not decryptable with any key at hand, and left as they are: {', '.join(lost)}.")


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulator(arguments: tuple[str, ...]) -> None:
    """A stand-in for Anthropic's API, to try things out with."""
    from app.simulator.server import main as serve

    serve(list(arguments))


def _echo_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _day(seconds: int) -> str:
    """An ISO date in UTC."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _app(settings: Settings, *, migrated: bool = True) -> Flask:
    from app import create_storage_app

    app = create_storage_app(settings)
    if migrated:
        from app.storage.migrate import upgrade

        upgrade(app)
    return app


def _existing(settings: Settings) -> Flask:
    """For commands that look after a gateway: a database made for them in the wrong place would help nobody."""
    from sqlalchemy import make_url

    url = make_url(settings.database_uri)
    path = Path(url.database or "") if settings.uses_sqlite else None
    if path is not None and not path.exists():
        place = path if settings.database_url else path.parent
        variable = "DATABASE_URL" if settings.database_url else "INSTANCE_PATH"
        remedy = f"Start the gateway once, which makes one, or set {variable} to what the gateway was started with."
        demo = path.parent / "demo"
        if not settings.database_url and (demo / path.name).exists():
            remedy += (
                f" That of the demo is in {demo}: begin the command with INSTANCE_PATH={shlex.quote(str(_near(demo)))}."
            )
        raise ConfigError(f"There is no Dragoman database in {place}. {remedy}")
    app = _app(settings, migrated=False)
    from app.storage.migrate import revision, upgrade

    if revision(app) is None:
        shown = url.render_as_string(hide_password=True)
        raise ConfigError(f"There is no Dragoman database in {shown}. Start the gateway once: it makes one.")
    upgrade(app)
    return app


def _check_runtime_settings(settings: Settings) -> None:
    from app.storage.validation import from_environment

    for setting in RUNTIME_SETTINGS:
        if setting.name in settings.runtime:
            from_environment(setting, settings)


def _allow_descriptors() -> None:
    """A shell's usual 1,024 would be 500 streams, of two sockets each."""
    with suppress(OSError, ValueError):  # where limits are another's to set, they stay as they are
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_port(settings: Settings) -> None:
    host, port = settings.host.strip("[]"), settings.port
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        raise ConfigError(f"HOST: {settings.host} is not an address of this machine.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"Port {port} is taken by another program. Choose another one, as in PORT={port + 1}."
            ) from None
        if error.errno == errno.EACCES:
            raise ConfigError(f"Port {port} needs root's rights. Choose one above 1023, as in PORT=4117.") from None
        raise ConfigError(f"HOST: cannot listen on {settings.host}:{port} ({error.strerror}).") from None


def _prepare(settings: Settings) -> None:
    """Everything the database needs before the first worker starts, and the set-up link when nobody can sign in yet."""
    from app.storage import journal
    from app.storage.secrets import Vault
    from app.storage.startup import is_ready

    Vault(settings)
    journal.check(journal.folder_of(settings))
    if is_ready(settings):
        return
    app = _app(settings)
    from app.storage import accounts

    accounts.create_from_environment(app, settings)
    if not accounts.any_exists(app):
        click.echo(f"\n  Make the first admin account at:\n\n    {_setup_link(app, settings)}\n")
        if _listens_everywhere(settings):
            click.echo(f"  {_FROM_ELSEWHERE}\n")


def _say_where(settings: Settings) -> None:
    if settings.dragoman_demo:
        click.echo(f"Demo: answers come from a simulator; data is in {_near(settings.instance_path)}")
    url = _url(settings)
    click.echo(f"Admin pages: {url}/admin   For your programs: {url}/v1")
    click.echo("Ctrl-C stops at once; kill (SIGTERM) lets running answers finish.")


def _near(path: Path) -> Path:
    """Relative where it is below the folder one is in."""
    whole, here = path.resolve(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


def _listens_everywhere(settings: Settings) -> bool:
    return settings.host in _EVERYWHERE


def _url(settings: Settings) -> str:
    """Where a browser on this machine finds the gateway."""
    return f"http://{_EVERYWHERE.get(settings.host, settings.host)}:{settings.port}"


def _setup_link(app: Flask, settings: Settings) -> str:
    from app.storage import accounts

    token = accounts.setup_token(app.extensions["dragoman"].vault)
    return f"{_url(settings)}/setup#token={token}"


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigError(
            "There is no terminal to ask for the password at. Give it on standard input: --password-stdin"
        )
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


if __name__ == "__main__":
    main()
