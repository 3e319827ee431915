"""torch.compile: a whole network in one graph, exact and with flat memory; compiled branches in the eager engine."""

from __future__ import annotations

import copy

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend

from monai_invertible.autograd import Inverse, InvertibleSequential, set_backprop
from monai_invertible.autograd.torch_internals import compiles_chains
from monai_invertible.networks.layers import AdditiveCoupling, OrthogonalCoupling
from tests.autograd.helper import Conditioned, assert_close, coupling_chain, example, loss, train

pytestmark = [
    # The compilers of torch use deprecated parts of torch, and look at ``grad`` of every tensor.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

in_one_graph = pytest.mark.skipif(not compiles_chains(), reason="with this torch a chain breaks the graph")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()


def smooth():
    return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Tanh())


def dropout():
    return nn.Sequential(smooth(), nn.Dropout(0.5))


def batch_norm():
    return nn.Sequential(smooth(), nn.BatchNorm1d(2))


class Both(nn.Module):
    """Both directions of a chain in one graph, and layers around it."""

    def __init__(self, chain) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 4, 1)
        self.chain = chain

    def forward(self, x, **context):
        h = torch.tanh(self.first(x))
        return Inverse(self.chain)(torch.tanh(self.chain(h, **context)), **context) + h


def assert_compiled_same(network, *, tolerance=1e-10, context=None, fullgraph=False, **options) -> None:
    """Results of the network as compiled and as stored by eager autograd; two steps, the second without compiling."""
    stored = set_backprop(copy.deepcopy(network), "store")
    compiled = torch.compile(network, fullgraph=fullgraph and compiles_chains(), **options)
    for seed in (1, 2):
        found = []
        for net in (stored, compiled):
            torch.manual_seed(7)
            net.zero_grad()
            step = train(net, example(seed=seed), **(context or {}))
            gradients = {k.removeprefix("_orig_mod."): p.grad for k, p in net.named_parameters()}
            found.append((step, gradients, dict(stored.named_buffers())))
        for a, b in zip(found[1], found[0], strict=True):
            assert_close(a, b, tolerance)


def test_whole_network_in_one_graph():
    torch.manual_seed(0)
    shared = smooth()
    layers = AdditiveCoupling(shared, smooth()), OrthogonalCoupling(4, shared)
    network = Both(InvertibleSequential(*layers)).double()
    assert_compiled_same(network, backend="aot_eager", fullgraph=True)


def test_whole_network_with_inductor():
    assert_compiled_same(coupling_chain(1, smooth), backend="inductor", fullgraph=True)


def test_context_gets_its_gradient():
    network = Both(coupling_chain(2, Conditioned)).double()
    context = {"time": example(2, 1, 1), "unused": torch.arange(3)}
    assert_compiled_same(network, context=context, backend="aot_eager", fullgraph=True)


def test_frozen_and_tied_parameters():
    def branch():
        layers = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Tanh(), nn.Conv1d(2, 2, 3, padding=1))
        layers[2].weight = layers[0].weight
        return layers

    chain = coupling_chain(2, branch)
    chain[0].requires_grad_(False)
    assert_compiled_same(chain, backend="aot_eager", fullgraph=True)


def test_a_layer_twice_in_a_branch():
    conv = nn.Conv1d(2, 2, 3, padding=1)
    chain = coupling_chain(2, lambda: nn.Sequential(conv, nn.Tanh(), conv))
    before = list(chain.parameters())
    assert_compiled_same(chain, backend="aot_eager", fullgraph=True)
    assert all(a is b for a, b in zip(chain.parameters(), before, strict=True))


def test_autocast():
    chain = coupling_chain(2, smooth, dtype=torch.float32)
    found = []
    for net in (
        set_backprop(copy.deepcopy(chain), "store"),
        torch.compile(chain, backend="aot_eager", fullgraph=compiles_chains()),
    ):
        x = example(dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = net(x)
        y.square().sum().backward()
        found.append({"y": y.detach(), "x": x.grad} | {str(i): p.grad for i, p in enumerate(net.parameters())})
    assert_close(found[1], found[0], 2e-2)


@in_one_graph
def test_autocast_inside_of_the_graph():
    """The backward, too, evaluates the branches in the lower precision."""

    class Network(nn.Module):
        def __init__(self, chain):
            super().__init__()
            self.chain = chain

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.chain(x)

    found: list[torch.dtype] = []

    def look(graph, inputs):
        nodes = [n for n in graph.graph.nodes if n.target is torch.ops.aten.tanh.default]
        found.extend(n.meta["val"].dtype for n in nodes)
        return make_boxed_func(graph.forward)

    network = Network(coupling_chain(1, smooth, dtype=torch.float32))
    compiled = torch.compile(network, backend=aot_autograd(fw_compiler=look, bw_compiler=look), fullgraph=True)
    compiled(example(dtype=torch.float32).requires_grad_()).sum().backward()
    assert len(found) > 2 and set(found) == {torch.bfloat16}  # more than the forward's two


@in_one_graph
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("dynamic", [None, True], ids=["automatic", "dynamic"])
def test_one_graph_for_all_batch_sizes(backend, dynamic):
    """Automatically, the second size compiles once more, with a symbol in its place; that graph is for all others."""
    torch.manual_seed(0)
    network = Both(coupling_chain(1, smooth)).double()
    stored = set_backprop(copy.deepcopy(network), "store")
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(network, backend=counter, fullgraph=True, dynamic=dynamic)
    for batch in (5, 3, 7, 2):  # not 4 and 8, the other sizes: the compiler takes equal sizes for the same symbol
        found = []
        for net in (stored, compiled):
            net.zero_grad()
            step = train(net, example(batch, 4, 8, seed=batch))
            found.append(step | {k.removeprefix("_orig_mod."): p.grad for k, p in net.named_parameters()})
        assert_close(found[1], found[0])
    assert counter.frame_count == (1 if dynamic else 2)
    assert not torch._dynamo.utils.counters["graph_break"]


@in_one_graph
def test_numbers_of_the_context_may_vary():
    class Scaled(Conditioned):
        def forward(self, x, time, times, name):
            return super().forward(x, time) * times + (name == "other")

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.chain = coupling_chain(1, Scaled)

        def forward(self, x, time, times, name):
            return self.chain(x, time=time, times=times, name=name)

    network = Network()
    stored = set_backprop(copy.deepcopy(network), "store")
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    for times, name in ((1, "a"), (2, "a"), (3, "other")):
        found = []
        for net in (stored, compiled):
            x, time = example().requires_grad_(), example(2, 1, 1).requires_grad_()
            loss(net(x, time, times, name)).backward()
            found.append({"x": x.grad, "time": time.grad})
        assert_close(found[1], found[0])


class Replacing(nn.Module):
    """Replaces a buffer, in training or not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = smooth()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls = self.calls + 1
        return self.conv(x) * self.calls


class Counting(nn.Module):
    """Sets an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = smooth()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.conv(x) * self.calls


def hooked():
    branch = smooth()
    branch.register_forward_hook(lambda module, inputs, output: 2 * output)
    return branch


def breaks() -> int:
    return sum(torch._dynamo.utils.counters["graph_break"].values())


@pytest.mark.parametrize("branch", [Replacing, Counting, hooked], ids=lambda b: b.__name__)
def test_what_leaves_a_trace_falls_back_to_the_eager_engine(branch):
    chain = coupling_chain(1, branch).eval()
    assert_compiled_same(chain, backend="aot_eager")
    assert breaks()
    assert all(m.calls == 2 for m in chain.modules() if isinstance(m, Counting))


@in_one_graph
@pytest.mark.parametrize("branch", [dropout, batch_norm], ids=lambda b: b.__name__)
@pytest.mark.parametrize("dynamic", [None, True], ids=["automatic", "dynamic"])
def test_flags_of_a_branch_decide_anew(branch, dynamic):
    """In one graph while one layer of a branch evaluates; in the eager engine while it trains; and back again."""
    chain = coupling_chain(1, branch).eval()
    stored = set_backprop(copy.deepcopy(chain), "store")
    compiled = torch.compile(chain, backend="aot_eager", dynamic=dynamic)
    for batch, training, broken in ((5, False, False), (3, True, True), (7, False, True), (6, True, True)):
        found = []
        for net, modules in ((stored, stored), (compiled, chain)):
            modules[0].g[1].train(training)
            torch.manual_seed(7)
            net.zero_grad()
            step = train(net, example(batch, 4, 8))
            state = {k: b.clone() for k, b in modules.named_buffers()}
            found.append(step | state | {k: p.grad for k, p in modules.named_parameters()})
        assert_close(found[1], found[0])
        assert bool(breaks()) == broken  # so far


@in_one_graph
def test_one_activation_is_saved_at_any_depth():
    for depth in (1, 3):
        y = torch.compile(coupling_chain(depth, smooth), backend="aot_eager", fullgraph=True)(example(5, 4, 64))
        saved = [t for t in y.grad_fn.saved_tensors if t.shape[0] == 5]
        assert sum(t.numel() for t in saved) == y.numel()


def test_nested_context():
    class Nested(Conditioned):
        def forward(self, x, extra):
            return super().forward(x, extra["times"][0])

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.chain = coupling_chain(1, Nested)

        def forward(self, x, time):
            return self.chain(x, extra={"times": [torch.tanh(time)]})

    torch.manual_seed(0)
    assert_compiled_same(Network(), context={"time": example(2, 1, 1)}, backend="aot_eager")


@pytest.mark.parametrize("branch", [dropout, batch_norm], ids=lambda b: b.__name__)
def test_random_branches_and_batch_statistics_fall_back_to_the_eager_engine(branch):
    network = Both(coupling_chain(2, branch)).double()
    assert_compiled_same(network, backend="aot_eager")
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(network, backend="aot_eager", fullgraph=True)(example())


def test_chain_in_a_branch_falls_back_to_the_eager_engine():
    chain = coupling_chain(2, lambda: coupling_chain(1, lambda: nn.Conv1d(1, 1, 1)))
    assert_compiled_same(chain, backend="aot_eager")


@pytest.mark.parametrize("mode", ["checkpoint", "store"])
def test_other_modes(mode):
    assert_compiled_same(set_backprop(coupling_chain(2, smooth), mode), backend="aot_eager", fullgraph=True)


def test_no_grad():
    chain = coupling_chain(2, smooth)
    with torch.no_grad():
        found = torch.compile(chain, backend="aot_eager", fullgraph=True)(example())
        torch.testing.assert_close(found, chain(example()))


@torch._dynamo.config.patch(fail_on_recompile_limit_hit=True)  # as compiling the engine's hooks would
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_branches_in_the_eager_engine(backend):
    """Other sizes and layouts compile anew; the recomputation must find the same kernels."""
    chain = coupling_chain(2, smooth)
    for layer in chain:
        layer.f.compile(backend=backend)
        layer.g = torch.compile(layer.g, backend=backend)
    stored = set_backprop(coupling_chain(2, smooth), "store")
    for x in (example(), example(3, 4, 6), example(2, 6, 4).transpose(1, 2), example(3, 4, 8)[..., ::2]):
        results = []
        for net in (chain, stored):
            net.zero_grad()
            results.append(train(net, x) | {str(i): p.grad for i, p in enumerate(net.parameters())})
        assert_close(results[0], results[1])
