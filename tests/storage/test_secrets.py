"""The vault and where its keys come from."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.settings import Settings
from app.storage.secrets import Undecryptable, Vault

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_key_one_is_made_that_only_the_owner_reads(tmp_path):
    vault = Vault(Settings(instance_path=tmp_path / "instance"))
    file = tmp_path / "instance" / "secret_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Vault(Settings(instance_path=tmp_path / "instance")).session_key == vault.session_key
    assert [path.name for path in file.parent.iterdir()] == ["secret_key"]


def test_processes_that_start_together_agree_on_the_key(tmp_path):
    program = (
        "import sys; from pathlib import Path;"
        "from app.settings import Settings; from app.storage.secrets import Vault;"
        "sys.stdin.readline(); print(Vault(Settings(instance_path=Path(sys.argv[1]))).session_key)"
    )
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "instance")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = {process.communicate("go\n", timeout=20)[0] for process in starting}
    assert len(said) == 1
    assert len(said.pop().strip()) == 64


def test_another_database_than_sqlite_needs_a_key_and_the_error_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="openssl rand"):
        Vault(Settings(instance_path=tmp_path, database_url="postgres://host/name"))


def test_what_was_encrypted_decrypts_and_is_not_readable():
    vault = Vault(Settings(secret_key="a long secret key"))
    token = vault.encrypt("sk-ant-secret")
    assert "secret" not in token
    assert vault.decrypt(token) == "sk-ant-secret"


@pytest.mark.parametrize("token", ["", "rubbish", "gAAAAAB"])
def test_rubbish_is_undecryptable(token):
    with pytest.raises(Undecryptable):
        Vault(Settings(secret_key="a long secret key")).decrypt(token)


def test_another_key_cannot_decrypt_and_a_fallback_can():
    token = Vault(Settings(secret_key="the first secret key")).encrypt("text")
    with pytest.raises(Undecryptable):
        Vault(Settings(secret_key="the second secret key")).decrypt(token)
    both = Vault(Settings(secret_key="the second secret key", secret_key_fallbacks=("the first secret key",)))
    assert both.decrypt(token) == "text"
    assert Vault(Settings(secret_key="the second secret key")).decrypt(both.reencrypt(token)) == "text"


def test_sessions_and_secrets_are_kept_with_different_keys():
    vault = Vault(Settings(secret_key="a long secret key"))
    assert len({vault.session_key, vault.derive("fernet").hex(), vault.derive("setup").hex()}) == 3


def test_a_generated_key_still_decrypts_once_secret_key_is_set(tmp_path):
    token = Vault(Settings(instance_path=tmp_path)).encrypt("text")
    assert Vault(Settings(instance_path=tmp_path, secret_key="set later on, and long")).decrypt(token) == "text"


def test_the_key_file_is_read_again_when_it_changed(tmp_path):
    file = tmp_path / "keys"
    file.write_text("first secret key\n\n")
    vault = Vault(Settings(secret_key_file=str(file)))
    token, first = vault.encrypt("text"), vault.session_key
    assert not vault.reload()
    file.write_text("second secret key\nfirst secret key\n")
    assert vault.reload()
    assert vault.decrypt(token) == "text"
    assert vault.session_key_fallbacks == [first]


def test_a_key_file_that_vanished_leaves_the_keys_as_they_were(tmp_path):
    file = tmp_path / "keys"
    file.write_text("first secret key\n")
    vault = Vault(Settings(secret_key_file=str(file)))
    token = vault.encrypt("text")
    file.unlink()
    assert not vault.reload()
    file.write_text("\n")
    assert not vault.reload()
    assert vault.decrypt(token) == "text"


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_a_key_file_without_a_key_stops_the_start(tmp_path, content):
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match="SECRET_KEY_FILE"):
        Vault(Settings(secret_key_file=str(file)))


def test_a_folder_that_cannot_be_made_is_said_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="INSTANCE_PATH"):
        Vault(Settings(instance_path=tmp_path / "file" / "instance"))
