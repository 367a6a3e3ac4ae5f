"""Sessions in object storage: S3, Google Cloud Storage, Azure, and what is compatible."""

from .store import ObjectSessionStore, open_url

__all__ = ["ObjectSessionStore", "open_url"]
