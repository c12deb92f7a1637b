"""The `hfssl` command: finds the verb and runs it. Nothing heavy is imported before work begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hfssl import __version__
from hfssl.cli.command import main as run_main
from hfssl.cli.commands.demo import DEMO
from hfssl.cli.commands.env import ENV
from hfssl.cli.commands.export import EXPORT
from hfssl.cli.commands.fit import FIT
from hfssl.cli.commands.predict import PREDICT
from hfssl.cli.commands.push import PUSH
from hfssl.errors import near_matches

__all__ = ["main"]

VERBS = {"fit": FIT, "predict": PREDICT, "push": PUSH, "export": EXPORT, "demo": DEMO, "env": ENV}

HELP = """\
usage: hfssl VERB [options]

A few labels and a lot of unlabeled data in, a small, trustworthy Hugging Face model out,
and proof of whether the unlabeled data helped.

verbs:
{verbs}

  hfssl VERB --help     all options of a verb
  hfssl --version

first steps:
  hfssl fit --train reviews.csv --text-column text --label-column sentiment --output-dir runs/reviews
  hfssl predict --model runs/reviews/model --input new.csv --output predictions.csv
  hfssl demo runs/reviews

Rows of reviews.csv without a label are the unlabeled data."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `hfssl ARGV...`; returns the exit status: 0 done, 2 user error, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(HELP.format(verbs="\n".join(f"  {name:<10}  {verb.purpose}" for name, verb in VERBS.items())))
        return 0
    if words[0] == "--version":
        print(f"hfssl {__version__}")
        return 0
    if words[0] not in VERBS:
        hint = near_matches(words[0], list(VERBS))
        print(f"hfssl: error: expected one of {', '.join(VERBS)}; got '{words[0]}'.{hint}", file=sys.stderr)
        return 2
    return run_main(VERBS[words[0]], words[1:])


if __name__ == "__main__":
    sys.exit(main())
