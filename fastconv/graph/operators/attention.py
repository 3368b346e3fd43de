"""Attention, rotary embeddings, and the cache of keys and values."""

from __future__ import annotations

from math import sqrt
from typing import Any, Final, NamedTuple

import numpy as np

from ..._core.arrays import Array
from .registry import Call, operator

BLOCK: Final = 1 << 20  # scores at once
DOUBLE: Final = 11  # ONNX's number of float64
RAW, CAPPED, BIASED, PROBABILITIES = range(4)  # what qk_matmul_output holds


class Heads(NamedTuple):
    """(batch, heads, length, size) each; one head of keys and values serves `heads of query / heads of key` queries."""

    query: Array
    key: Array
    value: Array


class Masks(NamedTuple):
    """What keeps queries from keys; the place of query `i` is `i + offset` (a number an image)."""

    mask: Array | None  # added, or True where a key may be seen; its last two axes are those of queries and keys
    offset: Array  # (batch or 1, 1, 1, 1)
    causal: bool
    left: int  # how far a query sees; -1 for everything
    right: int
    valid: Array | None  # (batch, 1, 1, 1) keys that are no padding

    def of_rows(self, first: int, last: int, keys: int) -> tuple[Array | None, Array | None]:
        """What is added to the scores of some queries, and which keys they may see."""
        allowed: Any = None
        column = np.arange(keys)
        place = np.arange(first, last)[:, None] + self.offset
        rules = [column <= place] if self.causal else []
        rules += [column >= place - self.left] if self.left >= 0 else []
        rules += [column <= place + self.right] if self.right >= 0 else []
        rules += [] if self.valid is None else [column < self.valid]
        added = None
        if self.mask is not None:
            part = self.mask[..., first:last, :] if self.mask.shape[-2] > 1 else self.mask
            if part.dtype == bool:
                rules.append(part)
            else:
                added = part
                rules.append(part != -np.inf)
        for rule in rules:
            allowed = rule if allowed is None else allowed & rule
        return added, allowed


@operator("Attention", since=23)
def attention(
    call: Call, query: Array, key: Array, value: Array, mask: Array | None = None, past_key: Array | None = None,
    past_value: Array | None = None, valid: Array | None = None,
) -> Any:  # fmt: skip
    """softmax(scale Q K^T + mask) V, some rows of queries at a time so that memory stays bounded."""
    flat = query.ndim == 3
    heads = _heads(call, query, key, value, past_key, past_value)
    batch, count, rows, _ = heads.query.shape
    keys, size = heads.key.shape[2], heads.value.shape[3]
    past = 0 if past_key is None else past_key.shape[2]
    masks = _masks(call, heads, mask, past, valid)
    if flat:
        out = call.empty((batch, rows, count, size), query.dtype)
        y = out.transpose(0, 2, 1, 3)
    else:
        out = y = call.empty((batch, count, rows, size), query.dtype)
    shown = None
    if len(call.node.outputs) > 3 and call.node.outputs[3]:
        shown = call.empty((batch, count, rows, keys), query.dtype)
    scale = call.get("scale")
    scale = 1 / sqrt(heads.query.shape[3] or 1) if scale is None else float(scale)
    at_once = max(1, BLOCK // max(1, batch * count * keys))
    for first in range(0, rows, at_once):
        last = min(first + at_once, rows)
        _attend(call, heads, masks, scale, (first, last), y[:, :, first:last], shown)
    results = (out.reshape(batch, rows, count * size) if flat else out, heads.key, heads.value, shown)
    return results[: len(call.node.outputs)]


def _heads(
    call: Call, query: Array, key: Array, value: Array, past_key: Array | None, past_value: Array | None
) -> Heads:
    """The inputs by heads, past keys and values before the new ones."""
    parts = [query, key, value]
    if any(part.ndim != query.ndim for part in parts) or query.ndim not in (3, 4):
        raise call.error(f"Q, K and V of shapes {query.shape}, {key.shape}, {value.shape} must have 3 or 4 axes each.")
    if query.ndim == 3:
        for at, name in enumerate(("q_num_heads", "kv_num_heads", "kv_num_heads")):
            count, (batch, length, width) = int(call.get(name, 0)), parts[at].shape
            if count < 1 or width % count:
                raise call.error(f"an input of shape {parts[at].shape} has no {count} heads ({name}).")
            parts[at] = parts[at].reshape(batch, length, count, width // count).transpose(0, 2, 1, 3)
    if (past_key is None) != (past_value is None):
        raise call.error("past_key and past_value must be given together.")
    if past_key is not None and past_value is not None:
        for at, past in ((1, past_key), (2, past_value)):
            if past.ndim != 4 or past.shape[:2] != parts[at].shape[:2] or past.shape[3] != parts[at].shape[3]:
                raise call.error(f"a past of shape {past.shape} does not fit {parts[at].shape}.")
            call.check((*past.shape[:2], past.shape[2] + parts[at].shape[2], past.shape[3]), past.dtype)
            parts[at] = np.concatenate([past, parts[at]], axis=2)
    q, k, v = parts
    fits = q.shape[0] == k.shape[0] == v.shape[0] and q.shape[3] == k.shape[3] and k.shape[1:3] == v.shape[1:3]
    if not fits or not k.shape[1] or q.shape[1] % k.shape[1]:
        raise call.error(f"queries {q.shape}, keys {k.shape} and values {v.shape} do not fit each other.")
    return Heads(q, k, v)


def _masks(call: Call, heads: Heads, mask: Array | None, past: int, valid: Array | None) -> Masks:
    batch, count, rows, _ = heads.query.shape
    keys = heads.key.shape[2]
    if mask is not None:
        if not mask.ndim or mask.shape[-1] > keys:
            raise call.error(f"a mask of shape {mask.shape} for {keys} keys.")
        mask = mask if mask.ndim > 1 else mask[None]
        if mask.shape[-1] < keys:
            shape = (*mask.shape[:-1], keys - mask.shape[-1])
            none = np.full(shape, False if mask.dtype == bool else -np.inf, mask.dtype)
            mask = np.concatenate([mask, none], axis=-1)
        try:
            fits = np.broadcast_shapes(mask.shape, (batch, count, rows, keys)) == (batch, count, rows, keys)
        except ValueError:
            fits = False
        if not fits:
            raise call.error(f"a mask of shape {mask.shape} cannot be repeated to {(batch, count, rows, keys)}.")
    lengths = None
    offset = np.full((1, 1, 1, 1), past)
    if valid is not None:
        if valid.shape != (batch,) or past:
            raise call.error(f"nonpad_kv_seqlen of shape {valid.shape} for {batch} images with a past of {past}.")
        lengths = valid.astype(np.int64).reshape(batch, 1, 1, 1)
        offset = lengths - rows
    left, right = (int(call.get(f"{side}_window_size", -1)) for side in ("left", "right"))
    return Masks(mask, offset, bool(call.get("is_causal", 0)), left, right, lengths)


def _attend(
    call: Call, heads: Heads, masks: Masks, scale: float, rows: tuple[int, int], out: Array, shown: Array | None
) -> None:
    """Some rows of queries."""
    first, last = rows
    batch, count, _, size = heads.query.shape
    shared, keys = heads.key.shape[1:3]
    kind = np.dtype(np.float64) if call.get("softmax_precision") == DOUBLE else heads.query.dtype
    together = (batch, shared, count // shared * (last - first))  # queries of the same keys
    query = heads.query[:, :, first:last] * heads.query.dtype.type(scale)
    product = np.matmul(query.reshape(*together, size), heads.key.swapaxes(2, 3))
    scores = product.astype(kind, copy=False).reshape(batch, count, last - first, keys)
    mode = int(call.get("qk_matmul_output_mode", RAW))
    if shown is not None and mode == RAW:
        shown[:, :, first:last] = scores
    cap = kind.type(call.get("softcap", 0.0))
    if cap > 0:
        scores /= cap
        np.tanh(scores, out=scores)
        scores *= cap
    if shown is not None and mode == CAPPED:
        shown[:, :, first:last] = scores
    added, allowed = masks.of_rows(first, last, keys)
    if added is not None:
        scores += added
    if allowed is not None:
        np.copyto(scores, -np.inf, where=~allowed)
    if shown is not None and mode == BIASED:
        shown[:, :, first:last] = scores
    sums = _exponentials(scores)
    if shown is not None and mode == PROBABILITIES:
        shown[:, :, first:last] = scores / sums
    weights = scores.astype(heads.query.dtype, copy=False).reshape(*together, keys)
    found = np.matmul(weights, heads.value).reshape(out.shape)
    np.divide(found, sums, out=out, casting="unsafe")


def _exponentials(scores: Array) -> Array:
    """The exponentials of scores in place, and their sums; a row that sees no key is zero, with the sum 1."""
    if not scores.shape[-1]:
        return np.ones((*scores.shape[:-1], 1), scores.dtype)
    most = scores.max(axis=-1, keepdims=True)
    np.copyto(most, 0, where=most == -np.inf)
    scores -= most
    np.exp(scores, out=scores)
    sums = scores.sum(axis=-1, keepdims=True)
    np.copyto(sums, 1, where=sums == 0)
    return np.asarray(sums)


@operator("RotaryEmbedding", since=23)
def rotary_embedding(call: Call, x: Array, cosine: Array, sine: Array, positions: Array | None = None) -> Any:
    """Pairs of values turned by an angle that grows with their place (Su et al. 2021)."""
    heads = x
    if x.ndim == 3:
        count = int(call.get("num_heads", 0))
        if count < 1 or x.shape[2] % count:
            raise call.error(f"an input of shape {x.shape} has no {count} heads (num_heads).")
        heads = x.reshape(*x.shape[:2], count, x.shape[2] // count).transpose(0, 2, 1, 3)
    if heads.ndim != 4:
        raise call.error(f"an input of shape {x.shape} must have 3 or 4 axes.")
    turned = int(call.get("rotary_embedding_dim", 0)) or heads.shape[3]
    if positions is not None:
        cosine, sine = (
            np.take(table, _positions(call, positions, len(table)), 0) for table in (cosine, sine)
        )  # fmt: skip
    wanted = (heads.shape[0], heads.shape[2], turned // 2)
    if cosine.shape != wanted or sine.shape != wanted or turned > heads.shape[3] or turned % 2:
        raise call.error(f"caches of shape {cosine.shape} and {sine.shape}; for {x.shape} they must be {wanted}.")
    cosine, sine = cosine[:, None], sine[:, None]
    out = call.empty(heads.shape, x.dtype)
    out[..., turned:] = heads[..., turned:]
    if call.get("interleaved", 0):
        one, two = slice(0, turned, 2), slice(1, turned, 2)
    else:
        one, two = slice(0, turned // 2), slice(turned // 2, turned)
    out[..., one] = cosine * heads[..., one] - sine * heads[..., two]
    out[..., two] = sine * heads[..., one] + cosine * heads[..., two]
    return out if x.ndim == 4 else out.transpose(0, 2, 1, 3).reshape(x.shape)


def _positions(call: Call, positions: Array, size: int) -> Array:
    if positions.size and not 0 <= int(positions.min()) <= int(positions.max()) < size:
        raise call.error(f"position_ids from {positions.min()} to {positions.max()} in caches of {size}.")
    return positions


@operator("TensorScatter", as_stored=True, since=24)
def tensor_scatter(call: Call, cache: Array, update: Array, places: Array | None = None) -> Array:
    """A copy of a cache with new elements of every sequence, from a place of its own on."""
    axis = call.axis(cache.ndim, -2)
    rest = [size for at, size in enumerate(cache.shape) if at != axis]
    if not axis or [size for at, size in enumerate(update.shape) if at != axis] != rest or update.ndim != cache.ndim:
        raise call.error(f"an update of shape {update.shape} does not fit a cache of shape {cache.shape}.")
    size, count = cache.shape[axis], update.shape[axis]
    starts = np.zeros(len(cache), np.int64) if places is None else places.astype(np.int64)
    if starts.shape != (len(cache),):
        raise call.error(f"write_indices of shape {starts.shape} for {len(cache)} sequences.")
    where = starts[:, None] + np.arange(count)
    if call.get("mode", "linear") == "circular" and size:
        where %= size
    if where.size and not 0 <= int(where.min()) <= int(where.max()) < size:
        raise call.error(f"places from {where.min()} to {where.max()} in a cache of {size}.")
    result = cache.copy()
    np.moveaxis(result, axis, 1)[np.arange(len(cache))[:, None], where] = np.moveaxis(update, axis, 1)
    return result
