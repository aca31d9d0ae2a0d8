"""One bucket of an S3 service: the blocking calls, to be made on worker threads.

obstore moves whole objects: for small ones it is as fast as bare sockets. What it lacks (parts, plain
prefixes in listings, buckets) are our own signed requests.

Why blocking: obstore's async API aborted the process at exit in 12 of 75 short runs against a real
SeaweedFS (2 of 25 each for puts of bytes and for gets, 8 of 25 for puts of an async iterator), the
blocking one in none of 75, and it is not slower.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import httpx
import obstore
from obstore import exceptions as obstore_errors
from obstore.store import S3Store

from deepforge.errors import DeepForgeError, NotFound, Unavailable
from deepforge.ids import timestamp, utc_now
from deepforge.storage.port import ObjectInfo
from deepforge.storage.s3_errors import UnknownUpload, Where, answered, said
from deepforge.storage.signing import Credentials, Place, presign

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig, S3Credential

CONNECT_TIMEOUT_S = 3
STALL_TIMEOUT_S = 60
"""No byte in either direction for so long means that the connection is dead."""

_CHUNK_BYTES = 1024 * 1024  # read, hashed and written while it is in the processor's cache
_OWN_REQUEST_S = 600  # how long our own signatures are good for; a slow part may take minutes


class Bucket:
    """Objects of one bucket by their full keys. Safe for many threads at once."""

    def __init__(
        self, place: Place, credentials: Credentials, region: str, ca_certificate: str | None
    ) -> None:
        """Prepare the connections; nothing is asked yet."""
        self.where = Where(place.endpoint_url, place.bucket)
        self._place = place
        self._credentials = credentials
        self._region = region
        self._is_known = False
        self._store = _store(place, credentials, region, ca_certificate)
        self._ca_certificate = ca_certificate
        self._http: httpx.Client | None = None
        self._opening = Lock()

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def create(self) -> None:
        """Make the bucket. One that is ours already is fine."""
        content = b""
        if self._region != "us-east-1":  # which may not be named
            content = (
                '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<LocationConstraint>{escape(self._region)}</LocationConstraint>"
                "</CreateBucketConfiguration>"
            ).encode()
        try:
            self._request("PUT", None, content=content)
        except DeepForgeError as error:
            if "BucketAlreadyOwnedByYou" not in error.message:
                raise

    def put(self, key: str, data: bytes, only_if_absent: bool) -> ObjectInfo:
        """Store an object in one request."""
        with said(self.where, self.where.object(key)):
            result = obstore.put(
                self._store,
                key,
                data,
                mode="create" if only_if_absent else "overwrite",
                use_multipart=False,
            )
        self._is_known = True
        return ObjectInfo(key, len(data), utc_now(), result["e_tag"])

    def open(self, key: str, start: int, end: int | None) -> Download:
        """Begin to read the bytes `[start, end)`, and fetch the first chunk of them."""
        options: GetOptions = {}
        if end is not None:
            options = {"range": (start, end)}
        elif start:
            options = {"range": {"offset": start}}
        subject = self.where.object(key)
        with said(self.where, subject):
            try:
                result = obstore.get(self._store, key, options=options)
            except obstore_errors.GenericError as error:
                if "InvalidRange" in str(error):  # there are none behind the object's end
                    return Download(self.where, subject, iter(()), 0)
                raise
        self._is_known = True
        first, behind = result.range
        chunks = result.stream(min_chunk_size=_CHUNK_BYTES)
        return Download(self.where, subject, chunks, behind - first)

    def stat(self, key: str) -> ObjectInfo:
        """Raises `NotFound`."""
        with said(self.where, self.where.object(key)):
            try:
                return _info(obstore.head(self._store, key))
            except FileNotFoundError:
                if self._is_known:
                    raise
            except obstore_errors.BaseError as error:
                if "status code" not in str(error):
                    raise
            # Answers to HEAD have no body, so this one did not say what is missing or wrong.
            try:
                self._request("GET", key, headers={"range": "bytes=0-0"})
            except NotFound:
                self._is_known = True
                raise
            return _info(obstore.head(self._store, key))

    def delete(self, keys: Sequence[str]) -> None:
        """Remove up to 1,000 objects in one request."""
        with said(self.where, f"{len(keys)} objects in bucket {self.where.bucket!r}"):
            obstore.delete(self._store, keys)

    def copy(self, source: str, target: str) -> None:
        """Copy an object of at most 5 GiB."""
        with said(self.where, self.where.object(source)):
            obstore.copy(self._store, source, target)

    def list_page(
        self, prefix: str, start_after: str, token: str | None
    ) -> tuple[list[ObjectInfo], str | None]:
        """Up to 1,000 objects in the order of the service, and the token of the next page."""
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        if token is not None:
            query["continuation-token"] = token
        elif start_after:
            query["start-after"] = start_after
        page = self._xml(self._request("GET", None, query))
        is_encoded = page.findtext("{*}EncodingType") == "url"
        infos = [_listed(one, is_encoded) for one in page.iterfind("{*}Contents")]
        return infos, page.findtext("{*}NextContinuationToken")

    def begin_parts(self, key: str) -> str:
        """Begin an upload in parts; return its id."""
        answer = self._xml(self._request("POST", key, {"uploads": ""}))
        return answer.findtext("{*}UploadId") or ""

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> str:
        """Store a part; return its etag."""
        query = {"partNumber": str(number), "uploadId": upload}
        return str(self._request("PUT", key, query, content=data).headers.get("etag", ""))

    def complete_parts(
        self, key: str, upload: str, etags: Sequence[str], only_if_absent: bool = False
    ) -> ObjectInfo:
        """Make the object of its parts. Repeating it is fine, also after its answer was lost."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        try:
            answer = self._request(
                "POST",
                key,
                {"uploadId": upload},
                content=f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode(),
                headers={"if-none-match": "*"} if only_if_absent else {},
            )
        except UnknownUpload:
            info = self.stat(key)  # was it completed by a request whose answer was lost?
            if _bare(info.etag or "") != etag_of_parts(etags):
                raise
            return info
        if self._xml(answer).tag.endswith("Error"):  # S3 may find out after it said 200
            raise answered(self.where, self.where.object(key), 500, answer.text)
        return self.stat(key)

    def abort_parts(self, key: str, upload: str) -> None:
        """Give up an upload. An unknown one is fine."""
        try:
            self._request("DELETE", key, {"uploadId": upload})
        except UnknownUpload:
            return

    def _request(
        self,
        method: str,
        key: str | None,
        query: Mapping[str, str] | None = None,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        subject = f"bucket {self.where.bucket!r}" if key is None else self.where.object(key)
        url = presign(
            method,
            self._place,
            key,
            credentials=self._credentials,
            region=self._region,
            expires_s=_OWN_REQUEST_S,
            query=query,
        )
        sized = {"content-length": str(len(content)), **(headers or {})}
        with said(self.where, subject):
            # As an iterator, which is empty afterwards: httpx's answers are reference cycles that
            # hold their request until the next garbage collection, and with it 8 MiB of a part.
            answer = self._own_client().request(
                method, url, content=iter((content,)), headers=sized
            )
        if not answer.is_success:
            raise answered(self.where, subject, answer.status_code, answer.text)
        self._is_known = True
        return answer

    def _own_client(self) -> httpx.Client:
        """Made when it is needed first: many need obstore alone, and this takes 40 ms."""
        with self._opening:
            if self._http is None:
                self._http = httpx.Client(
                    verify=_tls(self._ca_certificate),
                    timeout=httpx.Timeout(STALL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
                    limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
                )
            return self._http

    def _xml(self, answer: httpx.Response) -> ElementTree.Element:
        try:
            return ElementTree.fromstring(answer.content)
        except ElementTree.ParseError as error:
            raise answered(self.where, "the request", answer.status_code, "not XML") from error


class Download:
    """The bytes of one answer, of which `first` are read. Dropping it closes the connection."""

    def __init__(
        self, where: Where, subject: str, chunks: Iterator[bytes], size_bytes: int
    ) -> None:
        self.left_bytes = size_bytes
        self._where = where
        self._subject = subject
        self._chunks = chunks
        self.first = self.read() if size_bytes else b""

    def read(self) -> bytes:
        """Give the next chunk. Raises `Unavailable` when the connection breaks."""
        with said(self._where, self._subject):
            chunk = next(self._chunks, b"")
        if not chunk:
            raise Unavailable(f"{self._subject} broke off {self.left_bytes} bytes before its end")
        self.left_bytes -= len(chunk)
        return chunk


def etag_of_parts(etags: Sequence[str]) -> str | None:
    """The etag S3 gives to an object made of these parts; None where etags are not MD5 sums."""
    try:
        sums = [bytes.fromhex(_bare(etag)) for etag in etags]
    except ValueError:
        return None
    return f"{hashlib.md5(b''.join(sums), usedforsecurity=False).hexdigest()}-{len(sums)}"


def _bare(etag: str) -> str:
    return etag.strip('"')


def _store(
    place: Place, credentials: Credentials, region: str, ca_certificate: str | None
) -> S3Store:
    def provide() -> S3Credential:
        return {
            "access_key_id": credentials.access_key_id,
            "secret_access_key": credentials.secret_access_key,
            "token": credentials.session_token,
            "expires_at": None,
        }

    options: ClientConfig = {
        "allow_http": place.origin.startswith("http:"),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=STALL_TIMEOUT_S),
        "timeout": timedelta(days=7),  # of a whole transfer, however slow; stalls end it sooner
    }
    if ca_certificate is not None:
        options["root_certificate"] = ca_certificate
    endpoint = place.endpoint_url.rstrip("/") if place.path_style else place.origin
    return S3Store(
        place.bucket,
        # The environment's AWS_… variables must not mix with a user's settings, so nothing that
        # matters is left for obstore to find there, a session token least of all.
        credential_provider=provide,
        endpoint=endpoint,
        aws_endpoint_url_s3=endpoint,
        region=region,
        virtual_hosted_style_request=not place.path_style,
        skip_signature=False,
        # The client hashes the content once and verifies it when it is read; no second hash here.
        unsigned_payload=True,
        client_options=options,
        retry_config={"max_retries": 0},  # the client retries, for all adapters alike
    )


def _tls(ca_certificate: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_certificate is not None:
        context.load_verify_locations(cadata=ca_certificate)
    return context


def _info(meta: ObjectMeta) -> ObjectInfo:
    modified_at = timestamp(meta["last_modified"].timestamp())
    return ObjectInfo(meta["path"], meta["size"], modified_at, meta["e_tag"])


def _listed(one: ElementTree.Element, is_encoded: bool) -> ObjectInfo:
    key = one.findtext("{*}Key") or ""
    modified = datetime.fromisoformat(one.findtext("{*}LastModified") or "1970-01-01T00:00:00Z")
    return ObjectInfo(
        unquote_plus(key) if is_encoded else key,
        int(one.findtext("{*}Size") or 0),
        timestamp(modified.timestamp()),
        one.findtext("{*}ETag"),
    )
