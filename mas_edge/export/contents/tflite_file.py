"""A LiteRT file (.tflite), read by its FlatBuffers schema (tensorflow/lite/schema/schema.fbs, identifier TFL3)."""

from __future__ import annotations

from collections import Counter

from mas_edge.export.contents.listing import Contents, MethodContents, Tensor
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.flatbuffer import Table, item_of, root_of

TYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
)  # fmt: skip
# The builtin operators by their number in the schema of LiteRT 2.3.
_NAMES = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM
MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS
SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND
SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN
EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2
GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG
SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT
UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU
SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE
MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5
SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO
RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL
CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE
RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX
UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD
STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS
STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE
STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH
STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE
STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE
STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE
STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
"""
OPERATORS = _NAMES.split()
CUSTOM = OPERATORS.index("CUSTOM")
# Field numbers of schema.fbs.
VERSION, CODES, GRAPHS, BUFFERS, SIGNATURES = 0, 1, 2, 4, 7
GRAPH_TENSORS, GRAPH_INPUTS, GRAPH_OUTPUTS, GRAPH_OPERATORS, GRAPH_NAME = 0, 1, 2, 3, 4
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_BUFFER, TENSOR_NAME = 0, 1, 2, 3


def read_tflite(data: bytes) -> Contents:
    """What is in it. Raises ProgramError if it is damaged."""
    try:
        root = root_of(data)
        names = [_code(code) for code in root.tables(CODES)]
        sizes = [buffer.length(0) or buffer.number(2, "Q") for buffer in root.tables(BUFFERS)]
        graphs = [_graph(graph, names, sizes) for graph in root.tables(GRAPHS)]
        methods = [_signature(signature, graphs, root) for signature in root.tables(SIGNATURES)] or graphs
    except ValueError as error:
        message = f"is a damaged or truncated LiteRT file: {error}"
        raise ProgramError(message) from None
    facts = {"version": str(root.number(VERSION, "I")), "constants": f"{sum(sizes)} bytes in {len(sizes)} buffers"}
    return Contents(
        kind="LiteRT file", engine="litert", size=len(data), sha256=digest_of(data), facts=facts, methods=methods
    )


def _code(code: Table) -> str:
    number = max(code.number(0, "b"), code.number(3, "i"))
    if number == CUSTOM:
        return f"custom {code.text(1)}"
    return OPERATORS[number] if 0 <= number < len(OPERATORS) else f"operator {number}"


def _graph(graph: Table, names: list[str], sizes: list[int]) -> MethodContents:
    tensors = graph.tables(GRAPH_TENSORS)
    calls = Counter(item_of(names, operator.number(0, "I")) for operator in graph.tables(GRAPH_OPERATORS))
    held = {tensor.number(TENSOR_BUFFER, "I") for tensor in tensors}
    return MethodContents(
        name=graph.text(GRAPH_NAME) or "main",
        inputs=[_tensor(item_of(tensors, place)) for place in graph.numbers(GRAPH_INPUTS, "i")],
        outputs=[_tensor(item_of(tensors, place)) for place in graph.numbers(GRAPH_OUTPUTS, "i")],
        operators=dict(calls.most_common()),
        constants_bytes=sum(item_of(sizes, buffer) for buffer in held),
    )


def _signature(signature: Table, graphs: list[MethodContents], root: Table) -> MethodContents:
    """A graph under the name that callers use, its values under theirs."""
    place = signature.number(4, "I")
    graph, tensors = item_of(graphs, place), root.tables(GRAPHS)[place].tables(GRAPH_TENSORS)
    inputs, outputs = (
        [_tensor(item_of(tensors, pair.number(1, "I")), pair.text(0)) for pair in signature.tables(field)]
        for field in (0, 1)
    )
    return MethodContents(
        name=signature.text(2), inputs=inputs, outputs=outputs, operators=graph.operators,
        constants_bytes=graph.constants_bytes,
    )  # fmt: skip


def _tensor(tensor: Table, name: str = "") -> Tensor:
    number = tensor.number(TENSOR_TYPE, "b")
    dtype = TYPES[number] if 0 <= number < len(TYPES) else "?"
    return Tensor(name or tensor.text(TENSOR_NAME), dtype, list(tensor.numbers(TENSOR_SHAPE, "i")))
