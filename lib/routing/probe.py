"""Find the mixture-of-experts layers of any model by watching one forward pass of a few tokens.

No family is known by name.  A layer is a call ``experts(hidden [tokens, hidden], index [tokens, k],
weights [tokens, k])`` on a module that holds one weight slab per expert: known by what is passed,
not by how the arguments are called.  Where a model has no such call, it is a look-up of [tokens, k]
rows in a table of experts, or the ``topk`` over the experts that the block itself computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lib.routing.rule import Rule, Sample, Vector, calibrate, groupings

SHAPE = (2, 19)  # of the probe: sequences × tokens, each token id twice, in different surroundings
EXTRA = 8  # a router may also score this many experts that hold no weights (null or shared experts)


@dataclass(frozen=True)
class Tap:
    """A tensor inside a forward pass: the n-th result [tokens, width] of function `call` while
    `module` runs.
    """

    module: nn.Module
    call: str
    nth: int
    width: int


@dataclass(frozen=True)
class Layer:
    """One MoE layer.

    name, module: where its assignment passes; places: of hidden, index and weights among that
    call's arguments (number or keyword; index alone for a look-up, none for a top-k, which `tap`
    then points to). num_experts, k: routed experts, and slots a token. tap, rule: the router's
    logits and its scoring rule, or None with the reason in `why`.
    """

    name: str
    module: nn.Module
    places: tuple[int | str, ...]
    num_experts: int
    k: int
    tap: Tap | None
    rule: Rule | None
    why: str = ""
    scored = property(
        lambda self: self.tap is not None and self.tap.call != "topk",
        doc="Whether its logits are seen.",
    )


class Watch(TorchFunctionMode):
    """While it is entered, hands every result of a tensor function to `see(name, inputs, result)`."""

    def __init__(self, see: Callable[[str, tuple, object], object]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.see(getattr(func, "__name__", ""), args, result)
        return result


def experts_of(module: nn.Module) -> int:
    """Number of experts that `module` itself holds, by its stacked weights [experts, …, …]; 0 if it
    has none.
    """
    if isinstance(module, nn.modules.conv._ConvNd):
        return 0
    return max((p.shape[0] for p in module.parameters(recurse=False) if p.dim() >= 3), default=0)


def holders(model: nn.Module) -> dict[str, int]:
    """Number of experts by name of each module that holds any: stacked weights, or a list of
    modules.

    Only numbers count that stand in a field of the configuration that is named for experts, if
    there is such a field.
    """
    declared = set(_declared(model.config.to_dict()))
    found = {}
    for name, module in model.named_modules():
        size = (
            len(module)
            if isinstance(module, nn.ModuleList) and "expert" in name
            else experts_of(module)
        )
        slabs = {len(p) for p in module.parameters(recurse=False)} | {size}
        if size > 1 and (not declared or declared & slabs):
            found[name] = size
    return found


def _declared(fields: dict) -> Iterator[int]:
    """Whole numbers > 1 in fields named for experts, at any depth."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _declared(value)
        elif "expert" in str(name) and type(value) is int and value > 1:
            yield value


@dataclass
class _Seen:
    """One tensor of [tokens, width] that might be router logits."""

    module: str
    call: str
    nth: int
    value: Tensor


@dataclass
class _Found:
    """One place where an assignment passed, with what might be its logits."""

    name: str
    places: tuple
    experts: int
    index: Tensor
    weights: Tensor | None
    logits: list[_Seen] = field(default_factory=list)
    tap: Tap | None = None


class _Probe:
    """Watches one forward pass: which modules run, which calls carry an assignment, what may be
    logits.
    """

    def __init__(self, model: nn.Module, tokens: int) -> None:
        self.modules, self.tokens = dict(model.named_modules()), tokens
        self.stack: list[tuple[str, Counter]] = []
        self.ran: set[str] = set()
        self.recent: list[_Seen] = []
        self.calls, self.lookups, self.topks = [], [], []  # of _Found
        self.holders, self.declared = holders(model), set(_declared(model.config.to_dict()))
        sizes = {*self.holders.values(), max(self.declared, default=0)} - {0}
        self.widths = {size + extra for size in sizes for extra in range(EXTRA + 1)}

    def run(self, model: nn.Module, ids: Tensor) -> None:
        training = {module: module.training for module in model.modules()}
        devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
        with ExitStack() as stack, torch.random.fork_rng(devices=devices), torch.no_grad():
            for name, module in self.modules.items():
                stack.callback(
                    module.register_forward_pre_hook(self.enter(name), with_kwargs=True).remove
                )
                stack.callback(module.register_forward_hook(self.leave, always_call=True).remove)
            try:
                model.eval()
                with Watch(self.see):
                    model(input_ids=ids, use_cache=False)
            finally:
                for module, flag in training.items():
                    module.training = flag

    def enter(self, name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            self.assignment(name, module, [*enumerate(args), *kwargs.items()])
            self.stack.append((name, Counter()))
            self.ran.add(name)

        return hook

    def leave(self, *_: object) -> None:
        self.stack.pop()

    def assignment(self, name: str, module: nn.Module, arguments: list) -> None:
        """Keep the call if its arguments are (hidden, index, weights), or a look-up of [tokens, k]
        rows.
        """
        for (a, hidden), (b, index), (c, weights) in zip(
            arguments, arguments[1:], arguments[2:], strict=False
        ):
            fits = self.rows(hidden, float) and self.rows(index, int) and self.rows(weights, float)
            experts = self.size(module) if fits and index.shape == weights.shape else 0
            if experts > 1:
                index, weights = (part.reshape(self.tokens, -1) for part in (index, weights))
                self.calls.append(_Found(name, (a, b, c), experts, index, weights, self.recent))
                self.recent = []
                return
        if isinstance(module, nn.Embedding) and arguments and self.rows(arguments[0][1], int):
            place, index = arguments[0]
            self.lookups.append(
                _Found(name, (place,), module.num_embeddings, index.reshape(self.tokens, -1), None)
            )

    def size(self, module: nn.Module) -> int:
        """Number of experts that `module` computes, their weights stacked or flat in one matrix
        [experts · rows, …].
        """
        rows = [p.shape[0] for p in module.parameters() if p.dim() > 1]
        flat = [n for n in self.declared if rows and all(row % n == 0 for row in rows)]
        return experts_of(module) or max(flat, default=0)

    def rows(self, value: object, kind: type) -> bool:
        """Whether `value` is a tensor of `kind` with one row per token."""
        if (
            not isinstance(value, Tensor)
            or value.dim() < 2
            or value.is_floating_point() != (kind is float)
        ):
            return False
        return value.dtype != torch.bool and value.numel() == self.tokens * value.shape[-1]

    def see(self, call: str, inputs: tuple, result: object) -> None:
        """Keep what has the shape of router logits, and every top-k over something of that shape."""
        if not self.stack:
            return
        value = inputs[0] if call == "topk" else result
        if not isinstance(value, Tensor) or value.dim() < 2 or value.shape[-1] not in self.widths:
            return
        for _, counter in self.stack:
            counter[call, value.shape[-1]] += 1
        if not self.rows(value, float):
            return
        name, counter = self.stack[-1]
        nth = counter[call, value.shape[-1]]
        if call == "topk":
            tap = Tap(self.modules[name], call, nth, value.shape[-1])
            self.topks.append(
                _Found(
                    name,
                    (),
                    value.shape[-1],
                    result.indices.reshape(self.tokens, -1),
                    None,
                    tap=tap,
                )
            )
        else:
            self.recent.append(_Seen(name, call, nth, value.reshape(self.tokens, -1).clone()))

    def found(self) -> list[_Found]:
        """The layers: experts calls; without any, one look-up per block; without these, top-k over
        the experts.
        """
        if self.calls:
            return self.calls
        blocks = {found.name.rpartition(".")[0]: found for found in reversed(self.lookups)}
        if blocks:
            return [found for found in self.lookups if found in blocks.values()]
        return [found for found in self.topks if self._block(found)]

    def _block(self, found: _Found) -> bool:
        """Whether the module around a top-k ran as one call and holds experts (then they are not
        attention heads).
        """
        block = found.name.rpartition(".")[0]
        inner = [size for name, size in self.holders.items() if name.startswith(f"{block}.")]
        return block in self.ran and found.experts in inner


def layers(model: nn.Module) -> list[Layer]:
    """The MoE layers of `model` in order of depth, from one forward pass of 38 tokens.

    Refused, in one line: a dense model; experts whose calls are bypassed (as by quantised kernels);
    expert numbers that are local to a device; a number of layers other than the configuration's.
    """
    who = f"adapter.layers: {type(model).__name__}:"
    config = getattr(model, "config", None)
    if config is None:
        raise ValueError(f"{who} has no mixture-of-experts layer")
    text = config.get_text_config()
    ids = _ids(text.vocab_size).to(device_of(model))
    probe = _Probe(model, ids.numel())
    probe.run(model, ids)
    found, expected = probe.found(), sparse_layers(text)
    if not found and not probe.holders:
        raise ValueError(f"{who} has no mixture-of-experts layer")
    if len(found) != expected:
        raise ValueError(
            f"{who} {len(found)} layers seen to pass (hidden, index, weights) to experts: must be {expected}, as its "
            "configuration says (quantised or fused kernels bypass the call: load without them)"
        )
    for one in found:
        if int(one.index.max()) >= one.experts:
            raise ValueError(
                f"{who} {one.name}: expert {int(one.index.max())}: must be below {one.experts}, global"
            )
    return [_layer(probe, one, text, ids.reshape(-1)) for one in found]


def device_of(model: nn.Module) -> torch.device:
    """Where `model` takes its input: the device of its first parameter that is not offloaded."""
    return next(
        (p.device for p in model.parameters() if p.device.type != "meta"), torch.device("cpu")
    )


def _ids(vocabulary: int) -> Tensor:
    """[2, 19] token ids from the middle of the vocabulary, each twice (special tokens stand at the
    ends).
    """
    generator = torch.Generator().manual_seed(0)
    first = vocabulary // 4 + torch.randint(max(1, vocabulary // 2), SHAPE[1:], generator=generator)
    return torch.stack([first, first[torch.randperm(SHAPE[1], generator=generator)]])


def _layer(probe: _Probe, found: _Found, config: object, ids: Tensor) -> Layer:
    """`found` with its logits and rule: the first tensor from which a rule gives the assignment
    seen.
    """
    tap, rule, why = found.tap, None, "its weights are no argument of its experts"
    if found.weights is not None:
        why = "no router logits seen before its experts"
        for seen in found.logits:
            width = seen.value.shape[1]
            if width < found.experts:
                continue
            vectors = _vectors(probe.modules, found.name.rpartition(".")[0], {found.experts, width})
            parts = (part.cpu() for part in (seen.value, found.index, found.weights, ids))
            rule, why = calibrate(
                Sample(*parts, found.experts, vectors, groupings(config, found.experts))
            )
            if rule is not None or (tap is None and width == found.experts):
                tap = Tap(probe.modules[seen.module], seen.call, seen.nth, width)
            if rule is not None:
                break
    module = probe.modules[found.name]
    return Layer(
        found.name, module, found.places, found.experts, found.index.shape[1], tap, rule, why
    )


def _vectors(modules: dict[str, nn.Module], block: str, sizes: set[int]) -> tuple[Vector, ...]:
    """All float vectors of one number per expert in `block`, buffers first."""
    found = []
    for name, module in modules.items():
        if name == block or name.startswith(f"{block}."):
            own = [*module.named_buffers(recurse=False), *module.named_parameters(recurse=False)]
            found += [
                Vector(module, key)
                for key, v in own
                if v.numel() in sizes and v.is_floating_point()
            ]
    return tuple(sorted(found, key=lambda vector: vector.learned))


def sparse_layers(config: object) -> int:
    """How many MoE layers a configuration asks for: all its layers, less those that one of its
    fields makes dense.

    The fields are those that transformers uses for it, whatever the family: a list of kinds per
    layer, a list of layer numbers, a number of dense layers at the start, a period with an offset,
    a first and a last layer.
    """
    get = lambda name, default=None: getattr(config, name, default)
    kinds = get("mlp_layer_types")
    if kinds is not None:
        return sum(kind != "dense" for kind in kinds)
    kinds = get("layers_block_type") or ()
    if any("moe" in kind for kind in kinds):
        return sum("moe" in kind for kind in kinds)
    depth = min(
        get("num_hidden_layers"), get("num_layers") or get("num_hidden_layers")
    )  # blocks of two sub-layers
    dense = max(get("first_k_dense_replace") or 0, get("num_dense_layers") or 0)
    last = get("moe_layer_end_index")
    chosen = [
        i
        for i in range(max(dense, get("moe_layer_start_index") or 0), depth)
        if i not in (get("mlp_only_layers") or ())
        and (get("moe_layers") is None or i in get("moe_layers"))
        and (i + 1) % (get("decoder_sparse_step") or 1) == 0
        and (i + 1) % (get("moe_layer_interval") or 1) == 0
        and i % (get("expert_layer_period") or 1) == (get("expert_layer_offset") or 0)
        and (last is None or last < 0 or i <= last)
    ]
    return len(chosen)
