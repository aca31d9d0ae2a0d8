"""Where the services of a SciServer site are: all from one address."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from deepforge.errors import ConfigError
from deepforge.settings import problem_of_url

PUBLIC_SITE = "https://apps.sciserver.org"

WORKSPACE = "/home/idies/workspace"
"""Where jobs see the paths of the file space, as far as their volumes are mounted."""


@dataclass(frozen=True)
class Hosts:
    """The services of one site. No URL ends with a slash."""

    site: str
    login_url: str
    """The login portal; tokens are made and looked at here."""
    files_url: str
    """The file service with its `/api`."""
    compute_url: str
    """RACM: domains and jobs."""
    jobs_page_url: str
    files_page_url: str

    @property
    def file_space(self) -> str:
        """The name under which jobs at this site see what lies on its file service as files."""
        return f"sciserver:{urlsplit(self.site).netloc.lower()}"

    @staticmethod
    def of(site: str = PUBLIC_SITE) -> Hosts:
        """Derive them. Raises `ConfigError` about `site` for what is no address of a site."""
        problem = problem_of_url(site)
        if problem is not None:
            raise ConfigError(f"the SciServer site {problem}", fields={"site": problem})
        base = site.rstrip("/")
        return Hosts(
            site=base,
            login_url=f"{base}/login-portal",
            files_url=f"{base}/fileservice/api",
            compute_url=f"{base}/racm",
            jobs_page_url=f"{base}/compute/jobs",
            files_page_url=f"{base}/dashboard/files",
        )
