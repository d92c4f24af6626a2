"""The gradient of one training step with a balance loss per layer, without this library: torch and
the formulas of the papers, on what reaches the gates of a model whose layers have `mlp.gate`.
"""

import torch
from torch.nn.functional import cross_entropy


def switch(logits, chosen):
    """Switch Transformer, eq. 4: E Σ_e f_e P_e, f the shares of the choices, P mean probability."""
    experts = logits.shape[1]
    share = torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel()
    return experts * (share * logits.softmax(-1).mean(0)).sum()


def gini(logits, chosen):
    """Of the shares Σ_ij |f_i − f_j| / 2E; its gradient is given to the mean probabilities."""
    experts = logits.shape[1]
    share = torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel()
    ahead = torch.sign(share[:, None] - share[None, :]).sum(1)
    value = float((share[:, None] - share[None, :]).abs().sum()) / (2 * experts)
    mean = logits.softmax(-1).mean(0)
    return ((ahead / experts - value) * mean).sum()  # ∂G/∂f at Σf = 1, applied to P


def of_step(model, ids, coefficient, loss):
    """By name, the gradients of the language loss over ids [sequences, tokens] plus coefficient ×
    the mean over layers of a loss.
    """
    seen = []

    def keep(gate, given):
        seen.append(given[0].reshape(-1, given[0].shape[-1]) @ gate.weight.T)

    gates = [part for name, part in model.named_modules() if name.endswith("mlp.gate")]
    hooks = [gate.register_forward_pre_hook(keep) for gate in gates]
    logits = model(input_ids=ids, use_cache=False).logits
    language = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    k = model.config.num_experts_per_tok
    terms = [loss(own, own.topk(k).indices) for own in seen]
    (language + coefficient * sum(terms) / len(terms)).backward()
    for hook in hooks:
        hook.remove()
    return {name: part.grad for name, part in model.named_parameters()}
