"""The last linear layer and the body before it: found, frozen, started anew, scaled by class, normalised."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.declared import InputError


def linear_head(model: nn.Module, head: nn.Linear | str) -> nn.Linear:
    """The head, given as a part of the model or by its name (``"fc"``, ``"decoder.out"``).

    Raises:
        InputError: it is no linear layer, no part of the model, or shares its parameters with another part.
    """
    if isinstance(head, str):
        parts = dict(model.named_modules())
        if head not in parts:
            linear = [name for name, part in parts.items() if isinstance(part, nn.Linear)]
            raise InputError(
                f"expected the name of a part of the model, got {head!r}; its linear layers are {', '.join(linear)}"
            )
        head = parts[head]
    head = check_linear(head)
    if all(part is not head for part in model.modules()):
        raise InputError("expected a head that is a part of the model, got another module; give model.fc or its name")
    own = {id(parameter) for parameter in head.parameters()}
    tied = [name for name, part in model.named_modules() if part is not head and own & _ids(part._parameters.values())]
    if tied:
        raise InputError(
            f"expected a head with parameters of its own, but it shares them with {tied[0]!r}, which would change with "
            "it; untie them first"
        )
    return head


def check_linear(head: Any) -> nn.Linear:
    """The head itself; InputError unless it is a :class:`torch.nn.Linear`."""
    if not isinstance(head, nn.Linear):
        raise InputError(
            f"expected the head to be a torch.nn.Linear, got {type(head).__name__}; give the layer of the logits"
        )
    return head


def start_anew(head: nn.Linear, seed: int) -> None:
    """Initialise the head as a new layer is; torch's own generators stay as they were.

    The numbers are drawn on the CPU, so that they do not depend on the device.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        fresh = nn.Linear(head.in_features, head.out_features, head.bias is not None)
        head.weight.copy_(fresh.weight)
        if head.bias is not None:
            head.bias.copy_(fresh.bias)


def train_only(model: nn.Module, trained: Iterable[nn.Parameter]) -> None:
    """Freeze all parameters but `trained`. Gradients of frozen ones go, else weight decay would still move them."""
    kept = _ids(trained)
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in kept)
        if id(parameter) not in kept:
            parameter.grad = None


def keep_in_evaluation(model: nn.Module, head: nn.Module) -> None:
    """Hold everything but the head in evaluation mode, whatever ``model.train()`` says: features stay the same.

    Every part sets itself back before its own call, so that it does not matter through which door it is entered.
    """
    outside = [part for part in model.modules() if all(inner is not head for inner in part.modules())]
    for part in outside:
        if _to_evaluation not in part._forward_pre_hooks.values():
            part.register_forward_pre_hook(_to_evaluation)


def release(model: nn.Module) -> None:
    """Take back what :func:`keep_in_evaluation` did: parts obey ``model.train()`` again."""
    for part in model.modules():
        _remove(part._forward_pre_hooks, _to_evaluation)


def add_scale(head: nn.Linear) -> nn.Parameter:
    """Give the head a ``scale``, (K,) ones, that multiplies its output, bias included; or the one it has."""
    scale = getattr(head, "scale", None)
    if scale is None:
        scale = nn.Parameter(head.weight.new_ones(head.out_features), requires_grad=False)
        head.register_parameter("scale", scale)
        head.register_forward_hook(_scaled)
    if not isinstance(scale, nn.Parameter) or scale.shape != (head.out_features,):
        raise InputError("expected a head without an attribute `scale` of its own; rename that attribute")
    return scale


@torch.no_grad()
def fold_scale(head: nn.Linear) -> None:
    """Multiply the scale into weight and bias and take it away: a plain layer with the same outputs up to rounding."""
    scale = head.get_parameter("scale")
    head.weight.mul_(scale[:, None])
    if head.bias is not None:
        head.bias.mul_(scale)
    del head._parameters["scale"]
    _remove(head._forward_hooks, _scaled)


def tau_normalise(head: nn.Linear, tau: float, *, bias: bool = False, keep_scale: bool = False) -> nn.Linear:
    """A new head whose rows are divided by a power of their length: ``W_k / |W_k|^tau``.

    Rows of rare classes are shorter after plain training (most clearly with SGD and weight decay; with Adam the lengths
    may say little about the counts). tau = 0 leaves them, 1 makes all equal; it is chosen on held-out rows.

    Args:
        head: the trained layer; it is not changed. A row of zeros stays.
        tau: usually in [0, 1].
        bias: keep the bias; the authors have none.
        keep_scale: multiply by one number so that the mean length stays, which keeps the softmax from going flat or
            sharp. Without a bias, decisions are the same.

    Raises:
        InputError: not a linear layer, or a tau that is not finite.

    Source: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, 2020,
        https://arxiv.org/abs/1910.09217, section 4.

    Example:
        >>> head = nn.Linear(2, 2)
        >>> head.weight.data = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> tau_normalise(head, 0.5).weight.tolist()  # the first row has length 5
        [[1.3416407108306885, 1.7888543605804443], [0.0, 1.0]]
    """
    check_linear(head)
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not abs(tau) < float("inf"):
        raise InputError(
            f"expected tau to be a finite number, got {tau!r}; 0 leaves the rows, 1 makes them equally long"
        )
    weight = head.weight.detach()
    length = weight.norm(dim=1, keepdim=True)
    normalised = weight / torch.where(length > 0, length, 1.0) ** tau
    if keep_scale and bool(length.any()):
        normalised = normalised * (length.mean() / normalised.norm(dim=1).mean())
    kept = head.bias if bias else None
    new = nn.Linear(head.in_features, head.out_features, kept is not None, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        new.weight.copy_(normalised)
        if kept is not None:
            new.bias.copy_(kept)
    return new


def _remove(hooks: dict[int, Callable[..., Any]], which: Callable[..., Any]) -> None:
    for number in [number for number, hook in hooks.items() if hook is which]:
        del hooks[number]


def _to_evaluation(part: nn.Module, _inputs: Any) -> None:
    part.training = False


def _scaled(head: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output * head.get_parameter("scale")


def _ids(parameters: Iterable[nn.Parameter | None]) -> set[int]:
    return {id(parameter) for parameter in parameters if parameter is not None}
