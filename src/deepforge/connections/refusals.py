"""Logins that a service refused, kept so that no process of this home tries them again."""

from __future__ import annotations

import base64
import hmac
import json
from contextlib import suppress

from deepforge.connections.secrets import SecretBox
from deepforge.documents.port import Collection, DocumentStore
from deepforge.errors import AlreadyExists
from deepforge.ids import utc_now
from deepforge.settings import Secret

REFUSED = Collection("refused_logins")


class Refusals:
    """Which secrets of which accounts were refused. `account` are the settings that name it.

    Kept is a digest under the key of the home: it tells nothing to whoever has only the database.
    Another secret of the account has another one. Errors are those of the documents and of the box.
    """

    def __init__(self, documents: DocumentStore, box: SecretBox) -> None:
        self._documents = documents
        self._box = box

    async def has(self, account: tuple[str, ...], secret: Secret) -> bool:
        """Whether this secret was refused, by whichever process of the home it was tried."""
        return bool(await self._documents.get_many(REFUSED.name, [self._id(account, secret)]))

    async def add(self, account: tuple[str, ...], secret: Secret) -> None:
        """Remember it. Safe to repeat."""
        with suppress(AlreadyExists):
            body = {"refused_at": utc_now()}
            await self._documents.insert(REFUSED.name, self._id(account, secret), body)

    async def forget(self, account: tuple[str, ...], secret: Secret) -> None:
        """It may be tried again: its user gave it anew."""
        await self._documents.delete(REFUSED.name, self._id(account, secret))

    def _id(self, account: tuple[str, ...], secret: Secret) -> str:
        about = json.dumps([*(one.rstrip("/").lower() for one in account), secret.reveal()])
        digest = hmac.digest(self._box.derive("refused logins"), about.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
