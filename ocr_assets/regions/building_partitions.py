"""The building tables of all regions as one set of files, partitioned by state and county.

Belongs here: sorting the rows of many region files into county files in bounded memory.
Does not belong here: making the region files (``buildings.py``), and publishing the set.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from ocr_assets.geoparquet import (
    ROW_GROUP_ROWS,
    GeoParquetError,
    Source,
    hilbert_order,
    open_geoparquet,
    row_batches,
    write_geoparquet,
)
from ocr_assets.regions.buildings import building_schema
from ocr_assets.regions.grid import CONUS_WINDOW
from ocr_assets.regions.risk_type import RiskType

UNKNOWN = "__HIVE_DEFAULT_PARTITION__"
"""Folder value of buildings without a state or county code: readers of hive partitions take it
as null."""

PART_ROWS = 16 * ROW_GROUP_ROWS
"""Most rows of one file (some 100 MB); a large county has several files."""

_BATCH_ROWS = 8 * ROW_GROUP_ROWS
"""Rows of a region file that are in memory at a time."""


@dataclass(frozen=True)
class PartitionReport:
    """Rows in and out of a partitioning; ``rows_in == rows_out``.

    ``without_county`` counts the rows in a folder named :data:`UNKNOWN`, which are among
    ``rows_out``; ``counties`` counts the other folders.
    """

    rows_in: int
    rows_out: int
    without_county: int
    counties: int

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


def partition_buildings(
    risk: RiskType,
    region_files: Mapping[str, Source],
    destination: Path,
    lineage: Mapping[str, Any],
) -> tuple[dict[str, Path], PartitionReport]:
    """Write the buildings of all regions as ``state_fips=SS/county_fips=CCC/part-N.parquet``.

    Rows first go to small spill files by county, then each county is sorted and written, so memory
    holds one county at a time. Every file is in the Hilbert order of the whole county, the same
    however the grid was cut into regions.

    Args:
        risk: the type of risk of the tables.
        region_files: region id to its GeoParquet table.
        destination: empty or new local folder; it also holds the spill files while they are needed.
        lineage: kept in every file.

    Returns:
        Files by their name below ``destination``, in order, and the report.

    Raises:
        GeoParquetError: a region file is unreadable or lacks a column.
        FileExistsError: ``destination`` holds files, which could be taken for a part of the set.
    """
    if destination.exists() and any(destination.iterdir()):
        raise FileExistsError(f"{destination} is not empty; partition into a new folder")
    destination.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    rows_out = without_county = counties = 0
    spill = Path(tempfile.mkdtemp(prefix=".spill-", dir=destination))
    try:
        rows_in, spilled = _spill(region_files, building_schema(risk), spill)
        for county in sorted(spilled):
            table = _county(spilled.pop(county))
            folder = f"state_fips={county[:2] or UNKNOWN}/county_fips={county[2:] or UNKNOWN}"
            for part, start in enumerate(range(0, table.num_rows, PART_ROWS)):
                name = f"{folder}/part-{part}.parquet"
                files[name] = destination / name
                write_geoparquet(table.slice(start, PART_ROWS), files[name], lineage)
            rows_out += table.num_rows
            if len(county) == 5:
                counties += 1
            else:
                without_county += table.num_rows
    finally:
        shutil.rmtree(spill)
    return files, PartitionReport(rows_in, rows_out, without_county, counties)


def open_buildings(
    risk: RiskType,
    paths: Sequence[str],
    root: str,
    filesystem: pyarrow.fs.FileSystem | None = None,
) -> ds.Dataset:
    """The files of a partitioned set as one dataset, perhaps without any.

    Columns are those of :func:`building_schema`, then ``state_fips`` and ``county_fips`` as text,
    read from the folders below ``root``, the folder of the set.
    """
    keys = pa.schema([("state_fips", pa.string()), ("county_fips", pa.string())])
    return ds.dataset(
        list(paths),
        schema=pa.schema([*building_schema(risk), *keys]),
        format="parquet",
        filesystem=filesystem,
        partitioning=ds.partitioning(keys, flavor="hive"),
        partition_base_dir=root,
    )


def county_code(geoid: pa.Array) -> pa.Array:
    """The five digits of the county in each code, two if it names a state only, else ``""``."""
    size = pc.fill_null(pc.utf8_length(geoid), 0)
    return pc.case_when(
        pc.make_struct(pc.greater_equal(size, 5), pc.greater_equal(size, 2)),
        pc.utf8_slice_codeunits(geoid, 0, 5),
        pc.utf8_slice_codeunits(geoid, 0, 2),
        "",
    )


def _spill(
    region_files: Mapping[str, Source], schema: pa.Schema, folder: Path
) -> tuple[int, dict[str, list[Path]]]:
    """Sort the rows of all files into spill files: how many rows, and the files of each county."""
    spilled: dict[str, list[Path]] = defaultdict(list)
    rows = 0
    for batch in _batches(region_files, schema):
        rows += batch.num_rows
        county = county_code(batch["GEOID"].combine_chunks()).dictionary_encode()
        order = pc.sort_indices(county.indices)
        batch = batch.take(order).combine_chunks()
        sizes = np.bincount(np.asarray(county.indices), minlength=len(county.dictionary))
        starts = np.cumsum(sizes) - sizes
        for code, start, size in zip(county.dictionary.to_pylist(), starts, sizes, strict=True):
            path = folder / f"{code}-{len(spilled[code])}.arrow"
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as out:
                out.write_table(batch.slice(start, size))
            spilled[code].append(path)
    return rows, spilled


def _batches(region_files: Mapping[str, Source], schema: pa.Schema) -> Iterator[pa.Table]:
    for region_id, source in region_files.items():
        file = open_geoparquet(source, schema.names)
        try:
            for batch in row_batches(file, _BATCH_ROWS, schema.names):
                yield pa.Table.from_batches([batch]).cast(schema)
        except (OSError, pa.ArrowException) as error:
            raise GeoParquetError(f"cannot read {source} of region {region_id}: {error}") from error
        finally:
            file.close()


def _county(spilled: list[Path]) -> pa.Table:
    """All rows of a county in spatial order; its spill files go."""
    tables = []
    for path in spilled:
        with pa.memory_map(str(path)) as file:
            tables.append(pa.ipc.open_file(file).read_all())
    table = pa.concat_tables(tables)
    table = table.take(hilbert_order(table, CONUS_WINDOW.bounds, "building_id"))
    for path in spilled:
        path.unlink()
    return table
