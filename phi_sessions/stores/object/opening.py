"""From a URL to a client of obstore."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from ...dependency import requires

with requires("object"):
    from obstore.exceptions import BaseError
    from obstore.store import HTTPStore, LocalStore, from_url

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["connect", "options_of", "place_of", "place_of_url", "require_conditional_puts"]

_SCHEMES: Final = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")
_CLIENT_OPTIONS: Final = frozenset(
    (
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "default_content_type",
        "http1_only",
        "http2_keep_alive_interval",
        "http2_keep_alive_timeout",
        "http2_keep_alive_while_idle",
        "http2_only",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_ca_certificate",
        "proxy_excludes",
        "proxy_url",
        "randomize_addresses",
        "read_timeout",
        "user_agent",
    )
)
"""What obstore takes for its HTTP client; it panics where they stand among the other options."""

_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_OWN: Final = frozenset(("timeout", "lock_timeout", "lease_expiry"))
_KINDS: Final = {"S3Store": "s3", "GCSStore": "gs", "AzureStore": "az"}


def connect(
    url: str,
    timeout: float,
    config: Mapping[str, Any],
    client_options: Mapping[str, Any],
    credential_provider: Callable[[], Any] | None,
) -> ObjectStore:
    """Return a client for `url`, which sends nothing over the network yet.

    Raises:
        ValueError: The URL or an option is not one that obstore knows.
    """
    if "#" in url:  # what is cut off there may be all that tells two places apart, or be secret
        raise ValueError("in the URL of an object store # is written %23")
    parts = urlsplit(url)
    place = place_of_url(url)
    if any(step in (".", "..") for step in unquote(parts.path).split("/")):
        raise ValueError(f"{place}: . and .. are no steps of a prefix")
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"{place}: not one of {', '.join(_SCHEMES)}")
    if parts.username is not None and not parts.scheme.startswith("abfs"):
        raise ValueError(
            f"{place}: keys are options, as in ?access_key_id=...&secret_access_key=..."
        )
    settings: dict[str, Any] = {}
    try:
        limit = timedelta(seconds=timeout)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"timeout cannot be {timeout} seconds") from error
    client: dict[str, Any] = {"timeout": limit, "connect_timeout": min(limit, timedelta(seconds=5))}
    for name, value in _pairs(parts.query):
        (client if name in _CLIENT_OPTIONS else settings)[name] = value
    settings |= config
    if parts.scheme in ("s3", "s3a") and not any("endpoint" in name.lower() for name in settings):
        endpoints = [os.environ.get(name, "") for name in _ENDPOINTS]
    else:
        endpoints = [str(settings[name]) for name in settings if "endpoint" in name.lower()]
    if any(endpoint.startswith("http://") for endpoint in endpoints):
        client["allow_http"] = True
    make = cast("Callable[..., ObjectStore]", from_url)  # its options are typed by kind
    try:
        return make(
            urlunsplit(parts._replace(query="", fragment="")),
            config=settings or None,
            client_options=client | dict(client_options),
            retry_config={"max_retries": 0},  # what is sent again is decided in `bucket`
            credential_provider=credential_provider,
        )
    except (BaseError, ValueError) as error:
        what = str(error).partition("\n\nDebug source:")[0]
        raise ValueError(f"{place}: {what}") from error


def options_of(url: str) -> tuple[str, dict[str, Any]]:
    """Return a URL without the options of the store itself, and these.

    Raises:
        ValueError: An option is given twice, or one of these is no number.
    """
    parts = urlsplit(url)
    pairs = _pairs(parts.query)
    own: dict[str, Any] = {name: float(value) for name, value in pairs if name in _OWN}
    rest = urlencode([pair for pair in pairs if pair[0] not in _OWN])
    return urlunsplit(parts._replace(query=rest)), own


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs = parse_qsl(query, keep_blank_values=True)
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise ValueError(f"the option {name!r} is given twice")
    return pairs


def place_of(client: ObjectStore) -> str:
    """Return a printable name of where a client leads to, without any keys."""
    config: Mapping[str, Any] = getattr(client, "config", None) or {}
    for kind, scheme in _KINDS.items():
        bucket = config.get("container_name") or config.get("bucket")
        if type(client).__name__ == kind and bucket:
            return f"{scheme}://{bucket}/{getattr(client, 'prefix', None) or ''}".rstrip("/")
    return type(client).__name__


def place_of_url(url: str) -> str:
    """Return a printable form of a URL, without any keys."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return unquote(urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")))


def require_conditional_puts(client: ObjectStore) -> None:
    """Refuse clients that cannot put on condition.

    Raises:
        TypeError: It is one of these.
    """
    if isinstance(client, LocalStore):
        raise TypeError(
            "obstore's LocalStore cannot replace a file on condition, so that one writer would undo"
            " what another wrote: use FileSystemSessionStore"
        )
    if isinstance(client, HTTPStore):
        raise TypeError("obstore's HTTPStore cannot put on condition: use a store for S3 or alike")
