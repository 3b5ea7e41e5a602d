"""Requests become runs: each exactly once, whatever comes twice, late, wrong or in masses."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG
from request_daemon import Daemon

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.partitions import PARTITION, TILES, VOLUMES
from ocr_assets.request_jobs import TILE_FIRST, TILE_WANTED, request_jobs
from ocr_assets.request_messages import tile_messages, volume_messages
from ocr_assets.sample.imagery import DEFAULT_TILES
from ocr_assets.tile_library import TileLibrary
from ocr_assets.tiles.assets import tile_wing
from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volumes.archive import MANIFEST_NAME, VolumeId, image_folder
from ocr_assets.volumes.assets import volume_wing
from resources.request_queue import QUIET_SECONDS, RequestInbox
from resources.settings import Settings
from resources.storage import Storage
from sensors import inbox as inbox_module
from sensors.inbox import MOST_ACCEPTED, MOST_RUNS, MOST_WAITING
from sensors.tile_requests import tile_request_sensor
from sensors.volume_requests import volume_request_sensor

STAGES = ("evaluated", "partitioned", "reserved", "launched one")
A, B, C = (Tile.parse(key) for key in ("1035X727Y", "1036X727Y", "1037X727Y"))
FIRST, WANTED = "tiles/qa/dev/{}", "tiles/qa/dev/{}|{}"


class Requests:
    """A deployment with an inbox, and a daemon that runs a sensor of requests."""

    def __init__(self, folder: Path, kind: Any, **settings: Any) -> None:
        settings = {"storage_root": str(folder / "root")} | settings
        self.settings = Settings(**settings)
        self.kind = kind
        self.inbox = RequestInbox.of(self.settings, kind)
        self.daemon = Daemon(*self._sensor())

    def _sensor(self) -> tuple[dg.SensorDefinition, dict[str, Any]]:
        if self.kind == "tiles":
            tiles = TileLibrary(self.settings)
            return tile_request_sensor(tiles, request_jobs(tile_wing(tiles))), {"tiles": tiles}
        volumes = VolumeLibrary(self.settings)
        return volume_request_sensor(volumes, request_jobs(volume_wing(volumes))), {}

    def put(self, name: str, body: bytes) -> None:
        """Put a file into the inbox, which nobody has touched for a while."""
        self.inbox.storage.write_bytes(name, body)
        if self.inbox.storage.is_local:
            age(self.inbox.storage.local_path(name))

    def until_quiet(self, **finish: Any) -> list[str]:
        """Tick and run until nothing is left to do; the keys of all runs, as they came."""
        keys: list[str] = []
        for _ in range(100):
            keys += self.daemon.tick()
            finished = self.daemon.finish(**finish)
            if not finished and not self.inbox.accepted() and not self.daemon.reserved:
                return keys
        raise AssertionError(self.daemon.told)

    def folder(self, name: str) -> list[str]:
        """Names of the requests in a folder of the inbox."""
        return [info.key.partition("/")[2] for info in self.inbox.storage.files(name)]

    def document(self, folder: str, ending: str) -> dict[str, Any]:
        """The document that tells about the only request in a folder."""
        (name,) = [name for name in self.folder(folder) if name.endswith(ending)]
        found: dict[str, Any] = json.loads(self.inbox.storage.read_bytes(f"{folder}/{name}"))
        return found


def short(value: object) -> str:
    """Id of a parameter."""
    return "".join(sign for sign in str(value)[:30] if sign.isalnum())


def age(path: Path) -> None:
    """Make a file look as if it was left alone for a while."""
    past = time.time() - QUIET_SECONDS - 1
    os.utime(path, (past, past))


@pytest.fixture(params=["folder", "bucket"])
def tiles(request: pytest.FixtureRequest, tmp_path: Path) -> Requests:
    if request.param == "folder":
        return Requests(tmp_path, "tiles")
    bucket: Storage = request.getfixturevalue("s3_bucket")
    place = {"request_inbox": bucket.uri("inbox"), "s3_endpoint_url": bucket.s3.endpoint_url}
    return Requests(tmp_path, "tiles", **place)


@pytest.fixture
def local_tiles(tmp_path: Path) -> Requests:
    return Requests(tmp_path, "tiles")


def asks(*tiles: tuple[int, Tile], attempt: int = 1) -> bytes:
    (body,) = tile_messages(tiles, attempt)
    return body


def both(tile: Tile, year: int = 2023) -> list[str]:
    return [FIRST.format(tile.key), WANTED.format(tile.key, year)]


def test_a_tile_is_two_runs_one_after_the_other(tiles: Requests) -> None:
    tiles.put("mine.json", asks((2023, A), (2022, A)))
    assert tiles.daemon.tick() == [FIRST.format(A.key)]
    (run,) = tiles.daemon.waiting()
    assert run.job_name == TILE_FIRST
    assert run.tags[PARTITION] == A.key
    assert tiles.daemon.instance.get_dynamic_partitions(str(TILES.name)) == [A.key]
    # While terrain is at work, nothing else is asked for, and the request is kept.
    assert tiles.daemon.tick() == []
    assert tiles.daemon.told == "1 requests at work"
    tiles.daemon.finish()
    assert tiles.daemon.tick() == [WANTED.format(A.key, year) for year in (2022, 2023)]
    runs = tiles.daemon.waiting()
    assert {run.job_name for run in runs} == {TILE_WANTED}
    tags = {key: value for key, value in runs[0].tags.items() if key.startswith(PARTITION)}
    assert tags == {
        PARTITION: f"{A.key}|2022",
        f"{PARTITION}/tile": A.key,
        f"{PARTITION}/year": "2022",
    }
    # Only a later tick, which finds the runs, puts the request aside.
    assert tiles.folder("done") == []
    assert tiles.daemon.tick() == []
    assert tiles.folder("") == tiles.folder("accepted") == tiles.folder("rejected") == []
    (done,) = tiles.folder("done")
    assert done.endswith("-mine.json")
    assert tiles.inbox.storage.read_bytes(f"done/{done}") == asks((2023, A), (2022, A))
    assert tiles.daemon.tick() == []
    assert tiles.daemon.told == "no requests"


def test_terrain_that_was_made_is_not_asked_for_again(sample_imagery: Path, tmp_path: Path) -> None:
    requests = Requests(tmp_path, "tiles", elevation_source=str(sample_imagery))
    tile = Tile.parse(DEFAULT_TILES[0])
    requests.put("one.json", asks((2023, tile)))
    requests.daemon.tick()
    (run,) = requests.daemon.waiting()
    repository = build_defs(Deployment(requests.settings)).get_repository_def()
    done = repository.get_job(run.job_name).execute_in_process(
        instance=requests.daemon.instance,
        tags={name: value for name, value in run.tags.items() if name.startswith(PARTITION)},
    )
    assert [made.asset_key.path for made in done.get_asset_materialization_events()] == [
        ["elevation"]
    ]
    # Somebody else's instance, which knows of no run.
    requests.daemon = Daemon(requests.daemon.sensor, requests.daemon.resources)
    assert requests.daemon.tick() == [WANTED.format(tile.key, 2023)]


@pytest.mark.parametrize("second", STAGES)
@pytest.mark.parametrize("first", STAGES)
def test_a_daemon_that_is_killed_loses_nothing_and_repeats_nothing(
    local_tiles: Requests, first: str, second: str
) -> None:
    local_tiles.put("one.json", asks((2023, A), (2023, B)))
    local_tiles.put("two.json", asks((2023, C)))
    local_tiles.daemon.tick(dies_at=first)
    local_tiles.daemon.tick(dies_at=second)
    local_tiles.until_quiet()
    assert local_tiles.daemon.run_keys() == sorted([*both(A), *both(B), *both(C)])
    assert len(local_tiles.folder("done")) == 2


def test_the_cursor_only_saves_work(local_tiles: Requests) -> None:
    local_tiles.put("one.json", asks((2023, A), (2023, B)))
    local_tiles.daemon.tick()
    for damaged in (None, "{", '{"v":1,"progress":{"x":{"at":99}}}', '{"v":9}'):
        local_tiles.daemon.cursor = damaged
        local_tiles.daemon.tick()
        local_tiles.daemon.finish()
    local_tiles.until_quiet()
    assert local_tiles.daemon.run_keys() == sorted([*both(A), *both(B)])


def test_duplicates_do_nothing_twice(tiles: Requests) -> None:
    body = asks((2023, A))
    tiles.put("one.json", body)
    tiles.put("two.json", body)
    tiles.put("other.csv", f"Year,X_tile,Y_tile\n2023,{A.x},{A.y}\n2023,{A.x},{A.y}\n".encode())
    assert tiles.until_quiet() == both(A)
    tiles.put("one.json", body)
    assert tiles.until_quiet() == []
    assert sorted(name.partition("-")[2] for name in tiles.folder("done")) == [
        "one.json",
        "other.csv",
        "two.json",
    ]


def test_what_failed_is_repeated_by_a_further_attempt_and_nothing_else(
    local_tiles: Requests,
) -> None:
    local_tiles.put("one.json", asks((2023, A), (2023, B)))

    def fails(run: dg.DagsterRun) -> bool:
        return run.tags[PARTITION] != f"{A.key}|2023"

    local_tiles.until_quiet(succeeds=fails)
    local_tiles.put("again.json", asks((2023, A), (2023, B)))
    assert local_tiles.until_quiet() == []
    local_tiles.put("second.json", asks((2023, A), (2023, B), attempt=2))
    terrain, wanted = both(A)
    # Terrain is not there either: nothing was really made.
    assert local_tiles.until_quiet() == [f"{terrain}:attempt-2", f"{wanted}:attempt-2"]
    local_tiles.put("third.json", asks((2023, A), attempt=3))
    assert local_tiles.until_quiet() == []


def test_terrain_that_failed_lets_the_tile_fail_visibly(local_tiles: Requests) -> None:
    local_tiles.put("one.json", asks((2023, A)))
    assert local_tiles.until_quiet(succeeds=lambda run: run.job_name != TILE_FIRST) == both(A)


def test_a_run_that_dagster_tries_again_is_waited_for(local_tiles: Requests) -> None:
    local_tiles.put("one.json", asks((2023, A)))
    daemon = local_tiles.daemon
    daemon.tick()
    (crashed,) = daemon.waiting()
    daemon.finish(lambda run: False)
    daemon.instance.add_run_tags(crashed.run_id, {WILL_RETRY_TAG: "true"})
    assert daemon.tick() == []
    daemon.instance.add_run_tags(crashed.run_id, {AUTO_RETRY_RUN_ID_TAG: "another"})
    assert daemon.tick() == [WANTED.format(A.key, 2023)]


def test_a_run_that_was_never_launched_is_requested_again(local_tiles: Requests) -> None:
    local_tiles.put("one.json", asks((2023, A)))
    daemon = local_tiles.daemon
    daemon.tick()
    (run,) = daemon.waiting()
    daemon.instance.delete_run(run.run_id)
    created = dg.DagsterRun(
        job_name=run.job_name,
        run_id=run.run_id,
        tags=run.tags,
        status=dg.DagsterRunStatus.NOT_STARTED,
    )
    daemon.instance.add_run(created)
    daemon.tick()
    assert daemon.result is not None
    assert [one.run_key for one in daemon.result.run_requests or ()] == [FIRST.format(A.key)]


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("empty.json", b"", "is empty"),
        ("broken.json", b'{"ocr": "tile_request", ', "is not JSON"),
        ("binary.csv", b"\xff\xfe\x00", "no CSV of UTF-8 text"),
        ("deep.json", b"[" * 100_000, "nested too deeply"),
        ("unknown.json", b'{"ocr": "tile_request", "years": {}, "run": "rm -rf /"}', "run: Extra"),
        ("attempt.json", b'{"ocr": "tile_request", "years": {}, "attempt": 100}', "attempt: "),
        (
            "path.json",
            b'{"ocr": "tile_request", "years": {"2023": ["../../etc/passwd", "1X1Y"]}}',
            "'../../etc/passwd': not a tile id",
        ),
        (
            "sql.json",
            b'{"ocr": "tile_request", "years": {"2023": ["1X2Y\'; DROP TABLE runs; --"]}}',
            "not a tile id",
        ),
        ("projects.json", b'{"Records": 1}', "project 'Records': not of the right form"),
        ("polygons.json", b'{"type": "FeatureCollection", "features": []}', "--year YEAR"),
        ("'; rm -rf $HOME; '.csv", b"a,b\n1,2\n", "has the columns"),
    ],
    ids=short,
)
def test_what_cannot_be_used_is_put_aside_with_the_reason(
    local_tiles: Requests, name: str, body: bytes, reason: str
) -> None:
    local_tiles.put(name, body)
    local_tiles.put("good.json", asks((2023, A)))
    assert local_tiles.until_quiet() == both(A)
    document = local_tiles.document("rejected", ".reason.json")
    assert reason in document["reason"]
    (kept,) = [name for name in local_tiles.folder("rejected") if ".reason." not in name]
    assert local_tiles.inbox.storage.read_bytes(f"rejected/{kept}") == body
    assert document["request"] == kept
    assert len(local_tiles.folder("done")) == 1
    assert "/tmp" not in json.dumps(document)


def test_a_part_that_cannot_be_used_is_told_beside_the_request(tiles: Requests) -> None:
    wrong = {"2023": [A.key, "1X1Y", "what"], "1066": [A.key]}
    tiles.put("some.json", json.dumps({"ocr": "tile_request", "years": wrong}).encode())
    assert tiles.until_quiet() == both(A)
    document = tiles.document("done", ".left-out.json")
    assert document["count"] == 3
    told = " ".join(document["left_out"])
    assert "1X1Y: not in the grid" in told
    assert "'what': not a tile id" in told
    assert "1066" in told


def test_files_that_are_hidden_unfinished_or_links_are_left_alone(
    local_tiles: Requests, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_bytes(asks((2023, A)))
    age(secret)
    local_tiles.put("first.json", asks((2023, B)))
    folder = Path(local_tiles.inbox.storage.root)
    (folder / "link.json").symlink_to(secret)
    for name in (".hidden.json", "big.csv.part", "new.json"):
        (folder / name).write_bytes(asks((2023, A)))
    for name in (".hidden.json", "big.csv.part"):
        age(folder / name)
    assert local_tiles.until_quiet() == both(B)
    # The one that was written just now may not be whole yet.
    age(folder / "new.json")
    assert local_tiles.until_quiet() == both(A)
    assert secret.exists()
    assert (folder / "link.json").is_symlink()


def test_names_that_are_no_keys_hold_up_nobody(local_tiles: Requests) -> None:
    local_tiles.put("good.json", asks((2023, A)))
    folder = Path(local_tiles.inbox.storage.root)
    for name in ("new\nline.json", "back\\slash.json", "\udcff.json"):
        (folder / name).write_bytes(asks((2023, B)))
        age(folder / name)
    assert sorted(local_tiles.until_quiet()) == sorted([*both(A), *both(B)])
    assert len(local_tiles.folder("done")) == 4


def test_too_large_a_file_is_not_read(
    local_tiles: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.request_queue.MOST_BYTES", 1000)
    local_tiles.put("large.json", b" " * 1001)
    assert local_tiles.until_quiet() == []
    assert "larger than 1000 bytes" in local_tiles.document("rejected", ".reason.json")["reason"]
    assert len(local_tiles.folder("rejected")) == 2


def many(count: int) -> list[tuple[int, Tile]]:
    """So many tiles of the grid, in a year."""
    grid = TileGrid.load()
    x, y = (axis.ravel() for axis in np.mgrid[1000:1040, 700:800])
    there = grid.contains(x, y)
    chosen = zip(x[there].tolist(), y[there].tolist(), strict=True)
    found = [(2023, Tile(*place)) for place in chosen][:count]
    assert len(found) == count
    return found


def test_a_thousand_requests_fill_no_tick_and_no_queue(local_tiles: Requests) -> None:
    for number, item in enumerate(many(1000)):
        local_tiles.put(f"{number}.json", asks(item))
    launched = [len(local_tiles.daemon.tick()) for _ in range(3)]
    assert launched == [MOST_RUNS, MOST_ACCEPTED - MOST_RUNS, 0]
    assert len(local_tiles.inbox.accepted()) == MOST_ACCEPTED
    assert len(local_tiles.inbox.storage.files()) == 1000 - MOST_ACCEPTED
    assert len(local_tiles.daemon.cursor or "") < 50_000


def test_masses_of_requests_come_through_bit_by_bit(
    local_tiles: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"MOST_RUNS": 20, "MOST_ACCEPTED": 25, "MOST_WAITING": 30, "_CHUNK": 7, "_WINDOW": 20}
    for name, limit in limits.items():
        monkeypatch.setattr(inbox_module, name, limit)
    chosen = many(120)
    for number, item in enumerate(chosen[:60]):
        local_tiles.put(f"{number}.json", asks(item))
    local_tiles.put("large.json", asks(*chosen[60:]))
    keys: list[str] = []
    while local_tiles.inbox.storage.files() or local_tiles.inbox.accepted():
        assert len(local_tiles.daemon.tick()) <= 20
        assert len(local_tiles.inbox.accepted()) <= 25
        keys += local_tiles.daemon.finish()
        assert len(keys) <= 240
    assert sorted(keys) == sorted(key for _, tile in chosen for key in both(tile))
    assert len(local_tiles.folder("done")) == 61


def test_a_large_request_goes_on_where_it_was_and_holds_up_no_small_one(
    local_tiles: Requests,
) -> None:
    chosen = many(MOST_RUNS + 51)
    local_tiles.put("large.json", asks(*chosen[:-1]))
    assert len(local_tiles.daemon.tick()) == MOST_RUNS
    local_tiles.put("small.json", asks(chosen[-1]))
    small = both(chosen[-1][1])
    assert small[0] in local_tiles.daemon.tick()
    local_tiles.daemon.finish()
    assert small[1] in local_tiles.daemon.tick()
    local_tiles.until_quiet()
    assert local_tiles.daemon.run_keys() == sorted(key for _, tile in chosen for key in both(tile))


def test_a_full_queue_is_not_filled_further(
    local_tiles: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MOST_WAITING", 3)
    assert MOST_WAITING > 3
    chosen = many(5)
    local_tiles.put("one.json", asks(*chosen))
    assert len(local_tiles.daemon.tick()) == 3
    assert local_tiles.daemon.tick() == []
    assert "3 runs wait in the queue" in local_tiles.daemon.told
    local_tiles.until_quiet()
    assert len(local_tiles.daemon.run_keys()) == 10


def test_a_tick_that_runs_out_of_time_leaves_the_rest(
    local_tiles: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MOST_SECONDS", 0.0)
    local_tiles.put("one.json", asks((2023, A)))
    assert local_tiles.daemon.tick() == []
    assert "out of time" in local_tiles.daemon.told
    monkeypatch.undo()
    assert local_tiles.until_quiet() == both(A)


def test_a_version_is_made_by_runs_of_its_own(tmp_path: Path) -> None:
    first = Requests(tmp_path, "tiles", version="1.0.0")
    first.put("one.json", asks((2023, A)))
    assert first.until_quiet() == [
        f"tiles/qa/v1.0.0/{A.key}",
        f"tiles/qa/v1.0.0/{A.key}|2023",
    ]


def test_sensors_run_by_themselves_only_where_requests_are_expected(tmp_path: Path) -> None:
    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED

    def status(kind: str, **settings: Any) -> dg.DefaultSensorStatus:
        return Requests(tmp_path, kind, **settings).daemon.sensor.default_status

    assert status("tiles") == status("volumes") == stopped
    queue = "http://127.0.0.1:1/123456789012/queue"
    assert status("tiles", tile_queue_url=queue) == running
    assert status("volumes", tile_queue_url=queue) == stopped
    assert status("volumes", volume_queue_url=queue) == running
    assert status("tiles", request_inbox="s3://bucket/inbox") == running
    (tmp_path / "root" / "qa" / "inbox" / "volumes").mkdir(parents=True)
    assert (status("tiles"), status("volumes")) == (stopped, running)


# --- volumes


class Archive:
    """An archive in a folder, whose volumes have lists of images and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "Works").mkdir(parents=True)

    def put(self, volume: str, *names: str) -> None:
        place = self.folder / image_folder(VolumeId.parse(volume)) / MANIFEST_NAME
        place.parent.mkdir(parents=True, exist_ok=True)
        entries = [{"filename": name, "width": 10, "height": 10} for name in names]
        place.write_bytes(gzip.compress(json.dumps(entries).encode(), mtime=0))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


@pytest.fixture
def volumes(tmp_path: Path, archive: Archive) -> Requests:
    return Requests(tmp_path, "volumes", volumes_source=str(archive.folder))


def reads(*volumes: str, job_type: str = "printed-unicode", attempt: int = 1) -> bytes:
    (body,) = volume_messages([VolumeId.parse(one) for one in volumes], job_type, attempt)
    return body


def without_tag(keys: list[str]) -> list[str]:
    return [key.partition("@")[0].removeprefix("volumes/qa/dev/") for key in keys]


def test_a_volume_is_listed_then_read(volumes: Requests, archive: Archive) -> None:
    archive.put("W1-I1", "1.tif")
    volumes.put("one.json", reads("W1-I1"))
    keys = volumes.until_quiet()
    assert without_tag(keys) == ["W1-I1", "printed-unicode|W1-I1"]
    library = VolumeLibrary(volumes.settings)
    etag = library.source(VolumeId.parse("W1-I1")).manifest().etag
    assert [key.partition("@")[2] for key in keys] == [etag, etag]
    instance = volumes.daemon.instance
    assert instance.get_dynamic_partitions(str(VOLUMES.name)) == ["W1-I1"]
    (run, listing) = instance.get_runs()
    assert run.job_name == "requested_volumes"
    assert run.tags[PARTITION] == "printed-unicode|W1-I1"
    assert listing.job_name == "requested_listings"
    assert listing.tags[PARTITION] == "W1-I1"


def test_a_volume_that_is_listed_already_is_read_at_once(
    volumes: Requests, archive: Archive
) -> None:
    archive.put("W1-I1", "1.tif")
    library = VolumeLibrary(volumes.settings)
    library.store_manifest(library.source(VolumeId.parse("W1-I1")).manifest())
    volumes.put("one.json", reads("W1-I1"))
    assert without_tag(volumes.daemon.tick()) == ["printed-unicode|W1-I1"]


def test_replaced_scans_are_read_again_and_unchanged_ones_are_not(
    volumes: Requests, archive: Archive
) -> None:
    archive.put("W1-I1", "1.tif")
    archive.put("W2-I2", "1.tif")
    volumes.put("one.json", reads("W1-I1", "W2-I2"))
    assert len(volumes.until_quiet()) == 4
    archive.put("W2-I2", "1.tif", "2.tif")
    volumes.put("one.json", reads("W1-I1", "W2-I2"))
    assert without_tag(volumes.until_quiet()) == ["W2-I2", "printed-unicode|W2-I2"]
    volumes.put("wylie.json", reads("W1-I1", job_type="printed-wylie"))
    # Its images were listed for the other job type.
    assert without_tag(volumes.until_quiet()) == ["printed-wylie|W1-I1"]


def test_volumes_of_a_folder_are_known_by_their_content(tmp_path: Path) -> None:
    requests = Requests(tmp_path, "volumes")
    folder = Path(requests.settings.scans_uri, "W1-I1")
    folder.mkdir(parents=True)
    (folder / "1.tif").write_bytes(b"one")
    requests.put("one.json", reads("W1-I1"))
    first = requests.until_quiet()
    assert without_tag(first) == ["W1-I1", "printed-unicode|W1-I1"]
    # The same content at another time is the same volume.
    age(folder / "1.tif")
    requests.put("one.json", reads("W1-I1"))
    assert requests.until_quiet() == []
    (folder / "1.tif").write_bytes(b"two")
    requests.put("one.json", reads("W1-I1"))
    second = requests.until_quiet()
    assert without_tag(second) == without_tag(first)
    assert set(first).isdisjoint(second)


@pytest.mark.parametrize(
    "body",
    [
        b'{"w_id": "W1", "i_id": "I1"}',
        b"\xef\xbb\xbf# a list\nW1-I1 # the first\n\nW1,I1\n",
        b'{"ocr": "volume_request", "volumes": ["W1-I1", "W1/I1"]}',
    ],
    ids=["task", "list", "message"],
)
def test_volumes_are_asked_for_in_several_forms(
    volumes: Requests, archive: Archive, body: bytes
) -> None:
    archive.put("W1-I1", "1.tif")
    volumes.put("request", body)
    assert without_tag(volumes.until_quiet()) == ["W1-I1", "printed-unicode|W1-I1"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"ocr": "volume_request", "volumes": ["W1-../../I1"]}', "is no volume"),
        (
            b'{"ocr": "volume_request", "volumes": ["W1-I1"], "job_type": "../x"}',
            "unknown job type",
        ),
        (b'{"ocr": "volume_request", "volumes": "W1-I1"}', "volumes: Input should be a valid list"),
        (b'{"w_id": "W1\' OR 1=1 --", "i_id": "I1"}', "are no volume"),
        (b'{"w_id": "W1", "i_id": "I1", "source": "elsewhere"}', "source: Extra inputs"),
        (b"W1-I1\nrm -rf /\n", "line 2"),
        (b"\xff", "not UTF-8"),
        (b"{", "not JSON"),
        (b"[1]", "valid dictionary"),
        (b'{"ocr": "volume_request", "volumes": ["W9-I9"]}', "has no manifest"),
    ],
    ids=short,
)
def test_requests_for_volumes_that_cannot_be_used(
    volumes: Requests, body: bytes, reason: str
) -> None:
    volumes.put("request", body)
    assert volumes.until_quiet() == []
    assert reason in volumes.document("rejected", ".reason.json")["reason"]
    assert volumes.daemon.instance.get_dynamic_partitions(str(VOLUMES.name)) == []


def test_volumes_that_are_not_there_are_left_out(volumes: Requests, archive: Archive) -> None:
    archive.put("W2-I2", "1.tif")
    body = {"ocr": "volume_request", "volumes": ["W1-I1", "W2-I2", "what", "W3-I3"]}
    volumes.put("request.json", json.dumps(body).encode())
    assert without_tag(volumes.until_quiet()) == ["W2-I2", "printed-unicode|W2-I2"]
    document = volumes.document("done", ".left-out.json")
    assert document["count"] == 3
    assert [line.split()[0] for line in document["left_out"]] == ["'what'", "volume", "volume"]
    assert volumes.daemon.instance.get_dynamic_partitions(str(VOLUMES.name)) == ["W2-I2"]


def test_a_source_that_cannot_be_reached_is_waited_for(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Requests(tmp_path, "volumes", volumes_source=str(archive.folder))
    archive.put("W1-I1", "1.tif")
    requests.put("one.json", reads("W1-I1"))
    broken: Callable[..., Any] = _unreachable
    with monkeypatch.context() as patch:
        patch.setattr("ocr_assets.volume_sources._archive_etag", broken)
        assert requests.daemon.tick() == []
        assert "waits: cannot look at the archive" in requests.daemon.told
    assert len(requests.until_quiet()) == 2


def _unreachable(source: object) -> str:
    from resources.keys import StorageError

    raise StorageError("cannot look at the archive")
