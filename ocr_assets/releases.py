"""Releases: which versions of an environment are published, and which one readers are given.

Belongs here: publishing a version, the pointer to the latest one, rollback, retention. Does not
belong here: computing a version, or running its checks.

Below the root of an environment, every version has a prefix of its own (`v1.2.3/`) and a tag of
that name in the region-risk repository. Publishing writes a record, `releases/v1.2.3.json`, which
is never replaced and after which nothing of that version is written any more; then it moves the
pointer, `latest.json`, in one atomic write. A version that has to be computed anew after that gets
another revision, with a prefix and a tag of its own (`v1.2.3_r2`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ocr_assets.deployment import (
    RELEASE_RECORDS,
    Deployment,
    DeploymentError,
    release_record,
)
from ocr_assets.deployment_stages import ANALYSIS_FOLDERS
from ocr_assets.lineage import content_hash
from ocr_assets.regions.risk_type import RISK_NAMES
from resources.keys import MissingObjectError, ObjectExistsError
from resources.storage import Storage

if TYPE_CHECKING:
    from resources.settings import Settings

POINTER = "latest.json"
WRITER_GRACE = timedelta(hours=24)
"""Age from which the chunks of a run that died are free to go; a run at work has younger ones."""

_LABEL = re.compile(r"v(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?(?:_r(\d+))?")

_STATISTICS = ("block", "tract", "county", "state", "nation")


@dataclass(frozen=True)
class ReleasedRegions:
    """The regions of one type of risk in a published version."""

    snapshot: str
    regions: int
    lineage: dict[str, Any]


@dataclass(frozen=True)
class Release:
    """A published version: where it is, and what it holds."""

    label: str
    """Name of its prefix and of its tags, like ``v1.2.3`` or ``v1.2.3_r2``."""
    risks: dict[str, ReleasedRegions]
    """By type of risk."""
    products: dict[str, str]
    """Fingerprint of each product, by its key below the prefix."""
    checks: int
    """How many asset checks passed before it was published."""

    def to_bytes(self) -> bytes:
        """The stored form."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Release:
        """Read :meth:`to_bytes` back."""
        told = json.loads(data)
        risks = {name: ReleasedRegions(**regions) for name, regions in told.pop("risks").items()}
        return cls(risks=risks, **told)


@dataclass(frozen=True)
class Pruned:
    """What retention removed, or would remove."""

    labels: tuple[str, ...]
    objects: int
    size: int
    """Bytes of the objects."""
    freed: int
    """Bytes of the region repositories that nothing referred to any more."""


def release_order(label: str) -> tuple[Any, ...]:
    """Sort key of labels: semantic precedence, then revision.

    A pre-release comes before its release, and pre-releases of a version are in the order of
    semantic versioning 2.0, section 11.

    Raises:
        DeploymentError: the label is not that of a version.
    """
    found = _LABEL.fullmatch(label)
    if found is None:
        raise DeploymentError(f"{label!r} is not a version like 1.2.3, or v1.2.3_r2")
    major, minor, patch, pre, revision = found.groups()
    parts = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in (pre or "").removeprefix("-").split(".")
        if part
    )
    return (int(major), int(minor), int(patch), pre is None, parts, int(revision or 1))


@dataclass(frozen=True)
class Releases:
    """The releases of an environment."""

    root: Storage

    @classmethod
    def of(cls, settings: Settings) -> Releases:
        """Those of the environment that the settings name."""
        return cls(Storage(settings.environment_root, settings.s3))

    def current(self) -> str | None:
        """Label of the version that readers are given, or None while there is none."""
        try:
            return str(json.loads(self.root.read_bytes(POINTER))["label"])
        except MissingObjectError:
            return None

    def labels(self) -> list[str]:
        """Labels of the published versions, oldest first."""
        names = [info.key.rpartition("/")[2] for info in self.root.list(RELEASE_RECORDS)]
        return sorted((name.removesuffix(".json") for name in names), key=release_order)

    def current_settings(self, settings: Settings) -> Settings:
        """``settings`` with the version that readers are given.

        Raises:
            DeploymentError: nothing is published.
        """
        label = self.current()
        if label is None:
            raise DeploymentError(
                f"{settings.environment} has published nothing yet: `ocr deploy publish` does"
            )
        version, _, revision = label.removeprefix("v").partition("_r")
        return settings.changed(version=version, revision=int(revision or 1))

    def find(self, label: str) -> Release | None:
        """The record of a published version, or None."""
        try:
            return Release.from_bytes(self.root.read_bytes(release_record(label)))
        except MissingObjectError:
            return None

    def versions(self) -> list[str]:
        """Labels of all versions that have artefacts, published or not, oldest first."""
        names = [name for name in self.root.folders() if _LABEL.fullmatch(name)]
        # On a local disk the folders of deleted objects stay.
        return sorted((name for name in names if self.root.list(name)), key=release_order)

    def next_revision(self, settings: Settings) -> int:
        """The revision under which a version can be computed: the first that is not published."""
        while self.find(settings.version_label):
            settings = settings.model_copy(update={"revision": settings.revision + 1})
        return settings.revision

    def add(self, release: Release) -> None:
        """Write the record of a release and move the pointer to it.

        Raises:
            DeploymentError: that version is published already, with another content.
        """
        data = release.to_bytes()
        try:
            self.root.write_bytes(release_record(release.label), data, if_absent=True)
        except ObjectExistsError:
            if self.root.read_bytes(release_record(release.label)) != data:
                raise DeploymentError(
                    f"{release.label} is published already, and a published version never "
                    "changes; publish a new version, or compute this one anew with "
                    "`ocr deploy run --force`"
                ) from None
        self.point_to(release.label)

    def point_to(self, label: str) -> None:
        """Give readers this version from now on, by one atomic write.

        Raises:
            DeploymentError: the version is not published.
        """
        if not self.root.exists(release_record(label)):
            published = ", ".join(self.labels()) or "none"
            raise DeploymentError(f"{label} is not published; published versions: {published}")
        pointer = {"label": label, "record": release_record(label), "prefix": label}
        self.root.write_bytes(POINTER, (json.dumps(pointer, indent=1) + "\n").encode())

    def expendable(self, keep: int) -> list[str]:
        """Versions older than the newest ``keep`` published ones, but never the current one.

        Unpublished versions count as expendable if they are older than all that are kept: a newer
        one may be at work.
        """
        published = self.labels()
        kept = published[-keep:] if keep else []
        if not kept:
            return []
        current = self.current()
        oldest = release_order(kept[0])
        everything = sorted({*published, *self.versions()}, key=release_order)
        return [
            label
            for label in everything
            if label not in kept and label != current and release_order(label) < oldest
        ]


@dataclass(frozen=True)
class Publication:
    """A version of a deployment on its way to its readers."""

    deployment: Deployment

    @cached_property
    def label(self) -> str:
        """Label of the version; raises DeploymentError where the deployment has none."""
        settings = self.deployment.settings
        if settings.version is None:
            raise DeploymentError("only a version can be published: set OCR_VERSION=1.2.3")
        return settings.version_label

    @property
    def releases(self) -> Releases:
        """Where it is published."""
        return Releases.of(self.deployment.settings)

    @property
    def parts(self) -> list[Deployment]:
        """The deployment for each type of risk that the version has regions of, or of the first."""
        every = [self.deployment.of(name) for name in RISK_NAMES]
        return [part for part in every if part.current_ledger()] or every[:1]

    def products(self) -> dict[str, str]:
        """Fingerprint of each product of the version, each made from the one before it.

        Raises:
            DeploymentError: a product is missing, or older than what it is made from.
        """
        return {
            part.key(key): fingerprint
            for part in self.parts
            for key, fingerprint in _Products(part).checked().items()
        }

    def publish(self, checks_passed: int) -> Release:
        """Publish the version and give it to its readers; to do so twice changes nothing.

        The caller ran the checks of all assets and found that the blocking ones passed.
        """
        if published := self.releases.find(self.label):
            self.releases.point_to(self.label)
            return published
        products = self.products()
        risks = {
            part.risk_name: ReleasedRegions(
                part.regions.tag(self.label), len(part.current_ledger()), part.region_lineage
            )
            for part in self.parts
        }
        release = Release(self.label, risks, products, checks_passed)
        self.releases.add(release)
        return release


@dataclass(frozen=True)
class _Products:
    """The products of one type of risk, and what their lineage has to say if they are current."""

    deployment: Deployment

    def checked(self) -> dict[str, str]:
        from resources.io_managers import StoredTable

        deployment = self.deployment
        ledger = deployment.current_ledger()
        production = deployment.settings.environment == "production"
        missing = len(deployment.grid.valid) - len(ledger)
        if not ledger or (production and missing):
            raise DeploymentError(
                f"{missing} of {len(deployment.grid.valid)} {deployment.risk_name} regions are not "
                f"done in {deployment.settings.version_label}: run `ocr run --all-region-ids "
                f"--risk-type {deployment.risk_name}` first"
            )
        if stale := deployment.unfinished_regions(ledger):
            raise DeploymentError(
                f"{len(stale)} regions are stale, the first is {stale[0]}: run them again first"
            )
        manifest = deployment.storage.manifest("buildings")
        if manifest is None:
            raise self._missing("buildings")
        table = StoredTable(deployment.storage, manifest)
        hashes = {id_: entry["buildings"]["sha256"] for id_, entry in ledger.items()}
        self._require("buildings", manifest.metadata["inputs"], hashes)
        found = {"buildings": table.fingerprint}
        from_buildings = {"buildings": table.fingerprint}
        statistics = [f"statistics/{level}.parquet" for level in _STATISTICS]
        for key in ("pmtiles/buildings.pmtiles", "pmtiles/building_centroids.pmtiles"):
            self._file(found, key, from_buildings, required=True)
        for key in statistics:
            self._file(found, key, from_buildings, required=production)
        levels = {
            level: found[key]
            for level, key in zip(_STATISTICS, statistics, strict=True)
            if key in found
        }
        self._file(found, "pmtiles/regions.pmtiles", levels, required=production)
        for level in levels:
            key = f"region-analysis/{ANALYSIS_FOLDERS[level]}"
            self._file(found, key, {level: levels[level]}, required=production)
        entries = {id_: content_hash(entry) for id_, entry in ledger.items()}
        record = self._record("pyramid/current.json", required=production)
        if record:
            self._require("pyramid", record["inputs"], entries)
            found["pyramid"] = record["folder"]
        return found

    def _file(
        self, found: dict[str, str], key: str, made_from: Mapping[str, str], *, required: bool
    ) -> None:
        record = self._record(f"{key}.lineage.json", required=required)
        if record:
            self._require(key, record["inputs"], made_from)
            found[key] = record["sha256"]

    def _record(self, key: str, *, required: bool) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self.deployment.storage.read_bytes(key)))
        except MissingObjectError:
            if required:
                raise self._missing(key.removesuffix(".lineage.json")) from None
            return None

    def _require(self, key: str, inputs: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        if any(inputs.get(name) != fingerprint for name, fingerprint in wanted.items()) or (
            key in ("buildings", "pyramid") and inputs.keys() != wanted.keys()
        ):
            raise DeploymentError(
                f"{self.deployment.storage.uri(key)} is older than what it is made from: "
                "materialize it again, then publish"
            )

    def _missing(self, key: str) -> DeploymentError:
        return DeploymentError(
            f"{self.deployment.storage.uri(key)} is missing: materialize it, then publish"
        )


def prune(deployment: Deployment, labels: Sequence[str], *, dry_run: bool = False) -> Pruned:
    """Remove versions for good, and what the repository keeps for none of the others.

    A version stops being published before anything of it is deleted, so whatever crash: nobody is
    given a version that is not whole. Running it again completes what a crash left.
    """
    releases = Releases.of(deployment.settings)
    objects = [info for label in labels for info in releases.root.list(label)]
    size = sum(info.size for info in objects)
    freed = 0
    if not dry_run:
        from resources.icechunk_branch import NotInitializedError

        releases.root.delete(release_record(label) for label in labels)
        releases.root.delete(info.key for info in objects)
        for part in map(deployment.of, RISK_NAMES):
            with suppress(NotInitializedError):
                part.regions.untag(labels)
                freed += part.regions.expire(datetime.now(UTC) - WRITER_GRACE)
    return Pruned(tuple(labels), len(objects), size, freed)
