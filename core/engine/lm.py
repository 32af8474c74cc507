"""Moshi's language model: seventeen token streams in, the next text token and the agent's eight codebooks out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS, Architecture
from core.engine.depformer import CodebookCache as CodebookCache
from core.engine.depformer import Depformer
from core.engine.linear import Linear, WeightFormat, empty_parameter
from core.engine.transformer import Attend, Norm, Transformer


class Embedding(nn.Module):
    """An embedding table around a given parameter: int64 tokens to vectors."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.weight)


class LanguageModel(nn.Module):
    """The weights and the arithmetic of the language model, without any state of a conversation.

    The embedding tables of all seventeen streams share one storage, so that summing a frame's embeddings is one gather.
    """

    def __init__(
        self, architecture: Architecture, device: torch.device, dtype: torch.dtype, int8: bool = False
    ) -> None:
        """With `int8` the layers' matrices have 8-bit weights; embeddings and output heads keep `dtype`."""
        super().__init__()
        self.architecture = architecture
        self.device, self.dtype = device, dtype
        weight_format = WeightFormat(device, dtype, int8)
        dim, depformer_dim = architecture.dim, architecture.depformer_dim
        text_vocab_size, audio_vocab_size = architecture.text_vocab_size, architecture.audio_vocab_size
        rows = [text_vocab_size + 1] + [audio_vocab_size + 1] * (STREAMS - 1)
        self.embeddings = torch.empty(sum(rows), dim, device=device, dtype=dtype)
        text, *audio = (nn.Parameter(part, requires_grad=False) for part in torch.split(self.embeddings, rows))
        self.text_emb = Embedding(text)
        self.emb = nn.ModuleList(Embedding(part) for part in audio)
        self.first_rows = torch.tensor([0, *rows[:-1]], device=device).cumsum(0)

        self.transformer = Transformer(architecture, weight_format)
        self.out_norm = Norm(dim, weight_format)
        self.text_linear = Linear(dim, text_vocab_size, weight_format)

        self.depformer_in = nn.ModuleList(Linear(dim, depformer_dim, weight_format) for _ in range(AGENT_CODEBOOKS))
        self.depformer_text_emb = Embedding(
            empty_parameter(text_vocab_size + 1, depformer_dim, device=device, dtype=dtype)
        )
        self.depformer_emb = nn.ModuleList(
            Embedding(empty_parameter(audio_vocab_size + 1, depformer_dim, device=device, dtype=dtype))
            for _ in range(AGENT_CODEBOOKS - 1)
        )
        self.depformer = Depformer(architecture, weight_format)
        self.linears = nn.ModuleList(
            Linear(depformer_dim, audio_vocab_size, weight_format) for _ in range(AGENT_CODEBOOKS)
        )

    def embed(self, tokens: Tensor) -> Tensor:
        """The sum of the streams' embeddings: int64[batch, time, 17] -> `[batch, time, dim]`."""
        return F.embedding(tokens + self.first_rows, self.embeddings).sum(dim=2)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """The transformer's normalized output for embedded positions: `[batch, time, dim]` in and out."""
        hidden: Tensor = self.out_norm(self.transformer(x, attend))
        return hidden

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Logits of the text token: `[batch, dim]` -> float32[batch, text_vocab_size]."""
        return float32_logits(self.text_linear, hidden, self.architecture.text_vocab_size)

    def codebook_logits(self, hidden: Tensor, codebook: int, previous: Tensor, cache: CodebookCache) -> Tensor:
        """Logits of one of the agent's codebooks, given the token before it in the frame.

        `hidden`: `[batch, dim]`; `previous`: int64[batch], the text token for codebook 0, else the codebook before;
        `cache` holds the frame's codebooks before this one. Returns float32[batch, audio_vocab_size].
        """
        embedding = self.depformer_text_emb if codebook == 0 else self.depformer_emb[codebook - 1]
        x = self.depformer(self.depformer_in[codebook](hidden, residual=embedding(previous)), codebook, cache)
        return float32_logits(self.linears[codebook], x, self.architecture.audio_vocab_size)


def float32_logits(linear: nn.Module, x: Tensor, vocab_size: int) -> Tensor:
    """Logits in float32, whatever the model's dtype: `[batch, dim]` -> float32[batch, vocab_size]."""
    logits: Tensor = linear(x, out=torch.empty(len(x), vocab_size, device=x.device))
    return logits
