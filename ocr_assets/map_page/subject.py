"""What the map page is about: scores, rows of values, and where they are in the vector tiles.

Belongs here: a type of risk in the words and property keys that the page needs. Does not belong
here: serving the page, or making the tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocr_assets.regions.risk_type import RiskType
from ocr_assets.regions.vector_tiles import region_columns


@dataclass(frozen=True, slots=True)
class ValueRow:
    """A row of a table of values: property keys, one for each view, or one for all."""

    label: str
    unit: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PageSubject:
    """What is shown.

    Attributes:
        noun, quantity, views_title, views: see :class:`ocr_assets.regions.risk_type.MapText`.
        breaks: values at which scores 1 to 10 begin; score 0 is exactly none.
        building_rows, centroid_rows, region_rows: values of a feature.
        building_keys, region_keys: properties that are scored, one for each view.
        histogram_keys: properties with the buildings by score, one for each view.
        count_key, code_key: number of buildings, and code of a geography.
        name_keys: name of a geography, and abbreviation of a state.
    """

    noun: str
    quantity: str
    views_title: str
    views: tuple[str, ...]
    breaks: tuple[float, ...]
    building_rows: tuple[ValueRow, ...]
    centroid_rows: tuple[ValueRow, ...]
    region_rows: tuple[ValueRow, ...]
    building_keys: tuple[str, ...]
    region_keys: tuple[str, ...]
    histogram_keys: tuple[str, ...]
    count_key: str
    code_key: str
    name_keys: tuple[str, str]


def page_subject(risk: RiskType) -> PageSubject:
    """A type of risk as the page shows it."""
    text = risk.map
    columns = region_columns(risk)
    label, unit = text.region_row

    def of_buildings(*names: str) -> tuple[str, ...]:
        return tuple(str(risk.tiled.index(name)) for name in names)

    def of_regions(suffix: str, *names: str) -> tuple[str, ...]:
        return tuple(str(columns.index(f"{name}_{suffix}")) for name in names)

    first, *_ = text.rows
    return PageSubject(
        noun=text.noun,
        quantity=text.quantity,
        views_title=text.views_title,
        views=text.views,
        breaks=(0.0, *text.edges[:-1]),
        building_rows=tuple(
            ValueRow(row.label, row.unit, of_buildings(*row.variables)) for row in text.rows
        ),
        centroid_rows=(
            ValueRow(first.label, first.unit, tuple(map(str, range(len(risk.scored))))),
        ),
        region_rows=(
            ValueRow(f"Mean {label}", unit, of_regions("mean", *risk.scored)),
            ValueRow(f"Median {label}", unit, of_regions("median", *risk.scored)),
        ),
        building_keys=of_buildings(*risk.scored),
        region_keys=of_regions("mean", *risk.scored),
        histogram_keys=of_regions("hist", *(score.name for score in risk.scores)),
        count_key=str(columns.index("building_count")),
        # After the columns come code and bounding box, then names.
        code_key=str(len(columns)),
        name_keys=(str(len(columns) + 2), str(len(columns) + 3)),
    )
