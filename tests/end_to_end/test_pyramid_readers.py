"""The pyramid on an object store, read with plain xarray and by a browser without any library."""

from __future__ import annotations

import json
from itertools import product

import boto3
import numpy as np
import pytest
import xarray as xr
import zarr.storage
from playwright.sync_api import Browser
from pyproj import CRS
from sample_worlds import FinishedWorld

from ocr_assets.regions.grid import STEP
from ocr_assets.regions.risk import VARIABLES
from resources.io_managers import Artefact, FolderIOManager
from resources.storage import Storage

READER = """
async ([root, wanted]) => {
  const part = async (address, range) => {
    const answer = await fetch(address, { headers: { Range: `bytes=${range}` } });
    if (answer.status === 404) return null;
    if (answer.status !== 206) throw new Error(`${address}: status ${answer.status}`);
    return answer.arrayBuffer();
  };
  const inflate = async (bytes) => {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  // A Blosc frame: header, places of the blocks, in each block a zlib stream for each byte of the
  // elements.
  const decode = async (buffer) => {
    const view = new DataView(buffer), int = (at) => view.getInt32(at, true);
    const flags = view.getUint8(2), size = view.getUint8(3), all = int(4), block = int(8);
    const whole = new Uint8Array(all);
    if (flags & 2) whole.set(new Uint8Array(buffer, 16, all));
    else if (flags >> 5 !== 3) throw new Error(`not zlib: ${flags >> 5}`);
    for (let start = 0, i = 0; !(flags & 2) && start < all; start += block, i += 1) {
      const length = Math.min(block, all - start), planes = new Uint8Array(length);
      const streams = flags & 16 || length < block ? 1 : size;
      let at = int(16 + 4 * i);
      for (let stream = 0; stream < streams; stream += 1) {
        const stored = int(at), bytes = new Uint8Array(buffer, at + 4, stored);
        const place = (stream * length) / streams;
        planes.set(stored === length / streams ? bytes : await inflate(bytes), place);
        at += 4 + stored;
      }
      const count = length / size;
      for (let byte = 0; byte < size; byte += 1) {
        for (let n = 0; n < count; n += 1) {
          whole[start + n * size + byte] = planes[flags & 1 ? byte * count + n : n * size + byte];
        }
      }
    }
    return new Float32Array(whole.buffer);
  };
  const value = async (name, row, col) => {
    const address = `${root}/${name}`;
    const array = await (await fetch(`${address}/zarr.json`)).json();
    const [sharding] = array.codecs, { chunk_shape: chunk, codecs } = sharding.configuration;
    const kinds = codecs.map((codec) => codec.name).join();
    if (sharding.name !== "sharding_indexed" || kinds !== "bytes,blosc") throw new Error(kinds);
    const shard = array.chunk_grid.configuration.chunk_shape;
    const across = shard[1] / chunk[1], count = (shard[0] / chunk[0]) * across;
    const file = `${address}/c/${Math.floor(row / shard[0])}/${Math.floor(col / shard[1])}`;
    const index = await part(file, `-${16 * count + 4}`);
    if (index === null) return NaN;
    const inner = [row % shard[0], col % shard[1]];
    const number = Math.floor(inner[0] / chunk[0]) * across + Math.floor(inner[1] / chunk[1]);
    const entry = new BigUint64Array(index.slice(0, 16 * count)).slice(2 * number, 2 * number + 2);
    if (entry[0] === 0xffffffffffffffffn) return NaN;
    const frame = await part(file, `${entry[0]}-${entry[0] + entry[1] - 1n}`);
    const values = await decode(frame);
    return values[(inner[0] % chunk[0]) * chunk[1] + (inner[1] % chunk[1])];
  };
  const found = [];
  for (const [name, row, col] of wanted) found.push(await value(name, row, col));
  return found;
}
"""
"""Values at rows and columns of arrays: the index of a shard, one chunk of it, and no library."""


@pytest.fixture
def stored(finished_world: FinishedWorld, s3_bucket: Storage) -> tuple[xr.DataTree, Storage]:
    """The pyramid of the sample world as it was made, and its folder on an object store."""
    made = finished_world.deployment.storage
    folder = json.loads(made.read_bytes("pyramid/current.json"))["folder"]
    place = made.local_path(folder)
    files = {str(path.relative_to(place)): path for path in place.rglob("*") if path.is_file()}
    FolderIOManager(s3_bucket).store("pyramid", Artefact(files, {}))
    folder = json.loads(s3_bucket.read_bytes("pyramid/current.json"))["folder"]
    levels = sorted(int(path.name) for path in place.iterdir() if path.is_dir())
    tree = {f"/{level}": xr.open_zarr(place, group=str(level), chunks=None) for level in levels}
    return xr.DataTree.from_dict(tree), s3_bucket.child(folder)


def allow_everyone(folder: Storage) -> None:
    """Let everyone read the objects of a bucket, as a public bucket does."""
    bucket = folder.root.removeprefix("s3://").partition("/")[0]
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    client = boto3.client("s3", endpoint_url=folder.s3.endpoint_url)
    client.put_bucket_policy(Bucket=bucket, Policy=policy)


def test_xarray_opens_every_level(stored: tuple[xr.DataTree, Storage]) -> None:
    made, folder = stored
    store = zarr.storage.ObjectStore(folder.object_store, read_only=True)
    layout = zarr.open_group(store, mode="r").attrs["multiscales"]["layout"]
    assert [entry["asset"] for entry in layout] == list(made.children)
    for number, entry in enumerate(layout):
        level = xr.open_zarr(store, group=entry["asset"], chunks=None)
        xr.testing.assert_identical(level.load(), made[entry["asset"]].to_dataset().load())
        assert set(level.data_vars) == set(VARIABLES)
        assert CRS.from_cf(level["spatial_ref"].attrs) == CRS("EPSG:4326")
        np.testing.assert_allclose(np.diff(level["latitude"]), STEP * 2**number, rtol=1e-9)
        assert all(np.isfinite(level[name]).any() for name in VARIABLES)


def test_a_browser_reads_it(stored: tuple[xr.DataTree, Storage], browser: Browser) -> None:
    made, folder = stored
    root = f"{folder.s3.endpoint_url}/{folder.root.removeprefix('s3://')}"
    places = []
    for level, name in product(("0", "1", "2"), ("rps_2011", "bp_2047_riley")):
        rows, cols = made[level][name].shape
        for row, col in ((0, 0), (rows // 2, cols // 2), (rows - 1, 3), (rows - 1, cols - 1)):
            places.append((f"{level}/{name}", row, col))
    expected = [float(made[name].values[row, col]) for name, row, col in places]
    allow_everyone(folder)
    page = browser.new_page()
    # A page of the same server may fetch from it.
    page.route(f"{root}/page", lambda route: route.fulfill(body="", content_type="text/html"))
    page.goto(f"{root}/page")
    found = page.evaluate(READER, [root, places])
    page.close()
    np.testing.assert_array_equal(found, expected)
    assert len({value for value in expected if value > 0}) > 5
    assert np.isnan(expected).any(), "a corner of the sample world has no data"
