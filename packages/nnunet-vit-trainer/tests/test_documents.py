"""The documents say what is so: commands parse, links lead somewhere, messages are ours.

Each command is run by ``nox -s docs``, or its block says why not.
"""

import re

import pytest
import yaml
from documents import (
    DOCUMENTS,
    ROOT,
    anchors_of,
    blocks_of,
    commands_of,
    links_of,
    our_commands,
    our_options,
    parser_of,
    parts_not_said,
    stock_options,
)
from run_documents import FIRST_RUN, IN_ONE_SHELL, script_of, shells, table_of_commands
from small_machine import SHORT, arguments_of

from nnunet_vit_trainer.config.reading import load_config
from vit_backbone.heads.finding import is_installed_head

TROUBLES = ROOT / "docs" / "troubleshooting.md"
each_document = pytest.mark.parametrize(
    "file", DOCUMENTS, ids=[str(file.relative_to(ROOT)) for file in DOCUMENTS]
)


def blocks(file, language):
    return [block for block in blocks_of(file.read_text()) if block.language == language]


def marks_in(text):
    return len(re.findall(r"^<!-- (not )?run\b", text, re.M))


def unmarked(document):
    """Say in which blocks commands are neither run, nor said why not."""
    return [
        block.line
        for block in blocks_of(document)
        if block.language == "bash" and commands_of(block.text) and not block.mark
    ]


def faults_of(command, arguments):
    """Say what is wrong with a command as a document gives it.

    ``...`` stands for arguments, and ``@FILE`` for those in a file, which is not there.
    """
    if command in our_commands() and "..." not in arguments:
        try:
            parser_of(command).parse_args([a for a in arguments if not a.startswith("@")])
        except SystemExit:
            return f"{command} does not take {arguments}"
        return None
    known = our_options(command) if command in our_commands() else stock_options(command)
    unknown = {word for word in arguments if re.match(r"--?[A-Za-z]", word)} - known
    return f"{command} has no {sorted(unknown)}" if unknown else None


def test_no_document_holds_two_versions_that_a_merge_left():
    for file in (*DOCUMENTS, *ROOT.glob("packages/*/CHANGELOG.md")):
        marked = re.search(r"^(<{7}|={7}|>{7})( .*)?$", file.read_text(), re.M)
        assert marked is None, f"{file}: {marked[0]}"


@each_document
def test_commands_are_taken_by_their_own_parsers(file):
    faults = [
        f"line {block.line}: {fault}"
        for block in blocks(file, "bash")
        for command in commands_of(block.text)
        if (fault := faults_of(*command))
    ]
    assert not faults


@each_document
def test_commands_are_run_or_the_document_says_why_not(file):
    assert not unmarked(file.read_text())


@each_document
def test_links_lead_somewhere(file):
    text = file.read_text()
    lost = []
    for link in links_of(text):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = (file.parent / path).resolve() if path else file
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text())):
            lost.append(link)
    assert not lost


@each_document
def test_blocks_are_whole_and_python_is_python(file):
    text = file.read_text()
    assert len(re.findall(r"^ *```", text, re.M)) == 2 * len(blocks_of(text))
    assert marks_in(text) == sum(bool(block.mark) for block in blocks_of(text))
    for block in blocks(file, "python"):
        compile(block.text, f"{file}:{block.line}", "exec")


@each_document
def test_configs_are_read(file, tmp_path):
    for block in blocks(file, "yaml"):
        content = yaml.safe_load(block.text)
        if {*content} <= {"model", "lora", "train"} and is_installed_head(
            content["model"]["model_path"]  # a reader's own head is not
        ):
            (tmp_path / "config.yaml").write_text(block.text)
            load_config(tmp_path / "config.yaml")


def test_the_index_names_every_document():
    linked = {link.partition("#")[0] for link in links_of((ROOT / "docs/README.md").read_text())}
    assert {file.name for file in (ROOT / "docs").glob("*.md")} - {"README.md"} <= linked


def test_every_command_has_a_transcript_without_a_path_of_a_machine():
    text = (ROOT / "docs" / "transcripts.md").read_text()
    shown = re.findall(r"^\$ (nnUNetv2_\w+)", text, re.M)
    assert sorted(shown) == sorted(our_commands())
    assert not re.search(r"/(home|root|tmp|Users|mnt|work)/", text)


def test_quoted_messages_are_ours():
    messages = [line for block in blocks(TROUBLES, "text") for line in block.text.splitlines()]
    assert len(messages) > 10
    assert not [part for message in messages for part in parts_not_said(message)]


def test_what_is_marked_is_run_once():
    marked = [
        str(file.relative_to(ROOT))
        for file in DOCUMENTS
        if any(block.runs for block in blocks_of(file.read_text()))
    ]
    (first, together, *alone) = shells()
    assert (first, together) == ((FIRST_RUN,), IN_ONE_SHELL)
    assert sorted(name for names in shells() for name in names) == marked
    assert all(len(names) == 1 for names in alone)


def test_the_index_tells_what_is_run():
    table = table_of_commands()
    assert table in (ROOT / "docs/README.md").read_text(), table


def test_a_block_is_run_or_says_why_not():
    text = "<!-- run -->\n```bash\nnnUNetv2_train\n```\nand\n```bash\nnnUNetv2_predict\n```\n"
    text += "<!-- not run: two machines -->\n```bash\nnnUNetv2_plan\n```\n"
    text += "<!-- run -->\n```yaml\n# my.yaml, a config\nmodel: {}\n```\n"
    assert unmarked(text) == [7]
    assert unmarked("<!-- not run: -->\n```bash\nnnUNetv2_plan\n```\n")  # no reason
    script = script_of("a.md", blocks_of(text))
    assert "nnUNetv2_train\n" in script
    assert "predict" not in script
    assert "plan" not in script
    assert "cat > my.yaml <<'" in script


def test_what_a_small_machine_runs_is_the_command_with_a_small_config(tmp_path):
    given = ["42", "2d", "0", "--config", "recommended", "--c"]
    arguments = arguments_of("nnUNetv2_train_vit", given, tmp_path / "tiny.pth", tmp_path)
    config = yaml.safe_load((tmp_path / "recommended.yaml").read_text())  # its head is none here
    assert arguments == [*given[:4], str(tmp_path / "recommended.yaml"), "--c", "-device", "cpu"]
    assert config["model"]["backbone"] == "test_vit"
    assert config["model"]["model_path"] == "segformer"
    assert config["train"]["num_epochs"] == SHORT["num_epochs"]
    assert arguments_of("nnUNetv2_info_vit", ["a.zip"], tmp_path, tmp_path) == ["a.zip"]


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("nnUNetv2_train_vit 42 2d 0 --config my.yaml --cc", "does not take"),
        ("nnUNetv2_train_vit 42 2d", "does not take"),
        ("nnUNetv2_predict_vit ... --fast", None),
        ("nnUNetv2_predict_vit ... --fest", r"no \['--fest'\]"),
        ("x=1 nnUNetv2_predict -d 42 -c 2d -i A -o B -q 1", r"no \['-q'\]"),
        ("torchrun $(command -v nnUNetv2_train_vit) 42 \\\n  2d 0", "does not take"),
        ("nnUNetv2_train_vit 42 2d 0 --config a  # --cc", None),
        ("nnUNetv2_predict -d 42 -step_size -1 > nnUNetv2.log && echo --cc", None),
        ("for f in 0 1; do nnUNetv2_train_vit 42 2d $f --config a=#b; done", None),
    ],
)
def test_a_wrong_option_is_found(script, fault):
    ((name, arguments),) = commands_of(script)
    found = faults_of(name, arguments)
    assert found is None if fault is None else re.search(fault, found)


def test_a_wrong_link_and_a_wrong_message_are_found():
    text = "# One & two\n[a](b.md#c) `[no](d)`\n```\n[no](e)\n# no\n```\n"
    assert links_of(text) == ["b.md#c"]
    assert anchors_of(text) == {"one--two"}
    assert parts_not_said("no CUDA device is available; … nothing says this") == [
        "nothing says this"
    ]
