"""Eight float32 as one value in functions compiled by Numba: an LLVM vector type and its operations.

Numba's own loop vectoriser gives up where it cannot prove that scattered rows do not overlap. LLVM splits these vectors
for machines with narrower registers, so this is not tied to AVX.
"""

# mypy: allow-untyped-defs
# (Numba infers the types of what it compiles, and accepts no annotations of its own in their place)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8
_FLUSH = -46.0  # exp of less counts as 0 (1e-20): products with it would be denormal, and those are slow
_LN2 = 0.6931471805599453

_intrinsic: Any = intrinsic  # as Any: checkers see a call with a typing context, compiled code calls without one


class _F32x8(types.Type):
    def __init__(self) -> None:
        super().__init__(name="F32x8")


_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
F32x8 = _F32x8()


@register_model(_F32x8)
class _F32x8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, _VECTOR)


def _element_pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())


def _constant(value: float) -> Any:
    return ir.Constant(_VECTOR, [float(np.float32(value))] * LANES)


def _in_all_lanes(builder: Any, scalar: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_INTS, [0] * LANES))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.v8f32")
    return builder.call(function, [a, b, c])


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@_intrinsic
def v_load(typing_context, array, offset):
    """Elements offset to offset + 8 of a 1-D float32 array."""

    def codegen(context, builder, signature, args):
        pointer = _element_pointer(context, builder, signature.args[0], *args)
        value = builder.load(pointer)
        value.align = 4  # rows begin at any float
        return value

    return F32x8(array, types.intp), codegen


@_intrinsic
def v_store(typing_context, array, offset, vector):
    """Write eight values from `offset` on."""

    def codegen(context, builder, signature, args):
        pointer = _element_pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], pointer).align = 4
        return context.get_dummy_value()

    return types.none(array, types.intp, F32x8), codegen


@_intrinsic
def v_spread(typing_context, scalar):
    """The same float32 in all eight lanes."""

    def codegen(context, builder, signature, args):
        return _in_all_lanes(builder, args[0])

    return F32x8(types.float32), codegen


@_intrinsic
def v_load_spread(typing_context, array, offset):
    """One element of a 1-D float32 array in all eight lanes."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return _in_all_lanes(builder, builder.load(builder.gep(data, [args[1]])))

    return F32x8(array, types.intp), codegen


@_intrinsic
def v_fma(typing_context, a, b, c):
    """a * b + c."""

    def codegen(context, builder, signature, args):
        return _multiply_add(builder, *args)

    return F32x8(F32x8, F32x8, F32x8), codegen


@_intrinsic
def v_first_lane(typing_context, vector):
    """The first of eight float32."""

    def codegen(context, builder, signature, args):
        return builder.extract_element(args[0], ir.Constant(ir.IntType(32), 0))

    return types.float32(F32x8), codegen


def _binary(emit: Callable[[Any, Any, Any], Any]) -> Any:
    """A function of two vectors from the one LLVM step that `emit` writes."""

    @_intrinsic
    def operation(typing_context, a, b):
        return F32x8(F32x8, F32x8), lambda context, builder, signature, args: emit(builder, *args)

    return operation


def _across(combine: Callable[[Any, Any, Any], Any]) -> Any:
    """A function that combines all eight lanes and leaves the result in each of them."""

    @_intrinsic
    def operation(typing_context, vector):
        def codegen(context, builder, signature, args):
            value = args[0]
            for step in (4, 2, 1):
                lanes = ir.Constant(_INTS, [lane ^ step for lane in range(LANES)])
                value = combine(builder, value, builder.shuffle_vector(value, value, lanes))
            return value

        return F32x8(F32x8), codegen

    return operation


v_add = _binary(lambda builder, a, b: builder.fadd(a, b))
v_subtract = _binary(lambda builder, a, b: builder.fsub(a, b))
v_multiply = _binary(lambda builder, a, b: builder.fmul(a, b))
v_divide = _binary(lambda builder, a, b: builder.fdiv(a, b))
v_maximum = _binary(_larger)
v_max_of_lanes = _across(_larger)
v_sum_of_lanes = _across(lambda builder, a, b: builder.fadd(a, b))


@_intrinsic
def v_exp(typing_context, vector):
    """exp(x) for x <= 0, relative error under 3e-7; x below -46 gives 0.

    exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2, where the Taylor polynomial of degree 7
    is off by less than 6e-9.
    """

    def codegen(context, builder, signature, args):
        x = _larger(builder, args[0], _constant(_FLUSH))
        shift = _constant(1.5 * 2.0**23)  # adding it leaves round(x / ln 2) in the low bits of the mantissa
        shifted = _multiply_add(builder, x, _constant(1.0 / _LN2), shift)
        n = builder.fsub(shifted, shift)
        high = 0.693359375  # ln 2 in two parts; n * high is exact because `high` has few bits
        r = _multiply_add(builder, n, _constant(-high), x)
        r = _multiply_add(builder, n, _constant(high - _LN2), r)
        factorial = 5040.0
        polynomial = _constant(1.0 / factorial)
        for degree in range(7, 0, -1):
            factorial /= degree
            polynomial = _multiply_add(builder, polynomial, r, _constant(1.0 / factorial))
        exponent = builder.sub(builder.bitcast(shifted, _INTS), builder.bitcast(shift, _INTS))
        exponent = builder.add(exponent, ir.Constant(_INTS, [127] * LANES))
        exponent = builder.shl(exponent, ir.Constant(_INTS, [23] * LANES))
        value = builder.fmul(polynomial, builder.bitcast(exponent, _VECTOR))
        return builder.select(builder.fcmp_ordered(">", args[0], _constant(_FLUSH)), value, _constant(0.0))

    return F32x8(F32x8), codegen
