"""The command line: `dragoman run`, and what an admin does on the machine itself.

Imports wait until a command needs them, so that `run` has handed over to gunicorn in a fraction of a second.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.errors import ConfigError, GatewayError
from app.settings import RUNTIME_SETTINGS, Settings, demo_environment

if TYPE_CHECKING:
    from flask import Flask

ROOT = Path(__file__).resolve().parents[1]
WHO = "command line"


@contextmanager
def said_in_one_line() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    except GatewayError as error:
        raise click.ClickException(error.message) from None


@click.group()
def main() -> None:
    """Dragoman lets OpenAI-compatible clients talk to Claude."""


@main.command()
def run() -> None:
    """Check the settings, migrate the database and start the gateway."""
    with said_in_one_line():
        settings = Settings.from_environment()
        _check_runtime_settings(settings)
        _check_port(settings)
        _prepare(settings)
    os.execv(
        sys.executable,
        [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "--pythonpath", str(ROOT), "wsgi:app"],
    )


@main.command()
def demo() -> None:
    """The whole product against the bundled simulator, with a database of its own and without an Anthropic key."""
    simulated = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "simulator", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
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
        app = _app(settings)
        from app.storage import accounts

        if accounts.any_exists(app):
            raise ConfigError("There is an admin already. A lost password: dragoman admin reset-password USERNAME.")
        click.echo(_setup_link(app, settings))


@main.command("settings")
def list_settings() -> None:
    """Every variable with its default, as README has them."""
    from app.settings import settings_table

    click.echo(settings_table())


@main.command()
def fields() -> None:
    """What becomes of each field of a request, as docs/compatibility.md has it."""
    from app.translate.fields import compatibility_table

    click.echo(compatibility_table())


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
        app = _app(Settings.from_environment())
        from app.storage import accounts

        accounts.set_password(app, username, _password(password_stdin), who=WHO)
        click.echo(f"{username} has a new password; earlier sessions have ended.")


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
        app = _app(Settings.from_environment())
        _, secret = app.extensions["dragoman"].keys.create(
            name=name,
            owner=owner,
            scope="admin" if is_admin else "client",
            models=models or None,
            expires_at=int(time.time()) + days * 86_400 if days else None,
            who=WHO,
        )
        click.echo(secret)


@keys.command("list")
def keys_list() -> None:
    """The keys made here, the newest first."""
    with said_in_one_line():
        app = _app(Settings.from_environment())
        for key in app.extensions["dragoman"].keys.list():
            state = "active"
            if key.revoked_at is not None:
                state = "revoked"
            elif key.expires_at is not None and key.expires_at <= time.time():
                state = "expired"
            click.echo("\t".join([key.id, key.masked, key.scope, state, key.name, key.owner]))


@keys.command("revoke")
@click.argument("id")
def keys_revoke(id: str) -> None:
    """Refuse a key from now on; every worker obeys within a second."""
    with said_in_one_line():
        app = _app(Settings.from_environment())
        revoked = app.extensions["dragoman"].keys.revoke(id, who=WHO)
        click.echo(f"{revoked.id} ({revoked.name}) is revoked.")


@main.group("secrets")
def secrets_group() -> None:
    """Encryption at rest."""


@secrets_group.command("reencrypt")
def secrets_reencrypt() -> None:
    """Encrypt every stored secret with the current secret key, so that earlier ones can be dropped."""
    with said_in_one_line():
        app = _app(Settings.from_environment())
        done, lost = app.extensions["dragoman"].config.reencrypt(who=WHO)
        click.echo(f"{done} values are encrypted with the current secret key.")
        if lost:
            raise ConfigError(f"Not decryptable with any key at hand, and left as they are: {', '.join(lost)}.")


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulator(arguments: tuple[str, ...]) -> None:
    """A stand-in for Anthropic's API, for trying things out; --help tells its options."""
    from app.simulator.server import main as serve

    serve(list(arguments))


def _app(settings: Settings, *, migrated: bool = True) -> Flask:
    from app import create_storage_app

    app = create_storage_app(settings)
    if migrated:
        from app.storage.migrate import upgrade

        upgrade(app)
    return app


def _check_runtime_settings(settings: Settings) -> None:
    from app.storage.validation import from_environment

    for setting in RUNTIME_SETTINGS:
        if setting.name in settings.runtime:
            from_environment(setting, settings)


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
    from app.storage.secrets import Vault
    from app.storage.startup import is_ready

    Vault(settings)
    if is_ready(settings):
        return
    app = _app(settings)
    from app.storage import accounts

    accounts.create_from_environment(app, settings)
    if not accounts.any_exists(app):
        click.echo(f"\n  Make the first admin account at:\n\n    {_setup_link(app, settings)}\n")


def _setup_link(app: Flask, settings: Settings) -> str:
    from app.storage import accounts

    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}.get(settings.host, settings.host)
    token = accounts.setup_token(app.extensions["dragoman"].vault)
    return f"http://{host}:{settings.port}/setup#token={token}"


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


if __name__ == "__main__":
    main()
