"""The objective of a federated attack: one victim's margin on one perturbed image."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.goal import margin
from fedzo.attacks.victims.victim import Victim
from fedzo.errors import ObjectiveError


@dataclass(frozen=True, slots=True)
class MarginObjective:
    """The margin of one victim on one perturbed image; a black box. Its channels change alike."""

    victim: Victim
    image: Float[Tensor, "c s s"]
    label: Int[Tensor, ""]
    radius: float
    clamp: bool
    basis: Float[Tensor, "d p"] | None = None
    lower: float = 0.0
    upper: float = 1.0

    @property
    def dim(self) -> int:
        return self.image[0].numel() if self.basis is None else len(self.basis)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        flat = x.reshape(-1, self.dim)
        pixels = perturb(self.image, flat, self.radius, clamp=self.clamp, basis=self.basis)
        return margins(self.victim, pixels, self.label).to(x).reshape(x.shape[:-1])


def perturb(
    image: Float[Tensor, "c s s"],
    x: Float[Tensor, "q d"],
    radius: float,
    *,
    clamp: bool,
    basis: Float[Tensor, "d p"] | None = None,
) -> Float[Tensor, "q c s s"]:
    """Return the image under each perturbation."""
    unit = 2 * x - 1
    if basis is not None:
        unit = (unit @ basis).clamp(-1, 1)
    pixels = image + radius * unit.reshape(-1, 1, *image.shape[1:])
    return pixels.clamp(0, 1) if clamp else pixels


def margins(
    victim: Victim, pixels: Float[Tensor, "q c s s"], label: Int[Tensor, "*q"]
) -> Float[Tensor, " q"]:
    """Return a victim's true logit minus its largest other one.

    Raises ObjectiveError for a victim that refuses an image, or tells no scores.
    """
    answers = victim.ask(pixels)
    if answers.scores is None or not bool(answers.answered.all()):
        raise ObjectiveError("a victim of the federated attack refused images, or tells no scores")
    return margin(answers.scores, label)
