from __future__ import annotations

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.export.onnx_training.operand import Operand
from mas_edge.export.onnx_training.writer import IR, OPSET, Writer
from mas_edge.protocol.program import Value


def writer(*shape: int) -> tuple[Writer, Operand]:
    made = Writer([Value("x", list(shape), "float32")])
    return made, made.inputs["x"]


def nodes(made: Writer, result: Operand) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(made.model([("out.y", result)])).graph.node]


def test_a_model_names_its_inputs_and_outputs_and_its_versions() -> None:
    w, x = writer(2, 3)
    model = onnx.load_from_string(w.model([("out.y", w.add(x, x))]))
    assert ([i.name for i in model.graph.input], [o.name for o in model.graph.output]) == (["x"], ["out.y"])
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (IR, [("", OPSET)])


def test_the_same_call_is_written_once_and_what_nobody_needs_not_at_all() -> None:
    w, x = writer(2, 3)
    w.pointwise("Exp", x)
    assert w.add(x, w.scalar(1, "float32")) is w.add(x, w.scalar(1, "float32"))
    assert nodes(w, w.add(x, w.scalar(1, "float32"))) == ["Add", "Identity"]


def test_what_changes_nothing_is_not_written() -> None:
    w, x = writer(2, 3)
    for same in (
        w.reshape(x, [2, 3]),
        w.transpose(x, [0, 1]),
        w.slice(x, 1, 0, 3),
        w.cast(x, "float32"),
        w.times(x, 1),
    ):
        assert same is x
    assert w.transpose(w.transpose(x, [1, 0]), [1, 0]) is x
    assert nodes(w, w.transpose(w.reshape(x, [2, 1, 3]), [1, 0, 2])) == ["Reshape", "Reshape", "Identity"]


def test_what_was_only_expanded_to_fit_is_broadcast_instead() -> None:
    w, x = writer(2, 1)
    wide = w.expand(x, [2, 3])
    other = w.constant(np.ones((2, 3), np.float32))
    assert nodes(w, w.mul(wide, other)) == ["Mul", "Identity"]
    w, x = writer(2, 1)
    assert nodes(w, w.mul(w.expand(x, [2, 3]), w.scalar(2, "float32"))) == ["Expand", "Mul", "Identity"]


def test_a_product_reads_a_transposed_matrix_where_it_lies() -> None:
    w, x = writer(2, 3)
    assert w.before_transpose(w.transpose(x, [1, 0])) is x
    assert w.before_transpose(x) is None


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=5), st.data())
def test_swapped_blocks_of_axes_lie_as_numpy_lays_them(shape: list[int], data: st.DataObject) -> None:
    rank = len(shape)
    start = data.draw(st.integers(0, rank - 2))
    middle = data.draw(st.integers(start + 1, rank - 1))
    stop = data.draw(st.integers(middle + 1, rank))
    w, x = writer(*shape)
    swapped = w.swap(x, start, middle, stop)
    order = [*range(start), *range(middle, stop), *range(start, middle), *range(stop, rank)]
    values = np.arange(x.size, dtype=np.float32).reshape(shape)
    expected = values.transpose(order)
    assert swapped.shape == expected.shape
    session = onnxruntime.InferenceSession(w.model([("out.y", swapped)]), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"x": values})[0], expected)
