"""What each kind of work needs: memory, cores, disk, and the cloud instance it gets on Coiled.

Belongs here: the figures, one place for every platform. On this machine as many pieces run at once
as there is memory and cores for; a Dask worker takes as many as it has room for; Coiled starts
workers of the type. Memory is the measured peak of one full-size piece, rounded up.
"""

from __future__ import annotations

from resources.cluster import Stage

REGION = Stage("region", memory=3, cores=1, disk=1, vm_type="m8g.2xlarge")
"""One region of 6000 by 4500 pixels with its buildings: 2.1 GB at the peak."""

TILE_SOURCE = Stage("tile-source", memory=1, cores=1, disk=1, vm_type="m8g.large")
"""One source of one tile with 24 optical dates."""

TREE_COVER = Stage("tree-cover", memory=2, cores=1, disk=1, vm_type="m8g.xlarge")
"""Tree cover of one tile with 24 optical dates: 1.2 GB at the peak, 1.6 with large networks."""

READING = Stage("reading", memory=2, cores=4, disk=4, vm_type="c8g.2xlarge")
"""Lines or text of one volume."""

AGGREGATION = Stage("aggregation", memory=4, cores=2, disk=60, vm_type="c8g.12xlarge", vm_disk=250)
"""All buildings by state and county: 1.0 GB at the peak for 10 million of them, and 0.4 kB of disk
for each."""

STATISTICS = Stage("statistics", memory=4, cores=2, disk=5, vm_type="m8g.16xlarge")
"""Statistics of one level of geographies: 1.0 GB at the peak for 10 million buildings, and 0.5 kB
of disk for each geography."""

ANALYSIS_FILES = Stage(
    "analysis-files", memory=2, cores=1, disk=50, vm_type="r8g.4xlarge", vm_disk=100
)
"""Files of one level of statistics: 0.7 GB at the peak for 150,000 geographies, 5.4 kB of disk for
each."""

VECTOR_TILES = Stage(
    "vector-tiles", memory=4, cores=2, disk=80, vm_type="c8g.12xlarge", vm_disk=250
)
"""One archive of vector tiles: 0.45 kB of disk for each building."""

PYRAMID = Stage("pyramid", memory=4, cores=2, disk=300, vm_type="m8g.4xlarge", vm_disk=500)
"""The pyramid of all regions: 0.6 GB at the peak, and 0.7 GB of disk for each region."""
