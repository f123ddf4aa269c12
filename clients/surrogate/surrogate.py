"""Local steps along the gradient of a surrogate (the client of FZooS as published).

    for t = 1..T:  g = grad mu_i(x) + gamma_t (grad muhat(x) - grad muhat_i(x))      (eq. 8)
                   x <- Adam(x, g);  query x and the most uncertain of candidates around it
    train.surrogate:  global weights w, x  ->  update [n, d]
    query.weights:    new server x         ->  weights w_i [n, M], after active queries around x

mu_i is the derived Gaussian process on the queries of client i that are nearest to x; muhat_i and
muhat are random-feature surrogates of client i and of all clients, frozen at the end of the last
round. Shu, Lin, Dai & Low, "Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
Gradients", arXiv 2308.04077, algorithm 2. Queries a client and round: T + (T - 1) active_queries +
1 + anchor_queries, and initial_queries once. Floats up: d + M; down: d + M (x is kept between).

gamma: "inverse" is 1 / t, what the experiments of the paper use; "constant" is gamma_value;
"theory" is corollary 1 with the correction's own size for G and the trace of the surrogate's
covariance for its error; "data" shrinks the correction by the error of the random features that
the client can see, |D|^2 / (|D|^2 + |grad muhat_i - grad mu_i|^2), D the correction.

variant "paper" takes the squared exponential kernel of lengthscale 1 and the candidates of largest
uncertainty. "official" does what the published code does: Matern-5/2 with a fitted lengthscale, and
candidates that are in effect random, because the code ranks them by one entry of a covariance of
another kernel. Both scale values to [0, 1], a client at a time, as the code does and the text does
not say. Analytic gradients replace the code's finite differences, which return 0 where x_j = 0.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.optimizers import make_optimizer
from fedzo.protocol.exchange import ClientState
from fedzo.protocol.questions.surrogate import Surrogated, SurrogateSteps, SurrogateWeights
from fedzo.runtime.local import Answered, Clients
from fedzo.surrogates.gp import (
    GradientPosterior,
    Observations,
    condition_values,
)
from fedzo.surrogates.kernels import KernelName
from fedzo.surrogates.random_features import RandomFeatures, make_features
from fedzo.surrogates.trajectory import load_trajectory


def take_surrogate_steps(question: SurrogateSteps, clients: Clients) -> Answered:
    """Take local steps on corrected surrogates, with queries around them."""
    cohort = _Cohort(question, clients)
    start = cohort.start()
    x = cohort.walk(start, question.begin)
    update = (x - start).to(cohort.dtype)
    cohort.remember(end=x)
    weights = cohort.weights(x) if question.merged else None
    return Surrogated(update=update, weights=weights), cohort.states()


def answer_weights(question: SurrogateWeights, clients: Clients) -> Answered:
    """Query around the server's new x and answer each client's transferable surrogate."""
    cohort = _Cohort(question, clients)
    x = cohort.start()
    ends = torch.stack([state["end"] for state in clients.states])
    radius = (x - ends).abs().mean(dim=1) / 2
    if clients.oracle.remaining >= 1:
        cohort.ask(x.unsqueeze(1))
    config = question.settings
    cohort.explore(x, config.anchor_queries, config.anchor_candidates, radius)
    cohort.remember(x=x.to(cohort.dtype))
    return Surrogated(weights=cohort.weights(x)), cohort.states()


class _Cohort:
    """The trajectories and surrogates of a cohort during one exchange."""

    def __init__(self, question: SurrogateSteps | SurrogateWeights, clients: Clients) -> None:
        self.config, self.task = question.settings, question
        self._oracle, self._states = clients.oracle, list(clients.states)
        self._seed, self._dim = clients.seed, clients.cohort.dim
        self._sources, self._device = clients.streams("active"), clients.device
        self._trajectory = load_trajectory(
            clients.states, self._dim, self.config.capacity, device=clients.device
        )
        self._extra: dict[str, Tensor] = {}
        self._start = (
            torch.stack([state["x"] for state in clients.states])
            if question.x is None
            else clients.at(question.x)
        )
        self.dtype = self._start.dtype

    def start(self) -> Float[Tensor, "n d"]:
        """Return the server's x, as sent now or kept from the last exchange."""
        return self._start.double()

    def walk(self, x: Float[Tensor, "n d"], begin: bool) -> Float[Tensor, "n d"]:
        """Take the local steps; `begin`: after some random queries around x."""
        config, steps = self.config, self.task.local_steps
        if begin:
            self._ask_randomly(x, config.initial_queries)
        if not self._trajectory.points.shape[1]:
            return x
        optimizer = make_optimizer("adam")
        moments = optimizer.init(x)
        lengthscale = self._lengthscale(x)
        for t in range(1, steps + 1):
            if self._oracle.remaining < 1:
                break
            posterior, scale = self._posterior(x, lengthscale)
            own = posterior.gradient(x.unsqueeze(1)).squeeze(1) * scale
            gradient = own + self._correction(x, own, posterior, scale, t)
            moments, x = optimizer.step(moments, x, gradient, self.task.local_lr)
            self.ask(x.unsqueeze(1))
            if t < steps:
                radius = x.new_full((len(x),), config.active_radius)
                self.explore(x, config.active_queries, config.active_candidates, radius)
        self.remember(lengthscale=lengthscale)
        return x

    def ask(self, points: Float[Tensor, "n q d"]) -> None:
        """Query points and keep them where they were asked: inside the box."""
        inside = self._oracle.project(points)
        values = self._oracle.value(inside.to(self.dtype)).nan_to_num(0.0)  # of failed clients
        self._trajectory = self._trajectory.add(inside, values)

    def explore(
        self,
        x: Float[Tensor, "n d"],
        queries: int,
        candidates: int,
        radius: Float[Tensor, " n"],
    ) -> None:
        """Query the most uncertain of random candidates around x, as far as the budget goes."""
        queries = int(min(queries, self._oracle.remaining))
        if queries == 0 or not self._trajectory.points.shape[1]:
            return
        count = queries if self.task.variant == "official" else candidates
        points = x.unsqueeze(1) + radius.reshape(-1, 1, 1) * self._uniform(count)
        if count > queries:
            posterior, _ = self._posterior(x, self._lengthscale(x))
            chosen = posterior.uncertainty(points).topk(queries, dim=1).indices
            points = points.gather(1, chosen.unsqueeze(-1).expand(-1, -1, self._dim))
        self.ask(points)

    def weights(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """Return and keep each client's random-feature weights."""
        if not self._trajectory.points.shape[1]:
            return x.new_zeros(len(x), self.config.num_features)
        data, scale = _scaled(self._trajectory.nearest(x, self.config.feature_points))
        noise = 0.0 if self.task.variant == "official" else self.config.noise_variance
        weights = self._features().weights(data, noise) * scale
        self.remember(weights=weights)
        return weights

    def remember(self, **tensors: Tensor) -> None:
        """Keep tensors [n, ...] in the clients' states."""
        self._extra.update(tensors)

    def states(self) -> Sequence[ClientState]:
        """Return the clients' next states."""
        kept = self._trajectory.save(self._states)
        return [
            {**state, **{name: rows[i] for name, rows in self._extra.items()}}
            for i, state in enumerate(kept)
        ]

    def _ask_randomly(self, x: Float[Tensor, "n d"], count: int) -> None:
        count = int(min(count, self._oracle.remaining))
        if count:
            self.ask(x.unsqueeze(1) + self.config.active_radius * self._uniform(count))

    def _uniform(self, count: int) -> Float[Tensor, "n q d"]:
        rows = [g.uniform(-1, 1, (count, self._dim)) for g in self._sources]
        return torch.from_numpy(np.stack(rows)).to(self._device)

    def _features(self) -> RandomFeatures:
        config = self.config
        return make_features(
            config.num_features,
            self._dim,
            config.feature_lengthscale,
            self._seed,
            device=self._device,
        )

    def _kernel(self) -> KernelName:
        if self.config.kernel != "auto":
            return self.config.kernel
        return "matern52" if self.task.variant == "official" else "squared_exponential"

    def _lengthscale(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Return each client's lengthscale; fitted once an exchange, from the last one."""
        config = self.config
        if config.kernel == "auto" and self.task.variant == "paper":
            return x.new_ones(len(x))
        if config.lengthscale > 0:
            return x.new_full((len(x),), config.lengthscale)
        if "lengthscale" in self._extra:
            return self._extra["lengthscale"]
        one = x.new_ones(())
        start = torch.stack([state.get("lengthscale", one) for state in self._states])
        data, _ = _scaled(self._trajectory.nearest(x, config.max_points))
        from fedzo.surrogates.lengthscale_fit import fit_lengthscale  # gpytorch: for who fits

        fitted = fit_lengthscale(self._kernel(), start, data, config.noise_variance)
        self.remember(lengthscale=fitted)
        return fitted

    def _posterior(
        self, x: Float[Tensor, "n d"], lengthscale: Float[Tensor, " n"]
    ) -> tuple[GradientPosterior, Float[Tensor, "n 1"]]:
        data, scale = _scaled(self._trajectory.nearest(x, self.config.max_points))
        noise = self.config.noise_variance
        return condition_values(self._kernel(), lengthscale, data, noise), scale

    def _correction(
        self,
        x: Float[Tensor, "n d"],
        own: Float[Tensor, "n d"],
        posterior: GradientPosterior,
        scale: Float[Tensor, "n 1"],
        t: int,
    ) -> Float[Tensor, "n d"]:
        """Return gamma_t (grad muhat - grad muhat_i); zero for clients that have no muhat_i yet."""
        known = [("weights" in state) for state in self._states]
        common = self.task.weights if isinstance(self.task, SurrogateSteps) else None
        if common is None or not any(known):
            return torch.zeros_like(x)
        mine = torch.stack([state.get("weights", common) for state in self._states])
        features = self._features()
        local = features.gradient(mine, x)
        difference = features.gradient(common.expand_as(mine), x) - local
        return self._gamma(difference, local - own, posterior, scale, x, t) * difference

    def _gamma(
        self,
        difference: Float[Tensor, "n d"],
        error: Float[Tensor, "n d"],
        posterior: GradientPosterior,
        scale: Float[Tensor, "n 1"],
        x: Float[Tensor, "n d"],
        t: int,
    ) -> float | Float[Tensor, "n 1"]:
        config = self.config
        if config.gamma == "inverse":
            return 1 / t
        if config.gamma == "constant":
            return config.gamma_value
        size = difference.square().sum(1, keepdim=True)
        if config.gamma == "data":
            return size / (size + error.square().sum(1, keepdim=True)).clamp_min(1e-300)
        doubt = posterior.uncertainty(x.unsqueeze(1)) * scale**2
        features = self.task.num_clients / config.num_features * scale**2
        return size / (size + 2 * doubt + 2 * features).clamp_min(1e-300)


def _scaled(data: Observations) -> tuple[Observations, Float[Tensor, "n 1"]]:
    """Scale each client's values to [0, 1] and return the factor that undoes it."""
    low = data.values.masked_fill(~data.known, torch.inf).amin(1, keepdim=True)
    high = data.values.masked_fill(~data.known, -torch.inf).amax(1, keepdim=True)
    scale = torch.where(high > low, high - low, torch.ones_like(low))
    values = torch.where(data.known, (data.values - low) / scale, 0.0)
    return replace(data, values=values), scale
