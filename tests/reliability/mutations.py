"""Faults to plant, as data: each is one change of one place, of the kinds that convolution libraries have shipped.

`find` must occur exactly once in its file (tests/tools/test_faults.py checks that); `python -m reliability.faults`
builds each and sees whether the quick tier and the ordinary tests notice.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    what: str
    file: str
    find: str
    replace: str


_COMPUTE, _PACK, _TRANSPOSE, _LANES = (f"src/kernels/{name}.h" for name in ("compute", "pack", "transpose", "lanes"))
_WINOGRAD_H, _POOL_H = (f"src/kernels/{name}.h" for name in ("winograd", "pool"))
_REGION, _DIRECT, _LANES_DRIVER, _PRODUCT, _NET = (
    f"src/drivers/{name}.pxi" for name in ("region", "direct", "lanes", "product", "net")
)
_DIRECT_GEOMETRY, _DIRECT_SUMS = (f"src/drivers/direct_{name}.pxi" for name in ("geometry", "sums"))
_REPLAY = "fastconv/graph/replay.py"
_WINOGRAD, _WINOGRAD_DW = "src/drivers/winograd.pxi", "src/drivers/winograd_gradient.pxi"
_STRASSEN_H, _STRASSEN = "src/kernels/strassen.h", "src/drivers/strassen.pxi"
_DW, _LANES_DW, _POOL = (f"src/drivers/{name}.pxi" for name in ("weight_gradient", "lanes_gradient", "pool"))
_GEOMETRY, _PASSES, _SPECIAL = (f"fastconv/_core/{name}.py" for name in ("geometry", "passes", "special"))

_TILE = "src/kernels/register_tile.h"

MUTATIONS = [
    Mutation(
        "register tile: the last step of a run is dropped",
        _TILE,
        "for (ptrdiff_t k = now.segment->k; k > 0;",
        "for (ptrdiff_t k = now.segment->k; k > 1;",
    ),
    Mutation(
        "register tile: earlier blocks of the reduction are lost",
        _TILE,
        "acc[i][j] = p->accumulate  ",
        "acc[i][j] = p->accumulate > 1",
    ),
    Mutation(
        "packing: a block's last pixel is left out",
        _PACK,
        "ptrdiff_t p1 = p0 + 16 < pixels ? p0 + 16 : pixels,",
        "ptrdiff_t p1 = p0 + 16 < pixels ? p0 + 15 : pixels,",
    ),
    Mutation(
        "packing weights: NaN is not noticed",
        _COMPUTE,
        "for (ptrdiff_t o = 0; o < width; o++) bad[o] += to[o] * 0;",
        "                                          ",
    ),
    Mutation(
        "epilogue: missing bias in channels-first outputs",
        _COMPUTE,
        "if (bias) line[i] += b;",
        "                       ",
    ),
    Mutation(
        "epilogue: residual read with the output's stride",
        _COMPUTE,
        "residual + (p0 + i) * residual_pixel_stride + ",
        "residual + (p0 + i) * pixel_stride +          ",
    ),
    Mutation(
        "epilogue: relu6 ends at 5",
        _COMPUTE,
        "case FC_RELU6: return v < 0 ? 0 : v > 6 ? 6 : v;",
        "case FC_RELU6: return v < 0 ? 0 : v > 5 ? 5 : v;",
    ),
    Mutation(
        "epilogue: relu swallows NaN",
        _COMPUTE,
        "case FC_RELU: return v < 0 ? 0 : v;",
        "case FC_RELU: return v > 0 ? v : 0;",
    ),
    Mutation(
        "adding parts: the last element is left out",
        _COMPUTE,
        "for (ptrdiff_t i = 0; i < count; i++) ((T *)dst)[i]",
        "for (ptrdiff_t i = 0; i < count - 1; i++) ((T *)dst)[i]",
    ),
    Mutation(
        "packing weights: reversed taps start at the wrong one",
        _COMPUTE,
        "first = at < first ? at : first, last",
        "last",
    ),
    Mutation(
        "packing weights: rows of taps as far apart as columns are many",
        _COMPUTE,
        "line[0] = (i * taps_x + j) * channels;",
        "line[0] = (i * taps_y + j) * channels;",
    ),
    Mutation(
        "transpose: reads past the end of the array",
        _TRANSPOSE,
        "if (rows >= LANES && src + (LANES - 1) * row_stride + LANES * (ptrdiff_t)sizeof(T) <= end) {",
        "if (rows >= LANES) {",
    ),
    Mutation(
        "transpose: the last column of a partial block is left out",
        _TRANSPOSE,
        "if (j < most) NAME(store_first)",
        "if (j < most - 1) NAME(store_first)",
    ),
    Mutation("packing weights: every period in the first line", _TRANSPOSE, "phase = 0, base++;", "phase = 0;"),
    Mutation(
        "depthwise: the last tap of a row is dropped",
        _LANES,
        "for (ptrdiff_t k = segment[s].k; k > 0;",
        "for (ptrdiff_t k = segment[s].k; k > 1;",
    ),
    Mutation(
        "depthwise window: the last tap of the last pixel is dropped",
        _LANES,
        "u < (pixels - 1) * stride + taps; u++, in += column)",
        "u < (pixels - 1) * stride + taps - 1; u++, in += column)",
    ),
    Mutation(
        "depthwise weight gradient: a remainder of pixels is dropped",
        _LANES,
        "for (; k > 0; k--, g += ldb,",
        "for (; k > 1; k--, g += ldb,",
    ),
    Mutation(
        "depthwise weight gradient: blocks of pixels ignore the stride",
        _LANES,
        "at += pixels * stride * column;",
        "at += pixels * column;",
    ),
    Mutation(
        "depthwise weight gradient: all taps of a remainder read the first",
        _LANES,
        "in[i] + at + t * column) * d",
        "in[i] + at) * d",
    ),
    Mutation(
        "grouped: every vector spreads the first one's inputs",
        _LANES,
        "(const T *)src + from[i];",
        "(const T *)src + from[0];",
    ),
    Mutation(
        "winograd: a coefficient of the output transform",
        _WINOGRAD_H,
        "o[2] = (T)0.5 * WINOGRAD_KA * s + (T)2 * WINOGRAD_KB * t;",
        "o[2] = (T)0.5 * WINOGRAD_KA * s + (T)1.99 * WINOGRAD_KB * t;",
    ),
    Mutation("winograd: missing bias", _WINOGRAD_H, "vec_float y = o[j] + shift;", "vec_float y = o[j];"),
    Mutation("winograd: values that are not finite go unnoticed", _WINOGRAD_H, "bad += y * 0;", ""),
    Mutation("winograd: whole tiles at the lower border", _WINOGRAD_H, "if (i >= rows) break;", ""),
    Mutation(
        "winograd weight gradient: a coefficient",
        _WINOGRAD_H,
        "s = y[0] + (T)2 * y[2],",
        "s = y[0] + (T)2.01 * y[2],",
    ),
    Mutation(
        "winograd: a sign of the weight transform",
        _WINOGRAD_H,
        "o[4] = t - WINOGRAD_B * g[1], o[5] = g[2];",
        "o[4] = t + WINOGRAD_B * g[1], o[5] = g[2];",
    ),
    Mutation(
        "max pooling: NaN is passed over",
        _POOL_H,
        "best[c] = IS_NAN(v) ? v : more;",
        "best[c] = more;",
    ),
    Mutation(
        "max pooling: index counted with the height",
        _POOL_H,
        "index = ((int64_t)iz * r->height + iy) * r->width",
        "index = ((int64_t)iz * r->height + iy) * r->height",
    ),
    Mutation(
        "average pooling: partial windows of ceil_mode count as whole",
        _POOL_H,
        "first + kernel > limit ? limit : first + kernel;",
        "first + kernel;",
    ),
    Mutation(
        "average pooling: the last row is left out",
        _POOL_H,
        "end > size ? size : end, end - first}",
        "end > size ? size - 1 : end, end - first}",
    ),
    Mutation(
        "gradient of max pooling: overlapping windows overwrite",
        _POOL_H,
        "*(POOL(at) *)to = after;",
        "*(POOL(at) *)to = v;",
    ),
    Mutation(
        "region: rows of a strided single tap",
        _REGION,
        "padded_index(first_row + r * row_step, x.n[2], mode)",
        "padded_index(first_row + r, x.n[2], mode)",
    ),
    Mutation(
        "region: stale scratch in padded rows", _REGION, "fill_padding(kernels, dst, columns * ld, mode)", "pass"
    ),
    Mutation(
        "region: stale scratch in padded columns",
        _REGION,
        "fill_padding(kernels, dst + j * ld * kernels.input_size, channels, mode)",
        "pass",
    ),
    Mutation(
        "region: the first column inside the input, rounded down",
        _REGION,
        "(-first_column + column_step - 1) // column_step",
        "(-first_column) // column_step",
    ),
    Mutation(
        "direct: a tile at the lower border is whole",
        _DIRECT,
        "min(k * p.tile[axis], p.extent[axis])",
        "(min(k * p.tile[axis], p.extent[axis]) if axis != 1 else k * p.tile[axis])",
    ),
    Mutation(
        "direct: every group writes the first one's outputs", _DIRECT, "first += t.group * p.outputs", "first += 0"
    ),
    Mutation(
        "direct: residual of the first column in every tile",
        _DIRECT,
        "tile_origin(&p.residual, &t, first) if",
        "tile_origin(&p.residual, &t, first) - t.first[2] * p.residual.s[3] if",
    ),
    Mutation(
        "direct: the first block of the reduction is overwritten",
        _DIRECT,
        "t.pixels, c, c_row, &ends, i == 0, i == p.blocks - 1)",
        "t.pixels, c, c_row, &ends, i <= 1, i == p.blocks - 1)",
    ),
    Mutation(
        "works: a race, threads share one scratch",
        _NET,
        "    call.look = look\n",
        "    call.look, call.scratch_bytes = look, 0\n",
    ),
    Mutation(
        "direct: the panel packed first serves all",
        _DIRECT_GEOMETRY,
        "if held.number != number:",
        "if held.number == -1:",
    ),
    Mutation(
        "direct: stale scratch in padded taps of large windows",
        _DIRECT_SUMS,
        "memset(dst + real * kernels.input_size, 0, (n - real) * kernels.input_size)",
        "pass",
    ),
    Mutation(
        "direct: swapped taps where a weight is NaN",
        _DIRECT_SUMS,
        "((h * p.taps[1] + i) * p.taps[2] + j) * p.steps, a, b,",
        "((h * p.taps[1] + j) * p.taps[2] + i) * p.steps, a, b,",
    ),
    Mutation(
        "direct: swapped stride in inputs read in place",
        _DIRECT_GEOMETRY,
        "+ (t.first[2] * p.stride[2] + met.low[2]) * p.x.s[3])",
        "+ (t.first[2] * p.stride[1] + met.low[2]) * p.x.s[3])",
    ),
    Mutation(
        "direct: swapped taps in inputs read in place",
        _DIRECT_GEOMETRY,
        "+ (p.tap[2][j] - low[2]) * p.x.s[3]) // p.kernels.input_size",
        "+ (p.tap[2][j] - low[2]) * p.x.s[2]) // p.kernels.input_size",
    ),
    Mutation(
        "winograd: earlier slices of the channels are lost",
        _WINOGRAD,
        "m + e * plane_m, m_row + needs * job.block, &ends, c + k0 == 0, False)",
        "m + e * plane_m, m_row + needs * job.block, &ends, k0 == 0, False)",
    ),
    Mutation(
        "register tiles: the shorter ones go where the longer ones went",
        _PRODUCT,
        "        product.c_row += (end - done) * own\n",
        "        product.c_row += (end - done) * (rows - 1)\n",
    ),
    Mutation("strassen: a sign of the sums", _STRASSEN_H, "o[6] = b[2] + b[3];", "o[6] = b[2] - b[3];"),
    Mutation(
        "strassen: the last tile of an image takes pixels of the next",
        _STRASSEN,
        "run = min(count - t, job.image_tiles - (first + t) % job.image_tiles)\n        pixels",
        "run = count - t\n        pixels",
    ),
    Mutation("strassen: values that are not finite go unnoticed", _STRASSEN_H, "bad += y * 0;", ""),
    Mutation(
        "winograd: no padding above", _WINOGRAD, "job.tile_rows * step + job.origin_y,", "job.tile_rows * step,"
    ),
    Mutation(
        "winograd: the wrong image is computed again",
        _WINOGRAD,
        "fc_raise_flag(job.flags + (image * job.depth + level) * job.tile_rows + row)",
        "fc_raise_flag(job.flags + level * job.tile_rows + row)",
    ),
    Mutation(
        "winograd: a tile over the right border is read as it lies",
        _WINOGRAD,
        "(x.n[3] - 1 - reach - left) // step + 1))",
        "(x.n[3] - 1 - reach - left) // step + 2))",
    ),
    Mutation(
        "nets: a step that met what is not finite is not done again",
        _REPLAY,
        "            self._by_hand(step, {})\n",
        "            pass\n",
    ),
    Mutation(
        "nets: an output lies in memory of the net", _REPLAY,
        "return contiguous(home, effective(self._threads)) if isinstance(home, np.ndarray) else home", "return home",
    ),
    Mutation(
        "nets: the inputs of the recorded run again", _NET, "self.moves[i].place[0] = base + self.moves[i].offset",
        "pass",
    ),
    Mutation(
        "winograd weight gradient: a part is left out",
        _WINOGRAD_DW,
        "for part in range(1, job.parts):",
        "for part in range(2, job.parts):",
    ),
    Mutation(
        "weight gradient: sums start from what was there",
        _DW,
        "memset(sums, 0, job.block_bytes)\n    memset(totals",
        "memset(totals",
    ),
    Mutation(
        "weight gradient: the first column that a tap meets is left out",
        _DW,
        "lo[0] = min(columns, (-ix + job.stride[2] - 1) // job.stride[2])",
        "lo[0] = min(columns, (-ix + job.stride[2]) // job.stride[2])",
    ),
    Mutation(
        "weight gradient: merged taps ignore the dilation",
        _DW,
        "= (at_tap - begin) * job.tap_apart[2] + c",
        "= (at_tap - begin) * job.ld + c",
    ),
    Mutation(
        "depthwise: a tap one past the right border",
        _LANES_DRIVER,
        "at * stride + tap[runs.hi - 1] >= inputs:",
        "at * stride + tap[runs.hi - 1] > inputs:",
    ),
    Mutation("depthwise: the taps of another phase", _LANES_DRIVER, "+ job.first_column + j)", "+ j)"),
    Mutation(
        "depthwise weight gradient: a part is left out",
        _LANES_DW,
        "for part in range(1, job.parts):",
        "for part in range(2, job.parts):",
    ),
    Mutation(
        "pooling gradient: a chunk of channels is whole",
        _POOL,
        "row.channels = min(job.chunk, job.y.n[1] - first)",
        "row.channels = job.chunk",
    ),
    Mutation(
        "'same': the odd pixel on the wrong side",
        _GEOMETRY,
        "return (large, small) if lower else (small, large)",
        "return (small, large) if lower else (large, small)",
    ),
    Mutation(
        "convolution: padding of the right side on the left",
        _PASSES,
        "tuple(i * g.dilation[a] - g.padding[a][0] for i in places[a])",
        "tuple(i * g.dilation[a] - g.padding[a][1] for i in places[a])",
    ),
    Mutation(
        "winograd: repaired rows at the wrong height",
        _SPECIAL,
        ".shifted(1, first * q.stride[1]), one)",
        ".shifted(1, first), one)",
    ),
]
