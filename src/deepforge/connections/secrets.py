"""Secrets at rest: sealed with AES-GCM under one key, each for one place only."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from deepforge.errors import ConfigError, Corrupt

KEY_VARIABLE = "DEEPFORGE_SECRET_KEY"
KEY_BYTES = 32

_NONCE_BYTES = 12
_FORM = "a key is 32 random bytes: 64 hexadecimal digits, or base64"


class SecretBox:
    """Seals and opens texts, and derives further secrets from the same key.

    The key is `DEEPFORGE_SECRET_KEY` if that is set, else the content of `key_file`, which the first
    of all processes makes (0600). It is read on first use; every method may then raise `ConfigError`
    for a key that is malformed, cannot be read, or can be read by others.
    """

    def __init__(self, key_file: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._key_file = key_file
        self._environ = environ
        self._loaded: bytes | None = None

    def __repr__(self) -> str:
        return f"SecretBox({str(self._key_file)!r})"

    def check(self) -> None:
        """Read the key if there is one; make none. Raises `ConfigError` as every method may."""
        if self._environ.get(KEY_VARIABLE) or self._key_file.exists():
            self._key()

    def seal(self, text: str, purpose: str) -> str:
        """Encrypt a text so that only `open` with the same purpose reads it. Two seals differ."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(_NONCE_BYTES)
        hidden = AESGCM(self.derive("seal")).encrypt(nonce, text.encode(), purpose.encode())
        return f"1.{self._key_id()}.{_base64(nonce + hidden)}"

    def open(self, sealed: str, purpose: str) -> str:
        """Decrypt what `seal` made.

        Raises `ConfigError` if another key sealed it, `Corrupt` if it was altered or sealed for
        another purpose.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            form, key_id, payload = sealed.split(".")
            raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        except ValueError as error:
            raise _altered(purpose) from error
        if form != "1":
            raise _altered(purpose)
        if key_id != self._key_id():
            raise ConfigError(
                f"a secret was encrypted with another key than {self._key_place()}",
                hint=f"give the old key back, as the file {self._key_file} or in {KEY_VARIABLE}; "
                "if it is lost, remove the connection and add it again",
            )
        try:
            cipher = AESGCM(self.derive("seal"))
            return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise _altered(purpose) from error

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes that only the key and the purpose determine."""
        return hmac.digest(self._key(), b"deepforge:" + purpose.encode(), "sha256")

    def token(self, purpose: str) -> str:
        """Return the derived bytes as 43 characters that fit in a URL or a header."""
        return _base64(self.derive("token:" + purpose))

    def _key(self) -> bytes:
        if self._loaded is None:
            given = self._environ.get(KEY_VARIABLE)
            self._loaded = _read_key(given, KEY_VARIABLE) if given else _key_of(self._key_file)
        return self._loaded

    def _key_id(self) -> str:
        return self.derive("key id").hex()[:8]

    def _key_place(self) -> str:
        return KEY_VARIABLE if self._environ.get(KEY_VARIABLE) else f"the one in {self._key_file}"


def _key_of(path: Path) -> bytes:
    """Read the key file; make it first if there is none. Of many who race, one makes it."""
    hint = f"set {KEY_VARIABLE}, or make the folder of the key file writable"
    try:
        if not path.exists():
            _make_key_file(path)
        status = path.stat()
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the secret key {path} cannot be used: {error}", hint=hint) from error
    if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            f"the secret key {path} can be used by others on this machine",
            hint=f"run: chmod 600 {path}; if others may have read it, change what it protects",
        )
    return _read_key(text, str(path))


def _make_key_file(path: Path) -> None:
    """Write beside, then link: the file appears whole or not at all, and never over another."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    finally:
        beside.unlink()


def _read_key(text: str, place: str) -> bytes:
    text = text.strip()
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad_key(place) from error
    if len(key) != KEY_BYTES:
        raise _bad_key(place)
    return key


def _bad_key(place: str) -> ConfigError:
    return ConfigError(
        f"{place} does not hold a secret key", fields={place: "is not a key"}, hint=_FORM
    )


def _altered(purpose: str) -> Corrupt:
    return Corrupt(
        f"the secret {purpose!r} cannot be decrypted: it was altered, or belongs elsewhere",
        expected="what was sealed for this place",
        found="something else",
        hint="remove the connection and add it again",
    )


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
