"""Objects of a storage as GDAL opens them: a file, or part of a bucket.

Belongs here: names and options for GDAL. Does not belong here: what is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from resources.storage import Storage


def gdal_path(storage: Storage, key: str) -> str:
    """What GDAL opens for a key, within :func:`gdal_access`."""
    if storage.is_local:
        return str(storage.local_path(key))
    bucket, prefix = storage.bucket_and_prefix
    return "/vsis3/" + "/".join(part for part in (bucket, prefix, key) if part)


def gdal_options(storage: Storage) -> dict[str, Any]:
    """Options of GDAL for what :func:`gdal_path` gives."""
    if storage.is_local:
        return {}
    options: dict[str, Any] = {
        "AWS_REGION": storage.s3.region,
        "AWS_NO_SIGN_REQUEST": "YES" if storage.s3.anonymous else "NO",
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    }
    if storage.s3.endpoint_url:
        options["AWS_S3_ENDPOINT"] = storage.s3.endpoint_url.rpartition("://")[2].rstrip("/")
        options["AWS_HTTPS"] = "NO" if storage.s3.allow_http else "YES"
        options["AWS_VIRTUAL_HOSTING"] = "FALSE"
    return options


@contextmanager
def gdal_access(storage: Storage) -> Iterator[None]:
    """Context in which GDAL opens objects of a storage, as they are now."""
    import rasterio
    from rasterio.session import DummySession

    options = gdal_options(storage)
    if options:
        # GDAL remembers what it has read of an address; objects are replaced.
        options["CPL_VSIL_CURL_NON_CACHED"] = "/vsis3/"
    # GDAL finds credentials itself; the session of a store of ours would hide them.
    with rasterio.Env(DummySession(), **options):
        yield
