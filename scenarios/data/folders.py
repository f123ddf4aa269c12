"""Where images lie: in packages, which anybody has, or in a folder of the user's own."""

FASHION_DIR = "/usr/share/datasets/fashion-mnist"
"""Of Debian's dataset-fashion-mnist."""


def is_own_folder(name: str, data_dir: str) -> bool:
    """Say whether a dataset is a folder of the user's own, and not what packages ship."""
    return name == "idx" and data_dir not in ("", FASHION_DIR)
