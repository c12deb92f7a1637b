# /// script
# requires-python = ">=3.11"
# dependencies = ["hfssl"]
# ///
"""Trains one method with the settings of a YAML file, in one process or in several.

One process (a CPU, or one GPU):

    python recipes/train.py --config recipes/supervised/trec6.yaml

Several processes (GPUs, hosts), with any option of the file overridden by a flag:

    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/train.py \
        --config recipes/masked_span/reviews.yaml --seed 1 --output_dir runs/masked-span-reviews-1

`--help` lists the methods; `--method NAME --help` lists every option of a method: those of the data, the model and the
adapter, and those of its training arguments, which extend `transformers.TrainingArguments`. The paths in the files are
relative to the root of the repository.
"""

from __future__ import annotations

import sys

from hfssl.cli.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
