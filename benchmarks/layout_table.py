"""Print the table of packages/vit-backbone/README.md from what the tests measured.

pytest packages/vit-backbone/tests/test_layouts.py --junitxml=layouts.xml
python benchmarks/layout_table.py layouts.xml
"""

import re
import sys
import xml.etree.ElementTree as ElementTree


def main(file: str) -> None:
    """Print a row per layout: loads, refuses a part, oracle, largest difference."""
    cases = ElementTree.parse(file).getroot().iter("testcase")
    passed: dict[str, set[str]] = {}
    rows: dict[str, tuple[str, str]] = {}
    for case in cases:
        match = re.fullmatch(r"(test_\w+)\[(.+)\]", case.get("name", ""))
        if match is None or case.find("failure") is not None:
            continue
        passed.setdefault(match[2], set()).add(match[1])
        for item in case.iter("property"):
            label, oracle, difference = item.get("value", "").split(" | ")
            rows[label] = (oracle, difference)
    print("| layout | loads | refuses a part | oracle | largest relative difference |")
    print("|---|---|---|---|---|")
    for label, (oracle, difference) in rows.items():
        refuses = "test_a_file_with_a_block_missing_is_refused" in passed[label]
        print(f"| {label} | yes | {'yes' if refuses else 'no'} | {oracle} | {difference} |")


if __name__ == "__main__":
    main(sys.argv[1])
