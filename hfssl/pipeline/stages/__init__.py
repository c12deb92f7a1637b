"""The stages of `fit`: one file each, with `run(context, folder) -> StageRecord`; `hfssl.config.stages` lists them."""
