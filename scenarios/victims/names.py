"""Names of the victims that ship with fedzo, for who only lists them: this needs no torch."""

NETWORKS = ("mnist", "fashion")
PHOTO_NETWORKS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
"""Networks of colour photographs, trained on ImageNet by others (extra `vision`)."""
KINDS = ("", "onnx", "http")


def shipped_names() -> list[str]:
    """Return the names of all shipped victims."""
    return [f"{name}-{kind}".rstrip("-") for kind in KINDS for name in NETWORKS + PHOTO_NETWORKS]


def network_of(name: str) -> tuple[str, str]:
    """Return the network and the kind of a shipped victim; ("", "") for other words."""
    kind = next((kind for kind in KINDS if kind and name.endswith(f"-{kind}")), "")
    network = name.removesuffix(f"-{kind}") if kind else name
    return (network, kind) if network in NETWORKS + PHOTO_NETWORKS else ("", "")


def of_photographs(name: str) -> bool:
    """Say whether a victim is a shipped network of photographs."""
    return network_of(name)[0] in PHOTO_NETWORKS
