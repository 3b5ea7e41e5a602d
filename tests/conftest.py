"""Fixtures every test may use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from interrupts import heed_interrupts

import ocr_assets  # noqa: F401 - keeps OpenVINO from reporting its use, before tests import it
from resources.locks import file_lock
from resources.storage import S3Options, Storage

if TYPE_CHECKING:
    from published_inputs import Published
    from sample_worlds import FinishedWorld, Outcome, World
    from stac_server import StacServer

REPOSITORY = Path(__file__).parent.parent

heed_interrupts()

# How long an example takes says nothing on a busy machine.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real inputs kept beside a checkout for development; tests that need them skip elsewhere."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development data folder is not beside this checkout")
    return folder


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """Each test starts without settings of the developer, and leaves the environment as it was."""
    before = dict(os.environ)
    for name in before:
        if name == "DAGSTER_HOME" or (name.startswith("OCR_") and name != "OCR_TEST_ARTIFACTS"):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one of the test processes fills and all of them read."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    done = base / f"{name}.done"
    with file_lock(base / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(base / name, ignore_errors=True)
            (base / name).mkdir()
            make(base / name)
            done.touch()
    return base / name


@pytest.fixture(scope="session")
def sample_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage root with the inputs of the sample world, built once. Nobody writes to it."""
    from ocr_assets.sample.world import build_sample_world

    return made_once(tmp_path_factory, "sample", lambda folder: build_sample_world(folder))


@pytest.fixture(scope="session")
def sample_imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic imagery of two neighbouring tiles in 2023, built once. Nobody writes to it."""
    from ocr_assets.sample.imagery import DEFAULT_TILES, build_sample_imagery
    from ocr_assets.tiles.grid import Tile, TileGrid, tile_geobox

    tiles = [tile_geobox(TileGrid.load(), Tile.parse(tile)) for tile in DEFAULT_TILES]

    def make(folder: Path) -> None:
        build_sample_imagery(folder, tiles, optical_dates=6)

    return made_once(tmp_path_factory, "imagery", make)


@pytest.fixture(scope="session")
def finished_tiles(sample_imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a :class:`tile_worlds.TileWorld` with both tiles made, once. Read only."""
    from tile_worlds import EAST, WEST, TileWorld, make_all

    def make(folder: Path) -> None:
        make_all(TileWorld(folder, str(sample_imagery)).library, WEST, EAST)

    return made_once(tmp_path_factory, "finished-tiles", make)


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of the sample volume with their transcripts, made once. Nobody writes to it."""
    from volume_worlds import sample_pages

    from ocr_assets.sample.volume import VOLUME

    return made_once(tmp_path_factory, "pages", sample_pages) / VOLUME


@pytest.fixture(scope="session")
def stac_server() -> Iterator[StacServer]:
    """A STAC API on loopback that misbehaves as it is told."""
    from stac_server import StacServer

    server = StacServer()
    yield server
    server.close()


@pytest.fixture
def world(sample_root: Path, tmp_path: Path) -> World:
    """The sample world with an empty storage root of its own; its inputs may be doctored."""
    from sample_worlds import World

    return World(sample_root, tmp_path)


@pytest.fixture(scope="session")
def finished_world(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedWorld:
    """The whole graph over the sample world, materialized once by the command. Read only."""
    from sample_worlds import FinishedWorld, materialize_everything

    def make(folder: Path) -> None:
        materialize_everything(sample_root, folder)

    return FinishedWorld(sample_root, made_once(tmp_path_factory, "finished", make))


@pytest.fixture(scope="session")
def fresh_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an initialised Dagster instance in which nothing has happened."""
    from ocr_assets.cli.instance import prepare_home

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DAGSTER_HOME", str(folder))
            prepare_home()

    return made_once(tmp_path_factory, "home", make)


@pytest.fixture
def ocr(
    world: World, fresh_home: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run an `ocr` command on this test's world, in this process: ``ocr("run", "--debug")``."""
    from sample_worlds import Outcome, run_in_process

    shutil.copytree(fresh_home, world.folder / "home")

    def run(*arguments: str, **variables: str) -> Outcome:
        capsys.readouterr()
        status = run_in_process(arguments, {**world.variables(), **variables})
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture
def finished_copy(finished_world: FinishedWorld, world: World) -> World:
    """A world of its own in which everything is materialized already."""
    shutil.copytree(finished_world.root, world.root)
    return world


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Published]:
    """Servers that have small files in the true formats of the inputs, and an empty workplace."""
    from file_server import FileServer
    from published_inputs import Published

    server = FileServer()
    made = Published(server, tmp_path)
    made.begin_catalog()
    yield made
    server.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own that holds 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


_S3_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Endpoint URL of an S3 (and SQS) protocol server on loopback, in a process of its own."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        log = []
        for line in server.stderr:
            log.append(line)
            if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", line):
                break
        else:
            pytest.fail(f"the S3 server did not start: {''.join(log)}")
        # An unread pipe would block the server once it is full of request lines.
        threading.Thread(target=lambda: [None for _ in server.stderr or ()], daemon=True).start()
        yield found.group(1)
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """The storage of a fresh bucket; ``AWS_*`` variables hold its keys while the test runs."""
    import boto3

    for name, value in _S3_CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=bucket)
    return Storage(f"s3://{bucket}", S3Options(endpoint_url=s3_server))
