"""The kernels that a .pte may call, each with what it takes: an argument of another kind ends the process.

From the operators' schemas, for every kernel of the official runtime 1.5.1 with results of known shape, except the
gradients (``convolution_backward`` is slow, that of max pooling is wrong) and random numbers. Arguments in order, one
letter each; a small letter: or none.

    T tensor   N number   I integer   B truth   F float   Z text   O tensor that is written
    L integers   D floats   A truths   X tensors   Y tensors or none   P tensors that are written
"""

from __future__ import annotations

_TABLE = """
    LO: ones.out zeros.out
    NO: arange.out scalar_tensor.out
    TO: abs.out acos.out acosh.out alias_copy.out any.all_out asin.out asinh.out atan.out atanh.out bitwise_not.out
      ceil.out cos.out cosh.out detach_copy.out erf.out exp.out expm1.out floor.out isinf.out isnan.out
      lift_fresh_copy.out log.out log10.out log1p.out log2.out logical_not.out max.unary_out min.unary_out neg.out
      reciprocal.out relu.out round.out rsqrt.out sigmoid.out sign.out sin.out sinh.out sqrt.out t_copy.out tan.out
      tanh.out trunc.out
    LNO: full.out
    LiO: empty.out
    LlO: dim_order_ops::_empty_dim_order.out
    NTO: pow.Scalar_out
    TFO: _pdist_forward.out
    TIO: glu.out pixel_shuffle.out pixel_unshuffle.out squeeze_copy.dim_out tril.out unsqueeze_copy.out
    TIP: unbind_copy.int_out
    TLO: _adaptive_avg_pool2d.out executorch_prim::et_view.default flip.out permute_copy.out reflection_pad1d.out
      reflection_pad2d.out reflection_pad3d.out repeat.out replication_pad1d.out replication_pad2d.out
      replication_pad3d.out squeeze_copy.dims_out view_copy.out
    TNO: bitwise_and.Scalar_out bitwise_left_shift.Tensor_Scalar_out bitwise_or.Scalar_out
      bitwise_right_shift.Tensor_Scalar_out bitwise_xor.Scalar_out div.Scalar_out eq.Scalar_out fill.Scalar_out
      fmod.Scalar_out ge.Scalar_out gt.Scalar_out le.Scalar_out leaky_relu.out lt.Scalar_out mul.Scalar_out
      ne.Scalar_out pow.Tensor_Scalar_out remainder.Scalar_out
    TTO: atan2.out bitwise_and.Tensor_out bitwise_left_shift.Tensor_out bitwise_or.Tensor_out
      bitwise_right_shift.Tensor_out bitwise_xor.Tensor_out bmm.out div.out eq.Tensor_out fill.Tensor_out
      floor_divide.out fmod.Tensor_out ge.Tensor_out gt.Tensor_out le.Tensor_out logical_and.out logical_or.out
      logical_xor.out lt.Tensor_out maximum.out minimum.out mm.out mul.out ne.Tensor_out pow.Tensor_Tensor_out
      remainder.Tensor_out
    TYO: index.Tensor_out
    TZO: gelu.out
    TfO: logit.out
    TiO: clone.out mean.dtype_out prod.out
    XIO: cat.out stack.out
    NNNO: arange.start_out
    TBiO: _to_copy.out
    TBlO: dim_order_ops::_clone_dim_order.out dim_order_ops::_to_dim_order_copy.out
    TIBO: _log_softmax.out _softmax.out any.out
    TIIO: select_copy.int_out transpose_copy.int_out
    TIIP: split_copy.Tensor_out
    TITO: index_select.out
    TIiO: cumsum.out
    TLBO: amax.out amin.out expand_copy.out
    TLIP: split_with_sizes_copy.out
    TLLO: roll.out
    TLNO: constant_pad_nd.out
    TNNO: add.Scalar_out hardtanh.out rsub.Scalar_out sub.Scalar_out
    TNiO: full_like.out
    TNzO: div.Scalar_mode_out
    TTBO: copy.out
    TTNO: add.out masked_fill.Scalar_out sub.out
    TTTO: masked_scatter.out where.self_out
    TTtO: linear.out
    TTzO: div.out_mode
    TiBO: argmax.out argmin.out
    TlBO: any.dims_out
    TldO: upsample_nearest2d.vec_out
    TnnO: clamp.out
    TttO: clamp.Tensor_out
    TIBOO: max.dim_max min.dim_min
    TIBiO: prod.int_out
    TIIIO: diagonal_copy.out narrow_copy.out unfold_copy.out
    TITBO: gather.out
    TITNO: scatter.value_out
    TITTO: scatter.src_out scatter_add.out
    TLLiO: as_strided_copy.out
    TNNNO: elu.out
    TTFiO: _cdist_forward.out
    TTIIO: select_scatter.out
    TYTBO: index_put.out
    TlBBO: var.out
    TlBdO: upsample_bilinear2d.vec_out
    TlBiO: mean.out sum.IntList_out
    TlnBO: var.correction_out
    TIiiIO: slice_copy.Tensor_out
    TLBffO: _upsample_bilinear2d_aa.out
    TTIBBO: embedding.out
    TTIIBO: grid_sampler_2d.out
    TTTNNO: addmm.out
    TlnBOO: var_mean.correction_out
    TIIBBOO: topk.values
    TTIiiIO: slice_scatter.out
    TLLLBBiO: avg_pool2d.out
    TLLLLBOO: max_pool2d_with_indices.out
    TLttFOOO: native_layer_norm.out
    TttBFFOOO: _native_batch_norm_legit.no_stats_out
    TTtLLLBLIO: convolution.out
    TttTTFFOOO: _native_batch_norm_legit_no_training.out
    TttIIIIFOOO: native_group_norm.out
    TttTTBFFOOO: _native_batch_norm_legit.out
"""


def _read(table: str) -> dict[tuple[str, str], str]:
    found = {}
    arguments = ""
    for word in table.split():
        if word.endswith(":"):
            arguments = word[:-1]
            continue
        space, _, rest = word.rpartition("::")
        name, _, overload = rest.partition(".")
        found[f"{space or 'aten'}::{name}", overload] = arguments
    return found


ARGUMENTS = _read(_TABLE)  # by name and overload, as in a file
