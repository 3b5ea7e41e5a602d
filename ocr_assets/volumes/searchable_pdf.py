"""A PDF of a volume whose scans can be searched: page images with invisible text over them.

Belongs here: writing that PDF. Does not belong here: reading PDFs (see ``pdf_volume``).

Each syllable lies invisibly in its box, in a font without shapes whose character codes are UTF-16
units, so that any script can be searched and copied without a font of that script. The form is that
of PDF 1.7 (ISO 32000-1), sections 9.7 (composite fonts) and 9.3.6 (text rendering mode 3).
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterable
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

import numpy as np
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import STRIPBYTECOUNTS, STRIPOFFSETS, TiffImageFile

from ocr_assets.volumes.images import PageFailure, PageImage
from ocr_assets.volumes.results import LineResult, PageResult, SyllableResult

if TYPE_CHECKING:
    from ocr_assets.volumes.tables import VolumeTables

DOTS_PER_INCH = 300
"""Resolution that scans are taken to have, which decides the size of the pages only."""

_JPEG_QUALITY = 80
_CATALOG, _PAGES, _FONT, _CID_FONT, _DESCRIPTOR, _SHAPES, _CODES, _GLYPHS = range(1, 9)

_TO_UNICODE = b"""/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def
/CMapName /Adobe-Identity-UCS def
/CMapType 2 def
1 begincodespacerange
<0000> <FFFF>
endcodespacerange
1 beginbfrange
<0000> <FFFF> <0000>
endbfrange
endcmap
CMapName currentdict /CMap defineresource pop
end
end
"""

# Text direction by quarter turns clockwise, as the first two numbers of a text matrix. In a PDF,
# y grows upwards.
_DIRECTIONS = ((1, 0), (0, -1), (-1, 0), (0, 1))


class ChangedImageError(ValueError):
    """An image is not the one that was read; the message names the mend."""


def write_pdf(
    file: IO[bytes],
    language: str,
    images: Iterable[PageImage | PageFailure],
    tables: VolumeTables,
) -> list[str]:
    """Write the PDF of a volume that was read.

    Args:
        file: a new, empty file that is open for writing.
        language: BCP 47 tag of the text.
        images: the pages of the volume in order, decoded once more.
        tables: what was read on them.

    Returns:
        Names of the images that cannot be had or decoded, and so are not in the PDF.

    Raises:
        ChangedImageError: an image was replaced after it had been read.
    """
    missing = []
    with SearchablePdf(file, language) as pdf:
        for image in images:
            if isinstance(image, PageFailure):
                missing.append(image.entry.name)
                continue
            known = [
                page for page in tables.of_image(sha256=image.sha256) if page.frame == image.frame
            ]
            if not known:
                raise ChangedImageError(
                    f"{image.entry.name} is not the image that was read: read the volume again"
                )
            pdf.add(image.pixels, known[0] if isinstance(known[0], PageResult) else None)
    return missing


class SearchablePdf:
    """Writes a PDF page by page; only the page at hand is held in memory.

    Use it as a context manager. The file is complete when the context ends without an error. The
    same pages give the same bytes.

    Args:
        file: a new, empty file that is open for writing; it stays open.
        language: BCP 47 tag of the text.
    """

    def __init__(self, file: IO[bytes], language: str) -> None:
        self._file = file
        self._language = language
        self._offsets: dict[int, int] = {}
        self._kids: list[int] = []
        self._next = _GLYPHS + 1
        self._file.write(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
        self._write_font()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()

    def add(
        self, pixels: NDArray[np.bool_] | NDArray[np.uint8], page: PageResult | None = None
    ) -> None:
        """Add a page.

        Args:
            pixels: the image, bool ``[h, w]`` with True for ink or uint8 grey ``[h, w]``. Bilevel
                images are kept as they are, grey ones are compressed with a little loss.
            page: what was read on it; None for a page that could not be read.

        Raises:
            ValueError: the result is that of an image of another size.
        """
        height, width = pixels.shape
        if page is not None and (page.width, page.height) != (width, height):
            raise ValueError(
                f"the result of {page.image} is of {page.width} x {page.height} pixels, the image "
                f"has {width} x {height}"
            )
        image, text, leaf = (self._number() for _ in range(3))
        data, coding = _encoded(pixels)
        self._stream(
            image, data, f"/Type /XObject /Subtype /Image /Width {width} /Height {height} {coding}"
        )
        scale = 72 / DOTS_PER_INCH
        content = [f"q {width * scale:.4f} 0 0 {height * scale:.4f} 0 0 cm /I Do Q"]
        if page is not None:
            content.append("BT 3 Tr")
            for line in page.lines:
                turns = _quarter_turns(line)
                content += [
                    _shown(syllable, turns, height) for syllable in line.syllables if syllable.text
                ]
            content.append("ET")
        self._stream(text, zlib.compress("\n".join(content).encode()), "/Filter /FlateDecode")
        self._object(
            leaf,
            f"<< /Type /Page /Parent {_PAGES} 0 R /Contents {text} 0 R /MediaBox [0 0 "
            f"{width * scale:.4f} {height * scale:.4f}] /Resources << /Font << /F {_FONT} 0 R >> "
            f"/XObject << /I {image} 0 R >> >> >>",
        )
        self._kids.append(leaf)

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _object(self, number: int, body: str | bytes) -> None:
        self._offsets[number] = self._file.tell()
        body = body.encode() if isinstance(body, str) else body
        self._file.write(b"%d 0 obj\n%b\nendobj\n" % (number, body))

    def _stream(self, number: int, data: bytes, entries: str) -> None:
        head = f"<< {entries} /Length {len(data)} >>\nstream\n".encode()
        self._object(number, head + data + b"\nendstream")

    def _write_font(self) -> None:
        self._object(
            _FONT,
            "<< /Type /Font /Subtype /Type0 /BaseFont /Shapeless /Encoding /Identity-H "
            f"/DescendantFonts [{_CID_FONT} 0 R] /ToUnicode {_CODES} 0 R >>",
        )
        self._object(
            _CID_FONT,
            "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Shapeless /DW 1000 "
            "/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> "
            f"/FontDescriptor {_DESCRIPTOR} 0 R /CIDToGIDMap {_GLYPHS} 0 R >>",
        )
        self._object(
            _DESCRIPTOR,
            "<< /Type /FontDescriptor /FontName /Shapeless /Flags 5 /FontBBox [0 0 1000 1000] "
            f"/ItalicAngle 0 /Ascent 1000 /Descent 0 /CapHeight 1000 /StemV 80 /FontFile2 "
            f"{_SHAPES} 0 R >>",
        )
        shapes = _shapeless_font()
        self._stream(_SHAPES, zlib.compress(shapes), f"/Filter /FlateDecode /Length1 {len(shapes)}")
        self._stream(_CODES, zlib.compress(_TO_UNICODE), "/Filter /FlateDecode")
        # Every code has the one glyph there is.
        self._stream(_GLYPHS, zlib.compress(b"\x00\x01" * 65_536), "/Filter /FlateDecode")

    def _finish(self) -> None:
        self._object(
            _CATALOG,
            f"<< /Type /Catalog /Pages {_PAGES} 0 R /Lang ({self._language}) >>",
        )
        kids = " ".join(f"{kid} 0 R" for kid in self._kids)
        self._object(_PAGES, f"<< /Type /Pages /Count {len(self._kids)} /Kids [{kids}] >>")
        start = self._file.tell()
        rows = [b"0000000000 65535 f \n"]
        rows += [b"%010d 00000 n \n" % self._offsets[number] for number in range(1, self._next)]
        self._file.write(b"xref\n0 %d\n%b" % (self._next, b"".join(rows)))
        trailer = f"trailer\n<< /Size {self._next} /Root {_CATALOG} 0 R >>\n"
        self._file.write(f"{trailer}startxref\n{start}\n%%EOF\n".encode())


def _quarter_turns(line: LineResult) -> int:
    """Quarter turns clockwise from level to the direction in which a line runs on its image."""
    if len(line.headline) < 2:
        return 0
    (x, y), (end_x, end_y) = line.headline[0], line.headline[-1]
    return round(math.atan2(end_y - y, end_x - x) / (math.pi / 2)) % 4


def _shown(syllable: SyllableResult, turns: int, page_height: int) -> str:
    """The operators that put a syllable into its box."""
    x, y, width, height = syllable.box
    scale = 72 / DOTS_PER_INCH
    codes = syllable.text.encode("utf-16-be")
    along, across = (height, width) if turns % 2 else (width, height)
    # Where the text starts: the corner of the box that is its lower left one when it is upright.
    start_x = x + (width if turns in (2, 3) else 0)
    start_y = y + (height if turns in (0, 3) else 0)
    cos, sin = _DIRECTIONS[turns]
    long, high = along * scale / (len(codes) // 2), across * scale
    matrix = (cos * long, sin * long, -sin * high, cos * high)
    shift = (start_x * scale, (page_height - start_y) * scale)
    numbers = " ".join(f"{number:.4f}" for number in (*matrix, *shift))
    return f"/F 1 Tf {numbers} Tm <{codes.hex()}> Tj"


def _encoded(pixels: NDArray[np.bool_] | NDArray[np.uint8]) -> tuple[bytes, str]:
    """The data of an image, and what the PDF says of it: bilevel as CCITT group 4, grey as JPEG."""
    height, width = pixels.shape
    file = io.BytesIO()
    if pixels.dtype != np.bool_:
        Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY)
        return file.getvalue(), "/ColorSpace /DeviceGray /BitsPerComponent 8 /Filter /DCTDecode"
    # One strip holds the whole image, so that the strip is the data.
    picture = Image.fromarray(~pixels)
    picture.save(file, "TIFF", compression="group4", strip_size=-(-width // 8) * height)
    data = file.getvalue()
    with TiffImageFile(io.BytesIO(data)) as written:
        (offset,), (count,) = written.tag_v2[STRIPOFFSETS], written.tag_v2[STRIPBYTECOUNTS]
    return data[offset : offset + count], (
        "/ColorSpace /DeviceGray /BitsPerComponent 1 /Filter /CCITTFaxDecode /DecodeParms "
        f"<< /K -1 /BlackIs1 true /Columns {width} /Rows {height} >>"
    )


def _shapeless_font() -> bytes:
    """A TrueType font whose only glyph beside the obligatory one is a line without area.

    It is as large as a letter, because readers pass over text whose shapes have no extent.
    """
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((1000, 1000))
    pen.closePath()
    glyph = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "blank"])
    builder.setupCharacterMap({})
    builder.setupGlyf({".notdef": glyph, "blank": glyph})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "blank": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Shapeless", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    # Times of writing would make each file another one.
    builder.updateHead(created=0, modified=0)
    builder.font.recalcTimestamp = False
    file = io.BytesIO()
    builder.save(file)
    return file.getvalue()
