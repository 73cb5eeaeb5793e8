"""A pass over a method's graph: numbers scale a tensor before it is spread over more places, not after.

The gradient of a mean is ``expand(g) / n``. Where that meets the gradient of a convolution with a stride or of an
upsampling, litert-converter 0.5 ends with a segmentation fault; ``expand(g / n)`` it converts, and it is less work.
"""

from __future__ import annotations

import torch
from torch import fx

ATEN = torch.ops.aten
SCALINGS = {ATEN.div.Scalar, ATEN.div.Tensor, ATEN.mul.Scalar, ATEN.mul.Tensor}


def scale_before_expanding(graph: fx.Graph) -> None:
    """Rewrite every ``expand(x) * number`` and ``expand(x) / number`` of ``graph`` as an expanded scaling of ``x``."""
    for node in list(graph.nodes):
        if node.target not in SCALINGS or not isinstance(node.args[1], (int, float)):
            continue
        spread = node.args[0]
        if not isinstance(spread, fx.Node) or spread.target is not ATEN.expand.default:
            continue
        small: fx.Node = spread.args[0]  # type: ignore[assignment]
        with graph.inserting_before(node):
            scaled = graph.call_function(node.target, (small, *node.args[1:]))
            again = graph.call_function(ATEN.expand.default, (scaled, *spread.args[1:]))
        scaled.meta, again.meta = {"module": node.meta["module"]}, dict(node.meta)
        node.replace_all_uses_with(again)
        graph.erase_node(node)
    for node in graph.find_nodes(op="call_function", target=ATEN.view.default):
        node.target = ATEN.reshape.default  # what was scaled had an element for each place; what is spread has not
    graph.eliminate_dead_code()
