"""Moshi's language model: seventeen token streams in, the next text token and the agent's eight codebooks out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS, Architecture
from core.engine.depformer import CodebookCache as CodebookCache
from core.engine.depformer import Depformer
from core.engine.linear import Linear, WeightFormat, empty
from core.engine.transformer import Attend, Norm, Transformer


class Table(nn.Module):
    """An embedding table: int64 tokens to vectors."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.weight)


class LanguageModel(nn.Module):
    """The weights and the arithmetic, without any state of a conversation.

    All seventeen input tables share one storage, so that a frame's sum is one gather.
    """

    def __init__(
        self, architecture: Architecture, device: torch.device, dtype: torch.dtype, int8: bool = False
    ) -> None:
        """With `int8` the layers' matrices have 8-bit weights; tables and the matrices at both ends keep `dtype`."""
        super().__init__()
        self.architecture = architecture
        self.device, self.dtype = device, dtype
        held = WeightFormat(device, dtype, int8)
        dim, depformer_dim, card = architecture.dim, architecture.depformer_dim, architecture.card
        rows = [architecture.text_card + 1] + [card + 1] * (STREAMS - 1)
        self.input_tables = torch.empty(sum(rows), dim, device=device, dtype=dtype)
        text, *audio = (nn.Parameter(part, requires_grad=False) for part in torch.split(self.input_tables, rows))
        self.text_emb = Table(text)
        self.emb = nn.ModuleList(Table(part) for part in audio)
        self.first_rows = torch.tensor([0, *rows[:-1]], device=device).cumsum(0)

        self.transformer = Transformer(architecture, held)
        self.out_norm = Norm(dim, held)
        self.text_linear = Linear(dim, architecture.text_card, held)

        self.depformer_in = nn.ModuleList(Linear(dim, depformer_dim, held) for _ in range(AGENT_CODEBOOKS))
        self.depformer_text_emb = Table(empty(architecture.text_card + 1, depformer_dim, device=device, dtype=dtype))
        self.depformer_emb = nn.ModuleList(
            Table(empty(card + 1, depformer_dim, device=device, dtype=dtype)) for _ in range(AGENT_CODEBOOKS - 1)
        )
        self.depformer = Depformer(architecture, held)
        self.linears = nn.ModuleList(Linear(depformer_dim, card, held) for _ in range(AGENT_CODEBOOKS))

    def embed(self, tokens: Tensor) -> Tensor:
        """The sum of the streams' embeddings: int64[batch, time, 17] -> `[batch, time, dim]`."""
        return F.embedding(tokens + self.first_rows, self.input_tables).sum(dim=2)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """What the transformer makes of embedded positions: `[batch, time, dim]` in and out."""
        hidden: Tensor = self.out_norm(self.transformer(x, attend))
        return hidden

    def text_logits(self, hidden: Tensor) -> Tensor:
        """`[batch, dim]` -> float32[batch, text_card]."""
        return full_logits(self.text_linear, hidden, self.architecture.text_card)

    def codebook_logits(self, hidden: Tensor, codebook: int, previous: Tensor, frame: CodebookCache) -> Tensor:
        """Logits of one of the agent's codebooks, given the token before it in the frame.

        `hidden`: `[batch, dim]`; `previous`: int64[batch], the text token for codebook 0, else the codebook before;
        `frame` has seen the codebooks before this one. Returns float32[batch, card].
        """
        table = self.depformer_text_emb if codebook == 0 else self.depformer_emb[codebook - 1]
        x = self.depformer_in[codebook](hidden, residual=table(previous))
        return full_logits(self.linears[codebook], self.depformer(x, codebook, frame), self.architecture.card)


def full_logits(linear: nn.Module, x: Tensor, card: int) -> Tensor:
    """Logits in float32, whatever the dtype: `[batch, dim]` -> float32[batch, card]."""
    logits: Tensor = linear(x, out=torch.empty(len(x), card, device=x.device))
    return logits
