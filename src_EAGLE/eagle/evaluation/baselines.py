"""k-means on the frozen keys: what a method has to beat."""

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from eagle.models.backbone import KeyBackbone
from eagle.models.probes import ClusterLookup

PATCHES = 60_000


@torch.no_grad()
def kmeans_centres(backbone: KeyBackbone, loader: DataLoader, n_clusters: int, seed: int) -> ClusterLookup:
    """Spherical k-means of patch keys, as a probe.

    Args:
        backbone: gives K.
        loader: batches with ``img``; patches are drawn evenly from them.
        n_clusters: number of centres.
        seed: of the draw and of the initial centres.

    Returns:
        A ClusterLookup over K's channels.
    """
    generator = torch.Generator().manual_seed(seed)
    per_image = max(1, PATCHES // max(1, len(loader.dataset)))  # type: ignore[arg-type]
    drawn = []
    for batch in tqdm(loader, "keys for k-means", leave=False):
        tokens = F.normalize(backbone(batch["img"]).float(), dim=1).flatten(2).transpose(1, 2)
        n = min(per_image, tokens.shape[1])
        drawn += [image[torch.randperm(len(image), generator=generator)[:n]] for image in tokens]
    patches = torch.cat(drawn).numpy()
    kmeans = MiniBatchKMeans(n_clusters, batch_size=4096, n_init=5, random_state=seed).fit(patches)
    probe = ClusterLookup(patches.shape[1], n_clusters)
    centres = torch.from_numpy(np.asarray(kmeans.cluster_centers_, dtype=np.float32))
    probe.load_state_dict({"clusters": centres})
    return probe
