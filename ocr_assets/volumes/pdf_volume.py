"""A PDF of scans as a volume: one page image for each page.

Belongs here: taking the images out of a PDF. Does not belong here: decoding what comes out.
"""

from __future__ import annotations

import hashlib
import io
import threading
from dataclasses import dataclass
from pathlib import Path

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_raw
from PIL import Image

from ocr_assets.volumes.archive import (
    ImageEntry,
    ManifestError,
    MissingImageError,
    VolumeId,
    VolumeManifest,
)
from ocr_assets.volumes.images import MAX_PIXELS
from ocr_assets.volumes.local_volumes import listed

_RENDER_DPI = 300
_WHOLE_PAGE = 0.6

# PDFium keeps state that all documents of a process share.
_PDFIUM = threading.Lock()


@dataclass(frozen=True, slots=True)
class ImagePdf:
    """A PDF whose pages are the pages of the volume.

    A page that is one scan gives that scan in its own pixels. Any other page is rendered at 300
    dots per inch.
    """

    path: Path
    volume: VolumeId

    def manifest(self) -> VolumeManifest:
        """List the pages; all entity tags come from the digest of the file.

        Raises:
            ManifestError: no readable PDF, or one with a password.
        """
        with self.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        try:
            with _PDFIUM, pdfium.PdfDocument(self.path) as document:
                count = len(document)
        except pdfium.PdfiumError as error:
            raise ManifestError(f"{self.path} is no readable PDF: {error}") from error
        width = max(4, len(str(count)))
        images = [
            ImageEntry(f"page{number:0{width}}.tif", etag=f"{digest[:24]}{number:08x}")
            for number in range(1, count + 1)
        ]
        return listed(self.volume, images, str(self.path))

    def read(self, image: ImageEntry) -> bytes:
        """A page as an image file: a JPEG as it lies in the PDF, anything else as a TIFF.

        Raises:
            MissingImageError: the PDF has no such page.
            ValueError: the page has more pixels than an image may have.
        """
        number = int(image.name.removeprefix("page").partition(".")[0])
        with _PDFIUM, pdfium.PdfDocument(self.path) as document:
            if number > len(document):
                raise MissingImageError(f"there is no page {number} in {self.path}")
            page = document[number - 1]
            scan = _whole_page_scan(page)
            if scan is not None:
                filters = scan.get_filters()
                if filters == ["DCTDecode"]:
                    return bytes(scan.get_data())
                picture = scan.get_bitmap().to_pil()
            else:
                scale = _RENDER_DPI / 72
                pixels = page.get_width() * page.get_height() * scale**2
                if pixels > MAX_PIXELS:
                    raise ValueError(
                        f"page {number} of {self.path} would have {pixels:,.0f} pixels; at most "
                        f"{MAX_PIXELS:,} are read"
                    )
                picture = page.render(scale=scale, grayscale=True).to_pil()
            file = io.BytesIO()
            _smallest(picture).save(file, "TIFF")
            return file.getvalue()


def _whole_page_scan(page: pdfium.PdfPage) -> pdfium.PdfImage | None:
    """The only image of an unturned page, if it covers most of it."""
    if page.get_rotation():
        return None
    objects = list(page.get_objects(filter=[pdfium_raw.FPDF_PAGEOBJ_IMAGE], max_depth=2))
    if len(objects) != 1:
        return None
    scan = objects[0]
    width, height = scan.get_px_size()
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"the image has {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are read"
        )
    left, bottom, right, top = scan.get_bounds()
    share = (right - left) * (top - bottom) / (page.get_width() * page.get_height())
    matrix = scan.get_matrix()
    upright = matrix.a > 0 and matrix.d > 0 and abs(matrix.b) + abs(matrix.c) < 0.01 * matrix.a
    return scan if share > _WHOLE_PAGE and upright else None


def _smallest(picture: Image.Image) -> Image.Image:
    """Black and white where the picture has nothing else, grey otherwise."""
    grey = picture.convert("L")
    colours = grey.getcolors(2)
    bilevel = colours is not None and {value for _, value in colours} <= {0, 255}
    return grey.convert("1", dither=Image.Dither.NONE) if bilevel else grey
