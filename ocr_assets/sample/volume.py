"""A small sample volume: pages of known Tibetan text, set in a free font.

Belongs here: the text and its pages. Does not belong here: reading them.

The text is the opening of the Heart Sutra, a mantra and a greeting. Each image has its transcript
beside it, a text file of the same name.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

VOLUME = "WSAMPLE-ISAMPLE"
"""Id of the volume; its folder has this name."""

FONT = "NotoSerifTibetan-Regular.ttf"
FONT_FOLDERS = (
    Path("/usr/share/fonts"),
    Path("/usr/local/share/fonts"),
    Path("/opt/homebrew/share/fonts"),
    Path("/Library/Fonts"),
)
"""Where fonts of system packages are looked for."""

PAGES: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {
    "0001": (
        (2000, 560),
        (
            "༄༅། །བཅོམ་ལྡན་འདས་མ་ཤེས་རབ་ཀྱི་ཕ་རོལ་ཏུ་ཕྱིན་པའི་སྙིང་པོ།",
            "འདི་སྐད་བདག་གིས་ཐོས་པ་དུས་གཅིག་ན། བཅོམ་ལྡན་འདས་རྒྱལ་པོའི་ཁབ་",
            "བྱ་རྒོད་ཕུང་པོའི་རི་ལ་དགེ་སློང་གི་དགེ་འདུན་ཆེན་པོ་དང་། བྱང་ཆུབ་སེམས་དཔའི་",
            "དགེ་འདུན་ཆེན་པོ་དང་ཐབས་ཅིག་ཏུ་བཞུགས་ཏེ།",
        ),
    ),
    "0002": (
        (2000, 560),
        (
            "གཟུགས་སྟོང་པའོ། སྟོང་པ་ཉིད་གཟུགས་སོ།",
            "གཟུགས་ལས་སྟོང་པ་ཉིད་གཞན་མ་ཡིན།",
            "སྟོང་པ་ཉིད་ལས་ཀྱང་གཟུགས་གཞན་མ་ཡིན་ནོ།",
        ),
    ),
    "0003": (
        (1300, 900),
        (
            "ཨོཾ་མ་ཎི་པདྨེ་ཧཱུྃ།",
            "བཀྲ་ཤིས་བདེ་ལེགས།",
            "འདི་ནི་དཔེ་མཚོན་གྱི་ཤོག་ངོས་ཡིན།",
            "ཡི་གེ་འདི་རྣམས་འཕྲུལ་ཆས་ཀྱིས་ཀློག",
        ),
    ),
}
"""Width and height in pixels and the lines of each page, by the name of its file."""

_FONT_SIZE = 54
_LINE_PITCH = 118
_MARGIN = (90, 60)


class SampleVolumeError(RuntimeError):
    """The sample volume cannot be made on this machine; the message says what is missing."""


def build_sample_volume(folder: Path, font_folders: tuple[Path, ...] = FONT_FOLDERS) -> Path:
    """Make the volume in ``folder`` and return its own folder; what is there already is kept.

    Raises:
        SampleVolumeError: the font, or the library that shapes complex scripts, is missing.
    """
    font = _font(font_folders)
    target = folder / VOLUME
    target.mkdir(parents=True, exist_ok=True)
    for name, (size, lines) in PAGES.items():
        page = Image.new("L", size, 255)
        drawing = ImageDraw.Draw(page)
        for number, line in enumerate(lines):
            place = (_MARGIN[0], _MARGIN[1] + number * _LINE_PITCH)
            drawing.text(place, line, font=font, fill=0, language="bo")
        bilevel = page.point(lambda level: 255 * (level > 128)).convert("1")
        image = io.BytesIO()
        bilevel.save(image, "TIFF", compression="group4", dpi=(300, 300))
        _keep(target / f"{name}.tif", image.getvalue())
        _keep(target / f"{name}.txt", ("\n".join(lines) + "\n").encode())
    return target


def _keep(path: Path, content: bytes) -> None:
    """Write a file, unless it has this content already."""
    if not path.is_file() or path.read_bytes() != content:
        path.write_bytes(content)


def _font(folders: tuple[Path, ...]) -> ImageFont.FreeTypeFont:
    if not features.check("raqm"):
        raise SampleVolumeError(
            "Pillow has no libraqm here, which Tibetan letters need: install Pillow's own wheel"
        )
    found = [path for folder in folders if folder.is_dir() for path in folder.rglob(FONT)]
    if not found:
        raise SampleVolumeError(
            f"the font {FONT} is missing: run `make system`, or install the package fonts-noto-core"
        )
    return ImageFont.truetype(str(min(found)), _FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
