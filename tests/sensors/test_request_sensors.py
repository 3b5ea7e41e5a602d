"""Requests become runs: each exactly once, whatever comes twice, late, wrong or in masses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG
from request_daemon import Daemon
from request_worlds import Requests, age, short

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.partitions import PARTITION, TILES
from ocr_assets.request_jobs import TILE_FIRST, TILE_WANTED
from ocr_assets.request_messages import tile_messages
from ocr_assets.sample.imagery import DEFAULT_TILES
from ocr_assets.tiles.grid import Tile, TileGrid
from resources.storage import Storage
from sensors import inbox as inbox_module
from sensors.inbox import MOST_ACCEPTED, MOST_RUNS, MOST_WAITING

STAGES = ("evaluated", "partitioned", "reserved", "launched one")
A, B, C = (Tile.parse(key) for key in ("1035X727Y", "1036X727Y", "1037X727Y"))
FIRST, WANTED = "tiles/qa/dev/{}", "tiles/qa/dev/{}|{}"


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
