"""What an S3 service, or the way to it, said: in our errors, with what to do about it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from obstore import exceptions as obstore_errors

from deepforge.errors import (
    AlreadyExists,
    AuthError,
    ConfigError,
    DeepForgeError,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    StorageFull,
    Unavailable,
)

_WRONG_KEYS = {
    "InvalidAccessKeyId": "the access key id is not known there",
    "SignatureDoesNotMatch": "the secret access key does not fit the access key id",
    "InvalidToken": "the session token is not valid",
    "TokenRefreshRequired": "the session token is not valid",
    "InvalidSecurity": "the keys are not valid",
    "NotSignedUp": "the account may not use the service",
    "AccountProblem": "there is a problem with the account",
}
_WRONG_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint")
_BUSY = ("SlowDown", "TooManyRequests", "RequestLimitExceeded", "ThrottlingException")
_FULL = ("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "StorageFull")
_TRY_AGAIN = ("RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "IncompleteBody")


@dataclass(frozen=True)
class Where:
    """What the texts of errors speak of."""

    endpoint_url: str
    bucket: str

    def object(self, key: str) -> str:
        return f"object {key!r} in bucket {self.bucket!r}"


class MissingBucket(ConfigError):
    """The bucket is not there. Making it may be wanted."""

    def __init__(self, bucket: str) -> None:
        super().__init__(
            f"there is no bucket {bucket!r}",
            fields={"bucket": "does not exist"},
            hint="check the name, or allow DeepForge to make it (create_bucket)",
        )


class UnknownUpload(NotFound):
    """The upload in parts was completed, given up, or never begun."""


@contextmanager
def said(where: Where, subject: str) -> Iterator[None]:
    """Turn what obstore and httpx raise into errors of our tree about `subject`."""
    try:
        yield
    except FileNotFoundError as error:  # obstore's, for a missing object and a missing bucket alike
        if isinstance(error, DeepForgeError):
            raise
        raise answered(where, subject, 404, _body(str(error))) from error
    except obstore_errors.AlreadyExistsError as error:
        raise answered(where, subject, 412, str(error)) from error
    except obstore_errors.BaseError as error:
        text = str(error)
        status = re.search(r"status code: (\d{3})", text)
        if status is not None:
            raise answered(where, subject, int(status[1]), _body(text)) from error
        if "HTTP" in text:
            raise unreached(where, text) from error
        if "incorrectly configured region" in text:
            raise answered(where, subject, 301, text) from error
        raise _not_s3(where, text.partition("\n")[0]) from error
    except httpx.HTTPError as error:
        text = f"{type(error).__name__} {error}"
        if isinstance(_root(error), ssl.SSLError):
            text += " certificate"
        raise unreached(where, text) from error


def answered(where: Where, subject: str, status: int, body: str) -> DeepForgeError:
    """Explain an answer that is not a success."""
    code = _element(body, "Code")
    message = _element(body, "Message") or code or f"HTTP status {status}"
    if code == "NoSuchBucket":
        return MissingBucket(where.bucket)
    if code == "NoSuchUpload":
        return UnknownUpload(f"the upload in parts of {subject} is not known: {message}")
    if code in _WRONG_KEYS:
        fields = {"access_key_id": _WRONG_KEYS[code], "secret_access_key": _WRONG_KEYS[code]}
        hint = f"check the keys: {', '.join(fields)}"
        return AuthError(f"{where.endpoint_url} refuses the keys: {_WRONG_KEYS[code]}", hint=hint)
    if code == "ExpiredToken":
        return AuthError(
            f"the keys for {where.endpoint_url} have expired",
            expired=True,
            hint="get a new session token and put it into the settings",
        )
    if code == "RequestTimeTooSkewed":
        return AuthError(
            f"{where.endpoint_url} refuses the signature: the clocks differ too much",
            hint="set the clock of this machine right",
        )
    if code in _WRONG_REGION or "incorrectly configured region" in body:
        return ConfigError(
            f"bucket {where.bucket!r} is not in this region: {message}",
            fields={"region": "is not the bucket's"},
            hint="name the region of the bucket, and its endpoint",
        )
    if code == "InvalidBucketName":
        return ConfigError(
            f"{where.bucket!r} cannot be the name of a bucket: {message}",
            fields={"bucket": "is not a possible name"},
        )
    if code in _BUSY or status in (429, 503):
        return RateLimited(f"{where.endpoint_url} asks to slow down: {message}")
    if code in _FULL or status == 507:
        return StorageFull(
            f"no room for {subject}: {message}", hint="free some space or raise the quota"
        )
    if code in _TRY_AGAIN or status >= 500 or status == 408:
        return Unavailable(f"{where.endpoint_url} failed with {subject}: {message}")
    if code == "PreconditionFailed" or status == 412:
        return AlreadyExists(f"there is {_article(subject)} already")
    if code == "NoSuchKey" or (status == 404 and not body):
        return NotFound(f"there is no {subject}")
    if status in (401, 403) and (code or not body):
        return Forbidden(
            f"the keys are not allowed to use {subject}: {message}",
            hint="give them the rights to read, write, list and delete in this bucket",
        )
    if not code and body:
        return _not_s3(where, message)
    return InvalidRequest(f"{where.endpoint_url} refuses {subject}: {message} ({code})")


def unreached(where: Where, text: str) -> DeepForgeError:
    """Explain that there was no answer, or not a whole one."""
    if "certificate" in text.lower():
        return ConfigError(
            f"the certificate of {where.endpoint_url} is not trusted",
            fields={"ca_file": "does not vouch for the endpoint"},
            hint="name the file of the authority that signed it (ca_file)",
        )
    if "Connect" in text:
        return Unavailable(
            f"{where.endpoint_url} cannot be reached",
            hint="is the service running, and is the endpoint right?",
        )
    return Unavailable(f"the connection to {where.endpoint_url} broke or timed out")


def _not_s3(where: Where, detail: str) -> ConfigError:
    return ConfigError(
        f"{where.endpoint_url} does not answer like an S3 service: {detail}",
        fields={"endpoint_url": "does not answer like an S3 service"},
        hint="check the endpoint: address, port, http or https",
    )


def _body(text: str) -> str:
    """The answer's body within obstore's text: none for a HEAD, which had none."""
    return "" if "Error performing HEAD" in text else text


def _element(body: str, name: str) -> str:
    found = re.search(rf"<{name}>([^<]{{0,300}})</{name}>", body)
    return found[1] if found is not None else ""


def _root(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _article(subject: str) -> str:
    return f"an {subject}" if subject.startswith("o") else subject
