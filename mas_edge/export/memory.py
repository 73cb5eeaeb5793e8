"""How much memory one run of a traced method takes: the peak of what is alive, over the order of its calls.

A result begins to live when its call begins, and ends with the last call that uses it or a view of it; a view is free.
Inputs and constants are alive from beginning to end, results until the end. What an operator needs while it runs,
beside its arguments and its result, is the engine's own and is not known here (see ``protocol.memory``).
"""

from __future__ import annotations

from torch import Tensor, fx


def peak_bytes(graph: fx.Graph) -> int:
    """The peak of ``graph``, whose nodes carry their fake tensors in ``meta["val"]``."""
    nodes = list(graph.nodes)
    sizes, last_use = {}, {}
    for i, node in enumerate(nodes):
        for used in (node, *node.all_input_nodes):
            last_use.update(dict.fromkeys(_storages(used), i))
        sizes.update(_storages(node))
    for node in nodes:
        if node.op in ("placeholder", "get_attr"):
            last_use.update(dict.fromkeys(_storages(node), len(nodes)))
    ends: dict[int, list[int]] = {}
    for storage, i in last_use.items():
        ends.setdefault(i, []).append(storage)
    given = {s for node in nodes if node.op in ("placeholder", "get_attr") for s in _storages(node)}
    live, alive, peak = sum(sizes[s] for s in given), set(given), 0
    for i, node in enumerate(nodes):
        born = _storages(node).keys() - alive
        alive |= born
        live += sum(sizes[storage] for storage in born)
        peak = max(peak, live)
        live -= sum(sizes[storage] for storage in ends.get(i, ()))
    return peak


def _storages(node: fx.Node) -> dict[int, int]:
    """The memory that the results of ``node`` lie in, with its size in bytes."""
    value = node.meta.get("val")
    tensors = value if isinstance(value, (list, tuple)) else [value]
    storages = [tensor.untyped_storage() for tensor in tensors if isinstance(tensor, Tensor)]
    return {storage._cdata: storage.nbytes() for storage in storages}
