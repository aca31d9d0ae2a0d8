from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from deepforge.storage.signing import LONGEST_S, Credentials, Place, presign

# The credentials and the request of the example in Amazon's description of the algorithm.
EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
EXAMPLE_TIME = datetime(2013, 5, 24, tzinfo=UTC)
PLACE = Place("https://host.test", "data")


def sign(place: Place = PLACE, key: str | None = "key", **options: object) -> str:
    named = {"credentials": EXAMPLE, "region": "us-east-1", "expires_s": 60, "now": EXAMPLE_TIME}
    return presign("GET", place, key, **(named | options))  # type: ignore[arg-type]


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def test_it_signs_as_in_the_published_example() -> None:
    place = Place("https://s3.amazonaws.com", "examplebucket", path_style=False)

    url = sign(place, "test.txt", expires_s=86400)

    assert url.startswith("https://examplebucket.s3.amazonaws.com/test.txt?")
    signature = query_of(url)["X-Amz-Signature"]
    assert signature == "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"


def test_everything_that_matters_changes_the_signature() -> None:
    other = Credentials("AKIAIOSFODNN7EXAMPLE", "another secret")
    urls = [
        sign(),
        sign(key="kez"),
        sign(key=None),
        sign(Place("https://other.test", "data")),
        sign(Place("https://host.test", "date")),
        sign(Place("https://host.test", "data", path_style=False)),
        sign(credentials=other),
        sign(region="eu-west-1"),
        sign(expires_s=61),
        sign(query={"partNumber": "1", "uploadId": "u"}),
        sign(query={"partNumber": "2", "uploadId": "u"}),
        sign(headers={"If-None-Match": "*"}),
        sign(now=datetime(2013, 5, 24, 0, 0, 1, tzinfo=UTC)),
    ]

    assert len({query_of(url)["X-Amz-Signature"] for url in urls}) == len(urls)


def test_a_session_token_is_part_of_what_is_signed() -> None:
    temporary = Credentials("AKIAIOSFODNN7EXAMPLE", "secret", "token/+=")

    query = query_of(sign(credentials=temporary))

    assert query["X-Amz-Security-Token"] == "token/+="
    plain = query_of(sign(credentials=Credentials("AKIAIOSFODNN7EXAMPLE", "secret")))
    assert query["X-Amz-Signature"] != plain["X-Amz-Signature"]


@pytest.mark.parametrize(
    ("place", "url"),
    [
        (Place("https://host.test:443", "data"), "https://host.test/data/a%20b/%C3%BC~%2B%25"),
        (Place("http://host.test:80/", "data"), "http://host.test/data/a%20b/%C3%BC~%2B%25"),
        (
            Place("http://HOST.test:8333/s3/", "data"),
            "http://host.test:8333/s3/data/a%20b/%C3%BC~%2B%25",
        ),
        (
            Place("https://host.test:9", "data", False),
            "https://data.host.test:9/a%20b/%C3%BC~%2B%25",
        ),
        (Place("http://[::1]:80", "data"), "http://[::1]/data/a%20b/%C3%BC~%2B%25"),
    ],
)
def test_it_spells_addresses_as_clients_send_them(place: Place, url: str) -> None:
    assert sign(place, "a b/ü~+%").partition("?")[0] == url


def test_the_bucket_itself_has_an_address() -> None:
    assert sign(key=None).startswith("https://host.test/data?")
    assert sign(Place("https://h.test", "data", False), None).startswith("https://data.h.test/?")


@pytest.mark.parametrize(("asked", "given"), [(0.2, "1"), (59.9, "59"), (1e9, str(LONGEST_S))])
def test_a_signature_lives_a_second_to_a_week(asked: float, given: str) -> None:
    assert query_of(sign(expires_s=asked))["X-Amz-Expires"] == given


def test_credentials_do_not_show_their_secret() -> None:
    shown = repr(Credentials("id", "very secret", "token secret"))

    assert "secret" not in shown
