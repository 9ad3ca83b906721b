"""From JSON to models: lenient about what is missing or new, strict about types."""

import functools
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import attrs

from sectigo_async.models import BatchStatus, Model, parse_date, wire_name

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")


class ShapeError(ValueError):
    """A JSON document that does not have the shape it should; says where."""


def structure(data: object, shape: type[T]) -> T:
    """Turn decoded JSON into `shape`.

    Raises:
        ShapeError: with the JSON path of what does not fit.
    """
    from cattrs import transform_error
    from cattrs.errors import BaseValidationError

    try:
        return _converter().structure(data, shape)
    except (BaseValidationError, TypeError, ValueError) as error:
        problem = "; ".join(transform_error(error, path="$", format_exception=_describe)[:3])
    raise ShapeError(problem)


def salvage(data: object, shape: type[T], identity: str) -> T:
    """Turn decoded JSON into `shape`, leaving out the fields that do not fit; `raw` keeps them.

    Args:
        data: decoded JSON.
        shape: the model.
        identity: wire name of the field without which nothing is worth salvaging.

    Raises:
        ShapeError: not even the identity fits.
    """
    if not isinstance(data, dict):
        return structure(data, shape)
    known = {identity: data.get(identity)}
    structure(known, shape)
    for field in attrs.fields(shape):  # type: ignore[arg-type]
        name = wire_name(field.name)
        if name in data:
            with suppress(ShapeError):
                structure(known | {name: data[name]}, shape)
                known[name] = data[name]
    return attrs.evolve(structure(known, shape), raw=data)  # type: ignore[misc]


def _describe(error: BaseException, _type: type | None) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a fraction" if isinstance(value, float) else "a number")


def _int(value: object, _: type[int]) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) < 20 and value.strip().lstrip("-").isascii():  # noqa: PLR2004 - 64 bit
        return int(value)
    msg = f"expected a number, not {_kind(value)}"
    raise TypeError(msg)


def _str(value: object, _: type[str]) -> str:
    if isinstance(value, str):
        return value
    # `deviceId` was a number until 2022 (api.md 1c).
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    msg = f"expected a text, not {_kind(value)}"
    raise TypeError(msg)


def _bool(value: object, _: type[bool]) -> bool:
    if isinstance(value, bool):
        return value
    msg = f"expected true or false, not {_kind(value)}"
    raise TypeError(msg)


def _mapping(value: object, _: Any) -> Mapping[str, object]:
    if isinstance(value, dict):
        return value
    msg = f"expected an object, not {_kind(value)}"
    raise TypeError(msg)


def _is_tuple(shape: Any) -> bool:
    return get_origin(shape) is tuple


def _tuple_hook(shape: Any, converter: "Converter") -> Any:
    item = get_args(shape)[0]

    def hook(value: object, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            msg = f"expected a list, not {_kind(value)}"
            raise TypeError(msg)
        return tuple(converter.structure(value, list[item]))  # type: ignore[valid-type]

    return hook


def _is_model(shape: Any) -> bool:
    return isinstance(shape, type) and issubclass(shape, Model)


def _model_hook(shape: type[Model], converter: "Converter") -> Any:
    from cattrs.gen import make_dict_structure_fn, override

    fields = {
        field.name: override(omit=True)
        if field.name in shape._not_on_the_wire  # noqa: SLF001 - the converter is the models' other half
        else override(rename=wire_name(field.name))
        for field in attrs.fields(shape)
    }
    read = make_dict_structure_fn(shape, converter, **fields)  # type: ignore[arg-type]

    def hook(value: object, _: Any) -> Model:
        if not isinstance(value, dict):
            msg = f"expected an object, not {_kind(value)}"
            raise TypeError(msg)
        # null means "not said" to this service, so the field's default stands.
        said = {name: item for name, item in value.items() if item is not None}
        return attrs.evolve(read(said, shape), raw=value)

    return hook


@functools.cache
def _converter() -> "Converter":
    """Return the one converter, made when the first document comes: cattrs takes as long to load as all models."""
    from cattrs import Converter

    converter = Converter(detailed_validation=True)
    converter.register_structure_hook(int, _int)
    converter.register_structure_hook(str, _str)
    converter.register_structure_hook(bool, _bool)
    converter.register_structure_hook(BatchStatus, lambda value, _: BatchStatus.parse(_str(value, str)))
    converter.register_structure_hook_func(lambda shape: shape == Mapping[str, object], _mapping)
    converter.register_structure_hook_func(lambda shape: shape is object, lambda value, _: value)
    converter.register_structure_hook_func(
        lambda shape: shape == (datetime | None), lambda value, _: parse_date(value)
    )
    converter.register_structure_hook_factory(_is_tuple, _tuple_hook)
    converter.register_structure_hook_factory(_is_model, _model_hook)
    return converter
