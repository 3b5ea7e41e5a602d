"""What assets talk to, one file each."""

import ocr_assets  # noqa: F401 - it keeps OpenVINO from reporting its use, before that is imported
