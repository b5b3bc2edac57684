"""A stranger's zip writes nothing but its model, and breaks in one line."""

import os
import stat
import struct
import zipfile

import pytest
from trained_results import DATASET

from nnunet_vit_trainer.sharing import install
from nnunet_vit_trainer.sharing.archive import checked_members, read_member, readable_zip
from nnunet_vit_trainer.sharing.contents import model_of
from nnunet_vit_trainer.sharing.export import export_vit
from nnunet_vit_trainer.sharing.install import import_vit
from vit_backbone import UserError


@pytest.fixture(scope="module")
def whole(trained_folder, tmp_path_factory):
    return export_vit(trained_folder, tmp_path_factory.mktemp("whole") / "whole.zip")


@pytest.fixture
def model(trained_folder):
    return f"{DATASET}/{trained_folder.name}"


@pytest.fixture
def refused(whole, tmp_path):
    """Add members to an export; importing it must leave no file anywhere, and say one line."""

    def refuse(*members, match, **options):
        evil = tmp_path / "evil.zip"
        evil.write_bytes(whole.read_bytes())
        with zipfile.ZipFile(evil, "a", **options) as archive:
            for name, content in members:
                archive.writestr(name, content)
        refuse_file(evil, match)

    def refuse_file(evil, match):
        before = {file for file in tmp_path.rglob("*") if file.is_file()}
        with pytest.raises(UserError, match=match) as raised:
            import_vit(evil, tmp_path / "results")
        assert {file for file in tmp_path.rglob("*") if file.is_file()} == before
        assert not list((tmp_path / "results").glob("*"))
        assert len(str(raised.value)) < 600
        assert str(raised.value).isprintable()

    refuse.file = refuse_file
    return refuse


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "name",
    [
        "{model}/{outside}/x.json",  # a double slash: an absolute path below the model
        "{outside}/x.json",
        "/{outside}/x.json",
        "{model}/../../../x.json",
        "{model}/fold_0/../x.json",
        "{model}/./x.json",
        "./{model}/x.json",
        "{model}//x.json",
        "{model}/fold_0//",
        "{model}/..\\x.json",
        "{model}/a\\x.json",
        "C:/x.json",
        "{model}/C:x.json",
        "{model}/x.json:stream.json",
        "{model}/x\n.json",
        "{model}/x\x1b[31m.json",
        "{model}/x\u202egnp.json",
        "{model}/x\u2028.json",
        "{model}/con.json",
        "{model}/con .json",
        "{model}/LPT1/x.json",
        "{model}/x /y.json",
        "{model}/x./y.json",
        "{model}/ x.json",
        "{model}/" + "x" * 300 + ".json",
        "/",
    ],
)
def test_a_name_that_is_not_its_own_normal_form_is_refused(name, refused, model, tmp_path):
    name = name.format(model=model, outside=tmp_path / "outside")
    refused((name, b"{}"), match="no plain name and would be written elsewhere|not one model")


def test_a_name_of_thousands_of_folders_is_refused_at_once(refused, model):
    """All the folders above thirty thousand others are a gigabyte of names."""
    refused((f"{model}/{'a/' * 30_000}x.json", b"{}"), match="longer than 1000 characters")


@pytest.mark.parametrize(("name", "nul"), [("{model}/x.jsonQQ", b"x.json\0Q"), ("QQ", b"\0Q")])
def test_a_name_with_a_nul_is_refused(name, nul, refused, whole, model, tmp_path):
    """zipfile cuts a name there, when it writes too: the bytes are put in afterwards."""
    evil = tmp_path / "nul.zip"
    evil.write_bytes(whole.read_bytes())
    with zipfile.ZipFile(evil, "a") as archive:
        archive.writestr(name.format(model=model), b"{}")
    evil.write_bytes(evil.read_bytes().replace(nul.replace(b"\0", b"Q"), nul))
    refused.file(evil, match="no plain name")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [
        ["plans.json"],
        ["PLANS.json"],
        ["x.json", "x.json"],
        ["x.json", "x.JSON"],
        ["caf\u00e9.json", "cafe\u0301.json"],
        ["fold_0/x.json", "FOLD_0/y.json"],
        ["fold_0"],
        ["x.json", "x.json/y.json"],
        ["x.json/", "x.json"],
    ],
)
def test_what_would_be_one_place_is_refused(names, refused, model):
    members = [(f"{model}/{name}", b"{}") for name in names]
    refused(*members, match="stands twice, as a file and a folder, or in two spellings")


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR]
)
def test_links_and_devices_are_refused(kind, refused, model):
    link = zipfile.ZipInfo(f"{model}/x.json")
    link.create_system, link.external_attr = 3, (kind | 0o777) << 16
    refused((link, b"/etc"), match="is a link or a device")


def test_a_folder_that_is_a_link_is_refused(refused, model):
    link = zipfile.ZipInfo(f"{model}/x/")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    refused((link, b""), match="is a link or a device")


def test_a_place_that_leads_outside_is_refused_though_its_name_passed(whole, tmp_path):
    """The second line of defence, were the check of names to fail."""
    with zipfile.ZipFile(whole) as archive:
        member = archive.infolist()[0]
        for place in ("../x.json", str(tmp_path / "x.json")):
            (tmp_path / "folder").mkdir(exist_ok=True)
            with pytest.raises(UserError, match="leads elsewhere"):
                install.unpack(archive, {place: member}, tmp_path / "folder", 10**9)
    assert not (tmp_path / "x.json").exists()


def test_an_export_of_its_size_unpacks_to_so_much_and_not_more(refused, model):
    zeros = bytes(100 << 20)
    refused(
        (f"{model}/x.json", zeros),
        (f"{model}/y.png", zeros),
        match="unpacks to more than .* MB",
        compression=zipfile.ZIP_DEFLATED,
    )


def test_bytes_are_counted_not_believed(refused, whole, model, tmp_path):
    """A size in the headers that is too small does not let more through."""
    evil = tmp_path / "liar.zip"
    evil.write_bytes(whole.read_bytes())
    with zipfile.ZipFile(evil, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{model}/x.json", bytes(200 << 20))
        archive.infolist()[-1].file_size = 10  # into the central directory
    refused.file(evil, match="unpacks to more than|cannot be read as a zip")


def test_plans_of_a_hundred_megabytes_are_not_read(whole, refused, model, tmp_path):
    evil = tmp_path / "long.zip"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(evil, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            long = b'{"a": [' + b"1," * (50 << 20) + b"1]}"
            new.writestr(name, long if name.endswith("plans.json") else old.read(name))
    refused.file(evil, match=r"plans\.json' is larger than")


def test_too_many_members_are_refused(refused, model):
    refused(*((f"{model}/{i}.json", b"") for i in range(1001)), match="has .* members")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(method, refused, model):
    refused((f"{model}/x.json", b"{}"), match="is compressed by method", compression=method)


def patched(whole, model, tmp_path, change):
    """Let a member be at the end, so that its headers are found, and change the zip's bytes."""
    evil = tmp_path / "patched.zip"
    evil.write_bytes(whole.read_bytes())
    with zipfile.ZipFile(evil, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{model}/zzz.json", b'{"a": "' + os.urandom(50).hex().encode() + b'"}')
        local = archive.infolist()[-1].header_offset
    content = bytearray(evil.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    change(content, local, central)
    evil.write_bytes(content)
    return evil


def test_an_encrypted_member_is_one_line(refused, whole, model, tmp_path):
    def encrypt(content, local, central):
        content[local + 6] |= 1
        content[central + 8] |= 1

    refused.file(patched(whole, model, tmp_path, encrypt), match="is encrypted")


def test_a_method_that_nobody_knows_is_one_line(refused, whole, model, tmp_path):
    def unknown(content, local, central):
        content[local + 8] = content[central + 10] = 77

    refused.file(patched(whole, model, tmp_path, unknown), match="by method 77")


def test_contents_of_another_checksum_are_one_line(refused, whole, model, tmp_path):
    def flip(content, local, central):
        content[central + 16] ^= 0xFF

    refused.file(patched(whole, model, tmp_path, flip), match="cannot be read as a zip")


def test_broken_compression_is_one_line(refused, whole, model, tmp_path):
    def damage(content, local, central):
        data = local + 30 + int.from_bytes(content[local + 26 : local + 28], "little")
        content[data : data + 20] = b"\xff" * 20

    refused.file(patched(whole, model, tmp_path, damage), match="cannot be read as a zip")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_zip_that_was_cut_off_is_one_line(part, refused, whole, tmp_path):
    evil = tmp_path / "cut.zip"
    evil.write_bytes(whole.read_bytes()[: int(part * whole.stat().st_size)])
    refused.file(evil, match="cannot be read as a zip")


def test_a_member_that_begins_before_the_file_is_one_line(whole, tmp_path):
    content = bytearray(whole.read_bytes())
    offset = content.rindex(b"PK\x05\x06") + 16  # of the directory, as the zip's end says
    content[offset : offset + 4] = struct.pack(
        "<I", struct.unpack_from("<I", content, offset)[0] + 9
    )
    evil = tmp_path / "evil.zip"
    evil.write_bytes(content)
    with (
        zipfile.ZipFile(evil) as archive,
        pytest.raises(UserError, match=r"evil\.zip cannot be read as a zip: "),
    ):
        checked_members(archive)


def test_damage_anywhere_in_the_directory_is_one_line_or_nothing(whole, tmp_path):
    good = whole.read_bytes()
    evil = tmp_path / "evil.zip"
    said = []
    for position in range(good.index(b"PK\x01\x02"), len(good), 23):
        content = bytearray(good)
        content[position] ^= 0xA5
        evil.write_bytes(content)
        try:
            with readable_zip(evil):
                archive = zipfile.ZipFile(evil)
            with archive:
                members = checked_members(archive)
                model_of([member.filename for member in members], "evil.zip")
                for member in members:
                    read_member(archive, member, 10 << 20)
        except UserError as error:
            said.append(str(error))
    assert len(said) > 10
    assert all(line.isprintable() for line in said)
