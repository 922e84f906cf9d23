"""The vault: encrypts stored secrets and derives the keys that sign sessions and the set-up link.

Where its secret keys come from, the first of: SECRET_KEY; SECRET_KEY_FILE; `secret_key` under INSTANCE_PATH, made when
absent (SQLite only: other databases are shared by nodes that would each make their own). The file may hold several
lines: the first is the current key, the others still decrypt. It is read again while the gateway runs.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from flask import Flask

from app.errors import ConfigError
from app.settings import Settings

log = logging.getLogger(__name__)
WEAK_BELOW = 16
HOW_TO_MAKE_ONE = "openssl rand -base64 32"


class Undecryptable(Exception):
    """Encrypted with a key that is not there (any more)."""


class Vault:
    """Raises ConfigError when there is no secret key and none may be made."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Flask | None = None
        self._file = _key_file(settings)
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[str, ...] = ()
        self._use(self._read())

    def bind(self, app: Flask) -> None:
        """From now on reload() keeps the session keys of `app` up to date."""
        self._app = app
        self._publish()

    def encrypt(self, text: str) -> str:
        return self.encrypt_bytes(text.encode())

    def encrypt_bytes(self, data: bytes) -> str:
        return self._fernet.encrypt(data).decode("ascii")

    def decrypt(self, token: str) -> str:
        """Raises Undecryptable."""
        return self.decrypt_bytes(token).decode()

    def decrypt_bytes(self, token: str) -> bytes:
        """Raises Undecryptable."""
        try:
            return self._fernet.decrypt(token.encode())
        except InvalidToken:
            raise Undecryptable from None

    def reencrypt(self, token: str) -> str:
        """The same secret under the current key. Raises Undecryptable."""
        try:
            return self._fernet.rotate(token.encode()).decode("ascii")
        except InvalidToken:
            raise Undecryptable from None

    def derive(self, purpose: str) -> bytes:
        """32 bytes that only somebody with the current secret key can compute."""
        return self.derive_from_each(purpose)[0]

    def derive_from_each(self, purpose: str) -> list[bytes]:
        """The same of each secret key at hand, the current one first."""
        derived = self._derived.get(purpose)
        if derived is None:
            derived = self._derived[purpose] = [_derive(key, purpose) for key in self._keys]
        return derived

    @property
    def session_key(self) -> str:
        return _derive(self._keys[0], "session").hex()

    @property
    def session_key_fallbacks(self) -> list[str]:
        return [_derive(key, "session").hex() for key in self._keys[1:]]

    def reload(self) -> bool:
        """Read the key file again when it changed; a file that cannot be read leaves the keys as they are."""
        if self._file is None or self._stamp == _stamp(self._file):
            return False
        try:
            keys = self._read()
        except ConfigError as error:
            log.error("the secret key file stays as it was read before: %s", error)
            return False
        if keys == self._keys:
            return False
        self._use(keys)
        self._publish()
        log.info("the secret key file changed: %d keys, the first is in use", len(keys))
        return True

    def _use(self, keys: tuple[str, ...]) -> None:
        self._keys = keys
        self._derived: dict[str, list[bytes]] = {}
        self._fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(_derive(key, "fernet"))) for key in keys])
        if len(keys[0]) < WEAK_BELOW:
            log.warning("the secret key is short enough to be guessed; make one with: %s", HOW_TO_MAKE_ONE)

    def _publish(self) -> None:
        if self._app is not None:
            fallbacks = self.session_key_fallbacks
            self._app.config.update(
                SECRET_KEY=self.session_key,
                SECRET_KEY_FALLBACKS=fallbacks,
                WTF_CSRF_SECRET_KEY=[*fallbacks, self.session_key],  # itsdangerous signs with the last one
            )

    def _read(self) -> tuple[str, ...]:
        settings = self._settings
        keys = [settings.secret_key] if settings.secret_key else []
        if self._file is not None:
            self._stamp = _stamp(self._file)
            try:
                text = self._file.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"SECRET_KEY_FILE: {self._file} cannot be read ({error}).") from None
            keys += [line.strip() for line in text.splitlines() if line.strip()]
            if not keys:
                raise ConfigError(f"SECRET_KEY_FILE: {self._file} is empty; fill it with: {HOW_TO_MAKE_ONE}")
        return tuple(dict.fromkeys([*keys, *settings.secret_key_fallbacks]))


def _key_file(settings: Settings) -> Path | None:
    """The file to read keys from, made when it is ours to make."""
    if settings.secret_key_file:
        return Path(settings.secret_key_file)
    generated = settings.instance_path.resolve() / "secret_key"
    if settings.secret_key:
        # A gateway that got its SECRET_KEY later still decrypts what it stored before.
        return generated if settings.uses_sqlite and generated.exists() else None
    if not settings.uses_sqlite:
        raise ConfigError(
            "SECRET_KEY (or SECRET_KEY_FILE) is missing. It encrypts the keys stored in the database, and every node "
            f"that shares the database needs the same one. Make one with: {HOW_TO_MAKE_ONE}"
        )
    _make(generated)
    return generated


def _make(path: Path) -> None:
    """Whoever comes first makes the key; whoever comes at the same time finds it whole."""
    if path.exists():
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".secret_key.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            os.unlink(draft)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(
            f"INSTANCE_PATH: the secret key cannot be written to {path} ({error.strerror}). "
            "Make the folder writable, or set SECRET_KEY."
        ) from None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _derive(key: str, purpose: str) -> bytes:
    return HKDF(SHA256(), length=32, salt=b"dragoman", info=purpose.encode()).derive(key.encode())
