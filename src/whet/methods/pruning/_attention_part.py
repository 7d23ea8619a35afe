"""The self-attention of a block, with fewer heads or narrower ones, or none."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from whet.methods.pruning._parts import DROP, FeaturePart, PartConfig
from whet.models.attention import HeadWidths, KeptHead, SelfAttention, attention_with_heads
from whet.models.layers.constant import Constant
from whet.models.layers.first_token_attention import FirstTokenAttention
from whet.models.layers.passing import PassThrough
from whet.models.surgery import replace_module
from whet.numerics.low_rank import Spectrum

__all__ = ["AttentionPart"]

WIDTH_STEP = 8
"""Numbers of features of a head are multiples of this."""


@dataclass(frozen=True, eq=False)
class AttentionPart(FeaturePart):
    """The projections of one self-attention."""

    location: SelfAttention
    """Names of the layers."""
    scores: Sequence[Spectrum]
    """One per head, for the projections between query and key."""
    values: Sequence[Spectrum]
    """One per head, for the projections between value and output."""

    @property
    def heads(self) -> int:
        """Return the number of heads."""
        return len(self.scores)

    def probes(self, structures: Iterable[str]) -> list[PartConfig]:
        """See `BlockPart.probes`."""
        heads, width = self.heads, self.location.width
        fewer_heads = [(max(1, heads // 2), width, width), (1, width, width)] if "heads" in structures else []
        narrower_heads = [(heads, *[max(1, width // by)] * 2) for by in (2, 4)] if "widths" in structures else []
        probes = [sizes for sizes in (*fewer_heads, *narrower_heads) if sizes != (heads, width, width)]
        return [*super().probes(structures), *(PartConfig("heads", sizes) for sizes in dict.fromkeys(probes))]

    def parameters(self, config: PartConfig) -> float:
        """See `BlockPart.parameters`."""
        whole = super().parameters(config)
        return whole * _features(config) / self._all_features if config.structure == "heads" else whole

    def saved(self, config: PartConfig, timed: Mapping[PartConfig, float]) -> float:
        """See `BlockPart.saved`; the time grows with the number of heads and with the number of their features."""
        if config.structure != "heads":
            return super().saved(config, timed)
        by_probe = {probe: seconds for probe, seconds in timed.items() if probe.structure == "heads"}
        # with probes of one kind, heads and features are collinear; any split between them gives the same sum
        removed = np.array([self._removed(probe) for probe in by_probe])
        per_head, per_feature = np.linalg.lstsq(removed, np.array(list(by_probe.values())))[0]
        heads, features = self._removed(config)
        return float(per_head * heads + per_feature * features)

    def put(self, model: nn.Module, config: PartConfig) -> None:
        """See `BlockPart.put`."""
        if config == DROP:
            self._drop(model)
        elif config.structure == "heads":
            count, widths = config.sizes[0], HeadWidths(*config.sizes[1:])
            kept = [self._head(head, widths) for head in self.reader.removal.kept(count).tolist()]
            features = torch.zeros(count * widths.values, len(self.reader.mean)).to(self.reader.mean)
            for row, head in enumerate(kept):
                start = head.head * self.location.width
                rows = slice(row * widths.values, (row + 1) * widths.values)
                features[rows, start : start + self.location.width] = head.values
            attention_with_heads(model, self.location, kept, *self.reader.fitted(features)).put(model, self.location)
        else:
            super().put(model, config)

    @property
    def _all_features(self) -> int:
        return 2 * self.heads * self.location.width

    def _removed(self, config: PartConfig) -> tuple[int, int]:
        """Return the numbers of heads and of features that a configuration removes."""
        return self.heads - config.sizes[0], self._all_features - _features(config)

    def _head(self, index: int, widths: HeadWidths) -> KeptHead:
        whole, width = KeptHead.whole(index, self.location.width), self.location.width
        narrow = KeptHead.of(index, self.scores[index], self.values[index], widths)
        if widths.scores == width:
            narrow = narrow._replace(queries=whole.queries, keys=whole.keys)
        return narrow._replace(values=whole.values) if widths.values == width else narrow

    def _drop(self, model: nn.Module) -> None:
        first = isinstance(model.get_submodule(self.location.name), FirstTokenAttention)
        rows: Literal["all", "first"] = "first" if first else "all"
        if self.location.inside:
            replace_module(model, self.location.name, Constant.of(self.reader.constant(), rows=rows, returns="pair"))
        else:
            replace_module(model, self.location.name, PassThrough(rows=rows, returns="pair"))
            replace_module(model, self.location.output, Constant.of(self.reader.constant()))

    def _narrower(self, structures: Iterable[str]) -> dict[PartConfig, float]:
        heads, width = self.heads, self.location.width
        counts = range(1, heads + 1) if "heads" in structures else [heads]
        step = min(WIDTH_STEP, max(1, width // 4))
        grid = [*range(step, width, step), width] if "widths" in structures else [width]
        removed = self.reader.removal.losses.tolist()
        score_losses, value_losses = (
            np.stack([spectrum.losses[grid].cpu().numpy() for spectrum in spectra])
            for spectra in (self.scores, self.values)
        )
        losses: dict[PartConfig, float] = {}
        for count in counts:
            kept = self.reader.removal.kept(count).cpu().numpy()
            scores, values = score_losses[kept].sum(0), value_losses[kept].sum(0)
            losses |= {
                PartConfig("heads", (count, score_width, value_width)): removed[count] + float(scores[i] + values[j])
                for i, score_width in enumerate(grid)
                for j, value_width in enumerate(grid)
                if (count, score_width, value_width) != (heads, width, width)
            }
        return losses


def _features(config: PartConfig) -> int:
    """Return the number of features of all heads, of queries and of values together."""
    heads, score_width, value_width = config.sizes
    return heads * (score_width + value_width)
