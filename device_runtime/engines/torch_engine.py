"""The torch engine: a program's operator calls as a torch.fx graph.

A program comes from the network, so it is data to be checked, not code to be trusted. Every operator must be one of the
dispatcher's ``aten`` operators; arguments can only be numbers, known enumerations and results of earlier calls; text is
allowed for the few modes below, so that no operator gets a file name (``aten.from_file``). The text that fx compiles is
made of these checked pieces alone.

A program carries no device: whatever it makes is made where the engine runs, the processor or an NVIDIA graphics
processor (Jetson).
"""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch._ops import OpOverload, OpOverloadPacket

from device_runtime.engines.base import Arrays, checked_feed, checked_method, require_engine
from mas_edge.protocol.errors import DeviceError, ProgramError
from mas_edge.protocol.program import Constant, Method, Program, Value

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "int64": torch.int64, "int32": torch.int32, "int16": torch.int16, "int8": torch.int8, "uint8": torch.uint8,
    "bool": torch.bool,
}  # fmt: skip
MEMORY_FORMATS: dict[str, torch.memory_format] = {
    "preserve_format": torch.preserve_format, "contiguous_format": torch.contiguous_format,
    "channels_last": torch.channels_last, "channels_last_3d": torch.channels_last_3d,
}  # fmt: skip
NUMBERS = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}
# The arguments of ATen operators that take one of a few words: gelu, div, scatter_reduce, pad, searchsorted, meshgrid.
WORDS = {"approximate", "rounding_mode", "reduce", "mode", "side", "indexing"}
MAX_DEPTH = 4  # of lists in lists
NAME = re.compile(r"[A-Za-z_]\w{0,127}", re.ASCII)

CPU = torch.device("cpu")

_T = TypeVar("_T")


def engine(device: str = "cpu") -> TorchEngine:
    """The engine on this machine's processor, or on its graphics processor: ``cuda``.

    Raises:
        DeviceError: torch cannot use a graphics processor here.
    """
    if device == "cuda" and not torch.cuda.is_available():
        message = (
            f"PyTorch {torch.__version__} finds no CUDA graphics processor here: install a build of PyTorch for this "
            "machine's CUDA, or use --engine torch:cpu"
        )
        raise DeviceError(message)
    return TorchEngine(device)


class TorchEngine:
    """Runs programs with PyTorch on one of its devices."""

    name = "torch"

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def load(self, program: Program) -> TorchRunner:
        """Check every call of ``program`` and compile its methods. Raises ProgramError."""
        require_engine(program, self.name)
        modules = {}
        for name, method in program.methods.items():
            modules[name] = graph_module(f"method {name!r} of program {program.group!r}", method, self.device)
        return TorchRunner(program, modules, self.device)


def graph_module(where: str, method: Method, device: torch.device = CPU) -> fx.GraphModule:
    """The calls of ``method``, checked, as a module; ``where`` begins every message. Raises ProgramError."""
    return _Builder(where, method, device).module()


class TorchRunner:
    """A program that is ready to run."""

    def __init__(self, program: Program, modules: Mapping[str, fx.GraphModule], device: torch.device) -> None:
        self._program, self._modules, self._device = program, modules, device

    def run(self, method: str, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run ``method``; see ``base.Runner``."""
        declared = checked_method(self._program, method)
        arrays = [checked_feed(value, feeds, method) for value in declared.inputs]
        with torch.inference_mode(), _exact(self._device):
            try:  # a graphics processor works behind the call: what it could not do is raised when results are fetched
                results = self._modules[method].forward(*(torch.from_numpy(a).to(self._device) for a in arrays))
                results = [result.cpu() if isinstance(result, Tensor) else result for result in results]
            except Exception as error:  # whatever torch raises
                text = str(error).partition("\n")[0]
                message = f"method {method!r} of program {self._program.group!r} failed in the torch engine: {text}"
                raise DeviceError(message) from None
        return {v.name: _array(v, r, method) for v, r in zip(declared.outputs, results, strict=True)}


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """While it holds, convolutions on a graphics processor compute as on the processor.

    By default cuDNN multiplies in TF32, with 10 bits of mantissa (a relative error of 1e-3), and picks algorithms whose
    sums come in another order in every run. Matrix products are exact by default.
    """
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def find_operator(op: str) -> Callable[..., Any]:
    """Return the operator that a program calls ``op``, such as ``aten.add.Tensor`` or ``getitem``.

    Raises:
        ProgramError: it is no ATen operator of this version of PyTorch.
    """
    if op == "getitem":
        return operator.getitem
    space, *names = op.split(".")
    if space == "aten" and len(names) == 2 and all(NAME.fullmatch(name) for name in names):
        packet = getattr(torch.ops.aten, names[0], None)
        found = getattr(packet, names[1], None) if isinstance(packet, OpOverloadPacket) else None
        # aten.save and the like belong to TorchScript and have no kernel with the dispatcher
        if isinstance(found, OpOverload) and torch._C._dispatch_has_kernel(found.name()):
            return found
    message = f"operator {op[:100]!r} is not allowed: expected an ATen operator of PyTorch {torch.__version__}"
    raise ProgramError(message)


class _Builder:
    """One method on its way to a GraphModule; ``where`` begins every message."""

    def __init__(self, where: str, method: Method, device: torch.device) -> None:
        self._where, self._method, self._device = where, method, device
        self._graph, self._root = fx.Graph(), nn.Module()
        self._values: dict[str, fx.Node] = {}
        self._place = "the results"

    def module(self) -> fx.GraphModule:
        method = self._method
        for i, value in enumerate(method.inputs):
            self._define(value.name, self._graph.placeholder(f"input_{i}"))
        for i, constant in enumerate(method.constants):
            self._root.register_buffer(f"constant_{i}", self._constant(constant))
            self._define(constant.name, self._graph.get_attr(f"constant_{i}"))
        for node in method.nodes:
            if not NAME.fullmatch(node.name):
                self._refuse(f"node name {node.name[:100]!r} is not an identifier")
            self._place = f"node {node.name!r} ({node.op[:100]})"
            self._define(node.name, self._call(node.op, node.args, node.kwargs))
        if len(method.results) != len(method.outputs):
            self._refuse(f"{len(method.results)} results for {len(method.outputs)} outputs")
        self._place = "the results"
        self._graph.output(tuple(self._reference(name) for name in method.results))
        return fx.GraphModule(self._root, self._graph)

    def _define(self, name: str, node: fx.Node) -> None:
        if name in self._values:
            self._refuse(f"the name {name[:100]!r} is defined twice")
        self._values[name] = node

    def _constant(self, constant: Constant) -> Tensor:
        dtype = self._choice(DTYPES, constant.dtype, "dtype")
        try:
            data = bytearray(constant.data)  # a copy that torch may own
            flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            tensor = flat.reshape(constant.shape)
        except (RuntimeError, ValueError):
            size = len(constant.data)
            self._refuse(f"constant {constant.name[:100]!r}: {size} bytes are no {constant.dtype} of {constant.shape}")
        return tensor.to(self._device)

    def _call(self, op: str, args: list[Any], kwargs: dict[str, Any]) -> fx.Node:
        try:
            target = find_operator(op)
        except ProgramError as error:
            self._refuse(str(error))
        values = tuple(self._argument(arg) for arg in args)
        named = {name: self._argument(value) for name, value in kwargs.items()}
        self._check_call(target, values, named)
        return self._graph.call_function(target, values, named)

    def _check_call(self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not isinstance(target, OpOverload):
            if len(args) != 2 or kwargs or not isinstance(args[0], fx.Node) or type(args[1]) is not int:
                self._refuse(f"{self._place}: getitem takes a value and a number")
            return
        schema = target._schema.arguments
        given = dict(zip([arg.name for arg in schema if not arg.kwarg_only], args, strict=False))
        unknown = kwargs.keys() - {arg.name for arg in schema} | (given.keys() & kwargs.keys())
        required = {arg.name for arg in schema if not arg.has_default_value()}
        unknown |= {name for name in kwargs if keyword.iskeyword(name)}  # ``from`` is an argument of some operators
        if len(given) != len(args) or unknown or not required <= given.keys() | kwargs.keys():
            self._refuse(f"{self._place} does not have the arguments of {target._schema}")
        for name, value in (given | kwargs).items():
            if isinstance(value, str) and name not in WORDS:
                self._refuse(f"{self._place}: argument {name!r} may not be text")

    def _argument(self, arg: Any, depth: int = 0) -> Any:
        match arg:
            case None | bool() | int() | float() | str():
                return arg
            case list() if depth < MAX_DEPTH and not any(isinstance(item, str) for item in arg):
                return [self._argument(item, depth + 1) for item in arg]
            case {"ref": str(name), **rest} if not rest:
                return self._reference(name)
            case {"dtype": str(name), **rest} if not rest:
                return self._choice(DTYPES, name, "dtype")
            case {"memory_format": str(name), **rest} if not rest:
                return self._choice(MEMORY_FORMATS, name, "memory format")
            case {"float": str(name), **rest} if not rest:
                return self._choice(NUMBERS, name, "number")
            case {"device": "any", **rest} if not rest:
                return self._device
            case {"layout": "strided", **rest} if not rest:
                return torch.strided
        return self._refuse(f"{self._place}: argument {str(arg)[:100]} is of no known kind")

    def _reference(self, name: str) -> fx.Node:
        if name not in self._values:
            self._refuse(f"{self._place} uses {name[:100]!r}, which is not defined before it")
        return self._values[name]

    def _choice(self, table: Mapping[str, _T], name: str, what: str) -> _T:
        if name not in table:
            self._refuse(f"{what} {name[:100]!r} is not known; allowed: {', '.join(table)}")
        return table[name]

    def _refuse(self, text: str) -> NoReturn:
        message = f"{self._where}: {text}"
        raise ProgramError(message)


def _array(value: Value, result: Any, method: str) -> NDArray[Any]:
    fits = isinstance(result, Tensor) and list(result.shape) == value.shape and result.dtype == DTYPES.get(value.dtype)
    if not fits:
        got = f"{result.dtype} of shape {list(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        message = f"output {value.name!r} of method {method!r} is {got}, declared {value.dtype} of shape {value.shape}"
        raise ProgramError(message)
    array: NDArray[Any] = result.numpy()
    return array
