"""PAGE XML, ALTO and hOCR: valid, complete, in order, and inside the image, whatever the text."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from page_results import odd_pages, synthetic_page

from ocr_assets.volumes.alto import alto
from ocr_assets.volumes.hocr import hocr
from ocr_assets.volumes.markup import Writing, orientation
from ocr_assets.volumes.page_xml import page_xml
from ocr_assets.volumes.results import LineResult, PageResult, SyllableResult

WRITING = Writing(
    "unicode", "bo", "0.1.0", {"job_type": "printed-unicode", "model_sha256": "cd" * 32}
)
PAGE = {"p": "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"}
ALTO = {"a": "http://www.loc.gov/standards/alto/ns-v4#"}
HTML = "{http://www.w3.org/1999/xhtml}"

# What the ALTO schema asks of the XLink schema, which it imports by address.
XLINK = """<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"
  targetNamespace="http://www.w3.org/1999/xlink">
  <xs:attribute name="href" type="xs:anyURI"/>
  <xs:attributeGroup name="simpleLink"/>
</xs:schema>"""

# hOCR has a specification and no schema: this is what its version 1.2 says of the elements, classes
# and properties of a page, as XHTML.
HOCR_SCHEMA = r"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"
  xmlns="http://www.w3.org/1999/xhtml" targetNamespace="http://www.w3.org/1999/xhtml"
  elementFormDefault="qualified">
  <xs:import namespace="http://www.w3.org/XML/1998/namespace"/>
  <xs:simpleType name="page"><xs:restriction base="xs:string">
    <xs:pattern value='image "[^"]*"; bbox 0 0 [0-9]+ [0-9]+; ppageno [0-9]+'/>
  </xs:restriction></xs:simpleType>
  <xs:simpleType name="box"><xs:restriction base="xs:string">
    <xs:pattern value="bbox [0-9]+ [0-9]+ [0-9]+ [0-9]+"/>
  </xs:restriction></xs:simpleType>
  <xs:simpleType name="line"><xs:restriction base="xs:string">
    <xs:pattern
      value="bbox [0-9]+ [0-9]+ [0-9]+ [0-9]+(; baseline -?[0-9]+\.[0-9]+ -?[0-9]+\.[0-9]+)?"/>
  </xs:restriction></xs:simpleType>
  <xs:simpleType name="word"><xs:restriction base="xs:string">
    <xs:pattern value="bbox [0-9]+ [0-9]+ [0-9]+ [0-9]+; x_wconf ([0-9]|[1-9][0-9]|100)"/>
  </xs:restriction></xs:simpleType>
  <xs:simpleType name="lineClass"><xs:restriction base="xs:string">
    <xs:enumeration value="ocr_line"/><xs:enumeration value="ocr_header"/>
    <xs:enumeration value="ocr_pageno"/><xs:enumeration value="ocr_textfloat"/>
  </xs:restriction></xs:simpleType>
  <xs:complexType name="Word"><xs:simpleContent><xs:extension base="xs:string">
    <xs:attribute name="class" fixed="ocrx_word" use="required"/>
    <xs:attribute name="id" type="xs:ID" use="required"/>
    <xs:attribute name="title" type="word" use="required"/>
  </xs:extension></xs:simpleContent></xs:complexType>
  <xs:complexType name="Line" mixed="true">
    <xs:sequence>
      <xs:element name="span" type="Word" minOccurs="0" maxOccurs="unbounded"/>
    </xs:sequence>
    <xs:attribute name="class" type="lineClass" use="required"/>
    <xs:attribute name="id" type="xs:ID" use="required"/>
    <xs:attribute name="title" type="line" use="required"/>
  </xs:complexType>
  <xs:complexType name="Paragraph" mixed="true">
    <xs:sequence><xs:element name="span" type="Line" maxOccurs="unbounded"/></xs:sequence>
    <xs:attribute name="class" fixed="ocr_par" use="required"/>
    <xs:attribute name="id" type="xs:ID" use="required"/>
    <xs:attribute name="title" type="box" use="required"/>
  </xs:complexType>
  <xs:complexType name="Area">
    <xs:sequence><xs:element name="p" type="Paragraph"/></xs:sequence>
    <xs:attribute name="class" fixed="ocr_carea" use="required"/>
    <xs:attribute name="id" type="xs:ID" use="required"/>
    <xs:attribute name="title" type="box" use="required"/>
  </xs:complexType>
  <xs:complexType name="Page">
    <xs:sequence>
      <xs:element name="div" type="Area" minOccurs="0" maxOccurs="unbounded"/>
    </xs:sequence>
    <xs:attribute name="class" fixed="ocr_page" use="required"/>
    <xs:attribute name="id" type="xs:ID" use="required"/>
    <xs:attribute name="title" type="page" use="required"/>
  </xs:complexType>
  <xs:complexType name="Meta">
    <xs:attribute name="charset"/><xs:attribute name="name"/><xs:attribute name="content"/>
  </xs:complexType>
  <xs:element name="html"><xs:complexType><xs:sequence>
    <xs:element name="head"><xs:complexType><xs:sequence>
      <xs:element name="title" type="xs:string"/>
      <xs:element name="meta" type="Meta" maxOccurs="unbounded"/>
    </xs:sequence></xs:complexType></xs:element>
    <xs:element name="body"><xs:complexType><xs:sequence>
      <xs:element name="div" type="Page"/>
    </xs:sequence></xs:complexType></xs:element>
  </xs:sequence>
    <xs:attribute name="lang" type="xs:language" use="required"/>
    <xs:anyAttribute namespace="http://www.w3.org/XML/1998/namespace" processContents="lax"/>
  </xs:complexType></xs:element>
</xs:schema>"""

thorough = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def page_schema(shared_data: Path) -> Any:
    etree = pytest.importorskip("lxml.etree")
    return etree.XMLSchema(etree.parse(shared_data / "schemas" / "pagecontent-2019-07-15.xsd"))


@pytest.fixture(scope="module")
def alto_schema(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    etree = pytest.importorskip("lxml.etree")
    folder = tmp_path_factory.mktemp("schemas")
    (folder / "xlink.xsd").write_text(XLINK)
    text = (shared_data / "schemas" / "alto-4-4.xsd").read_text("utf-8")
    local = re.sub(r'schemaLocation="[^"]*xlink\.xsd"', 'schemaLocation="xlink.xsd"', text)
    (folder / "alto.xsd").write_text(local, "utf-8")
    return etree.XMLSchema(etree.parse(folder / "alto.xsd"))


@pytest.fixture(scope="module")
def hocr_schema() -> Any:
    etree = pytest.importorskip("lxml.etree")
    return etree.XMLSchema(etree.fromstring(HOCR_SCHEMA))


def assert_valid(schema: Any, document: bytes) -> None:
    etree = pytest.importorskip("lxml.etree")
    schema.assertValid(etree.fromstring(document))


@thorough
@given(page=odd_pages())
def test_page_xml_is_valid_for_any_page(page_schema: Any, page: PageResult) -> None:
    assert_valid(page_schema, page_xml(page, WRITING))


@thorough
@given(page=odd_pages())
def test_alto_is_valid_for_any_page(alto_schema: Any, page: PageResult) -> None:
    assert_valid(alto_schema, alto(page, WRITING, 3))


@thorough
@given(page=odd_pages())
def test_hocr_is_valid_for_any_page(hocr_schema: Any, page: PageResult) -> None:
    assert_valid(hocr_schema, hocr(page, WRITING, 3))


def test_a_usual_page_and_a_blank_one_are_valid(
    page_schema: Any, alto_schema: Any, hocr_schema: Any
) -> None:
    page = synthetic_page(1)
    for candidate in (page, replace(page, lines=())):
        for writing in (WRITING, Writing("wylie", "bo", "", {}), Writing("unicode", "xx", "1", {})):
            assert_valid(page_schema, page_xml(candidate, writing))
            assert_valid(alto_schema, alto(candidate, writing, 1))
            assert_valid(hocr_schema, hocr(candidate, writing, 1))


def test_a_schema_violation_would_be_seen(
    page_schema: Any, alto_schema: Any, hocr_schema: Any
) -> None:
    etree = pytest.importorskip("lxml.etree")
    document = page_xml(synthetic_page(1), WRITING).replace(b'conf="0.', b'conf="7.')
    assert not page_schema.validate(etree.fromstring(document))
    document = alto(synthetic_page(1), WRITING, 1).replace(b'WC="0.', b'WC="7.')
    assert not alto_schema.validate(etree.fromstring(document))
    document = hocr(synthetic_page(1), WRITING, 1)
    for good, bad in ((b"x_wconf ", b"x_wconf 1"), (b"ocr_carea", b"ocr_area")):
        assert not hocr_schema.validate(etree.fromstring(document.replace(good, bad)))


def _line_texts(page: PageResult) -> list[str]:
    return [line.text for line in page.lines]


@thorough
@given(page=odd_pages())
def test_page_xml_keeps_text_and_order(page: PageResult) -> None:
    root = ElementTree.fromstring(page_xml(page, WRITING))
    body = root.find("p:Page", PAGE)
    assert body is not None
    assert body.get("imageFilename") == page.image
    order = [item.get("regionRef") for item in body.iterfind(".//p:RegionRefIndexed", PAGE)]
    blocks = {item.get("id"): item for item in body.iterfind("p:TextRegion", PAGE)}
    assert sorted(filter(None, order)) == sorted(filter(None, blocks))
    lines = [line for name in order for line in blocks[name].iterfind("p:TextLine", PAGE)]
    assert [_unicode(line) for line in lines] == _line_texts(page)
    for element, line in zip(lines, page.lines, strict=True):
        words = [_unicode(word) for word in element.iterfind("p:Word", PAGE)]
        assert words == [syllable.text.strip() for syllable in line.syllables]
    for element in body.iter():
        for x, y in re.findall(r"(-?\d+),(-?\d+)", element.get("points", "")):
            assert 0 <= int(x) <= page.width
            assert 0 <= int(y) <= page.height


def _unicode(element: ElementTree.Element) -> str:
    found = element.find("p:TextEquiv/p:Unicode", PAGE)
    assert found is not None
    return found.text or ""


@thorough
@given(page=odd_pages())
def test_alto_keeps_text_order_and_place(page: PageResult) -> None:
    root = ElementTree.fromstring(alto(page, WRITING, 3))
    blocks = {item.get("ID"): item for item in root.iterfind(".//a:TextBlock", ALTO)}
    order = [item.get("REF") for item in root.iterfind(".//a:ElementRef", ALTO)]
    assert len(order) == len(blocks)
    lines = [line for name in order for line in blocks[name].iterfind("a:TextLine", ALTO)]
    # Runs of blanks are one SP, and none stands at either end.
    assert [_joined(line) for line in lines] == [" ".join(t.split()) for t in _line_texts(page)]
    for element in root.iter():
        if element.get("HPOS") is not None:
            x, y, width, height = (
                int(element.get(name, "")) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT")
            )
            assert x >= 0
            assert y >= 0
            assert x + width <= page.width
            assert y + height <= page.height


def _joined(line: ElementTree.Element) -> str:
    parts = [
        item.get("CONTENT", "") if item.tag.endswith("String") else " "
        for item in line
        if not item.tag.endswith("Shape")
    ]
    # A string may hold blanks within.
    return " ".join("".join(parts).split())


@thorough
@given(page=odd_pages())
def test_hocr_keeps_text_order_and_place(page: PageResult) -> None:
    document = hocr(page, WRITING, 3)
    root = ElementTree.fromstring(document)
    assert b"<!DOCTYPE html>" in document[:80]
    names = {item.get("name") for item in root.iter(f"{HTML}meta")}
    assert {"ocr-system", "ocr-capabilities", "ocr-langs"} <= names
    (whole,) = [item for item in root.iter(f"{HTML}div") if item.get("class") == "ocr_page"]
    assert re.fullmatch(
        rf'image "[^"]*"; bbox 0 0 {page.width} {page.height}; ppageno 2', whole.get("title", "")
    )
    kinds = {"ocr_line", "ocr_header", "ocr_pageno", "ocr_textfloat"}
    lines = [item for item in root.iter(f"{HTML}span") if item.get("class") in kinds]
    texts = ["".join(line.itertext()) for line in lines]
    assert texts == [text or " " for text in _line_texts(page)]
    identifiers = [item.get("id") for item in root.iter() if item.get("id")]
    assert len(identifiers) == len(set(identifiers))
    for item in whole.iter():
        found = re.search(r"bbox (\d+) (\d+) (\d+) (\d+)", item.get("title", "bbox 0 0 0 0"))
        assert found, item.get("title")
        left, top, right, bottom = map(int, found.groups())
        assert 0 <= left <= right <= page.width
        assert 0 <= top <= bottom <= page.height
        if item.get("class") == "ocrx_word":
            assert re.search(r"; x_wconf (\d\d?|100)$", item.get("title", ""))


def test_alto_puts_heads_and_notes_into_margins() -> None:
    root = ElementTree.fromstring(alto(synthetic_page(1), WRITING, 1))
    places = {
        space.tag.partition("}")[2]: [block.get("TAGREFS") for block in space]
        for space in next(root.iter(f"{{{ALTO['a']}}}Page"))
    }
    assert places == {
        "TopMargin": ["tag_running_head", "tag_page_number"],
        "LeftMargin": ["tag_margin"],
        "PrintSpace": ["tag_text"],
    }


def test_alto_has_blanks_where_the_line_has_them_and_none_at_its_ends() -> None:
    syllables = tuple(
        SyllableResult(text, 1.0, (0, 0, 9, 9)) for text in (" ", "ཀ་", "ཁ། ", "", "ག", " ང", "  ")
    )
    text = "".join(syllable.text for syllable in syllables)
    line = LineResult(text, 1.0, "text", 0, (0, 0, 9, 9), (), (), syllables)
    page = replace(synthetic_page(1), lines=(line,))
    (element,) = ElementTree.fromstring(alto(page, WRITING, 1)).iterfind(".//a:TextLine", ALTO)
    parts = [item.get("CONTENT", item.tag.partition("}")[2]) for item in element]
    assert parts == ["Shape", "ཀ་", "ཁ།", "SP", "ག", "SP", "ང"]


def test_the_baseline_of_hocr_is_the_headline() -> None:
    line = LineResult("ཀ", 1.0, "text", 0, (100, 50, 200, 80), (), ((100, 70), (300, 80)), ())
    page = PageResult("a.tif", 0, None, "ab" * 32, 400, 200, 0.0, 0, (line,))
    document = hocr(page, WRITING, 1).decode()
    assert "bbox 100 50 300 130; baseline 0.0500 -60.0" in document
    upright = replace(line, headline=((100, 50), (110, 130)))
    assert "baseline" not in hocr(replace(page, lines=(upright,)), WRITING, 1).decode()


@pytest.mark.parametrize(
    ("turned", "angle", "expected"),
    [(0, 0.0, 0.0), (0, 2.5, -2.5), (0, -2.5, 2.5), (90, 0.0, -90.0), (180, 0.0, 180.0),
     (180, 1.0, 179.0), (270, 1.0, 89.0), (180, -1.0, -179.0)],
)  # fmt: skip
def test_orientation_is_clockwise_within_half_a_turn(
    turned: int, angle: float, expected: float
) -> None:
    page = replace(synthetic_page(1), turned=turned, angle=angle)
    assert orientation(page) == pytest.approx(expected)


def test_settings_are_the_short_part_of_the_lineage() -> None:
    lineage = {
        "package_version": "0.1.0",
        "version": "v1\x00",
        "inputs": {f"{n}.tif": "x" for n in range(600)},
        "configuration": {"model": "bod", "beam": 16},
    }
    writing = Writing.of("wylie", "bo", lineage)
    assert writing.settings == {"beam": "16", "model": "bod", "version": "v1"}
    assert (writing.version, writing.language_tag) == ("0.1.0", "bo-Latn")
