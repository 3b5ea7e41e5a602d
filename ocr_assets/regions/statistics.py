"""Risk statistics of the buildings in each block, tract, county, state and the nation.

Belongs here: grouping buildings by the code they carry, the statistics of a group, and the tables
of them. Does not belong here: finding the codes (``geographies.py``).

A building is counted where its code says, once, so the counts of every level add up to the number
of buildings that carry a code of that level.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from ocr_assets.geoparquet import GeoParquetError, GeoParquetWriter
from ocr_assets.regions.geographies import (
    CODE_LENGTH,
    NATION,
    STATES,
    GeographyFile,
    Level,
    geography_schema,
    in_state,
)
from ocr_assets.regions.kernels import Method
from ocr_assets.regions.risk_type import NO_SCORE, Classes, RiskType

PERCENTILES = (90, 95, 99)

_PART_ROWS = 1 << 22

_QUANTILES = {"median": 0.5, **{f"p{p}": p / 100 for p in PERCENTILES}}


def statistics_schema(risk: RiskType, level: Level) -> pa.Schema:
    """Columns of a statistics table.

    Names and codes, ``building_count``, ``{variable}_mean`` (float64), ``{variable}_median``
    (float32), ``{class}_hist`` (buildings of each class of the type), ``{variable}_p90, _p95,
    _p99`` (float32), then the outline. Values have the unit of the variable.
    """
    summarised = risk.summarised
    outline = ("geometry", "bbox")
    return pa.schema(
        [
            *(field for field in geography_schema(level) if field.name not in outline),
            pa.field("building_count", pa.int64(), nullable=False),
            *(pa.field(f"{name}_mean", pa.float64()) for name in summarised),
            *(pa.field(f"{name}_median", pa.float32()) for name in summarised),
            *(pa.field(f"{one.name}_hist", pa.list_(pa.int64())) for one in risk.classes),
            *(pa.field(f"{name}_p{p}", pa.float32()) for name in summarised for p in PERCENTILES),
            *(field for field in geography_schema(level) if field.name in outline),
        ]
    )


@dataclass(frozen=True)
class StatisticsReport:
    """Account of one level; ``counted + without_code == buildings``.

    Attributes:
        buildings: rows of the building table.
        counted: those counted in a geography.
        without_code: those whose code is shorter than the level needs.
        without_outline: those of ``counted`` whose geography is not in the geography table: its row
            has no outline.
        geographies: rows of the statistics table.
        empty_geographies: rows without any building.
    """

    buildings: int = 0
    counted: int = 0
    without_code: int = 0
    without_outline: int = 0
    geographies: int = 0
    empty_geographies: int = 0

    def __add__(self, other: Self) -> StatisticsReport:
        return StatisticsReport(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(self))
        )

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


def summarise(
    risk: RiskType,
    buildings: ds.Dataset,
    level: Level,
    geographies: pa.Table | GeographyFile,
    method: Method,
) -> Iterator[tuple[pa.Table, StatisticsReport]]:
    """Statistics of one level, state by state, in the order of the codes.

    Args:
        risk: the type of risk of the buildings.
        buildings: the set that :func:`ocr_assets.regions.building_partitions.partition_buildings`
            made, with its string partition keys ``state_fips`` and ``county_fips``. Blocks, tracts
            and counties are summarised with one county in memory, states with one column of one
            state, the nation with one column.
        level: which geographies. A block is the whole code of 15 digits and its suffix if it has
            one; a tract, county or state is the first 11, 5 or 2 digits.
        geographies: outlines and names, columns of
            :func:`ocr_assets.regions.geographies.geography_schema`. Of a file, the outlines of one
            state are in memory.
        method: classes of histograms, the same as in the columns of the buildings: for fire,
            ``corrected`` puts every building into one; under ``published`` a bin includes its upper
            edge, and values above 100 are in none.

    Yields:
        Rows of :func:`statistics_schema` and their report. There is a row for each geography of
        the table and each code of a building. Without buildings, the count is 0, histograms are
        zeros, the other statistics null. Zeros count in all statistics. Quantiles interpolate
        linearly between ranks. Results do not depend on the order or the files of the rows.

    Raises:
        GeoParquetError: ``buildings`` has no such partition keys, or a file is unreadable.
    """
    in_memory = isinstance(geographies, pa.Table)
    if level == "nation":
        outlines = geographies if in_memory else geographies.whole()
        yield _joined(risk, _nation(risk, buildings, method), outlines, level)
        return
    counties = _fragments(buildings)
    for state in sorted(STATES.keys() | counties.keys()):
        groups = list(counties.get(state, {}).values())
        if level == "state" and groups:
            groups = [[fragment for group in groups for fragment in group]]
        found = [_group(risk, buildings, group, level, method) for group in groups]
        if not state:
            of_state = geography_schema(level).empty_table()
        elif in_memory:
            of_state = in_state(geographies, state)
        else:
            of_state = geographies.of_state(state)
        if found or of_state.num_rows:
            together = _Statistics.concatenate([_none(risk, method), *found])
            yield _joined(risk, together, of_state, level)


def write_statistics(
    risk: RiskType,
    path: Path,
    buildings: ds.Dataset,
    level: Level,
    geographies: pa.Table | GeographyFile,
    method: Method,
    lineage: Mapping[str, Any],
) -> StatisticsReport:
    """Write the table of one level as GeoParquet, ordered by code; see :func:`summarise`."""
    total = StatisticsReport()
    with GeoParquetWriter(path, statistics_schema(risk, level), lineage) as writer:
        for table, report in summarise(risk, buildings, level, geographies, method):
            writer.write(table)
            total += report
    return total


@dataclass(frozen=True)
class _Statistics:
    """Statistics of ``k`` groups; ``values`` and ``histograms`` (k, classes) by column name."""

    codes: list[str]
    count: NDArray[np.int64]
    values: dict[str, NDArray[np.floating[Any]]]
    histograms: dict[str, NDArray[np.int64]]
    without_code: int

    @classmethod
    def concatenate(cls, parts: Sequence[_Statistics]) -> _Statistics:
        return cls(
            [code for part in parts for code in part.codes],
            np.concatenate([part.count for part in parts]),
            {k: np.concatenate([part.values[k] for part in parts]) for k in parts[0].values},
            {
                k: np.concatenate([part.histograms[k] for part in parts])
                for k in parts[0].histograms
            },
            sum(part.without_code for part in parts),
        )


def group_quantiles(
    group: NDArray[np.intp], values: NDArray[np.float32], groups: int
) -> dict[str, NDArray[np.floating[Any]]]:
    """Mean (float64), median, p90, p95 and p99 (float32) of each group.

    Args:
        group: group of each value, ``0 <= group < groups``, shape ``(n,)``. No group is empty.
        values: shape ``(n,)``, without NaN.
        groups: number of groups.

    Returns:
        Arrays of shape ``(groups,)``. Values are sorted before they are summed, so the result
        depends on the set of values and not on their order.
    """
    if groups == 1:
        count, start = np.array([len(values)]), np.zeros(1, np.intp)
        ordered = np.sort(values)
        total = np.array([_total(ordered)])
    else:
        count = np.bincount(group, minlength=groups)
        ordered = _sorted_within_groups(group, values)
        start = np.cumsum(count) - count
        total = np.add.reduceat(ordered, start, dtype=np.float64) if groups else np.zeros(0)
    result: dict[str, NDArray[np.floating[Any]]] = {"mean": total / count}
    for name, quantile in _QUANTILES.items():
        rank = quantile * (count - 1)
        below = np.floor(rank).astype(np.intp)
        above = np.minimum(below + 1, count - 1)
        low = ordered[start + below].astype(np.float64)
        high = ordered[start + above].astype(np.float64)
        result[name] = (low + (high - low) * (rank - below)).astype(np.float32)
    return result


def _sorted_within_groups(
    group: NDArray[np.intp], values: NDArray[np.float32]
) -> NDArray[np.float32]:
    # One sort of 64-bit integers (group above, value below) is several times faster than a sort
    # by two keys. The bits of floats are ordered like integers once the sign is dealt with.
    sign = np.uint32(0x80000000)
    bits = values.view(np.uint32)
    bits = np.where(bits & sign, ~bits, bits | sign)
    keys = (group.astype(np.uint64) << np.uint64(32)) | bits
    keys.sort()
    bits = keys.astype(np.uint32)
    return np.where(bits & sign, bits ^ sign, ~bits).view(np.float32)


def _total(values: NDArray[np.float32]) -> float:
    """Sum in double precision."""
    return math.fsum(values[part].sum(dtype=np.float64) for part in _parts(len(values)))


def _parts(size: int) -> Iterator[slice]:
    """Slices of a long array, so that what is made of one of them stays small."""
    return (slice(start, start + _PART_ROWS) for start in range(0, size, _PART_ROWS))


def class_histogram(
    classes: Classes,
    group: NDArray[np.intp],
    values: NDArray[np.float32],
    groups: int,
    method: Method,
) -> NDArray[np.int64]:
    """Buildings of each class in each group, ``(groups, classes)``; see :func:`summarise`."""
    counts = np.zeros(groups * classes.count, np.int64)
    for part in _parts(len(values)):
        found = classes.classify(values[part], method)
        classed = found != NO_SCORE
        cell = group[part][classed] * classes.count + found[classed]
        counts += np.bincount(cell, minlength=counts.size)
    return counts.reshape(groups, classes.count)


def _fragments(buildings: ds.Dataset) -> dict[str, dict[str, list[ds.Fragment]]]:
    """Files of the set by state and county code, ``""`` for unknown ones, in order."""
    found: dict[str, dict[str, list[ds.Fragment]]] = defaultdict(lambda: defaultdict(list))
    for fragment in buildings.get_fragments():
        keys = ds.get_partition_keys(fragment.partition_expression)
        if not {"state_fips", "county_fips"} <= keys.keys():
            raise GeoParquetError(
                f"{fragment.path} is not in a folder state_fips=SS/county_fips=CCC: partition the "
                f"buildings first"
            )
        found[keys["state_fips"] or ""][keys["county_fips"] or ""].append(fragment)
    return {state: dict(sorted(found[state].items())) for state in found}


def _nation(risk: RiskType, buildings: ds.Dataset, method: Method) -> _Statistics:
    # Column by column: the whole country does not fit in memory at once.
    count = buildings.count_rows()
    return _statistics(
        risk,
        codes=[NATION] if count else [],
        group=np.broadcast_to(np.intp(0), count),
        column=lambda name: _read(buildings, [name])[name].to_numpy(),
        method=method,
        without_code=0,
    )


def _group(
    risk: RiskType,
    buildings: ds.Dataset,
    fragments: list[ds.Fragment],
    level: Level,
    method: Method,
) -> _Statistics:
    """Statistics of the geographies of one level in some files."""
    first = fragments[0]
    files = ds.FileSystemDataset(fragments, buildings.schema, first.format, first.filesystem)
    # The largest state has four times the buildings of the largest county.
    by_column = level == "state"
    table = _read(files, ["GEOID"] if by_column else ["GEOID", *risk.tiled])
    geoid = table["GEOID"].combine_chunks()
    if not isinstance(geoid, pa.DictionaryArray):
        geoid = geoid.dictionary_encode()
    length = CODE_LENGTH[level]
    known = pc.greater_equal(pc.utf8_length(geoid.dictionary), length)
    codes = geoid.dictionary
    if level != "block":
        codes = pc.utf8_slice_codeunits(codes, 0, length)
    # Groups are numbered in the order of their codes; -1 where the code is too short.
    names = codes.filter(known).unique()
    names = names.take(pc.sort_indices(names))
    group_of_code = pc.fill_null(pc.index_in(pc.if_else(known, codes, None), names), -1)
    group = np.asarray(pc.fill_null(group_of_code.take(geoid.indices), -1)).astype(np.intp)
    coded = group >= 0
    everything = bool(coded.all())

    def column(name: str) -> NDArray[np.float32]:
        values = (_read(files, [name]) if by_column else table)[name].to_numpy()
        return values if everything else values[coded]

    without_code = int((~coded).sum())
    return _statistics(risk, names.to_pylist(), group[coded], column, method, without_code)


def _read(dataset: ds.Dataset, columns: list[str]) -> pa.Table:
    try:
        return dataset.to_table(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise GeoParquetError(f"cannot read the building table: {error}") from error


def _none(risk: RiskType, method: Method) -> _Statistics:
    empty = np.zeros(0, np.float32)
    return _statistics(risk, [], np.zeros(0, np.intp), lambda _: empty, method, 0)


def _statistics(
    risk: RiskType,
    codes: list[str],
    group: NDArray[np.intp],
    column: Callable[[str], NDArray[np.float32]],
    method: Method,
    without_code: int,
) -> _Statistics:
    values: dict[str, NDArray[np.floating[Any]]] = {}
    histograms = {}
    for name in risk.tiled:
        samples = column(name)
        if risk.variables[name].summarised:
            for statistic, result in group_quantiles(group, samples, len(codes)).items():
                values[f"{name}_{statistic}"] = result
        for one in risk.classes:
            if one.variable == name:
                found = class_histogram(one, group, samples, len(codes), method)
                histograms[f"{one.name}_hist"] = found
    single = len(codes) == 1
    count = np.array([len(group)]) if single else np.bincount(group, minlength=len(codes))
    return _Statistics(codes, count, values, histograms, without_code)


def _joined(
    risk: RiskType, found: _Statistics, outlines: pa.Table, level: Level
) -> tuple[pa.Table, StatisticsReport]:
    """The statistics beside names and outlines: all rows of both, by code."""
    codes = pa.array(found.codes, pa.string())
    listed = outlines["GEOID"].combine_chunks()
    every = pa.concat_arrays([codes, listed]).unique()
    every = every.take(pc.sort_indices(every))
    outline = outlines.take(pc.index_in(every, listed)).set_column(
        outlines.column_names.index("GEOID"), "GEOID", every
    )
    row = np.asarray(pc.index_in(codes, every))
    absent = np.ones(len(every), bool)
    absent[row] = False

    def spread(values: NDArray[Any]) -> NDArray[Any]:
        target = np.zeros((len(every), *values.shape[1:]), values.dtype)
        target[row] = values
        return target

    columns: dict[str, Any] = {name: outline[name] for name in outline.column_names}
    columns["building_count"] = spread(found.count)
    for name, values in found.values.items():
        columns[name] = pa.array(spread(values), mask=absent)
    for name, counts in found.histograms.items():
        columns[name] = pa.ListArray.from_arrays(
            np.arange(len(every) + 1, dtype=np.int32) * counts.shape[1], spread(counts).ravel()
        )
    schema = statistics_schema(risk, level)
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    counted = int(found.count.sum())
    unlisted = np.asarray(pc.invert(pc.is_in(codes, listed)))
    report = StatisticsReport(
        buildings=counted + found.without_code,
        counted=counted,
        without_code=found.without_code,
        without_outline=int(found.count[unlisted].sum()),
        geographies=len(every),
        empty_geographies=int(absent.sum()),
    )
    return table, report
