from __future__ import annotations

import pytest

from deepforge.errors import ConfigError
from deepforge.sciserver.hosts import Hosts


def test_everything_follows_from_the_site() -> None:
    hosts = Hosts.of()

    assert hosts.login_url == "https://apps.sciserver.org/login-portal"
    assert hosts.files_url == "https://apps.sciserver.org/fileservice/api"
    assert hosts.compute_url == "https://apps.sciserver.org/racm"
    assert hosts.file_space == "sciserver:apps.sciserver.org"


def test_a_slash_at_the_end_is_no_other_site() -> None:
    assert Hosts.of("https://sky.example.org/") == Hosts.of("https://sky.example.org")


@pytest.mark.parametrize(
    "site",
    ["", "apps.sciserver.org", "ftp://x", "https://", "https://a:b@x", "https://x?y", "http://[x"],
)
def test_what_is_no_address_is_told_by_its_setting(site: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Hosts.of(site)

    assert set(caught.value.fields) == {"site"}
