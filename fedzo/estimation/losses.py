"""What an objective in place may answer."""

from torch import Tensor

from fedzo.errors import ObjectiveError


def one_number(told: Tensor) -> Tensor:
    """Return a loss; raises ObjectiveError for several numbers, and for one that is complex."""
    if told.numel() != 1:
        raise ObjectiveError(
            f"the loss is {told.numel()} numbers, and is to be one; return their mean"
        )
    if told.is_complex():
        raise ObjectiveError(
            f"the loss is {str(told.dtype)[6:]}, and is to be a real number; return its abs() or"
            " real part"
        )
    return told
