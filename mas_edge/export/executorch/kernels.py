"""Which of ExecuTorch's kernels a call becomes, and in which shapes they are fast.

The names are those of the portable library (``kernels/portable/functions.yaml``), which every build of the runtime has;
those left out are slow or wrong: ``convolution`` (250 times a matrix product), its gradient, and the gradient of
max pooling, which does not clear its result (pytorch/executorch#21686, also in the releases 1.4.1 and 1.5.1).
"""

from __future__ import annotations

from functools import cache

from torch._ops import OpOverload, OpOverloadPacket

# Kernel by kernel as operator.overload; the overload of the out variant.
KERNELS = frozenset(
    """
    _log_softmax.out _softmax.out _to_copy.out abs.out acos.out acosh.out add.Scalar_out add.out addmm.out amax.out
    amin.out any.all_out any.dims_out any.out arange.out arange.start_out argmax.out argmin.out as_strided_copy.out
    asin.out asinh.out atan.out atan2.out atanh.out bitwise_and.Scalar_out bitwise_and.Tensor_out bitwise_not.out
    bitwise_or.Scalar_out bitwise_or.Tensor_out bitwise_xor.Scalar_out bitwise_xor.Tensor_out bmm.out cat.out
    ceil.out clamp.Tensor_out clamp.out constant_pad_nd.out cos.out cosh.out cumsum.out div.Scalar_mode_out
    div.Scalar_out div.out div.out_mode elu.out embedding.out eq.Scalar_out eq.Tensor_out erf.out exp.out
    expand_copy.out expm1.out flip.out floor.out floor_divide.out fmod.Scalar_out fmod.Tensor_out full.out
    full_like.out gather.out ge.Scalar_out ge.Tensor_out gelu.out gt.Scalar_out gt.Tensor_out hardtanh.out
    index.Tensor_out index_put.out index_select.out isinf.out isnan.out le.Scalar_out le.Tensor_out leaky_relu.out
    log.out log10.out log1p.out log2.out logical_and.out logical_not.out logical_or.out logical_xor.out
    lt.Scalar_out lt.Tensor_out masked_fill.Scalar_out max.dim_max max.unary_out max_pool2d_with_indices.out
    maximum.out mean.dtype_out mean.out min.dim_min min.unary_out minimum.out mm.out mul.Scalar_out mul.out
    native_group_norm.out native_layer_norm.out ne.Scalar_out ne.Tensor_out neg.out ones.out permute_copy.out
    pixel_shuffle.out pixel_unshuffle.out pow.Scalar_out pow.Tensor_Scalar_out pow.Tensor_Tensor_out prod.int_out
    prod.out reciprocal.out reflection_pad1d.out reflection_pad2d.out relu.out remainder.Scalar_out
    remainder.Tensor_out repeat.out replication_pad1d.out replication_pad2d.out round.out rsqrt.out rsub.Scalar_out
    scalar_tensor.out scatter.src_out scatter.value_out scatter_add.out select_copy.int_out select_scatter.out
    sigmoid.out sign.out sin.out sinh.out slice_copy.Tensor_out slice_scatter.out split_copy.Tensor_out
    split_with_sizes_copy.out sqrt.out stack.out sub.Scalar_out sub.out sum.IntList_out t_copy.out tan.out tanh.out
    topk.values transpose_copy.int_out tril.out trunc.out unbind_copy.int_out var.correction_out where.self_out
    zeros.out
    """.split()  # noqa: SIM905 - in quotes, one by one, it would be a page
)


@cache
def kernel_of(target: OpOverload) -> OpOverload | None:
    """The out variant that computes ``target``, or None: the overload with its arguments and ``out`` besides."""
    packet: OpOverloadPacket = target.overloadpacket
    for overload in packet.overloads():
        candidate: OpOverload = getattr(packet, overload)
        if f"{packet.__name__}.{overload}" in KERNELS and _takes(candidate) == _takes(target):
            return candidate
    return None


def outputs_of(kernel: OpOverload) -> int:
    """How many results a kernel writes."""
    return sum(argument.is_out for argument in kernel._schema.arguments)


# What a call without ``out`` says of its result with these, the result itself says to a kernel.
OF_RESULT = ("dtype", "layout", "device", "pin_memory")


def _takes(op: OpOverload) -> list[tuple[str, str]]:
    """Name and type of the arguments that decide what is computed."""
    return [(a.name, str(a.type)) for a in op._schema.arguments if not a.is_out and a.name not in OF_RESULT]
