"""The configuration: its shape, how it is read, what is wrong with it."""

from server.settings.fault import Fault, SettingsError
from server.settings.reading import load
from server.settings.spec import (
    BudgetSpec,
    EngineSpec,
    KeySpec,
    Limits,
    ModelSpec,
    Rate,
    ServerSpec,
    Settings,
    StrategySpec,
)

__all__ = [
    "BudgetSpec",
    "EngineSpec",
    "Fault",
    "KeySpec",
    "Limits",
    "ModelSpec",
    "Rate",
    "ServerSpec",
    "Settings",
    "SettingsError",
    "StrategySpec",
    "load",
]
