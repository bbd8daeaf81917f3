"""Makes the calls of the campaign `operators`, in Triton's interpreter, and prints a line of JSON for each.

TRITON_INTERPRET=1 python -m tests.faults._operator_calls SEED COUNT
"""

import json
import random
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan_fast.kernels import conv2d_reflect, instance_norm, reflection_pad, residual_block
from cyclegan_fast.kernels.cpu.compilation import is_compiled
from cyclegan_fast.kernels.elementwise.bias_activation import bias_activation
from cyclegan_fast.kernels.elementwise.mean_error import mean_error
from cyclegan_fast.kernels.thin_convolution.convolution import conv2d_from_thin, conv2d_to_thin

Arguments = dict[str, Any]
TOLERANCE = {torch.float64: 1e-7, torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Operator:
    """Holds an operator, how its arguments are drawn, and what it means in plain PyTorch."""

    call: Callable[..., Any]
    drawn: Callable[[random.Random], Arguments]
    meaning: Callable[..., Tensor]
    is_in_c: bool = False

    def implementations(self, dtype: torch.dtype) -> list[str]:
        """Return those that take a dtype."""
        low_alone = self.call in (conv2d_to_thin, conv2d_from_thin)
        in_triton = dtype in (torch.float16, torch.bfloat16) or (dtype == torch.float32 and not low_alone)
        in_c = self.is_in_c and dtype != torch.float16 and is_compiled()
        return ["reference", *(["triton"] if in_triton else []), *(["c"] if in_c else [])]


# --- arguments that fit ----------------------------------------------------------------------------------------------


def _values(source: random.Random, *shape: int, dtype: torch.dtype) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(source.randrange(2**31)))
    kind = source.choice(["normal"] * 8 + ["offset", "tiny", "large", "constant", "nan", "inf"])
    if kind in ("nan", "inf") and x.numel():
        x.view(-1)[source.randrange(x.numel())] = float(kind)
    changed = {"offset": x + 30, "tiny": x * 1e-4, "large": x * 30, "constant": torch.full_like(x, 0.75)}
    return _laid(source, changed.get(kind, x).to(dtype))


def _laid(source: random.Random, x: Tensor) -> Tensor:
    """Return the same values at other places in memory."""
    kind = source.choice(["plain", "plain", "last", "last", "interior", "transposed", "strided", "flipped", "negated"])
    if kind == "negated":
        return torch._neg_view(-x)
    if x.dim() != 4 or kind == "plain":
        return x
    if kind == "interior":
        return F.pad(x, (1, 1, 2, 2))[:, :, 2:-2, 1:-1]
    if kind == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    if kind == "strided":
        return x.repeat_interleave(2, dim=3)[..., ::2]
    if kind == "flipped":
        return torch.nn.Parameter(x.flip(3).flip(3))
    return x.contiguous(memory_format=torch.channels_last)


def _shape(source: random.Random, least: int) -> tuple[int, int, int, int]:
    side = [number for number in (1, 2, 3, 4, 5, 7, 8, 13, 17) if number >= least]
    return source.choice([0, 1, 1, 2, 3]), source.choice([1, 2, 3, 8, 17]), source.choice(side), source.choice(side)


def _dtype(source: random.Random) -> torch.dtype:
    return source.choice([torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64])


def _of_norm(source: random.Random) -> Arguments:
    shape, dtype = _shape(source, 2), _dtype(source)
    return {
        "x": _values(source, *shape, dtype=dtype),
        "activation": source.choice(["none", "relu", "leaky_relu"]),
        "negative_slope": source.choice([0.2, 0.0, 1, -0.5]),
        "residual": _values(source, *shape, dtype=dtype) if source.random() < 0.5 else None,
        "pad": source.choice([pad for pad in (0, 1, 3) if pad < min(shape[2:])]),
        "eps": source.choice([1e-5, 1e-3, 1, 0]),
    }


def _of_pad(source: random.Random) -> Arguments:
    shape = _shape(source, 1)
    pad = source.choice([pad for pad in (0, 1, 2, 3, 7) if pad < min(shape[2:])])
    return {"x": _values(source, *shape, dtype=_dtype(source)), "pad": pad}


def _of_block(source: random.Random) -> Arguments:
    shape, dtype = _shape(source, 4), _dtype(source)
    groups = source.choice([1, 2]) if shape[1] % 2 == 0 else 1
    weights = dict.fromkeys(("weight1", "weight2"), (shape[1], shape[1] // groups, 3, 3))
    of_weights = {name: _values(source, *sides, dtype=dtype) for name, sides in weights.items()}
    x = _values(source, *shape, dtype=dtype)
    return {"x": x, **of_weights, "pad_out": source.choice([0, 1]), "eps": source.choice([1e-5, 1e-3])}


def _of_convolution(source: random.Random) -> Arguments:
    shape, dtype = _shape(source, 2), _dtype(source)
    weight = _values(source, source.choice([1, 4, 9]), shape[1], 3, 3, dtype=dtype)
    return {"x": _values(source, *shape, dtype=dtype), "weight": weight}


def _of_bias(source: random.Random) -> Arguments:
    shape = _shape(source, 1)
    return {
        "x": _values(source, *shape, dtype=_dtype(source)),
        "bias": _values(source, shape[1], dtype=_dtype(source)),
        "activation": source.choice(["leaky_relu", "tanh"]),
        "negative_slope": source.choice([0.2, 1]),
    }


def _of_error(source: random.Random) -> Arguments:
    shape, dtype = _shape(source, 1), _dtype(source)
    shape = (max(shape[0], 1), *shape[1:])  # of nothing there is no mean
    x, y = (_values(source, *shape, dtype=dtype) for _ in range(2))
    kind = source.choice(["absolute", "from 1", "from 0", "from 1 and 0"])
    is_alone = kind in ("from 1", "from 0")
    return {"x": x, "y": None if is_alone else y, "kind": kind, "weight": source.choice([1, 2.5]), "directions": 1}


def _of_thin(source: random.Random) -> Arguments:
    batch, _, height, width = _shape(source, 3)
    dtype, kernel, groups = _dtype(source), source.choice([3, 3, 5, 7]), source.choice([1, 1, 2])
    height, width = max(height, kernel), max(width, kernel)
    thin, wide = source.choice([1, 3, 4, 6, 13]), source.choice([16, 17, 32])
    return {
        "x": _values(source, batch, groups * wide, height, width, dtype=dtype),
        "weight": _values(source, groups * thin, wide, kernel, kernel, dtype=dtype),
        "bias": _values(source, groups * thin, dtype=dtype) if source.random() < 0.5 else None,
        "groups": groups,
        "tanh": source.random() < 0.5,
    }


def _from_thin(source: random.Random) -> Arguments:
    drawn = _of_thin(source)
    weight, groups = drawn["weight"], drawn["groups"]
    thin = weight.size(0) // groups
    weight = weight.detach().unflatten(0, (groups, thin)).transpose(1, 2).flatten(0, 1)
    return {"x": drawn["x"].detach()[:, : groups * thin], "weight": weight.contiguous(), "groups": groups}


# --- what operators mean ---------------------------------------------------------------------------------------------


def _padded(x: Tensor, pad: int) -> Tensor:
    return F.pad(x, (pad, pad, pad, pad), mode="reflect") if pad else x


def _normalised(x: Tensor, eps: float) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) / ((x - mean).square().mean((2, 3), keepdim=True) + eps).sqrt()


def _norm(x: Tensor, activation: str, negative_slope: float, residual: Tensor | None, pad: int, eps: float) -> Tensor:
    y = _normalised(x, eps)
    y = {"none": y, "relu": F.relu(y), "leaky_relu": F.leaky_relu(y, negative_slope)}[activation]
    return _padded(y if residual is None else y + residual, pad)


def _block(
    x: Tensor, weight1: Tensor, weight2: Tensor, pad_out: int, eps: float, kept_in: torch.dtype = torch.float64
) -> Tensor:
    """Compute a block; `kept_in` is the dtype that results of convolutions have, infinite beyond its range."""

    def convolved(image: Tensor, weight: Tensor) -> Tensor:
        y = F.conv2d(image, weight, groups=x.size(1) // weight.size(1))
        return y.masked_fill(~y.to(kept_in).isfinite(), torch.inf)

    middle = F.relu(_normalised(convolved(x, weight1), eps))
    second = convolved(_padded(middle, 1), weight2)
    return _padded(x[:, :, 1:-1, 1:-1] + _normalised(second, eps), pad_out)


def _biased(x: Tensor, bias: Tensor, activation: str, negative_slope: float) -> Tensor:
    y = x + bias[:, None, None]
    return y.tanh() if activation == "tanh" else F.leaky_relu(y, negative_slope)


def _error(x: Tensor, y: Tensor | None, kind: str, weight: float, directions: int) -> Tensor:
    if y is None:
        return weight * (x - int(kind == "from 1")).square().mean()
    return weight * ((x - y).abs().mean() if kind == "absolute" else ((x - 1).square() + y.square()).mean())


def _thin(x: Tensor, weight: Tensor, groups: int, bias: Tensor | None = None, tanh: bool = False) -> Tensor:
    y = F.conv2d(x, weight, bias, groups=groups)
    return y.tanh() if tanh else y


OPERATORS = {
    "instance_norm": Operator(instance_norm, _of_norm, _norm, is_in_c=True),
    "reflection_pad": Operator(reflection_pad, _of_pad, _padded, is_in_c=True),
    "residual_block": Operator(residual_block, _of_block, _block),
    "conv2d_reflect": Operator(conv2d_reflect, _of_convolution, lambda x, weight: F.conv2d(_padded(x, 1), weight)),
    "bias_activation": Operator(bias_activation, _of_bias, _biased),
    "mean_error": Operator(mean_error, _of_error, _error),
    "conv2d_to_thin": Operator(conv2d_to_thin, _of_thin, _thin),
    "conv2d_from_thin": Operator(conv2d_from_thin, _from_thin, _thin),
}


# --- arguments that do not -------------------------------------------------------------------------------------------

NOT_A_TENSOR = (3, "x", [1.0], {}, object(), 1.5, True)
NOT_A_NUMBER = (None, "1", True, [1], float("nan"), float("inf"), 10**400, object(), torch.ones(2))
NOT_AN_INTEGER = (None, "1", True, [1], 1.5, float("nan"), -1, -(2**63), 2**70, torch.tensor(1.0))
NOT_A_CHOICE = (None, 3, "gelu", "", ["relu"], True, b"relu")


def _spoiled(source: random.Random, operator: Callable[..., Any], name: str, value: Any) -> Any:
    """Return what no operator takes for an argument of this name."""
    if isinstance(value, Tensor):
        return _spoiled_tensor(source, operator, name, value.detach())
    if name in ("pad", "pad_out", "groups", "directions"):
        return source.choice(NOT_AN_INTEGER)
    if name in ("activation", "kind", "impl"):
        return source.choice(NOT_A_CHOICE)
    if name == "tanh":
        return source.choice([None, 1, "yes", [True]])
    return source.choice([*NOT_A_NUMBER, *([-1.0] if name == "eps" else [])])


def _spoiled_tensor(source: random.Random, operator: Callable[..., Any], name: str, x: Tensor) -> Any:
    ways: list[Callable[[], Any]] = [
        lambda: source.choice([*NOT_A_TENSOR, *([None] if name not in ("residual", "bias", "y") else [])]),
        lambda: x.to_sparse(),
        lambda: x.int(),
        lambda: x.to(torch.complex64),
        lambda: x.to(torch.float8_e4m3fn),
        lambda: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8),
        lambda: torch.nested.nested_tensor([x[0], x[0]]) if len(x) and x.dim() > 1 else "x",
    ]
    if x.dtype == torch.float32:
        ways.append(lambda: x.to_mkldnn())
    if name != "x":
        ways += [lambda: x.to("meta"), lambda: x[None], lambda: x[..., None].expand(*x.shape, 2)]
    elif source.random() < 0.5 and operator is not mean_error:  # which takes any shape
        ways = [lambda: x[0] if len(x) else x[None], lambda: x[None], lambda: x[:, :0]]
    return source.choice(ways)()


# --- one call --------------------------------------------------------------------------------------------------------


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        place = f"{value.layout} {value.device}".replace("torch.", "")
        shape = "nested" if value.is_nested else tuple(value.shape)
        return f"{str(value.dtype).removeprefix('torch.')} {shape} {place}"
    return repr(value)[:60]


def _come_of(operator: Operator, arguments: Arguments, impl: Any) -> Any:
    """Return what a call gives, or the error that it raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = operator.call(**arguments, impl=impl)
        return y[0] if isinstance(y, tuple) else y
    except Exception as error:  # every other kind is a failure, told below by its name
        return error


def _refused(name: str, answers: list[Any]) -> tuple[str, bool]:
    """Judge a call with a bad argument."""
    words = {f"{type(answer).__name__}: {answer}" for answer in answers}
    if not all(isinstance(answer, ValueError | TypeError) for answer in answers):
        return f"not refused by all: {sorted(words)}"[:400], True
    if len(words) > 1:
        return f"refused in other words: {sorted(words)}"[:400], True
    (said,) = words
    is_named = f": {name} " in said or (name == "y" and "kind" in said)
    return ("refused", False) if is_named and "\n" not in said else (f"does not name {name}: {said}"[:400], True)


def _wide(arguments: Arguments) -> Arguments:
    return {name: value.detach().double() if isinstance(value, Tensor) else value for name, value in arguments.items()}


def _judged(answers: dict[str, Any], exact: Tensor, dtype: torch.dtype) -> tuple[str, bool]:
    """Compare the implementations' results with float64: none may be further off than the reference is."""
    for impl, y in answers.items():
        if isinstance(y, Exception):
            return f"{impl} raises {type(y).__name__}: {y}"[:400], True
        if y.shape != exact.shape:
            return f"{impl} gives {tuple(y.shape)}, not {tuple(exact.shape)}", True
    lost = ~exact.to(dtype).isfinite()  # among them what the dtype is too narrow for
    found = {impl: y.detach().double() for impl, y in answers.items()}
    for impl, y in found.items():
        if (lost & y.isfinite()).any():
            return f"{impl} hides what is not finite", True
    if lost.any():
        return "not finite, and shown so", False
    scale = exact.abs().max().item() if exact.numel() else 0.0
    off = {impl: (y - exact).abs().max().item() if y.numel() else 0.0 for impl, y in found.items()}
    for impl, error in off.items():
        if not error <= 3 * off["reference"] + TOLERANCE[dtype] * max(1.0, scale):
            return f"{impl} is off by {error:.2g} of {scale:.2g}, the reference by {off['reference']:.2g}", True
    return "right", False


def _gradients(operator: Operator, arguments: Arguments, impl: str | None) -> Any:
    """Return the gradients of all tensors, by an implementation or, without one, by what the operator means."""
    leaves = {
        name: value.detach().clone().requires_grad_() for name, value in arguments.items() if isinstance(value, Tensor)
    }
    given = {**arguments, **leaves}
    y = operator.meaning(**given) if impl is None else _come_of(operator, given, impl)
    if isinstance(y, Exception):
        return y
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    try:
        found = torch.autograd.grad(y, list(leaves.values()), weights.to(y.dtype))
    except Exception as error:  # as above
        return error
    return torch.cat([gradient.double().flatten() for gradient in found])


def made(source: random.Random) -> tuple[str, str, bool]:
    """Make one call; return it, what came of it, and whether that is a failure."""
    name = source.choice(list(OPERATORS))
    operator = OPERATORS[name]
    arguments = operator.drawn(source)
    dtype = arguments["x"].dtype
    implementations: list[Any] = operator.implementations(dtype)
    is_spoiled = source.random() < 0.5
    spoiled = source.choice([key for key, value in arguments.items() if value is not None])
    if is_spoiled:
        arguments[spoiled] = _spoiled(source, operator.call, spoiled, arguments[spoiled])
        implementations = ["auto", *implementations]
    call = f"{name}({', '.join(f'{key}={_shown(value)}' for key, value in arguments.items())})"
    print(json.dumps({"call": call}), flush=True)
    answers = {impl: _come_of(operator, arguments, impl) for impl in implementations}
    if is_spoiled:
        return call, *_refused(spoiled, list(answers.values()))
    wide = _wide(arguments)
    exact = operator.meaning(**wide, **({"kept_in": dtype} if name == "residual_block" else {}))
    came_of_it, is_failure = _judged(answers, exact, torch.float32 if name == "mean_error" else dtype)
    # Where a rectifier's kink lies, rounding decides about a gradient: those of wide numbers are compared alone.
    if came_of_it != "right" or dtype not in (torch.float32, torch.float64) or not exact.numel():
        return call, came_of_it, is_failure
    slopes = {impl: _gradients(operator, arguments, impl) for impl in implementations}
    came_of_it, is_failure = _judged(slopes, _gradients(operator, wide, None), dtype)
    return call, f"{came_of_it}, gradients too" if came_of_it == "right" else f"gradients: {came_of_it}", is_failure


def main() -> None:
    torch.set_num_threads(1)
    source = random.Random(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        call, came_of_it, is_failure = made(source)
        print(json.dumps({"call": call, "came_of_it": came_of_it, "failed": is_failure}), flush=True)


if __name__ == "__main__":
    main()
