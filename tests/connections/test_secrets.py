from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepforge.connections.secrets import SecretBox
from deepforge.errors import ConfigError, Corrupt, DeepForgeError

KEY = bytes(range(32))


def box_with(key: str) -> SecretBox:
    return SecretBox(Path("/nonexistent/never-used"), {"DEEPFORGE_SECRET_KEY": key})


@pytest.mark.parametrize("text", ["", "s3cret", "with 🦜 and \n newline", "x" * 100_000])
def test_what_is_sealed_opens(tmp_path: Path, text: str) -> None:
    box = SecretBox(tmp_path / "secret.key", {})

    sealed = box.seal(text, "connection/1/key")

    assert text == box.open(sealed, "connection/1/key")
    assert text == SecretBox(tmp_path / "secret.key", {}).open(sealed, "connection/1/key")
    assert sealed != box.seal(text, "connection/1/key")
    assert not text or text not in sealed


def test_a_sealed_text_opens_only_where_it_belongs(tmp_path: Path) -> None:
    box = SecretBox(tmp_path / "secret.key", {})
    sealed = box.seal("s3cret", "connection/1/key")

    for purpose in ("connection/2/key", "connection/1/other", ""):
        with pytest.raises(Corrupt, match="altered, or belongs elsewhere"):
            box.open(sealed, purpose)


def test_an_altered_text_does_not_open(tmp_path: Path) -> None:
    box = SecretBox(tmp_path / "secret.key", {})
    form, key_id, payload = box.seal("s3cret", "p").split(".")
    flipped = payload[:-3] + ("A" if payload[-3] != "A" else "B") + payload[-2:]

    for altered in [
        *("", ".", "plain text", f"{form}.{key_id}.", f"{form}.{key_id}.{payload[:8]}"),
        *(f"{form}.{key_id}.{flipped}", f"9.{key_id}.{payload}", f"{form}.{key_id}.é"),
    ]:
        with pytest.raises(Corrupt) as caught:
            box.open(altered, "p")
        assert "s3cret" not in repr(caught.value)


def test_another_key_says_what_to_do(tmp_path: Path) -> None:
    sealed = SecretBox(tmp_path / "old.key", {}).seal("s3cret", "p")

    for box in (SecretBox(tmp_path / "new.key", {}), box_with(KEY.hex())):
        with pytest.raises(ConfigError, match="encrypted with another key") as caught:
            box.open(sealed, "p")
        assert "give the old key back" in str(caught.value.hint)


def test_the_key_in_the_environment_has_any_usual_form(tmp_path: Path) -> None:
    sealed = box_with(KEY.hex()).seal("s3cret", "p")

    for key in [
        KEY.hex().upper(),
        f" {KEY.hex()}\n",
        base64.b64encode(KEY).decode(),
        base64.b64encode(KEY).decode().rstrip("="),
        base64.urlsafe_b64encode(KEY).decode(),
    ]:
        assert box_with(key).open(sealed, "p") == "s3cret"


@pytest.mark.parametrize(
    "key",
    ["short", "0" * 63, "0" * 66, "g" * 64, "passphrase with spaces", "é" * 43, "A" * 45, "=" * 44],
)
def test_a_malformed_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="DEEPFORGE_SECRET_KEY does not hold") as caught:
        box_with(key).seal("s3cret", "p")

    assert "64 hexadecimal digits" in str(caught.value.hint)
    assert key not in repr(caught.value) + str(caught.value)


def test_the_key_file_is_made_on_first_use_for_its_owner_alone(tmp_path: Path) -> None:
    place = tmp_path / "new" / "secret.key"
    box = SecretBox(place, {})
    assert not place.exists()

    previous = os.umask(0)
    try:
        box.seal("s3cret", "p")
    finally:
        os.umask(previous)

    assert place.stat().st_mode & 0o777 == 0o600
    assert list(place.parent.iterdir()) == [place]
    assert "s3cret" not in repr(box)
    assert place.read_text().strip() not in repr(box)


def test_with_a_key_in_the_environment_no_file_is_made(tmp_path: Path) -> None:
    box = SecretBox(tmp_path / "secret.key", {"DEEPFORGE_SECRET_KEY": KEY.hex()})

    box.seal("s3cret", "p")

    assert not (tmp_path / "secret.key").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o666])
def test_a_key_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "secret.key"
    SecretBox(place, {}).seal("s3cret", "p")
    place.chmod(mode)

    with pytest.raises(ConfigError, match="can be used by others") as caught:
        SecretBox(place, {}).seal("s3cret", "p")

    assert f"chmod 600 {place}" in str(caught.value.hint)


def test_a_key_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch(0o600)
    (tmp_path / "binary").write_bytes(b"\xff" * 32)
    (tmp_path / "binary").chmod(0o600)

    for place in ("folder", "empty", "binary", "empty/secret.key"):
        with pytest.raises(ConfigError, match=place):
            SecretBox(tmp_path / place, {}).seal("s3cret", "p")


def test_processes_that_race_for_the_first_use_agree_on_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from deepforge.connections.secrets import SecretBox\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(SecretBox(Path(sys.argv[1]), {}).token('t'))"
    )
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "secret.key")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(8)
    ]
    for one in racing:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
    for one in racing:
        assert one.stdin is not None
        one.stdin.write(b"go\n")
        one.stdin.flush()
    tokens = {one.communicate(timeout=30)[0] for one in racing}

    assert len(tokens) == 1
    assert SecretBox(tmp_path / "secret.key", {}).token("t").encode() == tokens.pop().strip()
    assert list(tmp_path.iterdir()) == [tmp_path / "secret.key"]


def test_tokens_depend_on_key_and_purpose_alone(tmp_path: Path) -> None:
    box = box_with(KEY.hex())

    token = box.token("attempt:e-j-1")

    assert len(token) == 43
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert token == box_with(KEY.hex()).token("attempt:e-j-1")
    assert token != box.token("attempt:e-j-2")
    assert token != SecretBox(tmp_path / "secret.key", {}).token("attempt:e-j-1")
    assert len(box.derive("x")) == 32
    assert box.derive("x") not in (KEY, box.derive("y"))


def test_the_cipher_is_imported_only_when_something_is_sealed() -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from deepforge.connections.secrets import SecretBox\n"
        f"SecretBox(Path('x'), {{'DEEPFORGE_SECRET_KEY': '{KEY.hex()}'}}).token('t')\n"
        "print('cryptography' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert done.stdout == b"False\n"


def test_a_folder_that_cannot_be_written_says_what_helps(tmp_path: Path) -> None:
    with pytest.raises(DeepForgeError, match=r"secret key .* cannot be used") as caught:
        SecretBox(Path("/proc/1/nowhere/secret.key"), {}).seal("s3cret", "p")

    assert "DEEPFORGE_SECRET_KEY" in str(caught.value.hint)


def test_a_key_is_checked_where_there_is_one_and_none_is_made(tmp_path: Path) -> None:
    file = tmp_path / "secret.key"
    SecretBox(file, {}).check()
    assert not file.exists()
    box_with(KEY.hex()).check()

    file.write_text("not a key")
    file.chmod(0o600)
    for box in (SecretBox(file, {}), box_with("not a key")):
        with pytest.raises(ConfigError, match="does not hold a secret key"):
            box.check()
