"""Folders of pictures: what is read, and what is refused by the name of the file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedzo.errors import ConfigError
from scenarios.data.image_folder import read_folder, read_names

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOR = np.arange(36, dtype=np.uint8).reshape(3, 4, 3) * 7


def save(path: Path, values: np.ndarray, **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **how)
    return path


def test_folders_of_numbers_are_classes(tmp_path: Path) -> None:
    save(tmp_path / "10" / "a.png", GREY)
    save(tmp_path / "2" / "b.PNG", GREY[::-1].copy())
    (tmp_path / "2" / "notes.txt").write_text("no picture")
    found = read_folder(tmp_path)
    assert (found.labels.tolist(), found.files) == ([10, 2], ["10/a.png", "2/b.PNG"])
    assert found.images.shape == (2, 1, 3, 4)
    assert found.images.dtype == torch.float32
    assert np.array_equal(found.images[0, 0].numpy(), GREY.astype(np.float32) / 255)


@pytest.mark.parametrize(("suffix", "kind"), [("png", "u2"), ("tif", ">u2"), ("tif", "i4")])
def test_pictures_of_16_bits_are_rounded_to_8(tmp_path: Path, suffix: str, kind: str) -> None:
    values = np.arange(0, 65_536, 5_957).reshape(3, 4)
    save(tmp_path / "0" / f"a.{suffix}", values.astype(kind))
    found = (read_folder(tmp_path).images[0, 0] * 255).round().numpy()
    assert np.array_equal(found, np.rint(values / 257))


def test_what_is_transparent_is_refused_and_an_opaque_channel_is_not(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    pixels = np.full((2, 2, 4), 200, np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "0" / "a.png")
    assert (read_folder(tmp_path).images == 200 / 255).all()
    for mode in ("RGBA", "LA"):
        pixels[0, 1, 3] = 128
        Image.fromarray(pixels).convert(mode).save(tmp_path / "0" / "b.png")
        with pytest.raises(ConfigError, match=r"b\.png is transparent in places"):
            read_folder(tmp_path)


def test_a_table_may_name_files_elsewhere_by_their_whole_path(tmp_path: Path) -> None:
    picture = tmp_path / "elsewhere.png"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(picture)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "labels.csv").write_text(f"file,label\n{picture},3\n")
    found = read_folder(folder)
    assert (list(found.files), found.labels.tolist()) == ([str(picture)], [3])


def test_names_are_numbered_as_the_model_has_them(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save(tmp_path / name / "1.png", GREY)
    assert read_folder(tmp_path, classes=["fox", "dog", "cat"]).labels.tolist() == [2, 1]


def test_a_table_gives_the_labels_in_its_order(tmp_path: Path) -> None:
    save(tmp_path / "x.png", GREY)
    save(tmp_path / "y.png", GREY + 1)
    (tmp_path / "labels.csv").write_text("file,label\ny.png,3\nx.png, cat\n")
    found = read_folder(tmp_path, classes=["cat"])
    assert (found.labels.tolist(), found.files) == ([3, 0], ["y.png", "x.png"])


def test_grey_beside_color_becomes_color(tmp_path: Path) -> None:
    save(tmp_path / "0" / "a.png", GREY)
    save(tmp_path / "0" / "b.png", COLOR)
    save(tmp_path / "0" / "c.png", np.dstack([COLOR, np.full((3, 4), 255, np.uint8)]))
    images = read_folder(tmp_path).images
    assert images.shape == (3, 3, 3, 4)
    assert torch.equal(images[0, 0], images[0, 2])
    assert np.array_equal(images[1].numpy(), COLOR.transpose(2, 0, 1).astype(np.float32) / 255)


def test_a_size_cuts_the_middle_of_the_shorter_side(tmp_path: Path) -> None:
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 255
    save(tmp_path / "0" / "wide.png", wide)
    save(tmp_path / "0" / "high.png", wide.T.copy())
    images = read_folder(tmp_path, size=8).images
    assert images.shape == (2, 1, 8, 8)
    assert images.min() > 0.9


def test_photographs_stand_as_they_are_shown(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # shown a quarter turn to the right
    save(tmp_path / "0" / "a.jpg", np.zeros((4, 8), np.uint8), exif=turned)
    assert read_folder(tmp_path).images.shape == (1, 1, 8, 4)


def _empty(place: Path) -> None:
    (place / "0").mkdir()


def _named(place: Path) -> None:
    save(place / "cat" / "a.png", GREY)


def _broken(place: Path) -> None:
    save(place / "0" / "a.png", GREY)
    (place / "0" / "b.png").write_bytes(b"\x89PNG no more")


def _uneven(place: Path) -> None:
    save(place / "0" / "a.png", GREY)
    save(place / "0" / "b.png", GREY[:2])


def _unlisted(place: Path) -> None:
    (place / "labels.csv").write_text("file,label\nnone.png,1\n")


def _damaged(place: Path) -> None:
    path = save(place / "0" / "a.png", GREY)
    content = path.read_bytes()
    at = content.index(b"IDAT")
    path.write_bytes(content[: at - 4] + b"\x00\x00\x00\x01" + content[at:])


def _without_white(place: Path) -> None:
    save(place / "0" / "a.tif", GREY.astype(np.float32) / 255)


def _dark(place: Path) -> None:
    save(place / "0" / "a.tif", GREY.astype("i4"))


def _twice(place: Path) -> None:
    save(place / "a.png", GREY)
    (place / "labels.csv").write_text("file,label\na.png,1\na.png,1\n")


def _other_columns(place: Path) -> None:
    (place / "labels.csv").write_text("name,class\na.png,1\n")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_empty, "holds no images; put them into a folder for each class"),
        (_named, r"class named 'cat'.*victim\.classes=FILE"),
        (_broken, r"b\.png is no picture that can be read"),
        (_uneven, r"b\.png is 4 x 2 pixels and .*a\.png 4 x 3.*victim\.size=224"),
        (_unlisted, r"line 2: there is no file .*none\.png"),
        (_damaged, r"a\.png is no picture that can be read"),
        (_without_white, r"a\.tif holds numbers from 0 to .* nobody says what is white"),
        (_dark, r"^[^:]*a\.tif holds numbers from 0 to 220, and nobody says"),
        (_twice, r"line 3: a\.png is there twice"),
        (_other_columns, "line 2: give columns file and label"),
    ],
)
def test_what_is_none_is_named(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ConfigError, match=said):
        read_folder(tmp_path)


def test_a_name_that_is_nearly_one_is_told(tmp_path: Path) -> None:
    save(tmp_path / "cta" / "a.png", GREY)
    with pytest.raises(ConfigError, match=r"cta.*did you mean cat"):
        read_folder(tmp_path, classes=["cat", "dog"])


def test_names_of_classes_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeffcat\n big dog \n\n", encoding="utf-8")
    assert read_names(path) == ["cat", "big dog"]
    for content in ("", "cat\n\ndog\n"):
        path.write_text(content)
        with pytest.raises(ConfigError, match="one name a line"):
            read_names(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_names(tmp_path / "none")
