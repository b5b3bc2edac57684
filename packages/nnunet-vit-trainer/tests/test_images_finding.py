"""Which images and masks a folder holds, and which belong together."""

import os
import unicodedata

import pytest

from nnunet_vit_trainer.images.finding.layouts import find_images
from nnunet_vit_trainer.images.finding.pairing import alone
from nnunet_vit_trainer.images.finding.sources import list_folder
from vit_backbone import UserError


def folder_of(root, *names):
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return root


def pairs(root, **options):
    """Return what was paired: the case, its images and its mask."""
    return {
        case.name: (*(item.path.name for item in case.images), case.mask.path.name)
        for case in find_images(root, **options).paired.cases
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["images/a.png", "masks/a.png"], {"a": ("a.png", "a.png")}),
        (["Images/a.jpg", "Ground Truth/a.png"], {"a": ("a.jpg", "a.png")}),
        (["img/a.jpg", "gt/a_mask.gif"], {"a": ("a.jpg", "a_mask.gif")}),
        (["images/a b (1).png", "annotations/a b (1)_seg.png"], {"a b (1)": None}),
        (["imagesTr/a_0000.png", "labelsTr/a.png"], {"a": ("a_0000.png", "a.png")}),
        (
            ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz"],
            {"a": ("a_0000.nii.gz", "a_0001.nii.gz", "a.nii.gz")},
        ),
        # Four digits are a number more often than a channel.
        (["images/x_0000.png", "images/x_0001.png", "masks/x_0000.png", "masks/x_0001.png"], None),
        (
            [
                "images/x_0000.png",
                "images/x_0001.png",
                "masks/x_0000_mask.png",
                "masks/x_0001_mask.png",
            ],
            {"x_0000": None, "x_0001": None},
        ),
        (["images/p_0000_0250_0000.png", "labels/p_0000_0250.png"], {"p_0000_0250": None}),
        (["volumes/volume-3.nii", "seg/segmentation-3.nii", "scans/x.txt"], UserError),
        (["scans/volume-3.nii", "seg/segmentation-3.nii"], {"3": None}),
        (["img/img0001.nii.gz", "label/label0001.nii.gz"], {"0001": None}),
        (["images/ISIC_01.jpg", "gt/ISIC_01_Segmentation.png"], {"ISIC_01": None}),
        (["images/21_training.tif", "1st_manual/21_manual1.gif"], {"21": None}),
        (["a.png", "a_mask.png", "b.png", "b_mask.png"], {"a": None, "b": None}),
        (["a.jpg", "a.png"], {"a": ("a.jpg", "a.png")}),
        (["a_image.png", "a_label.png"], {"a": ("a_image.png", "a_label.png")}),
        (["p1/image.png", "p1/mask.png", "p2/image.png", "p2/mask.png"], {"p1": None, "p2": None}),
        (
            [f"B1/B1_{kind}.nii.gz" for kind in ("t1", "flair", "seg")],
            {"B1": ("B1_flair.nii.gz", "B1_t1.nii.gz", "B1_seg.nii.gz")},
        ),
        (
            [f"p{i}/p{i}_{s}{m}.tif" for i in (1, 2) for s in (1, 2) for m in ("", "_mask")],
            {f"p{i}_{s}": None for i in (1, 2) for s in (1, 2)},
        ),
        (
            [
                f"{f}_{end}.png"
                for f in ("p1/1", "p1/x", "p2/2")
                for end in ("0000", "0001", "mask")
            ],
            {i: (f"{i}_0000.png", f"{i}_0001.png", f"{i}_mask.png") for i in "12x"},
        ),
        (["images/é.png", f"masks/{unicodedata.normalize('NFD', 'é')}.png"], {"é": None}),
        (["images/A.JPG", "masks/A.Png"], {"A": ("A.JPG", "A.Png")}),
    ],
)
def test_the_layouts_of_the_field_are_found(names, expected, tmp_path):
    folder_of(tmp_path, *names)
    if expected is UserError:
        with pytest.raises(UserError):
            pairs(tmp_path)
        return
    found = pairs(tmp_path)
    if expected is None:
        expected = {name: (f"{name}.png", f"{name}.png") for name in ("x_0000", "x_0001")}
    assert found.keys() == expected.keys()
    assert all(found[name] == files for name, files in expected.items() if files)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["notes.txt"], "no images and masks are found"),
        (["images/a.png"], "there is images/, but no folder of masks"),
        (["masks/a.png"], "there is masks/, but no folder of images"),
        (
            ["images/a.png", "masks/a.png", "labels/a.png"],
            "it may be labels, masks; say which one: --m",
        ),
        (["images/a.txt", "masks/a.png"], "images: there is nothing to read; expected: PNG"),
        (["images/x/a.png", "masks/a.png"], "nothing to read .in it: x/: --images DIR"),
        (
            ["images/a.png", "images/a.jpg", "masks/a.png"],
            "images/a.jpg, images/a.png have the same",
        ),
        (
            ["images/a.png", "images/A.png", "masks/a.png", "masks/A.png"],
            "differ by capitals alone",
        ),
        (
            [f"{folder}/{name}.png" for folder in ("images", "masks") for name in ("a", "b_seg")],
            "case 'b_seg' ends in _seg, as what nnU-Net",
        ),
        (["a.png", "b.png"], "no names that tell masks from images .*a.png, .*b.png"),
        (["train/images/a.png", "train/masks/a.png"], "import one of them: .*train"),
        (
            [f"p{i}/{name}.png" for i in (1, 2) for name in ("a", "b", "a_mask", "b_mask")],
            "p1/a.png, p2/a.png have the same name",
        ),
        (
            ["B1/t1.nii", "B1/t2.nii", "B1/seg.nii", "B2/t1.nii", "B2/seg.nii"],
            "same images, but there is t1, t2 in B1; t1 in B2",
        ),
    ],
)
def test_what_is_not_plain_is_refused(names, said, tmp_path):
    with pytest.raises(UserError, match=said):
        find_images(folder_of(tmp_path, *names))


def test_unpaired_files_are_told(tmp_path):
    names = ["images/a.png", "images/b.png", "masks/a_mask.png", "masks/c_mask.png"]
    paired = find_images(folder_of(tmp_path, *names)).paired
    assert [str(item) for item in paired.without_mask] == ["images/b.png"]
    assert [str(item) for item in paired.without_image] == ["masks/c_mask.png"]


def test_masks_of_another_folder_are_told_and_not_taken(tmp_path):
    names = ["p1/s1.png", "p1/s1_mask.png", "p1/s2.png", "p1/s3.png", "p1/s3_mask.png"]
    names += ["p2/s2_mask.png", "p2/s4_0000.png", "p2/s4_0000_mask.png", "p3/s4_0001.png"]
    paired = find_images(folder_of(tmp_path, *names)).paired
    assert [case.name for case in paired.cases] == ["s1", "s3", "s4_0000"]
    assert [str(item) for item in paired.without_mask] == ["p1/s2.png", "p3/s4_0001.png"]
    assert [str(item) for item in paired.without_image] == ["p2/s2_mask.png"]


def test_a_second_annotation_is_not_dropped_without_a_word(tmp_path):
    names = ["a.png", "a_mask.png", "a_mask_1.png", "b.png", "b_mask.png"]
    paired = find_images(folder_of(tmp_path, *names)).paired
    assert [item.path.name for item in paired.without_mask] == ["a_mask_1.png"]


def test_folders_and_a_suffix_of_ones_own_are_taken(tmp_path):
    names = ["x/a.png", "y/a_1stHO.png", "y/a_2ndHO.png"]
    root = folder_of(tmp_path, *names)
    found = find_images(root, "x", str(root / "y"), suffix="_1stHO")
    assert [case.name for case in found.paired.cases] == ["a"]
    assert [item.path.name for item in found.paired.without_image] == ["a_2ndHO.png"]
    with pytest.raises(UserError, match="there is no folder z"):
        find_images(root, "z", "y")


def test_one_folder_may_hold_both_under_any_name(tmp_path):
    root = folder_of(tmp_path, "images/a.png", "images/a_mask.png")
    with pytest.raises(UserError, match="--masks DIR says which it is, the same one too"):
        find_images(root)
    assert pairs(root, masks="images") == {"a": ("a.png", "a_mask.png")}


def test_a_folder_of_images_alone_names_the_one_that_holds_both(tmp_path):
    root = folder_of(tmp_path, "images/a.png", "masks/a.png")
    with pytest.raises(UserError, match=f"import {root}, which holds both"):
        find_images(root / "images")
    alone = folder_of(tmp_path / "alone", "images/a.png")
    with pytest.raises(UserError, match="no names that tell masks from images") as refused:
        find_images(alone / "images")
    assert "holds both" not in str(refused.value)


def test_what_is_left_alone_is_told(tmp_path):
    names = ["images/a.png", "images/Thumbs.db", "masks/a.png", "masks/.a.png", "read.me", "old/b"]
    found = find_images(folder_of(tmp_path, *names))
    assert found.left_alone == ["old/", "read.me", "images/Thumbs.db", "masks/.a.png"]


def test_test_images_are_found_and_named(tmp_path):
    names = ["images/a.png", "masks/a.png", "test/images/t_0000.png", "test/masks/t_0000.png"]
    found = find_images(folder_of(tmp_path, *names))
    assert [str(item) for item in found.test] == ["images/t_0000.png"]
    assert "test/masks/" in found.left_alone
    assert [case.name for case in alone(found.test, 1)] == ["t"]


@pytest.mark.parametrize(("files", "names"), [(1, ["s_0000", "s_0001"]), (2, ["s"]), (None, ["s"])])
def test_four_digits_are_a_number_where_a_case_is_one_file(files, names, tmp_path):
    items = list_folder(folder_of(tmp_path, "s_0000.png", "s_0001.png")).items
    assert [case.name for case in alone(items, files)] == names


@pytest.mark.parametrize("name", ["a\nb", b"\xff".decode(errors="surrogateescape")])
def test_names_that_are_no_text_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="has a name that cannot be printed"):
        find_images(folder_of(tmp_path, f"images/{name}.png", f"masks/{name}.png"))


def test_dicom_is_known_by_its_content(tmp_path):
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "notes").write_bytes(b"DICM")
    listing = list_folder(tmp_path)
    assert [(item.name, item.format) for item in listing.items] == [("IM0001", "DICOM")]
    os.mkfifo(tmp_path / "pipe")  # whoever opened it would wait
    assert list_folder(tmp_path).left_alone == ["notes", "pipe"]
