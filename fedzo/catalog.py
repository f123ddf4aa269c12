"""One line about everything that has a name and a table elsewhere, to be listed without it.

The tables take their lines from here; importing this imports nothing.
"""

from collections.abc import Mapping

AGGREGATOR_LINES: Mapping[str, str] = {
    "mean": "the mean; withstands nobody",
    "median": "coordinate-wise median (Yin 2018)",
    "trimmed_mean": "per coordinate without the f largest and smallest (Yin 2018)",
    "geometric_median": "least sum of distances, by Weiszfeld's steps",
    "krum": "the vector with the closest neighbors (Blanchard 2017)",
    "multi_krum": "mean of the n - f with the closest neighbors",
    "centered_clipping": "limited steps from the last result (Karimireddy 2021)",
    "mean_around_median": "per coordinate the n - f closest to the median",
    "minimum_diameter": "mean of the n - f that lie closest together",
    "smea": "mean of the n - f with the tamest covariance; small cohorts only",
    "caf": "filters what stretches the covariance (Allouah 2025)",
    "nearest_neighbor_average": "mean of the n - f nearest to one of them (MoNNA 2023)",
    "clip": "mean after clipping to a radius",
    "adaptive_clip": "mean after clipping the longest (ARC 2025)",
}
"""Of fedzo.aggregation.AGGREGATORS."""

MIXER_LINES: Mapping[str, str] = {
    "nearest_neighbor_mixing": "every vector becomes the mean of its n - f nearest (Allouah 2023)",
    "bucketing": "random groups become their means (Karimireddy 2022)",
    "clip": "long vectors are shortened to a radius",
    "adaptive_clip": "the longest are shortened to the next (ARC 2025)",
}
"""Of fedzo.aggregation.MIXERS."""

LIE_LINES: Mapping[str, str] = {
    "none": "malicious clients behave",
    "sign_flip": "minus the honest mean",
    "scaled_sign_flip": "minus the honest sum, shared by the liars",
    "alie": "the mean and 1.5 standard deviations (A Little Is Enough)",
    "alie_searched": "the same, at the distance that harms the rule most",
    "inner_product": "minus twice the mean (inner product manipulation)",
    "foe": "0.9 of the mean (Fall of Empires)",
    "foe_searched": "against the mean, at the distance that harms the rule most",
    "mimic": "the vector of the first honest client that has answered, over and over",
    "mimic_learned": "that of the honest client that sticks out most over time",
    "gaussian": "random vectors around the mean",
    "infinity": "infinity",
    "adaptive": "the most harmful of many shifts, by somebody who knows the rule",
    "label_flip": "honest work on flipped labels",
}
"""Of what malicious clients send, by its name in byzantine.attack."""

ATTACKER_LINES: Mapping[str, str] = {
    "thompson": "Thompson sampling of the gradient; our best with scores of small images",
    "square": "random search by squares (Andriushchenko et al. 2020)",
    "stripes": "random search by grey stripes and squares; our best with scores of photographs",
    "nes": "signs of central differences (Ilyas et al. 2018)",
    "zo": "any estimator, directions and optimizer of fedzo",
    "simba": "one basis vector at a time (Guo et al. 2019)",
    "fzoos": "derivative GP and virtual steps (FZooS for one client)",
    "edge": "Thompson sampling by the boundary; our best with labels",
    "hopskipjump": "walk along the decision boundary (Chen et al. 2020)",
    "cgba": "circles between image and boundary, probed by grey stripes; L2 (Reza et al. 2023)",
    "rank": "order of candidates alone, ZO-RankSGD (Tang et al. 2024)",
}
"""Of those who attack single victims."""

METHOD_LINES: Mapping[str, str] = {
    "mezo": "central differences along normals (Malladi 2023)",
    "zo_sgd": "the same along keyed signs, which are cheaper to draw",
    "zo_momentum": "heavy ball, replayed from keys and numbers",
    "zo_adam": "Adam on the estimate",
    "zo_sign": "signs of slopes, or of the estimate's numbers",
    "zo_conservative": "the best of forth, back and stay (Zhang 2024)",
    "fzoo": "one-sided, the step over the spread of the slopes (2025)",
    "forward_gradient": "exact slopes by forward differentiation (Baydin 2022)",
    "block_zo": "a direction of its own for each part of the network (Zhang 2024)",
    "sparse_mezo": "only small, large or random weights move (Liu 2024)",
    "lozo": "directions of low rank (Chen 2025)",
    "subzero": "directions in random subspaces (Yu 2024)",
    "zo_muon": "subspaces, and orthogonalized steps (2026)",
    "deepzero": "differences along a share of the axes (Chen 2024)",
    "cge": "differences along all axes, and Adam; small networks",
    "qzo": "scales of quantized weights, clipped slopes (2025)",
    "zoodip": "gradients without directions of low variance; few numbers (2025)",
    "rank_sgd": "only the order of the values, and a line search (Tang 2024)",
    "consensus": "the softmax mean of random points (CBO; Riedl 2023)",
    "evolution": "centered ranks of the values (Salimans 2017)",
    "hizoo": "directions scaled by a learned diagonal (Zhao 2025)",
    "mezo_svrg": "slopes of a batch corrected at a snapshot (Gautam 2024)",
    "guided_es": "directions that lean to past estimates (Maheswaranathan 2019)",
    "relizo": "least squares over recent slopes (Xiao 2024)",
    "gp": "a Gaussian process over recent slopes and where they were (Shu 2023)",
    "zoro": "sparse recovery along fixed signs (Cai 2022)",
    "activity": "noise at layers' outputs and a learned way back; ours",
    "first_order": "AdamW by backpropagation, for comparison",
}
"""Of what trains a network: `fedzo finetune --method`, fedzo.ZerothOrder(method=...)."""
