from __future__ import annotations

import pytest

from deepforge.errors import InvalidRequest
from deepforge.storage.keys import check_key, check_prefix, is_key
from deepforge.testing.storage_promises import UGLY_NAMES


@pytest.mark.parametrize("key", [*UGLY_NAMES, "a", "a" * 900, "é" * 450, "...", "..a/b.."])
def test_any_sensible_name_is_a_key(key: str) -> None:
    assert check_key(key) == key
    assert is_key(key)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "empty"),
        ("/a", "empty part"),
        ("a/", "empty part"),
        ("a//b", "empty part"),
        (".", "'.'"),
        ("a/./b", "'.'"),
        ("../a", "'..'"),
        ("a/..", "'..'"),
        ("a\0b", "'\\x00'"),
        ("a\nb", "'\\n'"),
        ("a\x7f", "'\\x7f'"),
        ("a\x85", "'\\x85'"),
        ("a\ufffe", "'\\ufffe'"),
        ("a\\b", "'\\\\'"),
        ("\ud800", "'\\ud800'"),
        ("e\u0301", "NFC"),
        ("a" * 901, "901 bytes"),
        ("é" * 451, "902 bytes"),
    ],
)
def test_what_some_storage_could_not_keep_is_refused_with_the_reason(key: str, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_key(key)

    assert why in caught.value.message
    assert not is_key(key)


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b/", "a/.", "a/..", "..", "a" * 900])
def test_a_prefix_may_end_anywhere(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["/", "a//", "../a", "a/../b", "a\0", "a\\", "a" * 901])
def test_a_prefix_that_no_key_can_have_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidRequest):
        check_prefix(prefix)
