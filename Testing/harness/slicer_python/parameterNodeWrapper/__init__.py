"""Stand-in for Slicer's `slicer.parameterNodeWrapper`: typed parameters in a `vtkMRMLScriptedModuleNode`.

It covers numbers, text, paths, truth values, enumerations and nodes, with the annotations and the widgets that this
project's panels use; a type or a widget beyond these is refused, as Slicer refuses those that it does not know.
"""

from .annotations import Choice, Decimals, Default, Exclude, Maximum, Minimum, SingleStep, Validator, WithinRange
from .wrapper import SlicerParameterNamePropertyName, isParameterNodeWrapper, parameterNodeWrapper

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "Maximum",
    "Minimum",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "isParameterNodeWrapper",
    "parameterNodeWrapper",
]
