"""Programs for ExecuTorch: an own emitter for training, XNNPACK for inference."""

from __future__ import annotations

from mas_edge.export.executorch.emitter import emit

__all__ = ["emit"]
