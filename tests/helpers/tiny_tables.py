"""Tables of two classes that a tiny model can learn, as files for the command line, and the content of a folder."""

from __future__ import annotations

from pathlib import Path

from hfssl.runtime.files import sha256_of

WORDS = "the a of film movie story actor city river who what when one two three".split()
CUES = {"yes": "good great fun love".split(), "no": "bad awful dull hate".split()}


def rows(each: int = 8, unlabeled: int = 0) -> list[tuple[str, str]]:
    """`each` rows of either class and as many unlabeled ones as asked for, all with different texts."""

    def text(number: int, cue: str) -> str:
        return f"{WORDS[number % 15]} {cue} {WORDS[number // 15 % 15]} {WORDS[(7 * number + 3) % 15]} {number}"

    made = [(text(i, cues[i % 4]), label) for label, cues in CUES.items() for i in range(each)]
    return made + [(text(1000 + i, CUES["yes" if i % 2 else "no"][i % 4]), "") for i in range(unlabeled)]


def write(path: Path, table: list[tuple], header: str = "text,label") -> Path:
    lines = [header, *(",".join(f'"{value}"' for value in row) for row in table)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder and the hash of what is in it."""
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}
