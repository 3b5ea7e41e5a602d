"""A PDF of scans as a volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocr_assets.volumes.archive import ImageEntry, ManifestError, MissingImageError, VolumeId
from ocr_assets.volumes.images import decode
from ocr_assets.volumes.local_volumes import open_local

VOLUME = VolumeId("W1", "I1")


def test_pages_come_in_their_own_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    bilevel = Image.fromarray(rng.random((140, 200)) > 0.5)
    grey = Image.fromarray(
        np.linspace(0, 255, 160 * 90).reshape(160, 90).astype(np.uint8), mode=None
    )
    path = tmp_path / "scans.pdf"
    bilevel.save(path, "PDF", save_all=True, append_images=[grey.convert("RGB")])
    source = open_local(path, VOLUME)
    listed = source.manifest()
    assert [image.name for image in listed.images] == ["page0001.tif", "page0002.tif"]
    (first,) = decode(source.read(listed.images[0]), "first")
    assert first.dtype == np.bool_
    np.testing.assert_array_equal(first, ~np.asarray(bilevel))
    (second,) = decode(source.read(listed.images[1]), "second")
    assert second.shape == (160, 90)
    assert np.abs(second.astype(int) - np.asarray(grey)).max() < 12
    with pytest.raises(MissingImageError, match="page 3"):
        source.read(ImageEntry("page0003.tif"))


def test_file_that_is_no_pdf(tmp_path: Path) -> None:
    path = tmp_path / "broken.pdf"
    path.write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(ManifestError, match="PDF"):
        open_local(path, VOLUME).manifest()
