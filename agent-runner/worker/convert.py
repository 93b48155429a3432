"""Converts Temporal's payloads to protobuf messages."""

from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from temporalio.converter import (
    BinaryNullPayloadConverter,
    BinaryPlainPayloadConverter,
    BinaryProtoPayloadConverter,
    CompositePayloadConverter,
    DataConverter,
    JSONPlainPayloadConverter,
    JSONProtoPayloadConverter,
    JSONTypeConverter,
)


class _PlainJsonMessages(JSONTypeConverter):
    """Accepts messages as plain JSON too: not every caller's converter supports protobuf."""

    def to_typed_value(self, hint: type, value: Any) -> Any:
        """See JSONTypeConverter."""
        if isinstance(hint, type) and issubclass(hint, Message) and isinstance(value, dict):
            return ParseDict(value, hint(), ignore_unknown_fields=True)
        return JSONTypeConverter.Unhandled


class PayloadConverter(CompositePayloadConverter):
    """Temporal's default converter, except that it ignores unknown fields from newer servers."""

    def __init__(self) -> None:
        super().__init__(
            BinaryNullPayloadConverter(),
            BinaryPlainPayloadConverter(),
            JSONProtoPayloadConverter(ignore_unknown_fields=True),
            BinaryProtoPayloadConverter(),
            JSONPlainPayloadConverter(custom_type_converters=[_PlainJsonMessages()]),
        )


CONVERTER = DataConverter(payload_converter_class=PayloadConverter)
