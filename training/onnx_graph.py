"""Runs an ONNX graph with torch, so that a teacher which is packaged as one speaks on a GPU.

Only what such graphs hold, after the specification (https://onnx.ai/onnx/operators) and onnxruntime's additions to
it. Weights in 8 bits are widened when they are loaded; activations stay float32, where onnxruntime rounds them too.
Integers stay on the CPU: they are shapes and indices, and reading one from a GPU would wait for it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Attributes = dict[str, Any]
Operator = Callable[..., Any]
Array = npt.NDArray[Any]
FINE = 2.0**16
"""Steps to a unit of what would be activations in 8 bits."""


class OnnxGraph:
    """A loaded graph, called with arrays by name. Calls of one graph must follow each other."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Raises KeyError, naming it, for an operator that is not known here."""
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(path).graph
        self._device = device
        self._shared = {entry.name: self._placed(numpy_helper.to_array(entry)) for entry in graph.initializer}
        self._outputs = [output.name for output in graph.output]
        last = {name: number for number, node in enumerate(graph.node) for name in node.input}
        kept = {*self._shared, *self._outputs}
        self._nodes: list[tuple[Operator, Attributes, list[str], list[str], list[str]]] = []
        for number, node in enumerate(graph.node):
            attributes = {a.name: _attribute(onnx.helper.get_attribute_value(a), numpy_helper) for a in node.attribute}
            operator = OPERATORS[node.op_type]
            if operator is _lstm:
                operator = _lstm(*(self._shared.get(name) for name in node.input), hidden=attributes["hidden_size"])
            done = [name for name in set(node.input) - kept if last[name] == number]
            self._nodes.append((operator, attributes, list(node.input), list(node.output), done))

    def _placed(self, array: Array) -> Tensor:
        tensor = torch.from_numpy(np.array(array))
        if tensor.dtype in (torch.int8, torch.uint8, torch.float32):
            return tensor.float().to(self._device)
        return tensor

    @torch.inference_mode()
    def __call__(self, inputs: dict[str, Array]) -> list[Array]:
        """The outputs, in the graph's order; inputs by name, float32 or int64."""
        values: dict[str, Any] = dict(self._shared)
        values[""] = None
        values |= {name: self._placed(array) for name, array in inputs.items()}
        for operator, attributes, names, outputs, done in self._nodes:
            result = operator(*(values[name] for name in names), **attributes)
            values.update(zip(outputs, [result] if len(outputs) == 1 else result, strict=False))
            for name in done:
                del values[name]
        return [values[name].cpu().numpy() for name in self._outputs]


def _attribute(value: Any, numpy_helper: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return torch.from_numpy(np.array(numpy_helper.to_array(value))) if hasattr(value, "dims") else value


def _numbers(x: Tensor) -> list[int]:
    return [int(value) for value in x.tolist()] if x.dim() else [int(x)]


def _together(*tensors: Tensor) -> list[Tensor]:
    """All on the GPU if one of them is."""
    device = next((x.device for x in tensors if x.device.type != "cpu"), tensors[0].device)
    return [x if x.device == device or x.dim() == 0 else x.to(device) for x in tensors]


def _pair(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda a, b, **_: function(*_together(a, b))


def _cast(x: Tensor, to: int, **_: Any) -> Tensor:
    kind = {1: torch.float32, 6: torch.int64, 7: torch.int64, 9: torch.bool, 11: torch.float64}[to]
    return x.to(kind).cpu() if kind == torch.int64 else x.to(kind)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    a, b = _together(a, b)
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _gather(x: Tensor, index: Tensor, axis: int = 0) -> Tensor:
    if index.dim() == 0:
        return x.select(axis, int(index))
    index = index.to(x.device)
    rows = torch.where(index < 0, index + x.shape[axis], index)
    return x.index_select(axis, rows.flatten()).reshape(*x.shape[:axis], *rows.shape, *x.shape[axis:][1:])


def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    places = _numbers(axes) if axes is not None else list(range(len(starts)))
    strides = _numbers(steps) if steps is not None else [1] * len(places)
    for start, end, axis, step in zip(_numbers(starts), _numbers(ends), places, strides, strict=True):
        if step < 0:
            raise ValueError(f"A slice with step {step} is not known here.")
        size = x.shape[axis]
        first, last = max(start + size, 0) if start < 0 else min(start, size), end + size if end < 0 else min(end, size)
        index = [slice(None)] * x.dim()
        index[axis] = slice(first, last, step)
        x = x[tuple(index)]
    return x


def _reshape(x: Tensor, shape: Tensor, **_: Any) -> Tensor:
    sizes = [x.shape[n] if size == 0 else size for n, size in enumerate(_numbers(shape))]
    return x.reshape(sizes)


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + axes.numel()
    for axis in sorted(a % rank for a in _numbers(axes)):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(_numbers(axes)))


def _split(x: Tensor, sizes: Tensor, axis: int = 0) -> tuple[Tensor, ...]:
    return torch.split(x, _numbers(sizes), axis)


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x * torch.ones(_numbers(shape), dtype=x.dtype, device=x.device)


def _filled(shape: Tensor, value: Tensor) -> Tensor:
    return torch.full(_numbers(shape), float(value[0]) if value.is_floating_point() else int(value[0]))


def _reduced(function: Callable[..., Tensor]) -> Operator:
    def reduce(x: Tensor, axes: Tensor, keepdims: int = 1, **_: Any) -> Tensor:
        return function(x, dim=tuple(_numbers(axes)), keepdim=bool(keepdims))

    return reduce


def _resize(x: Tensor, _: Any, scales: Tensor, mode: str = "", **__: Any) -> Tensor:
    factor = float(scales[-1])
    if mode == "nearest":
        return x.repeat_interleave(round(factor), dim=-1)
    return F.interpolate(x, scale_factor=factor, mode="linear", align_corners=False)


def _pad(x: Tensor, pads: Tensor, *_: Any, mode: str = "constant") -> Tensor:
    widths, rank = _numbers(pads), x.dim()
    flat = [width for n in reversed(range(rank)) for width in (widths[n], widths[n + rank])]
    while flat[-2:] == [0, 0]:
        flat = flat[:-2]
    return F.pad(x, flat, mode=mode)


def _convolve(x: Tensor, w: Tensor, b: Tensor | None = None, **a: Any) -> Tensor:
    left, right = a["pads"]
    return F.conv1d(F.pad(x, (left, right)), w, b, a["strides"][0], 0, a["dilations"][0], a["group"])


def _convolve_integers(x: Tensor, w: Tensor, _: Any, zero: Tensor, **a: Any) -> Tensor:
    return _convolve(x, w - zero, None, **a)


def _transposed(x: Tensor, w: Tensor, b: Tensor | None = None, **a: Any) -> Tensor:
    (left, _), (extra,) = a["pads"], a.get("output_padding", [0])
    return F.conv_transpose1d(x, w, b, a["strides"][0], left, extra, a["group"], a["dilations"][0])


def _quantize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Not at all: the values in fine steps, which biases are rounded to, and no zero point."""
    return x * FINE, x.new_full((), 1 / FINE), x.new_zeros(())


def _stft(x: Tensor, hop: Tensor, window: Tensor, length: Tensor, **_: Any) -> Tensor:
    size = int(length)
    frames = x.reshape(x.shape[0], -1).unfold(1, size, int(hop)) * window
    return torch.view_as_real(torch.fft.rfft(frames))


def _scatter(x: Tensor, places: Tensor, updates: Tensor, **_: Any) -> Tensor:
    x = x.clone()
    x[places.to(x.device).unbind(-1)] = updates.to(x.device)
    return x


def _fused_product(a: Tensor, b: Tensor, **attributes: Any) -> Tensor:
    left = a.mT if attributes["transA"] else a
    right = b.mT if attributes["transB"] else b
    return float(attributes["alpha"]) * (left @ right)


def _norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5, **_: Any) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


def _lstm(*given: Tensor | None, hidden: int) -> Operator:
    """onnxruntime's DynamicQuantizeLSTM, both directions, made with its matrices: their gates' order is not torch's.

    `given` are the node's inputs, None where they are not the graph's own.
    """
    w, r, bias, w_scale, w_zero, r_scale, r_zero = (x for x in (*given[1:4], *given[8:]) if x is not None)
    lstm = torch.nn.LSTM(w.shape[1], hidden, bidirectional=True, device=w.device)
    order = [0, 2, 3, 1]  # From input, output, forget, cell to input, forget, cell, output.
    for n, suffix in enumerate(("", "_reverse")):
        matrices = {
            "weight_ih": ((w[n] - w_zero[n]) * w_scale[n]).t(),
            "weight_hh": ((r[n] - r_zero[n]) * r_scale[n]).t(),
            "bias_ih": bias[n][: 4 * hidden],
            "bias_hh": bias[n][4 * hidden :],
        }
        for name, matrix in matrices.items():
            sorted_gates = torch.cat([matrix.chunk(4)[gate] for gate in order])
            getattr(lstm, f"{name}_l0{suffix}").data.copy_(sorted_gates)
    lstm.flatten_parameters()

    def run(x: Tensor, *_: Any, **__: Any) -> list[Tensor]:
        said: Tensor = lstm(x)[0]
        return [said.view(*said.shape[:2], 2, hidden).transpose(1, 2)]

    return run


OPERATORS: dict[str, Operator] = {
    "Add": _pair(torch.add),
    "And": _pair(torch.logical_and),
    "Atan": lambda x: torch.atan(x.nan_to_num()),  # Of y / x: no angle where both are nothing.
    "Cast": _cast,
    "Clip": lambda x, low, high: x.clamp(None if low is None else low, None if high is None else high),
    "Concat": lambda *x, axis: torch.cat(_together(*x), axis),
    "ConstantOfShape": _filled,
    "Conv": _convolve,
    "ConvInteger": _convolve_integers,
    "ConvTranspose": _transposed,
    "Cos": torch.cos,
    "CumSum": lambda x, axis, **_: x.cumsum(int(axis)),
    "DequantizeLinear": lambda x, scale, zero: (x - zero) * scale,
    "Div": _divide,
    "DynamicQuantizeLSTM": _lstm,  # Makes the operator, when a graph is loaded.
    "DynamicQuantizeLinear": _quantize,
    "Equal": _pair(torch.eq),
    "Exp": torch.exp,
    "Expand": _expand,
    "FastGelu": lambda x, bias: F.gelu(x + bias, approximate="tanh"),
    "Floor": torch.floor,
    "FusedMatMul": _fused_product,
    "Gather": _gather,
    "Greater": _pair(torch.gt),
    "GreaterOrEqual": _pair(torch.ge),
    "Identity": lambda x: x,
    "LayerNormalization": _norm,
    "LeakyRelu": lambda x, alpha: F.leaky_relu(x, alpha),
    "Less": _pair(torch.lt),
    "MatMul": torch.matmul,
    "MatMulInteger": lambda x, w, _, zero: x @ (w - zero),
    "Mul": _pair(torch.mul),
    "NonZero": lambda x: x.nonzero().T.cpu(),
    "Pad": _pad,
    "Pow": _pair(torch.pow),
    "Range": lambda start, stop, step: torch.arange(int(start), int(stop), int(step)),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Reshape": _reshape,
    "Resize": _resize,
    "Round": torch.round,
    "STFT": _stft,
    "ScatterND": _scatter,
    "Shape": lambda x, **_: torch.tensor(x.shape),
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "SkipLayerNormalization": lambda x, skip, weight, bias, epsilon: _norm(x + skip, weight, bias, epsilon),
    "Slice": _slice,
    "Softmax": lambda x, axis=-1: x.softmax(axis),
    "Split": _split,
    "Sqrt": torch.sqrt,
    "Squeeze": _squeeze,
    "Sub": _pair(torch.sub),
    "Tanh": torch.tanh,
    "Transpose": lambda x, perm: x.permute(perm),
    "Unsqueeze": _unsqueeze,
    "Where": lambda c, a, b: torch.where(*_together(c, a, b)),
}
