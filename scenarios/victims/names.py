"""Names of the victims that ship with fedzo, for who only lists them: this needs no torch."""

NETWORKS = ("mnist", "fashion")
KINDS = ("", "onnx", "http")


def shipped_names() -> list[str]:
    """Return the names of all shipped victims."""
    return [f"{name}-{kind}".rstrip("-") for kind in KINDS for name in NETWORKS]
