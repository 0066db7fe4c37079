"""Mean codes of an image's EiCue regions: one vector for each thing, however many patches it covers.

Clustering region means over a dataset is the semantic step of Melas-Kyriazi et al., "Deep Spectral Methods", CVPR 2022;
here the regions are those of EiCue and the features are codes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Share of an image's patches that a region needs. Smaller ones lie on borders and mix two things.
LEAST_SHARE = 0.02


@torch.no_grad()
def region_means(code: Tensor, cue: Tensor, least_share: float = LEAST_SHARE) -> list[Tensor]:
    """Mean of the unit-length codes in each region of each image, scaled to unit length.

    Args:
        code: S, B×D×h×w.
        cue: M, B×h×w int64 labels ≥ 0; the patches of an image with one label are a region.
        least_share: regions with a smaller share of the image's patches are left out.

    Returns:
        For each image n×D float32, by ascending label; n is 0 if no region is large enough.

    Example:
        >>> import torch
        >>> from eagle.spectral.regions import region_means
        >>> cue = torch.tensor([[[0, 0, 1], [0, 0, 1]]])
        >>> [means.shape for means in region_means(torch.randn(1, 32, 2, 3), cue)]
        [torch.Size([2, 32])]
    """
    with torch.autocast(code.device.type, enabled=False):
        vectors = F.normalize(code.float(), dim=1).flatten(2).transpose(1, 2)
        members = F.one_hot(cue.flatten(1)).to(vectors)
        sizes = members.sum(dim=1)
        sums = torch.bmm(members.transpose(1, 2), vectors)
    enough = sizes >= max(1.0, least_share * vectors.shape[1])
    return [F.normalize(image_sums[kept], dim=1) for image_sums, kept in zip(sums, enough, strict=True)]
