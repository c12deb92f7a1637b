"""hfssl: a few labels and a lot of unlabeled data in, a small, trustworthy Hugging Face model out."""

__version__ = "0.1.0.dev0"
