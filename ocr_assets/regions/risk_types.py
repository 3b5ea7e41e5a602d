"""The types of risk that there are.

Belongs here: the list. Does not belong here: what a type is, and what one of them consists of.
"""

from __future__ import annotations

from collections.abc import Mapping

from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.risk_type import RiskType
from ocr_assets.regions.wind_risk import WIND_RISK

RISK_TYPES: Mapping[str, RiskType] = {risk.name: risk for risk in (FIRE, WIND_RISK)}
"""Every type of risk, by name."""
