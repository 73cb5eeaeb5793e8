"""What an ONNX model from the network may hold, read without the ``onnx`` package, which no device has.

A model is a Protobuf message (onnx.proto, https://github.com/onnx/onnx). This reads only the fields that could reach
outside the model: tensors kept in other files, operators of other domains, functions, and graphs inside attributes,
which are read the same way. Everything else is ONNX Runtime's to check.
"""

from __future__ import annotations

from collections.abc import Iterator

from mas_edge.protocol.errors import ProgramError

DOMAINS = {"", "ai.onnx"}
MAX_DEPTH = 8  # of graphs in graphs; the emitter writes none
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Fields = Iterator[tuple[int, int | bytes]]

# Field numbers of onnx.proto.
MODEL_GRAPH, MODEL_OPSET, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 8, 20, 25
OPSET_DOMAIN = 1
GRAPH_NODE, GRAPH_TENSOR, GRAPH_SPARSE = 1, 5, 15
NODE_OP, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14


def check_model(data: bytes, where: str) -> None:
    """Refuse a model that is damaged or reaches outside itself; ``where`` begins the message. Raises ProgramError."""
    if not data:
        _refuse(where, "holds no ONNX model")
    try:
        for field, value in _fields(data):
            if field == MODEL_GRAPH:
                _check_graph(_message(value), where, 0)
            elif field == MODEL_OPSET:
                domains = [value for number, value in _fields(_message(value)) if number == OPSET_DOMAIN]
                _check_domain(domains, where)
            elif field in (MODEL_FUNCTIONS, MODEL_TRAINING):
                _refuse(where, "has functions or training information of its own; expected one plain graph")
    except ValueError as error:
        _refuse(where, f"holds a damaged ONNX model: {error}")


def _check_graph(data: bytes, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        _refuse(where, f"has graphs inside graphs, more than {MAX_DEPTH} deep")
    for field, value in _fields(data):
        if field == GRAPH_NODE:
            _check_node(_message(value), where, depth)
        elif field == GRAPH_TENSOR:
            _check_tensor(_message(value), where)
        elif field == GRAPH_SPARSE:
            _refuse(where, "has sparse tensors; expected plain ones")


def _check_node(data: bytes, where: str, depth: int) -> None:
    for field, value in _fields(data):
        if field == NODE_DOMAIN:
            _check_domain([value], where)
        elif field == NODE_ATTRIBUTE:
            for number, part in _fields(_message(value)):
                if number in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS):
                    _check_tensor(_message(part), where)
                elif number in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
                    _check_graph(_message(part), where, depth + 1)


def _check_tensor(data: bytes, where: str) -> None:
    for field, value in _fields(data):
        if field == TENSOR_EXTERNAL or (field == TENSOR_LOCATION and value != 0):
            _refuse(where, "keeps tensors in another file; expected them inside the model")


def _check_domain(domains: list[int | bytes], where: str) -> None:
    for domain in domains:
        name = _message(domain).decode("utf-8")
        if name not in DOMAINS:
            _refuse(where, f"uses operators of the domain {name[:100]!r}; expected those of standard ONNX")


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        message = "a number where a message belongs"
        raise ValueError(message)
    return value


def _fields(data: bytes) -> Fields:
    """The fields of one message: (number, value), bytes of a length as they are. Raises ValueError if it is damaged."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if key & 7 == BYTES:
            length, at = _varint(data, at)
        elif key & 7 in (FIXED32, FIXED64):
            length = 4 if key & 7 == FIXED32 else 8
        else:
            message = f"unknown wire type {key & 7} at byte {at}"
            raise ValueError(message)
        if at + length > len(data):
            message = f"a field of {length} bytes at byte {at} ends beyond the message ({len(data)} bytes)"
            raise ValueError(message)
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    message = f"a number at byte {at} does not end"
    raise ValueError(message)


def _refuse(where: str, text: str) -> None:
    message = f"{where} {text}"
    raise ProgramError(message)
