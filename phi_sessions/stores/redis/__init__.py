"""Sessions on a Redis or Valkey server or cluster; the extra `redis` brings the driver."""

from __future__ import annotations

from .store import RedisSessionStore, open_url

__all__ = ["RedisSessionStore", "open_url"]
