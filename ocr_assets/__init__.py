"""Three pipelines as one asset graph."""

import sys

# OpenVINO reports its use to its maker when it is imported, unless this package is out of reach.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
