"""Signals connected by signature, `button.connect("clicked(bool)", slot)`, and slots that get what they can take."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6 import QtCore

Slot = Callable[..., Any]

#: Python's names for the types of arguments by which overloads of signals differ.
TYPES = {"bool": bool, "int": int, "double": float, "QString": str}

#: The callables that were handed to Qt, by the sender's address, signal, and slot: needed to disconnect them again.
#: (Not by the Python object: PySide6 may make several for one C++ object.)
connected: dict[tuple[int, str, Slot], list[Slot]] = {}


def connect_by_signature(classes: list[type]) -> None:
    """Give every QObject PythonQt's `connect` and `disconnect`.

    PySide6 answers a look-up of `connect` on an object by itself, before it looks at the class's attributes, hence
    the detour over `__getattribute__`.
    """
    for cls in {QtCore.QObject, *(cls for cls in classes if "__getattribute__" in vars(cls))}:
        setattr(cls, "__getattribute__", with_connect(vars(cls)["__getattribute__"]))  # noqa: B010 (mypy: not assignable)


def with_connect(look_up: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    def look_up_here(self: QtCore.QObject, name: str) -> Any:
        if name == "connect":
            return functools.partial(connect, self)
        if name == "disconnect":
            return functools.partial(disconnect, self)
        return look_up(self, name)

    return look_up_here


def connect(sender: QtCore.QObject, signature: str, receiver: Any, slot: str | None = None) -> bool:
    """Connect a signal to a callable, or to the slot of a receiver that is named by its signature.

    Returns
    -------
    Whether there is such a signal, as in PythonQt, which says nothing more.
    """
    signal = signal_of(sender, signature)
    if signal is None:
        return False
    target = getattr(receiver, name_of(slot)) if slot else receiver
    delivered = taking_at_most(target, number_of_arguments(signature))
    connected.setdefault((*place_of(sender, signature), target), []).append(delivered)
    signal.connect(delivered)
    return True


def disconnect(sender: QtCore.QObject, signature: str, receiver: Any = None, slot: str | None = None) -> bool:
    """Undo `connect`; without a receiver undo all that was connected to the signal."""
    signal = signal_of(sender, signature)
    target = getattr(receiver, name_of(slot)) if slot else receiver
    place = place_of(sender, signature)
    keys = [key for key in connected if key[:2] == place and target in (None, key[2])]
    for key in keys:
        for delivered in connected.pop(key):
            if signal is not None:
                signal.disconnect(delivered)
    return bool(keys)


def signal_of(sender: QtCore.QObject, signature: str) -> Any:
    """The signal of this signature: of several overloads the one that is meant; None if there is none."""
    signal = getattr(sender, name_of(signature), None)
    if not hasattr(signal, "emit"):
        return None
    wanted = normalized(signature)
    meta = sender.metaObject()
    signatures = {text(meta.method(i).methodSignature()) for i in range(meta.methodCount())}
    if wanted in signatures and not any(s != wanted and name_of(s) == name_of(wanted) for s in signatures):
        return signal
    return chosen(signal, wanted)


def chosen(signal: Any, wanted: str) -> Any:
    """Of a signal's overloads the one with the wanted arguments; the first, if none has."""
    arguments = [TYPES.get(name, object) for name in wanted.partition("(")[2].rstrip(")").split(",")]
    try:
        return signal[tuple(arguments) if len(arguments) > 1 else arguments[0]]
    except (KeyError, IndexError, TypeError):
        return signal


def place_of(sender: QtCore.QObject, signature: str) -> tuple[int, str]:
    return shiboken6.getCppPointer(sender)[0], normalized(signature)


def normalized(signature: str) -> str:
    return text(QtCore.QMetaObject.normalizedSignature(signature))  # type: ignore[arg-type]


def text(array: Any) -> str:
    return bytes(array.data()).decode() if hasattr(array, "data") else str(array)


def name_of(signature: str) -> str:
    return signature.partition("(")[0]


def number_of_arguments(signature: str) -> int:
    arguments = normalized(signature).partition("(")[2].rstrip(")")
    return arguments.count(",") + 1 if arguments else 0


def taking_at_most(slot: Slot, count: int) -> Slot:
    """A callable that passes `slot` the first `count` arguments, or as many as it takes if these are fewer.

    As in PythonQt: functions and methods get what fits their positional parameters, everything else (builtins,
    `functools.partial`) gets all arguments of the signature.
    """
    number = min(count, positional_parameters(slot))

    def deliver(*arguments: Any) -> None:
        slot(*arguments[:number])

    return deliver


def positional_parameters(slot: Slot) -> int:
    function = getattr(slot, "__func__", slot)
    code = getattr(function, "__code__", None)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return 99
    return int(code.co_argcount) - int(function is not slot)
