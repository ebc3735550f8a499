"""The small reader: the blocks of GlmOcrForConditionalGeneration, written for batches of pictures of one size.

    picture -> patches in merge-block order -> Vision -> one token a 2 x 2 block -> decoder -> next byte
                                                     \\-> columns -> CTC (a training aid, not exported)

Shapes: B batch, H x W grid of patches, P = H * W, I = P / merge^2 image tokens, T tokens of text.
Parameter names and their order are those of the checkpoints: an optimizer's state depends on both.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class VisionConfig:
    depth: int = 5
    hidden_size: int = 192
    intermediate_size: int = 512
    num_heads: int = 3
    patch_size: int = 8
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    in_channels: int = 3
    out_hidden_size: int = 192
    rms_norm_eps: float = 1e-5


@dataclass
class TextConfig:
    vocab_size: int = 320
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 3
    num_key_value_heads: int = 1
    head_dim: int = 64
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    mrope_section: tuple = (8, 12, 12)


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.eps)


class GatedMlp(nn.Module):
    def __init__(self, size, inner, bias):
        super().__init__()
        self.gate_up = nn.Linear(size, 2 * inner, bias=bias)
        self.down = nn.Linear(inner, size, bias=bias)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def turn(a, b, angles):
    cos, sin = angles
    return a * cos - b * sin, b * cos + a * sin


def turn_halves(x, angles):
    """Vision: pairs (d, d + D/2)."""
    return torch.cat(turn(*x.chunk(2, dim=-1), angles), dim=-1)


def turn_neighbours(x, angles):
    """Text: pairs (2d, 2d + 1)."""
    return torch.stack(turn(x[..., 0::2], x[..., 1::2], angles), dim=-1).flatten(-2)


def frequencies(count, theta, device):
    return theta ** (-torch.arange(count, device=device).float() / count)


class VisionBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        size, self.heads, eps = c.hidden_size, c.num_heads, c.rms_norm_eps
        self.norm1, self.norm2 = RMSNorm(size, eps), RMSNorm(size, eps)
        self.qkv = nn.Linear(size, 3 * size)
        self.proj = nn.Linear(size, size)
        self.q_norm, self.k_norm = RMSNorm(size // self.heads, eps), RMSNorm(size // self.heads, eps)
        self.mlp = GatedMlp(size, c.intermediate_size, True)

    def forward(self, x, angles):
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = turn_halves(self.q_norm(q), angles).to(v.dtype), turn_halves(self.k_norm(k), angles).to(v.dtype)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Vision(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, size, out = c, c.hidden_size, c.out_hidden_size
        # A still repeats its frame in time: the two temporal kernels are trained as their sum.
        self.patch = nn.Linear(c.in_channels * c.patch_size ** 2, size)
        self.blocks = nn.ModuleList(VisionBlock(c) for _ in range(c.depth))
        self.post_layernorm = RMSNorm(size, c.rms_norm_eps)
        self.downsample = nn.Linear(size * c.spatial_merge_size ** 2, out)
        self.merger_proj = nn.Linear(out, out, bias=False)
        self.merger_norm = nn.LayerNorm(out, eps=1e-5)
        self.merger_mlp = GatedMlp(out, out * c.in_channels, False)

    def angles(self, rows, columns, device):
        """cos and sin [P, D/2]: rows turn the first half of the pairs, columns the second."""
        count, merge = self.c.hidden_size // self.c.num_heads // 4, self.c.spatial_merge_size
        f = frequencies(count, 10000.0, device)
        at = torch.stack(torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device),
                                        indexing="ij"), dim=-1)
        at = at.view(rows // merge, merge, columns // merge, merge, 2).transpose(1, 2).reshape(-1, 2, 1)
        a = (at * f).flatten(1)
        return a.cos(), a.sin()

    def look(self, pixels, rows, columns):
        """[B, P, channels * patch^2] -> [B, P, hidden]."""
        x, angles = self.patch(pixels), self.angles(rows, columns, pixels.device)
        for block in self.blocks:
            x = block(x, angles)
        return self.post_layernorm(x)

    def merge(self, patches):
        """[B, P, hidden] -> [B, I, out]."""
        x = self.downsample(patches.unflatten(1, (-1, self.c.spatial_merge_size ** 2)).flatten(2))
        return self.merger_mlp(F.gelu(self.merger_norm(self.merger_proj(x))))


class TextBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.sizes = [n * c.head_dim for n in (c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads)]
        self.dim, size, eps = c.head_dim, c.hidden_size, c.rms_norm_eps
        self.qkv = nn.Linear(size, sum(self.sizes), bias=False)
        self.o = nn.Linear(self.sizes[0], size, bias=False)
        self.mlp = GatedMlp(size, c.intermediate_size, False)
        self.in_norm, self.attn_out_norm = RMSNorm(size, eps), RMSNorm(size, eps)
        self.mlp_in_norm, self.mlp_out_norm = RMSNorm(size, eps), RMSNorm(size, eps)

    def heads(self, x):
        return x.unflatten(-1, (-1, self.dim)).transpose(1, 2)

    def forward(self, x, angles, cache=None, watch=None):
        """cache: [keys, values] of the tokens before x, which grows. watch: row from which on the first head's
        attention is wanted; then returns (x, log probabilities [B, T - watch, T])."""
        q, k, v = map(self.heads, self.qkv(self.in_norm(x)).split(self.sizes, dim=-1))
        q, k = turn_neighbours(q, angles).to(v.dtype), turn_neighbours(k, angles).to(v.dtype)
        is_causal = True
        if cache is not None:
            if cache:
                k, v = torch.cat((cache[0], k), dim=2), torch.cat((cache[1], v), dim=2)
                is_causal = False  # one new token sees everything
            cache[:] = [k, v]
        a = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=q.shape[1] != k.shape[1])
        x = x + self.attn_out_norm(self.o(a.transpose(1, 2).flatten(2)))
        x = x + self.mlp_out_norm(self.mlp(self.mlp_in_norm(x)))
        if watch is None:
            return x
        scores = (q[:, 0, watch:] @ k[:, 0].transpose(1, 2)).float() / math.sqrt(self.dim)
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(watch + 1)
        return x, scores.masked_fill(later, -math.inf).log_softmax(-1)


@dataclass
class Outputs:
    hidden: torch.Tensor  # after the final norm, at the tokens after the picture [B, T, hidden]
    ahead: torch.Tensor   # of the extra layer [B, T - 1, hidden]: slot i stands for token i + 2
    watched: list         # attention of the watched layers, from the first token after the picture on


class Reader(nn.Module):
    """Vision tower, decoder, the extra layer that predicts a token further ahead, and the column head."""

    WATCHED = (2,)  # layers whose first head is taught where to look: where untaught readers come to do it

    def __init__(self, vision: VisionConfig, text: TextConfig):
        super().__init__()
        self.vc, self.tc, size, eps = vision, text, text.hidden_size, text.rms_norm_eps
        self.vision = Vision(vision)
        self.embed = nn.Embedding(text.vocab_size, size)
        self.layers = nn.ModuleList(TextBlock(text) for _ in range(text.num_hidden_layers))
        self.norm = RMSNorm(size, eps)
        self.head = nn.Linear(size, text.vocab_size, bias=False)
        self.mtp_enorm, self.mtp_hnorm = RMSNorm(size, eps), RMSNorm(size, eps)
        self.mtp_proj = nn.Linear(2 * size, size, bias=False)
        self.mtp_block = TextBlock(text)
        self.mtp_norm = RMSNorm(size, eps)
        self.ctc = nn.Linear(vision.hidden_size, 257)
        self.apply(self.start)

    @staticmethod
    def start(module):
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.7 / math.sqrt(module.in_features))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)

    def angles(self, positions):
        """positions [3, T] (time, row, column) -> cos, sin [T, head_dim / 2]; every section has its position."""
        device = positions.device
        f = frequencies(self.tc.head_dim // 2, self.tc.rope_theta, device)
        owner = torch.arange(3, device=device).repeat_interleave(torch.tensor(self.tc.mrope_section, device=device))
        a = positions.float()[owner].T * f
        return a.cos(), a.sin()

    @staticmethod
    def positions(before, rows, columns, after, device):
        """[3, before + rows * columns + after]: text, a picture of rows x columns tokens, text."""
        text = torch.arange(max(before, after), device=device).expand(3, -1)
        row = torch.arange(rows, device=device).repeat_interleave(columns)
        column = torch.arange(columns, device=device).repeat(rows)
        picture = torch.stack((torch.zeros_like(row), row, column)) + before
        return torch.cat((text[:, :before], picture, text[:, :after] + before + max(rows, columns)), dim=1)

    def forward(self, image, rows, columns, before, after, watch=False):
        """image [B, I, hidden] of rows x columns tokens, between the ids `before` and `after` [B, T]."""
        positions = self.positions(before.shape[1], rows, columns, after.shape[1], image.device)
        cos, sin = self.angles(positions)
        text = self.embed(after)
        inputs = x = torch.cat((self.embed(before), image.to(text.dtype), text), dim=1)
        first, watched = x.shape[1] - after.shape[1], []
        for i, layer in enumerate(self.layers):
            if watch and i in self.WATCHED:
                x, seen = layer(x, (cos, sin), watch=first)
                watched.append(seen)
            else:
                x = layer(x, (cos, sin))
        hidden = self.norm(x)
        joined = torch.cat((self.mtp_enorm(inputs[:, 1:]), self.mtp_hnorm(hidden[:, :-1])), dim=-1)
        ahead = self.mtp_norm(self.mtp_block(self.mtp_proj(joined), (cos[:-1], sin[:-1])))
        return Outputs(hidden[:, first:], ahead[:, first:], watched)

    def columns(self, patches, rows, columns):
        """Logits [B, columns, 256 bytes and blank] from the patches above one another."""
        merge = self.vc.spatial_merge_size
        x = patches.unflatten(1, (rows // merge, columns // merge, merge, merge)).transpose(2, 3)
        return self.ctc(x.reshape(patches.shape[0], rows, columns, -1).mean(1))

    def views(self):
        """Every exported parameter as (name in the checkpoint, view in the checkpoint's shape). The patch kernel
        appears as the sum of its two equal halves, [hidden, channels, 1, patch, patch]."""
        vc, tc, v = self.vc, self.tc, self.vision
        merge, patch = vc.spatial_merge_size, vc.patch_size

        def linear(name, module):
            yield name + ".weight", module.weight
            if module.bias is not None:
                yield name + ".bias", module.bias

        def halves(first, second, module):
            for kind in ("weight", "bias"):
                both = getattr(module, kind)
                if both is not None:
                    a, b = both.chunk(2)
                    yield f"{first}.{kind}", a
                    yield f"{second}.{kind}", b

        def text_block(name, block):
            for key, part in zip("qkv", block.qkv.weight.split(block.sizes)):
                yield f"{name}.self_attn.{key}_proj.weight", part
            yield name + ".self_attn.o_proj.weight", block.o.weight
            yield name + ".mlp.gate_up_proj.weight", block.mlp.gate_up.weight
            yield name + ".mlp.down_proj.weight", block.mlp.down.weight
            yield name + ".input_layernorm.weight", block.in_norm.weight
            yield name + ".post_self_attn_layernorm.weight", block.attn_out_norm.weight
            yield name + ".post_attention_layernorm.weight", block.mlp_in_norm.weight
            yield name + ".post_mlp_layernorm.weight", block.mlp_out_norm.weight

        root = "model.visual."
        yield root + "patch_embed.proj.weight", v.patch.weight.view(-1, vc.in_channels, 1, patch, patch)
        yield root + "patch_embed.proj.bias", v.patch.bias
        for i, block in enumerate(v.blocks):
            name = f"{root}blocks.{i}."
            yield name + "norm1.weight", block.norm1.weight
            yield name + "norm2.weight", block.norm2.weight
            yield name + "attn.q_norm.weight", block.q_norm.weight
            yield name + "attn.k_norm.weight", block.k_norm.weight
            yield from linear(name + "attn.qkv", block.qkv)
            yield from linear(name + "attn.proj", block.proj)
            yield from halves(name + "mlp.gate_proj", name + "mlp.up_proj", block.mlp.gate_up)
            yield from linear(name + "mlp.down_proj", block.mlp.down)
        yield root + "post_layernorm.weight", v.post_layernorm.weight
        down = v.downsample.weight.view(-1, merge, merge, vc.hidden_size)
        yield root + "downsample.weight", down.permute(0, 3, 1, 2)
        yield root + "downsample.bias", v.downsample.bias
        yield from linear(root + "merger.proj", v.merger_proj)
        yield from linear(root + "merger.post_projection_norm", v.merger_norm)
        yield from halves(root + "merger.gate_proj", root + "merger.up_proj", v.merger_mlp.gate_up)
        yield from linear(root + "merger.down_proj", v.merger_mlp.down)
        root = "model.language_model."
        yield root + "embed_tokens.weight", self.embed.weight
        for i, block in enumerate(self.layers):
            yield from text_block(f"{root}layers.{i}", block)
        yield root + "norm.weight", self.norm.weight
        yield "lm_head.weight", self.head.weight
        extra = f"{root}layers.{len(self.layers)}"
        yield from text_block(extra, self.mtp_block)
        yield extra + ".eh_proj.weight", self.mtp_proj.weight
        yield extra + ".enorm.weight", self.mtp_enorm.weight
        yield extra + ".hnorm.weight", self.mtp_hnorm.weight
        yield extra + ".shared_head.norm.weight", self.mtp_norm.weight
