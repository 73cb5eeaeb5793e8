"""Training programs for ONNX Runtime: traced ATen calls become ONNX graphs of opset 18, nothing but ``onnx`` needed.

``functional`` removes changes in place and gives shapes; ``emitter`` sends every call through a table of converters,
one module a kind of operator; ``writer`` builds the graph.
"""

from mas_edge.export.onnx_training.emitter import emit

__all__ = ["emit"]
