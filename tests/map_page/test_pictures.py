"""Rasters as pictures of the map: pieces lie where they should, and only there."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from tile_archives import position

from ocr_assets.map_page.pictures import MAX_ZOOM, TreeCoverPicture
from ocr_assets.map_page.server import MapServer, PageSettings
from ocr_assets.map_page.subject import page_subject
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.tiles.product import PIXELS_PER_DEGREE, PixelBox, colour_table, write_tree_cover_cog
from resources.storage import Storage

LEFT, BOTTOM, SIDE = round(14.5 * PIXELS_PER_DEGREE), round(45.8 * PIXELS_PER_DEGREE), 600
BOX = PixelBox(LEFT, BOTTOM, LEFT + SIDE, BOTTOM + SIDE)


def write(path: Path) -> None:
    """Tree cover of 80 % in the north-west quarter, 20 % in the south-east, no data elsewhere."""
    cover = np.full((SIDE, SIDE), 255, np.uint8)
    half = SIDE // 2
    cover[:half, :half], cover[half:, half:] = 80, 20
    write_tree_cover_cog(path, cover, BOX, {})


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> TreeCoverPicture:
    folder = tmp_path_factory.mktemp("mosaic")
    write(folder / "2023" / "tree_cover.tif")
    return TreeCoverPicture(Storage(str(folder)), "2023/tree_cover.tif", 2023)


def seen(picture: TreeCoverPicture, longitude: float, latitude: float, zoom: int) -> object:
    """Colour of a place, None where nothing is drawn."""
    x, y = position(longitude, latitude, zoom)
    content = picture.piece(zoom, int(x), int(y))
    if content is None:
        return None
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("PNG", (256, 256))
        red, green, blue, alpha = image.convert("RGBA").getpixel(
            (int(x % 1 * 256), int(y % 1 * 256))
        )
    return (red, green, blue) if alpha else None


@pytest.mark.parametrize("zoom", [9, 12, MAX_ZOOM])
def test_places_have_their_colour(picture: TreeCoverPicture, zoom: int) -> None:
    west, south, east, north = BOX.bounds
    # A little more than a pixel of the piece, which is about 300 m at zoom 9.
    near = 2 * 360 / 2**zoom / 256
    middle, height = (west + east) / 2, (south + north) / 2
    colours = colour_table()
    assert seen(picture, middle - near, height + near, zoom) == colours[80][:3]
    assert seen(picture, middle + near, height - near, zoom) == colours[20][:3]
    assert seen(picture, west + near, north - near, zoom) == colours[80][:3]
    for longitude, latitude in [
        (middle + near, height + near),
        (middle - near, height - near),
        (west - near, height + near),
        (middle - near, north + near),
    ]:
        assert seen(picture, longitude, latitude, zoom) is None


@pytest.mark.parametrize(
    ("zoom", "x", "y"), [(0, 1, 0), (3, 8, 0), (3, 0, 8), (MAX_ZOOM + 1, 0, 0), (5, 0, 0)]
)
def test_there_is_nothing_elsewhere(picture: TreeCoverPicture, zoom: int, x: int, y: int) -> None:
    assert picture.piece(zoom, x, y) is None


def test_low_zooms_show_means(tmp_path: Path) -> None:
    """Of single pixels, a piece of few would show one of each that it leaves out."""
    fine = np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 100
    write_tree_cover_cog(tmp_path / "cover.tif", fine.astype(np.uint8), BOX, {})
    picture = TreeCoverPicture(Storage(str(tmp_path)), "cover.tif", 2023)
    west, south, east, north = BOX.bounds
    place = (west + east) / 2, (south + north) / 2
    colours = colour_table()
    assert [seen(picture, *place, zoom) for zoom in (8, 10, 12)] == [colours[50][:3]] * 3
    assert seen(picture, *place, MAX_ZOOM) in (colours[0][:3], colours[100][:3])


def test_a_removed_picture_is_not_found(tmp_path: Path) -> None:
    write(tmp_path / "cover.tif")
    picture = TreeCoverPicture(Storage(str(tmp_path)), "cover.tif", 2023)
    settings = PageSettings("Tree cover", page_subject(FIRE), "qa")
    with MapServer({}, settings, pictures={"cover": picture}).running() as url:
        (tmp_path / "cover.tif").unlink()
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        answer = ask(connection, "/pictures/cover/3/4/2.png")
        connection.close()
    assert (answer[0], answer[2]) == (404, b"The picture is gone.\n")


def test_pieces_of_an_object_store(s3_bucket: Storage, picture: TreeCoverPicture) -> None:
    s3_bucket.put_file("a/2023/tree_cover.tif", picture.storage.local_path(picture.key))
    stored = TreeCoverPicture(s3_bucket.child("a"), picture.key, 2023)
    assert stored.describe() == picture.describe()
    x, y = (int(part) for part in position(*BOX.bounds[:2], 10))
    assert stored.piece(10, x, y) == picture.piece(10, x, y) is not None


@pytest.fixture(scope="module")
def client(picture: TreeCoverPicture) -> Iterator[http.client.HTTPConnection]:
    settings = PageSettings("Tree cover", page_subject(FIRE), "qa")
    with MapServer({}, settings, pictures={"tree-cover-2023": picture}).running() as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        yield connection
        connection.close()


def ask(client: http.client.HTTPConnection, path: str) -> tuple[int, str | None, bytes]:
    client.request("GET", path)
    answer = client.getresponse()
    return answer.status, answer.headers["Content-Type"], answer.read()


def test_the_server_draws_pieces(
    client: http.client.HTTPConnection, picture: TreeCoverPicture
) -> None:
    (told,) = json.loads(ask(client, "/config.json")[2])["pictures"]
    assert told["bounds"] == pytest.approx(BOX.bounds)
    assert told["legend"][0]["text"] == "10 %"
    x, y = (int(part) for part in position(14.51, 45.85, 12))
    address = f"/{told['tiles']}".format(z=12, x=x, y=y)
    assert ask(client, address) == (200, "image/png", picture.piece(12, x, y))
    assert ask(client, f"/{told['tiles']}".format(z=12, x=0, y=0)) == (204, None, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/pictures/other/1/0/0.png",
        "/pictures/tree-cover-2023/1/0/0.tif",
        "/pictures/tree-cover-2023/1/0/../0.png",
        "/pictures/tree-cover-2023/%D9%A1/0/0.png",
        "/pictures/tree-cover-2023/1/0/0.png/x",
    ],
)
def test_other_addresses_are_refused(client: http.client.HTTPConnection, path: str) -> None:
    assert ask(client, path)[0] == 404
