"""What options a detector takes: read from the signature of its class."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationInfo, create_model, field_validator

from AnomalyDetectionLib.scoring.contract import Detector

from .problems import refuse_truth_values


class _Options(BaseModel):
    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_truth_values(value, cls.model_fields[info.field_name or ""].annotation)


def options_model(detector: type[Detector]) -> type[BaseModel]:
    """A model of the keyword arguments of a detector, with their types and defaults.

    A detector of another package may leave types out (anything then passes) or take any keyword.
    """
    hints = get_type_hints(detector.__init__)
    fields: dict[str, Any] = {}
    takes_any = False
    for name, parameter in list(inspect.signature(detector).parameters.items())[1:]:  # the first is the spec
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            takes_any = True
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
    config = ConfigDict(extra="allow" if takes_any else "forbid", arbitrary_types_allowed=True)
    named = type("_Named", (_Options,), {"model_config": config})
    return create_model(f"{detector.__name__}Options", __base__=named, **fields)
