"""Networks of PyTorch with the architecture of funcnn's models, and their training."""

import torch
import torch.nn.functional as F  # noqa: N812 - the name in PyTorch's documentation
from torch import nn


class Conv1D(nn.Module):
    """Hugging Face's linear layer for GPT-2, whose weight is ``(in_features, out_features)``."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.empty(out_features))

    def forward(self, x):
        return x @ self.weight + self.bias


class Attention(nn.Module):
    def __init__(self, features, heads, linear):
        super().__init__()
        self.heads, self.c_attn, self.c_proj = heads, linear(features, 3 * features), linear(features, features)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, features, linear):
        super().__init__()
        self.c_fc, self.c_proj = linear(features, 4 * features), linear(4 * features, features)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, features, heads, linear):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(features), Attention(features, heads, linear)
        self.ln_2, self.mlp = nn.LayerNorm(features), MLP(features, linear)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """GPT-2 with the names of Hugging Face; ``linear`` is ``Conv1D`` as there, or ``nn.Linear`` as in nanoGPT."""

    def __init__(self, vocabulary_size, context, features, heads, layers, linear=Conv1D):
        super().__init__()
        blocks = nn.ModuleList(Block(features, heads, linear) for _ in range(layers))
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocabulary_size, features), "wpe": nn.Embedding(context, features),
                "h": blocks, "ln_f": nn.LayerNorm(features),
            }
        )  # fmt: skip
        self.lm_head = nn.Linear(features, vocabulary_size, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, tokens):
        x = self.transformer["wte"](tokens) + self.transformer["wpe"](torch.arange(tokens.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


class Residual(nn.Module):
    """Two convolutions with batch normalization and a skip connection around them."""

    def __init__(self, before, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if before == width else nn.Conv2d(before, width, 1)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.max_pool2d(F.relu(y + self.shortcut(x)), 2)


class ResNet(nn.Module):
    """The network of ``fnn.cnn`` with two convolutions in a block, batch normalization and skips."""

    def __init__(self, in_channels, channels, outputs):
        super().__init__()
        widths = (in_channels, *channels)
        self.blocks = nn.Sequential(*(Residual(*pair) for pair in zip(widths, channels, strict=False)))
        self.head = nn.Linear(channels[-1], outputs)

    def forward(self, x):
        return self.head(self.blocks(x).mean(dim=(2, 3)))


class LSTM(nn.Module):
    """An embedding, layers of LSTM, and a linear layer at every step.

    PyTorch's second bias is a constant 0, so that the two networks have the same parameters.
    """

    def __init__(self, vocabulary_size, features, hidden, layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, features)
        self.lstm = nn.LSTM(features, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, vocabulary_size)
        for name, parameter in self.lstm.named_parameters():
            if "bias_hh" in name:
                nn.init.zeros_(parameter).requires_grad_(False)

    def forward(self, tokens):
        return self.head(self.lstm(self.embedding(tokens))[0])


def drawn(module, seed=0, scale=0.3):
    """Return the module in float64 with normal numbers in every parameter that is trained, its scales around 1."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, scale, generator=generator)
                parameter.add_(float(name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")) or "bn" in name))
    return module


def loss_of(module, x, y):
    logits = module(x)
    return F.cross_entropy(logits.flatten(0, -2), y.flatten())


def with_gradients(module, x, y):
    """Return the loss, and the ``state_dict`` with the gradients in the place of the parameters."""
    module.zero_grad()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    loss = loss_of(module, x, y)
    loss.backward()
    for name, buffer in module.named_buffers():  # Running statistics are those before the call again.
        buffer.copy_(before[name])
    gradients = {name: parameter.grad for name, parameter in module.named_parameters(remove_duplicate=False)}
    return loss.item(), {name: gradients.get(name, value) for name, value in module.state_dict().items()}


def train(module, optimizer, x, y, steps=10):
    """Return the losses before each step."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(module, x, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
