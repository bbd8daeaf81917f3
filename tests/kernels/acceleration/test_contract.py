"""Holds accelerated networks to what people do with a network: copies, hooks, optimizers, autocast, exports."""

import copy
import functools
import gc
import inspect
import io
import pickle
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from bench.cases.plain_cyclegan import PlainGenerator, PlainResidualBlock
from cyclegan_fast.kernels import accelerate
from tests.kernels.acceleration.comparison import accelerated_copy, assert_equal, report_of

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (2, 3, 12, 16)


def network(width: int = 2, blocks: int = 2) -> PlainGenerator:
    torch.manual_seed(0)
    return PlainGenerator(width=width, blocks=blocks).double()


def image(*shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def runs_fused(module: nn.Module, x: Tensor) -> bool:
    """Return whether the fused operators ran: the plain ones pad by F.pad."""
    calls = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
            calls.append(function)
            return function(*arguments, **(options or {}))

    with Watch():
        module(x)
    return F.instance_norm not in calls and torch.instance_norm not in calls


def test_it_is_the_same_object_with_the_same_parameters() -> None:
    before = network()
    parameters, keys, modules = list(before.parameters()), list(before.state_dict()), list(before.named_modules())
    text = repr(before)
    after = accelerate(before, impl="reference", verbose=False)
    assert after is before
    assert [id(parameter) for parameter in after.parameters()] == [id(parameter) for parameter in parameters]
    assert list(after.state_dict()) == keys
    assert [(name, id(module)) for name, module in after.named_modules()] == [(n, id(m)) for n, m in modules]
    assert isinstance(after, PlainGenerator)
    assert isinstance(after.model[10], PlainResidualBlock)
    assert repr(after) == text
    assert type(after).__name__ == "PlainGenerator"
    assert inspect.signature(after.forward) == inspect.signature(network().forward)


def test_on_a_cpu_nothing_is_changed_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    before = network()
    strides = [parameter.stride() for parameter in before.parameters()]
    after = accelerate(before)
    assert type(after) is PlainGenerator
    assert [parameter.stride() for parameter in after.parameters()] == strides
    assert "nothing changed: on a CPU" in capsys.readouterr().out


def test_prepared_for_a_gpu_it_runs_on_a_cpu_as_it_was_written_to_the_bit() -> None:
    written = network()
    prepared = accelerate(copy.deepcopy(written), device="cuda", verbose=False)
    assert len(report_of(prepared).norms) == 9
    assert not runs_fused(prepared, image())
    # Weights lie channels last, which PyTorch's convolutions on a CPU add up in another order.
    torch.testing.assert_close(prepared(image()), written(image()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
def test_an_optimizer_made_before_goes_on(options: dict[str, Any]) -> None:
    written = network()
    found = copy.deepcopy(written)
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3, **options) for net in (written, found)]

    def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        net(image()).square().sum().backward()
        optimizer.step()

    step(written, optimizers[0])
    step(found, optimizers[1])
    accelerate(found, impl="reference", verbose=False)
    for _ in range(2):
        step(written, optimizers[0])
        step(found, optimizers[1])
    for name, parameter in found.named_parameters():
        if parameter.dim() == 4:
            torch.testing.assert_close(parameter, written.get_parameter(name), rtol=1e-6, atol=1e-8)


def test_a_fused_optimizer_loads_moments_of_a_network_as_it_was_written() -> None:
    written = network()
    found = accelerated_copy(written)
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3, fused=True) for net in (written, found)]
    written(image()).square().sum().backward()
    optimizers[0].step()
    found.load_state_dict(written.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for net, optimizer in zip((written, found), optimizers, strict=True):
        optimizer.zero_grad()
        net(image()).square().sum().backward()
        optimizer.step()
    for name, parameter in found.named_parameters():
        if parameter.dim() == 4:
            torch.testing.assert_close(parameter, written.get_parameter(name), rtol=1e-6, atol=1e-8)


def test_state_dicts_load() -> None:
    found = accelerated_copy(network())
    other = PlainGenerator(width=2, blocks=2).double()
    found.load_state_dict(other.state_dict())
    assert_equal(found, other, [image()])
    other.load_state_dict(found.state_dict())


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies_are_accelerated_and_have_their_own_weights(way: str) -> None:
    found = accelerated_copy(network())
    expected = found(image())
    if way == "deepcopy":
        copied = copy.deepcopy(found)
    elif way == "pickle":
        copied = pickle.loads(pickle.dumps(found))
    else:
        file = io.BytesIO()
        torch.save(found, file)
        file.seek(0)
        copied = torch.load(file, weights_only=False)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.zero_()
    assert isinstance(copied, PlainGenerator)
    assert runs_fused(copied, image())
    assert torch.equal(copied(image()), expected)
    assert report_of(copied).norms


def test_a_replica_of_dataparallel_computes_with_its_own_parameters() -> None:
    found = accelerated_copy(network())
    replica = _replica(found)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.zero_()
    assert replica(image()).abs().sum() > 0
    assert runs_fused(replica, image())


def _replica(module: nn.Module) -> nn.Module:
    replica = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        replica._modules[name] = None if child is None else _replica(child)
    for name, parameter in module._parameters.items():
        replica._parameters[name] = None if parameter is None else nn.Parameter(parameter.detach().clone())
    return replica


def test_slices_and_children_can_be_called() -> None:
    written = network()
    found = accelerated_copy(written)
    x = image()
    torch.testing.assert_close(found.model[:10](x), written.model[:10](x), rtol=1e-12, atol=1e-12)
    features = written.model[:10](x).detach()
    assert runs_fused(found.model[10], features)
    assert_equal(found.model[10], written.model[10], [features])


def test_training_and_evaluation_are_told_apart() -> None:
    torch.manual_seed(0)
    written = PlainGenerator(width=2, blocks=2, use_dropout=True).double()
    found = accelerated_copy(written)
    for net in (written, found):
        net.eval()
    assert_equal(found, written, [image()])
    found.train()
    with torch.no_grad():
        assert not torch.equal(found(image()), found(image())), "dropout draws anew"


class Watched:
    """Writes down for which modules hooks were called."""

    def __init__(self, net: nn.Module, paths: list[str]) -> None:
        self.seen: list[str] = []
        self.handles = []
        for path in paths:
            module = net.get_submodule(path)
            self.handles.append(module.register_forward_hook(functools.partial(self._see, f"forward of {path}")))
            hook = functools.partial(self._see, f"backward of {path}")
            self.handles.append(module.register_full_backward_hook(hook))

    def _see(self, what: str, *_: object) -> None:
        self.seen.append(what)


@pytest.mark.parametrize("path", ["", "model", "model.10", "model.11.conv_block", "model.4", "model.5", "model.6"])
def test_hooks_go_on_firing(path: str) -> None:
    written = network()
    found = copy.deepcopy(written)
    hooks = [Watched(net, [path]) for net in (written, found)]
    accelerate(found, impl="reference", verbose=False)
    assert runs_fused(found, image()) == (path != "model.5"), "what has no hook is fused"
    for hook in hooks:
        hook.seen.clear()
    assert_equal(found, written, [image()])
    assert hooks[1].seen == hooks[0].seen
    if path == "model.5":
        assert "model.5: instance norm: hooks on it" in str(report_of(found))


def test_hooks_that_come_later_fire_and_that_is_said() -> None:
    written = network()
    found = accelerated_copy(written)
    hooks = [Watched(net, ["model.6", "model.10"]) for net in (written, found)]
    with pytest.warns(UserWarning, match=r"model\.10 has a hook"):
        assert_equal(found, written, [image()])
    assert hooks[1].seen == hooks[0].seen
    for handle in hooks[1].handles:
        handle.remove()
    assert runs_fused(found, image())


def test_a_layer_that_takes_another_ones_place_is_called() -> None:
    written = network()
    found = accelerated_copy(written)
    for net in (written, found):
        net.model[6] = nn.GELU()
    with pytest.warns(UserWarning, match=r"model\.6 has a hook, or was replaced"):
        torch.testing.assert_close(found(image()), written(image()), rtol=1e-12, atol=1e-12)
    accelerate(found, impl="reference", verbose=False)
    assert_equal(found, written, [image()])
    assert runs_fused(found, image())


def scaled(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 3.0)
    return layer.double()


class Halved(nn.InstanceNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


LAYERS: dict[str, Callable[[nn.Sequential], object]] = {
    "affine": lambda layers: layers.__setitem__(2, scaled(nn.InstanceNorm2d(4, affine=True))),
    "eps": lambda layers: layers.__setitem__(2, nn.InstanceNorm2d(4, eps=1.0)),
    "subclass": lambda layers: layers.__setitem__(2, Halved(4)),
    "slope": lambda layers: layers.__setitem__(3, nn.LeakyReLU(0.9)),
    "wider pad": lambda layers: layers.__setitem__(4, nn.ReflectionPad2d(2)),
    "appended": lambda layers: layers.append(nn.Sigmoid()),
    "inserted": lambda layers: layers.insert(4, nn.Sigmoid()),
    "removed": lambda layers: layers.__delitem__(3),
}


@pytest.mark.parametrize("change", LAYERS)
@pytest.mark.parametrize("depth", ["itself", "inside"])
def test_layers_that_came_later_or_went_are_noticed(change: str, depth: str) -> None:
    written = nn.Sequential(
        *(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.LeakyReLU(0.2)),
        *(nn.ReflectionPad2d(1), nn.Conv2d(4, 4, 3), nn.InstanceNorm2d(4)),
    ).double()
    whole = nn.Sequential(written) if depth == "inside" else written
    found = accelerated_copy(whole)
    assert runs_fused(found, image())
    for net in (whole, found):
        layers: Any = net[0] if depth == "inside" else net
        LAYERS[change](layers)
    with pytest.warns(UserWarning, match="call accelerate again"):
        torch.testing.assert_close(found(image()), whole(image()), rtol=1e-12, atol=1e-12)
    accelerate(found, impl="reference", verbose=False)
    assert_equal(found, whole, [image()])


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.layers = nn.Sequential(convolution, nn.InstanceNorm2d(3), nn.ReLU(), nn.InstanceNorm2d(3))

    def forward(self, x: Tensor, around: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        if around is None:
            around = x
        y: Tensor = self.layers(x) if mask is None else self.layers(x) * mask
        return y + around


def test_arguments_that_are_none_by_default_are_left_out_or_used() -> None:
    written = Conditional().double()
    found = accelerated_copy(written)
    assert runs_fused(found, image())
    assert_equal(found, written, [image()])
    assert torch.equal(found(image(), None, mask=None), found(image()))
    for arguments, options in (((2 * image(),), {}), ((), {"mask": image()}), ((), {"around": 2 * image()})):
        with pytest.warns(UserWarning, match="was given, and accelerate takes it to be None"):
            result = found(image(), *arguments, **options)
        torch.testing.assert_close(result, written(image(), *arguments, **options), rtol=1e-12, atol=1e-12)


def test_calling_it_again_changes_nothing_more() -> None:
    found = accelerated_copy(network())
    expected, kind = found(image()), type(found)
    accelerate(found, impl="reference", verbose=False)
    assert type(found) is kind
    assert torch.equal(found(image()), expected)
    accelerate(found, verbose=False)
    assert type(found) is PlainGenerator, "on a CPU the network is as it was written"


def test_a_network_that_is_compiled_or_scripted_is_refused() -> None:
    with pytest.raises(ValueError, match="accelerate it first, then compile it"):
        accelerate(torch.compile(network()))  # type: ignore[type-var]  # torch types it as a function
    with pytest.raises(TypeError, match=r"takes an nn\.Module, got int"):
        accelerate(3)  # type: ignore[type-var]  # the mistake that is tested


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_dtypes_that_it_gave(dtype: torch.dtype) -> None:
    written = network(width=4).float()
    found = accelerated_copy(written)
    x = image().float()
    exact = copy.deepcopy(written).double()(x.double())
    with torch.autocast("cpu", dtype=dtype):
        result, native = found(x), written(x)
    assert result.dtype == native.dtype
    error, native_error = ((y.double() - exact).norm() / exact.norm() for y in (result, native))
    assert error <= 1.25 * native_error
    result.float().square().sum().backward()
    for parameter in found.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32


def test_under_autocast_a_block_keeps_what_goes_around_it_in_its_dtype() -> None:
    written = PlainResidualBlock(4, False, False)
    found = accelerated_copy(written)
    x = torch.randn(1, 4, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert found(x).dtype == written(x).dtype == torch.float32


def test_gradients_of_all_parameters_are_there() -> None:
    found = accelerated_copy(network())
    found(image()).sum().backward()
    assert all(parameter.grad is not None for parameter in found.parameters())
    for parameter in found.parameters():
        parameter.requires_grad_(False)
    x = image().requires_grad_()
    found(x).sum().backward()
    assert x.grad is not None


def test_nothing_is_kept_alive() -> None:
    found = accelerated_copy(network())
    found(image())
    reference = weakref.ref(found)
    del found
    gc.collect()
    assert reference() is None


def test_exports_are_those_of_the_network_as_written() -> None:
    written = network().float().eval()
    found = accelerated_copy(written)
    x = image().float()
    programs = [torch.export.export(net, (x,)) for net in (written, found)]
    operators = [
        [str(node.target) for node in program.graph.nodes if node.op == "call_function"] for program in programs
    ]
    assert operators[0] == operators[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(found, x)
        graph = torch.fx.symbolic_trace(found)
    assert "cyclegan_fast" not in str(traced.inlined_graph)
    torch.testing.assert_close(graph(x), written(x), rtol=1e-4, atol=1e-5)


def test_distributed_data_parallel_gets_a_gradient_for_each_parameter(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        written = network()
        parallel = nn.parallel.DistributedDataParallel(accelerated_copy(written))
        for _ in range(2):  # the second pass raises where the first has left a parameter without a gradient
            assert_equal(parallel.module, written, [image()])
            parallel(image()).sum().backward()
        inside = accelerate(nn.parallel.DistributedDataParallel(network()), impl="reference", verbose=False)
        torch.testing.assert_close(inside(image()), written(image()), rtol=1e-12, atol=1e-12)
        assert [region.name for region in report_of(inside).regions] == ["module"]
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_it_compiles_to_one_graph_with_the_operators_in_it() -> None:
    torch._dynamo.reset()
    found = accelerated_copy(network().float(), "triton")
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(found, backend=counter, fullgraph=True)
    x = image(1, 3, 12, 12).float()
    torch.testing.assert_close(compiled(x), found(x), rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 1
    targets = {str(node.target) for graph in counter.graphs for node in graph.graph.nodes}
    assert {"cyclegan_fast.instance_norm.default", "cyclegan_fast.residual_block.default"} <= targets
    compiled(x).sum().backward()
    assert all(parameter.grad is not None for parameter in found.parameters())
    torch._dynamo.reset()
