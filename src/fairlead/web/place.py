"""Where the application is reached: what it listens on, and the address that raters type."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from fairlead.core.errors import ConfigError, explain

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Address of the server. Requests for other hosts are refused, which stops DNS rebinding."""

    host: str
    port: int
    url: str
    """What raters type, without a slash at the end."""

    @classmethod
    def of(cls, *, host: str, port: int, url: str | None) -> Self:
        """Check and complete.

        Raises:
            ConfigError: the address is no address, or the server would be open to a network under no name.
        """
        if url is None:
            if host not in LOOPBACK:
                raise ConfigError(explain("host", host, "is open to a network", expected="--url, the address that raters type",
                                          remedy="Add --url https://NAME, with TLS in front"))  # fmt: skip
            url = f"http://{host}:{port}"
        parts = urlsplit(url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.path.strip("/")
            or parts.query
            or parts.fragment
        ):
            raise ConfigError(
                explain(
                    "url",
                    url,
                    "is no address of a server",
                    expected="https://NAME or http://NAME:PORT",
                    remedy="Correct it",
                )
            )
        return cls(host=host, port=port, url=url.rstrip("/"))

    @property
    def is_secure(self) -> bool:
        """Do browsers reach it by TLS?"""
        return self.url.startswith("https:")

    @property
    def origins(self) -> frozenset[str]:
        """Values of `Origin` that are this application."""
        if urlsplit(self.url).hostname in LOOPBACK:
            return frozenset({self.url, f"http://127.0.0.1:{self.port}", f"http://localhost:{self.port}"})
        return frozenset({self.url})

    @property
    def hosts(self) -> frozenset[str]:
        """Values of `Host` that are answered."""
        return frozenset(urlsplit(origin).netloc for origin in self.origins)
