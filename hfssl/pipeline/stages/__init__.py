"""The stages of `fit`, one file each: `run(context, folder) -> StageRecord`; `hfssl.config.stages` lists them."""
